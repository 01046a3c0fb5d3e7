//! The kinds of values that say who may do what.

use std::time::Duration;

use super::value::{Value, expected, named_values};
use crate::pods::OwnerKey;

/// When a pod id comes to belong to an owner key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// Never: owner tokens are ignored, unless they are required.
    Off,
    /// With its first registration, if that has a proof of the key.
    FirstUse,
    /// With the first signed upload of a pod that names the pod id, too.
    Uploads,
}

named_values!(
    BindMode,
    "\"first-use\", \"uploads\" or \"off\"",
    "first-use" => BindMode::FirstUse, "uploads" => BindMode::Uploads, "off" => BindMode::Off
);

/// Whose uploads are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadPolicy {
    /// Everybody's.
    Open,
    /// Those that are signed by certain owner keys.
    Owners,
    /// Those that come with a bearer token.
    Token,
    /// Nobody's.
    Closed,
}

named_values!(
    UploadPolicy,
    "\"open\", \"owners\", \"token\" or \"closed\"",
    "open" => UploadPolicy::Open, "owners" => UploadPolicy::Owners,
    "token" => UploadPolicy::Token, "closed" => UploadPolicy::Closed
);

impl Value for OwnerKey {
    const EXPECTED: &'static str = "an owner key of 64 hex digits";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| expected::<Self>(&format!("{text:?}")))
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

/// How long a pod is served, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub Duration);

impl Lifetime {
    const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
}

impl Value for Lifetime {
    const EXPECTED: &'static str = "a time such as \"12h\" or \"90days\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(time)
                if (Duration::from_secs(1)..=Self::LONGEST).contains(&time) && time.subsec_nanos() == 0 =>
            {
                Ok(Self(time))
            }
            Ok(_) => Err(format!("expected whole seconds, from \"1s\" to 100 years, found {text:?}")),
            Err(_) => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{}\"", humantime::format_duration(self.0)))
    }
}
