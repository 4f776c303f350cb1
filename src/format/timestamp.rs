//! Timestamps in signed documents: RFC 3339 in UTC, whole seconds, one spelling:
//! `2026-11-23T02:00:25Z`. For serde's `with`.

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Deserializer, Serializer};

/// Returns `at` without its fraction of a second, as documents store it.
#[must_use]
pub fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Returns `at` rounded up to the beginning of a UTC day: lock dates are whole days.
#[must_use]
pub fn round_up_to_day(at: Timestamp) -> Timestamp {
    const DAY: i64 = 86_400;
    let days = at.as_second().div_euclid(DAY) + i64::from(at.as_second().rem_euclid(DAY) != 0);
    Timestamp::from_second(days * DAY).unwrap_or(at)
}

/// Returns `at` plus `seconds`, at most [`Timestamp::MAX`].
#[must_use]
pub fn add_seconds(at: Timestamp, seconds: u64) -> Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    Timestamp::from_second(at.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX)
}

/// Writes whole seconds; a fraction is cut off.
pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&to_seconds(*at))
}

/// Reads a timestamp in the one accepted spelling.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    let at: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
    if at.round(Unit::Second).is_ok_and(|rounded| rounded == at) && at.to_string() == text {
        Ok(at)
    } else {
        Err(serde::de::Error::custom("not a timestamp in UTC and whole seconds"))
    }
}

/// The same functions for timestamps that may be absent (null).
pub mod optional {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Seconds(#[serde(with = "super")] Timestamp);

    /// Writes whole seconds, or null.
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Seconds).serialize(serializer)
    }

    /// Reads a timestamp in the one accepted spelling, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<Seconds>::deserialize(deserializer)?.map(|seconds| seconds.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_of_a_timestamp_are_rejected() {
        #[derive(serde::Deserialize)]
        struct At(
            #[serde(with = "super")]
            #[expect(dead_code, reason = "only read")]
            Timestamp,
        );
        assert!(serde_json::from_str::<At>("\"2026-11-23T02:00:25Z\"").is_ok());
        for bad in [
            "2026-11-23T02:00:25.0Z",
            "2026-11-23T02:00:25.5Z",
            "2026-11-23T02:00:25+00:00",
            "2026-11-23 02:00:25Z",
            "2026-11-23T02:00:25z",
            "2026-11-23",
        ] {
            assert!(serde_json::from_str::<At>(&format!("\"{bad}\"")).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn lock_dates_are_rounded_up_to_whole_days() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(round_up_to_day(at("2026-11-23T00:00:00Z")), at("2026-11-23T00:00:00Z"));
        assert_eq!(round_up_to_day(at("2026-11-23T00:00:01Z")), at("2026-11-24T00:00:00Z"));
    }
}
