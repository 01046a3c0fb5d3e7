//! The kinds of values that settings take, and the sentence that each kind answers a wrong value with.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use salvo::http::{HeaderValue, uri::Uri};
use toml::{Spanned, de::DeValue};

use super::kind::ValueKind;
use crate::host;

/// A type that a setting can have.
///
/// Every kind is read from text (a flag or an environment variable); one that TOML writes as something other
/// than a string says so in [`Value::from_toml`].
pub trait Value: Sized {
    /// Completes the sentence "expected …".
    const EXPECTED: &'static str;
    /// How it is written.
    const KIND: ValueKind = ValueKind::Text;

    /// Reads the value from `text`; the error is a sentence.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads the value from a TOML value.
    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(Self::from_text(text)?),
            other => Err(expected::<Self>(&describe(other)).into()),
        }
    }

    /// The value as TOML writes it, or nothing for one that is not set.
    fn to_toml(&self) -> Option<String>;
}

/// What is wrong with a value and, where that is known, the offset in the file at which it is wrong.
#[derive(Debug)]
pub struct ValueError {
    /// A sentence.
    pub problem: String,
    /// Bytes from the begin of the file.
    pub offset: Option<usize>,
}

impl From<String> for ValueError {
    fn from(problem: String) -> Self {
        Self { problem, offset: None }
    }
}

impl ValueError {
    /// The same at `offset`, unless it is known to be elsewhere.
    pub fn at(self, offset: usize) -> Self {
        Self { offset: self.offset.or(Some(offset)), ..self }
    }
}

pub(super) fn expected<T: Value>(found: &str) -> String {
    format!("expected {}, found {found}", T::EXPECTED)
}

/// A text as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    let mut toml = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => toml.extend(['\\', c]),
            _ if c.is_control() => toml += &format!("\\u{:04X}", u32::from(c)),
            _ => toml.push(c),
        }
    }
    toml + "\""
}

pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// Lets a kind be written as a bare TOML integer too.
fn integer_or_text<T: Value>(value: &Spanned<DeValue<'_>>) -> Result<T, ValueError> {
    match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => {
            Ok(T::from_text(&number.as_str().replace('_', ""))?)
        }
        DeValue::String(text) => Ok(T::from_text(text)?),
        other => Err(expected::<T>(&describe(other)).into()),
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";
    const KIND: ValueKind = ValueKind::Boolean;

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| expected::<Self>(&format!("{text:?}")))
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        value.get_ref().as_bool().ok_or_else(|| expected::<Self>(&describe(value.get_ref())).into())
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A setting that need not be set.
impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const KIND: ValueKind = T::KIND;

    fn from_text(text: &str) -> Result<Self, String> {
        T::from_text(text).map(Some)
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        T::from_toml(value).map(Some)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref()?.to_toml()
    }
}

/// A TCP port; 0 lets the system choose one.
impl Value for u16 {
    const EXPECTED: &'static str = "a port from 0 to 65535";
    const KIND: ValueKind = ValueKind::Port;

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| expected::<Self>(&format!("{text:?}")))
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        integer_or_text(value)
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A number of things, at least one.
impl Value for u32 {
    const EXPECTED: &'static str = "a whole number from 1 to 1000000000";
    const KIND: ValueKind = ValueKind::Number;

    fn from_text(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) if (1..=1_000_000_000).contains(&number) => Ok(number),
            _ => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        integer_or_text(value)
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A number of bytes, at least one and less than 1 TiB.
impl Value for ByteSize {
    const EXPECTED: &'static str = "a size such as \"256 KiB\" or a number of bytes";
    const KIND: ValueKind = ValueKind::Size;

    fn from_text(text: &str) -> Result<Self, String> {
        match text.parse::<ByteSize>() {
            Ok(size) if (1..ByteSize::tib(1).0).contains(&size.0) => Ok(size),
            Ok(_) => Err(format!("expected a size from 1 byte to below 1 TiB, found {text:?}")),
            Err(_) => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, ValueError> {
        integer_or_text(value)
    }

    fn to_toml(&self) -> Option<String> {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        Some(match UNITS.iter().find(|(unit, _)| self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => format!("\"{} {name}\"", self.0 / unit),
            None => self.0.to_string(),
        })
    }
}

/// A length of time from one millisecond to a day.
impl Value for Duration {
    const EXPECTED: &'static str = "a time such as \"30s\", \"5m\" or \"500ms\"";
    const KIND: ValueKind = ValueKind::Duration;

    fn from_text(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(time) if (Duration::from_millis(1)..=Duration::from_hours(24)).contains(&time) => Ok(time),
            Ok(_) => Err(format!("expected a time from \"1ms\" to \"1day\", found {text:?}")),
            Err(_) => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{}\"", humantime::format_duration(*self)))
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "the path of a file or directory";
    const KIND: ValueKind = ValueKind::Path;

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err(expected::<Self>(&format!("{text:?}")));
        }
        Ok(Self::from(text))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.display().to_string()))
    }
}

/// The address or host name that a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname(String);

