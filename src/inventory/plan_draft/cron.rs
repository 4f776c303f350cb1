//! The intervals of common cron schedules, and periods in Go's format.

use crate::plan::Period;

/// Returns the time between two runs of a common schedule; `None` for others.
pub(super) fn interval(cron: &str) -> Option<Period> {
    let cron = cron.trim();
    let cron =
        cron.split_once(' ').filter(|(zone, _)| zone.contains("TZ=")).map_or(cron, |(_, rest)| rest.trim());
    match cron {
        "@hourly" | "@hourly-random" => return Some(Period::hours(1)),
        "@daily" | "@midnight" | "@daily-random" => return Some(Period::days(1)),
        "@weekly" | "@weekly-random" => return Some(Period::days(7)),
        _ => {}
    }
    if let Some(every) = cron.strip_prefix("@every ") {
        return every.trim().parse().ok();
    }
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else { return None };
    let fixed = |field: &str| !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    let step = |field: &str| {
        field.strip_prefix("*/").and_then(|step| step.parse::<u64>().ok()).filter(|step| *step > 0)
    };
    match (*minute, *hour, *day, *month, *weekday) {
        (minute, "*", "*", "*", "*") if fixed(minute) => Some(Period::hours(1)),
        (minute, "*", "*", "*", "*") => step(minute).map(|step| Period::seconds(step * 60)),
        (minute, hour, "*", "*", "*") if fixed(minute) && fixed(hour) => Some(Period::days(1)),
        (minute, hour, "*", "*", "*") if fixed(minute) => step(hour).map(Period::hours),
        (minute, hour, "*", "*", weekday) if fixed(minute) && fixed(hour) && fixed(weekday) => {
            Some(Period::days(7))
        }
        _ => None,
    }
}

/// Parses a period in Go's format: `720h0m0s`.
pub(super) fn go_period(text: &str) -> Option<Period> {
    let plain: String = text.replace("h0m0s", "h").replace("h0m", "h").replace("m0s", "m");
    plain.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_schedules_are_parsed() {
        let cases = [
            ("0 2 * * *", Some(Period::days(1))),
            ("@daily", Some(Period::days(1))),
            ("0 */6 * * *", Some(Period::hours(6))),
            ("CRON_TZ=Europe/Berlin 0 2 * * *", Some(Period::days(1))),
            ("30 * * * *", Some(Period::hours(1))),
            ("0 3 * * 0", Some(Period::days(7))),
            ("@every 12h", Some(Period::hours(12))),
            ("0 2 1 * *", None),
            ("nonsense", None),
        ];
        for (cron, period) in cases {
            assert_eq!(interval(cron), period, "{cron}");
        }
        assert_eq!(go_period("720h0m0s"), Some(Period::days(30)));
        assert_eq!(go_period("1h30m0s"), Some(Period::seconds(5400)));
    }
}
