//! Formats figures for people, and makes foreign text safe for a terminal.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Returns a text without the byte order mark at its head, which some editors write.
#[must_use]
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Returns the bytes of a text without the byte order mark at its head, like [`without_bom`].
#[must_use]
pub fn bytes_without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Formats bytes in binary units: `512 B`, `4.1 GiB`, `71 MiB`. From KiB on, one decimal below 10.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1024u128;
    let bytes = u128::from(bytes);
    // A figure that would print as 1024 belongs to the next unit.
    while unit + 1 < UNITS.len() && (bytes * 2 + scale) / (scale * 2) >= 1024 {
        unit += 1;
        scale *= 1024;
    }
    let tenths = (bytes * 10 + scale / 2) / scale;
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", (bytes + scale / 2) / scale, UNITS[unit])
    }
}

/// Formats a rate in bytes per second.
#[must_use]
pub fn rate(bytes: u64, over: Duration) -> String {
    let millis = over.as_millis().max(1);
    let per_second = u128::from(bytes) * 1000 / millis;
    format!("{}/s", size(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

/// Formats a duration: `41 ms`, `24.8 s`, `3 m 20 s`, `23 h 10 m`, `9 d 4 h`.
#[must_use]
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.as_millis() < 1000 => format!("{} ms", time.as_millis()),
        0..60 => format!("{}.{} s", seconds, time.subsec_millis() / 100),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Formats an estimated duration: whole seconds, minutes, hours or days.
#[must_use]
pub fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..90 => format!("{} s", seconds.max(1)),
        90..5400 => format!("{} m", seconds.div_ceil(60)),
        5400..172_800 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} d", seconds.div_ceil(86_400)),
    }
}

/// Formats a number with thousands separators: `98,310`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number with its noun, `one` or `many`: `1 gap`, `2 gaps`.
#[must_use]
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Formats a timestamp in UTC, to the second: `2026-11-23 02:00:25Z`.
#[must_use]
pub fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Formats a timestamp in UTC and in a zone: `2026-11-23 02:00:25Z (03:00:25 Europe/Berlin)`.
#[must_use]
pub fn utc_and_local(at: Timestamp, zone: &TimeZone) -> String {
    if *zone == TimeZone::UTC || zone.to_offset(at).is_zero() {
        return utc(at);
    }
    let local = at.to_zoned_datetime(zone.clone());
    let same_day = local.date() == at.to_zoned_datetime(TimeZone::UTC).date();
    let form = if same_day { "%H:%M:%S %:Q" } else { "%Y-%m-%d %H:%M:%S %:Q" };
    format!("{} ({})", utc(at), local.strftime(form))
}

/// Returns the first and last characters of a hash, enough to compare by eye: `9b1f…e0`.
#[must_use]
pub fn short_hash(hex: &str) -> String {
    if hex.len() <= 8 || !hex.is_ascii() {
        return hex.to_owned();
    }
    format!("{}…{}", &hex[..4], &hex[hex.len() - 2..])
}

/// True if a character can steer a terminal, reverse a line, or be invisible: controls, direction marks,
/// invisible formats, line separators.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Makes foreign text safe for a terminal: [hostile](is_hostile) characters are shown as escapes, so that a
/// name in a backup cannot rewrite the screen or the meaning of a line.
#[must_use]
pub fn plain(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(is_hostile) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hostile(c) { clean.extend(c.escape_unicode()) } else { clean.push(c) }
    }
    clean.into()
}

/// Implements `Debug` with a text in place of the fields, which are secret or cannot be shown.
macro_rules! opaque_debug {
    ($($type:ty: $text:literal),+) => {
        $(impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($text)
            }
        })+
    };
}
pub(crate) use opaque_debug;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024, "10 KiB"),
            (74_448_896, "71 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            ((1 << 30) * 41 / 10, "4.1 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        let cases = [(41, "41 ms"), (24_800, "24.8 s"), (200_000, "3 m 20 s"), (83_400_000, "23 h 10 m")];
        for (millis, text) in cases {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(span(Duration::from_secs(9 * 86_400 + 4 * 3600)), "9 d 4 h");
    }

    #[test]
    fn counts_have_thousands_separators() {
        for (number, text) in
            [(0, "0"), (999, "999"), (5214, "5,214"), (98_310, "98,310"), (1_000_000, "1,000,000")]
        {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn timestamps_are_shown_in_utc_and_local_time() {
        let at: Timestamp = "2026-11-23T23:30:25Z".parse().expect("a moment");
        assert_eq!(utc(at), "2026-11-23 23:30:25Z");
        assert_eq!(utc_and_local(at, &TimeZone::UTC), "2026-11-23 23:30:25Z");
        let east = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(utc_and_local(at, &east), "2026-11-23 23:30:25Z (2026-11-24 00:30:25 +01:00)");
    }

    #[test]
    fn terminal_escapes_in_names_are_made_visible() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(plain("grün\u{fe0f}"), "grün\u{fe0f}");
    }
}