impl Hostname {
    /// The name as it was written, without the brackets of an IPv6 address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Hostname {
    const EXPECTED: &'static str =
        "an IP address or a host name such as \"0.0.0.0\", \"::\" or \"localhost\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() || host::is_name(text) {
            Ok(Self(bare.into()))
        } else {
            Err(expected::<Self>(&format!("{text:?}")))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// The URL under which the world reaches the broker, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The host without its port.
    pub fn host(&self) -> String {
        self.0.parse().ok().and_then(|uri: Uri| uri.host().map(ToOwned::to_owned)).unwrap_or_default()
    }

    /// The port of an https URL.
    pub fn https_port(&self) -> Option<u16> {
        let uri: Uri = self.0.parse().ok()?;
        (uri.scheme_str() == Some("https")).then(|| uri.port_u16().unwrap_or(443))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for PublicUrl {
    const EXPECTED: &'static str = "a URL of scheme and host such as \"https://pods.example.org\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |uri: &Uri| {
            let host = uri.host().unwrap_or_default();
            let authority = uri.port_u16().map_or(host.to_owned(), |port| format!("{host}:{port}"));
            matches!(uri.scheme_str(), Some("http" | "https"))
                && host::is_host(host)
                && bare.split_once("://").is_some_and(|(_, rest)| rest == authority)
        };
        if bare.parse().is_ok_and(|uri| is_plain(&uri)) {
            Ok(Self(bare.into()))
        } else {
            Err(expected::<Self>(&format!("{text:?}")))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// The value of an HTTP response header.
impl Value for HeaderValue {
    const EXPECTED: &'static str = "the text of one HTTP header, not empty and without a line break";

    fn from_text(text: &str) -> Result<Self, String> {
        match HeaderValue::from_str(text) {
            Ok(value) if !text.trim().is_empty() && value.to_str().is_ok() => Ok(value),
            _ => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn to_toml(&self) -> Option<String> {
        self.to_str().ok().map(quoted)
    }
}

/// A short text that means something to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Text {
    const EXPECTED: &'static str = "a short text without control characters";

    fn from_text(text: &str) -> Result<Self, String> {
        let fits = !text.is_empty() && text.len() <= 512 && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.into())) } else { Err(expected::<Self>(&format!("{text:?}"))) }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("{:?}", self.0))
    }
}

/// Reads and writes an enum whose values each have one name.
macro_rules! named_values {
    ($type:ty, $expected:literal, $($name:literal => $value:path),*) => {
        impl $crate::config::Value for $type {
            const EXPECTED: &'static str = $expected;
            const KIND: $crate::config::kind::ValueKind = $crate::config::kind::ValueKind::OneOf(&[$($name),*]);

            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $( $name => Ok($value), )*
                    _ => Err($crate::config::value::expected::<Self>(&format!("{text:?}"))),
                }
            }

            fn to_toml(&self) -> Option<String> {
                Some(match self { $( $value => concat!("\"", $name, "\"").into(), )* })
            }
        }
    };
}
pub(super) use named_values;

/// Which registry keeps the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryKind {
    /// In memory: everything is lost when the broker stops.
    Memory,
    /// On disk, in the data directory: an acknowledged pod survives a power cut.
    Redb,
}

impl Value for RegistryKind {
    const EXPECTED: &'static str = "\"redb\" (on disk) or \"memory\" (lost at the end)";
    const KIND: ValueKind = ValueKind::OneOf(&["redb", "memory"]);

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "memory" => Ok(Self::Memory),
            "redb" => Ok(Self::Redb),
            "sqlite" => {
                Err("this broker keeps pods in redb, not in SQLite: use \"redb\" (it is the default)".into())
            }
            _ => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(match self {
            Self::Memory => "\"memory\"".into(),
            Self::Redb => "\"redb\"".into(),
        })
    }
}

/// What `GET /health` says of the pod ids that origins hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginsShown {
    /// All of them, as the reference does.
    List,
    /// How many there are.
    Count,
    /// Nothing.
    Off,
}

named_values!(
    OriginsShown,
    "\"list\", \"count\" or \"off\"",
    "list" => OriginsShown::List, "count" => OriginsShown::Count, "off" => OriginsShown::Off
);

/// How pods are kept apart from one another in a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All share the broker's origin, as the reference's do.
    None,
    /// Each has an opaque origin, which keeps nothing.
    Sandbox,
    /// Each has a host of its own.
    Subdomain,
}

named_values!(
    Isolation,
    "\"none\", \"sandbox\" or \"subdomain\"",
    "none" => Isolation::None, "sandbox" => Isolation::Sandbox, "subdomain" => Isolation::Subdomain
);

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

named_values!(LogFormat, "\"text\" or \"json\"", "text" => LogFormat::Text, "json" => LogFormat::Json);

/// Which log lines are written: a level, or `target=level` pairs with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The directives as `tracing_subscriber::filter::Targets` reads them.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for LogLevel {
    const EXPECTED: &'static str =
        "\"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\" or \"target=level\" pairs";

    fn from_text(text: &str) -> Result<Self, String> {
        let level_of = |part: &str| part.rsplit('=').next().unwrap_or(part).trim().to_ascii_lowercase();
        let known = |part: &str| {
            matches!(level_of(part).as_str(), "error" | "warn" | "info" | "debug" | "trace" | "off")
        };
        if text.split(',').all(known) && text.parse::<tracing_subscriber::filter::Targets>().is_ok() {
            Ok(Self(text.into()))
        } else {
            Err(expected::<Self>(&format!("{text:?}")))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// Makes a value from text that is known to be right: for the table of defaults.
pub(super) fn known<T: Value>(text: &str) -> T {
    T::from_text(text).unwrap_or_else(|problem| panic!("a default is wrong: {problem}"))
}
