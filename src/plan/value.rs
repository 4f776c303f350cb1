//! Values of a plan that have a unit: periods `30d`, sizes `128Mi`, rates `50Mi/s`,
//! dates `2027-06-30`.
//!
//! Every value has one reading and prints in its shortest exact form, which parses to the same
//! value again.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The error of a text that cannot be parsed as the expected value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; write {expected}")]
pub struct ValueError {
    problem: String,
    expected: &'static str,
}

impl ValueError {
    fn new(problem: impl Into<String>, expected: &'static str) -> Self {
        Self { problem: problem.into(), expected }
    }
}

/// A span of time in whole seconds: `45s`, `15m`, `24h`, `30d`, `8w`, `1y`, also joined (`1d12h`).
/// A day has 24 hours, a week 7 days, a year 365 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

const PERIOD_UNITS: [(char, u64); 6] =
    [('y', 31_536_000), ('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
const PERIOD_EXPECTED: &str = "a period such as 45s, 15m, 24h, 30d, 8w or 1y";

impl Period {
    /// Creates a period of `seconds` seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Creates a period of `days` days of 24 hours.
    #[must_use]
    pub const fn days(days: u64) -> Self {
        Self::seconds(days * 86_400)
    }

    /// Creates a period of `hours` hours.
    #[must_use]
    pub const fn hours(hours: u64) -> Self {
        Self::seconds(hours * 3_600)
    }

    /// Returns the period as a [`Duration`].
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |problem: String| ValueError::new(problem, PERIOD_EXPECTED);
        let mut rest = text;
        let mut seconds = 0u64;
        let mut last = u64::MAX;
        if rest.is_empty() {
            return Err(error("the period is empty".into()));
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let Some(unit) = rest[digits..].chars().next() else {
                return Err(error(format!("{text:?} has no unit")));
            };
            let Some((_, factor)) = PERIOD_UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(error(format!("{text:?} is not a period")));
            };
            if digits == 0 || *factor >= last {
                return Err(error(format!("{text:?} is not a period")));
            }
            let count: u64 = rest[..digits].parse().map_err(|_| error(format!("{text:?} is too long")))?;
            let sum = count.checked_mul(*factor).and_then(|part| seconds.checked_add(part));
            let sum = sum.filter(|sum| *sum <= 100 * 31_536_000);
            seconds = sum.ok_or_else(|| error(format!("{text:?} is over a hundred years")))?;
            last = *factor;
            rest = &rest[digits + unit.len_utf8()..];
        }
        Ok(Self::seconds(seconds))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        if rest == 0 {
            return f.write_str("0s");
        }
        // Years and weeks are only parsed, never printed: `90d` is clearer than `12w6d`.
        for (unit, factor) in &PERIOD_UNITS[2..] {
            if rest >= *factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A number of bytes: `128Mi` (1024-based: Ki Mi Gi Ti), `500M` (1000-based: k M G T) or plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

const SIZE_UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];
const SIZE_EXPECTED: &str = "a size such as 512Ki, 128Mi or 4Gi";

impl Size {
    /// Creates a size of `bytes` bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Creates a size of `count` MiB.
    #[must_use]
    pub const fn mebi(count: u64) -> Self {
        Self(count << 20)
    }

    /// Returns the size in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |problem: String| ValueError::new(problem, SIZE_EXPECTED);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit = &text[digits..];
        let factor = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => return Err(error(format!("{text:?} is not a size"))),
        };
        if digits == 0 {
            return Err(error(format!("{text:?} is not a size")));
        }
        let bytes = text[..digits].parse::<u64>().ok().and_then(|count| count.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| error(format!("{text:?} is too large")))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in &SIZE_UNITS[..4] {
            if self.0 >= *factor && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Bytes per second: a size and `/s`, as in `50Mi/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(Size);

const RATE_EXPECTED: &str = "a rate such as 800Ki/s or 50Mi/s";

impl Rate {
    /// Returns the rate in bytes per second.
    #[must_use]
    pub const fn per_second(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let size = text
            .strip_suffix("/s")
            .ok_or_else(|| ValueError::new(format!("{text:?} does not end with /s"), RATE_EXPECTED))?;
        let size: Size = size.parse().map_err(|e: ValueError| ValueError::new(e.problem, RATE_EXPECTED))?;
        if size.get() == 0 {
            return Err(ValueError::new("the rate must be greater than 0", RATE_EXPECTED));
        }
        Ok(Self(size))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// A day: `2027-06-30`. It ends at midnight UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(jiff::civil::Date);

const DAY_EXPECTED: &str = "a day such as 2027-06-30";

impl Day {
    /// Returns the day as a date of jiff.
    #[must_use]
    pub const fn date(self) -> jiff::civil::Date {
        self.0
    }
}

impl FromStr for Day {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // jiff also parses forms with a time, which a day of a plan must not have.
        let error = || ValueError::new(format!("{text:?} is not a day"), DAY_EXPECTED);
        let date: jiff::civil::Date = text.parse().map_err(|_| error())?;
        if date.to_string() == text { Ok(Self(date)) } else { Err(error()) }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses a value from text or from a bare number, so that `128` needs no quotes.
struct TextVisitor<T> {
    expected: &'static str,
    value: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = ValueError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::invalid_value(Unexpected::Signed(number), &self.expected))?;
        self.visit_u64(number)
    }
}

macro_rules! text_value {
    ($name:ident, $expected:expr, $pattern:literal, $about:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // `deserialize_any` accepts a bare number; a format that is not self-describing fails.
                deserializer.deserialize_any(TextVisitor { expected: $expected, value: std::marker::PhantomData })
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    };
}

text_value!(
    Period,
    PERIOD_EXPECTED,
    "^([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
    "A period: 45s, 15m, 24h, 30d, 8w, 1y, also joined (1d12h)."
);
text_value!(
    Size,
    SIZE_EXPECTED,
    "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$",
    "A size: 512Ki, 128Mi, 4Gi; without a unit it is bytes."
);
text_value!(Rate, RATE_EXPECTED, "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?/s$", "Bytes per second: 800Ki/s, 50Mi/s.");
text_value!(Day, DAY_EXPECTED, "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "A day: 2027-06-30. It ends at midnight UTC.");
