//! A time that may be zero.

use std::time::Duration;

use super::{
    kind::ValueKind,
    value::{Value, expected},
};

/// How long something is waited for; zero is not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace(pub Duration);

impl Grace {
    const LONGEST: Duration = Duration::from_mins(1);
}

impl Value for Grace {
    const EXPECTED: &'static str = "a time such as \"8s\", or \"0s\" for none";
    const KIND: ValueKind = ValueKind::Duration;

    fn from_text(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(time) if time <= Self::LONGEST => Ok(Self(time)),
            Ok(_) => Err(format!("expected a time from \"0s\" to \"1m\", found {text:?}")),
            Err(_) => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{}\"", humantime::format_duration(self.0)))
    }
}
