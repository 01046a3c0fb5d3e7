//! How often something may happen: `10/s`, `60/min burst 20`, or `off`.

use std::{fmt, num::NonZeroU32, time::Duration};

use super::value::{Value, expected, quoted};

/// The largest number of either kind in a rate.
const MOST: u32 = 1_000_000;
/// The longest time after which all of a burst is allowed again.
const LONGEST_REST: Duration = Duration::from_hours(10 * 365 * 24);
const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("day", 86_400)];

/// A rate, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimit {
    /// Whatever comes is let through.
    Off,
    /// What comes faster is refused.
    Rate(Rate),
}

/// So many in a length of time, and so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    unit: (&'static str, u64),
    burst: NonZeroU32,
}

impl Rate {
    /// The time in which one more is allowed.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.unit.1) / self.count.get()
    }

    /// How many are allowed at once after a rest.
    pub fn burst(&self) -> NonZeroU32 {
        self.burst
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit.0)?;
        if self.burst != self.count { write!(f, " burst {}", self.burst) } else { Ok(()) }
    }
}

impl Value for RateLimit {
    const EXPECTED: &'static str = "a rate such as \"10/s\", \"60/min\" or \"1000/h burst 50\", or \"off\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || expected::<Self>(&format!("{text:?}"));
        if text == "off" {
            return Ok(Self::Off);
        }
        let number = |digits: &str| {
            let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
            let number = digits.parse().ok().filter(|number: &NonZeroU32| number.get() <= MOST);
            match number.filter(|_| plain) {
                None if plain && !digits.is_empty() => {
                    Err(format!("expected the numbers of a rate to be from 1 to {MOST}, found {text:?}"))
                }
                number => number.ok_or_else(wrong),
            }
        };
        let mut words = text.split_whitespace();
        let (count, unit) = words.next().and_then(|rate| rate.split_once('/')).ok_or_else(wrong)?;
        let unit = *UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let count = number(count)?;
        let burst = match (words.next(), words.next(), words.next()) {
            (None, ..) => count,
            (Some("burst"), Some(burst), None) => number(burst)?,
            _ => return Err(wrong()),
        };
        let rate = Rate { count, unit, burst };
        if rate.interval().checked_mul(burst.get()).is_none_or(|rest| rest > LONGEST_REST) {
            return Err(format!(
                "expected a burst that is allowed again within 10 years, found {text:?}; write a smaller burst"
            ));
        }
        Ok(Self::Rate(rate))
    }

    fn to_toml(&self) -> Option<String> {
        Some(match self {
            Self::Off => quoted("off"),
            Self::Rate(rate) => quoted(&rate.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_unit_and_a_burst() {
        for (text, interval, burst, printed) in [
            ("10/s", 100, 10, "10/s"),
            ("60/min", 1000, 60, "60/min"),
            ("60/min burst 60", 1000, 60, "60/min"),
            ("  3600/h   burst  5 ", 1000, 5, "3600/h burst 5"),
            ("86400/day burst 1000000", 1000, 1_000_000, "86400/day burst 1000000"),
        ] {
            let Ok(RateLimit::Rate(rate)) = RateLimit::from_text(text) else { panic!("{text}") };
            assert_eq!(rate.interval(), Duration::from_millis(interval), "{text}");
            assert_eq!(rate.burst().get(), burst, "{text}");
            assert_eq!(rate.to_string(), printed);
        }
        assert_eq!(RateLimit::from_text("off"), Ok(RateLimit::Off));
        let wrong = [
            "",
            "10",
            "10/",
            "/s",
            "10/S",
            "10 / s",
            "10/s 5",
            "10/s burst",
            "10/s burst 5 6",
            "+1/s",
            "x/s",
        ];
        for text in wrong {
            assert!(RateLimit::from_text(text).unwrap_err().contains("1000/h burst 50"), "{text}");
        }
        for text in ["0/s", "1000001/s", "10/s burst 0", "99999999999999999999/s"] {
            assert!(RateLimit::from_text(text).unwrap_err().contains("from 1 to 1000000"), "{text}");
        }
        assert!(RateLimit::from_text("1/day burst 3650").is_ok());
        for text in ["1/day burst 3651", "1/day burst 1000000", "1/h burst 87601"] {
            assert!(RateLimit::from_text(text).unwrap_err().contains("within 10 years"), "{text}");
        }
    }
}
