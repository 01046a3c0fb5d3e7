//! One setting: how it is read, written and described.

use serde_json::{Value as Json, json};
use toml::{Spanned, de::DeValue};

use super::{kind::ValueKind, value::ValueError};

/// One setting as the command line, the documentation and the checks see it; `T` is what it is a setting of.
pub struct Setting<T: 'static> {
    /// The name in TOML, with its section: `signal.max_frame`.
    pub key: &'static str,
    /// The environment variable that sets it, where that is not derived from the key.
    pub(super) env: Option<&'static str>,
    /// What it means, for people.
    pub doc: &'static str,
    /// Completes the sentence "expected …".
    pub expected: &'static str,
    pub(super) kind: ValueKind,
    pub(super) to_toml: fn(&T) -> Option<String>,
    pub(super) set_text: fn(&mut T, &str) -> Result<(), String>,
    pub(super) set_toml: fn(&mut T, &Spanned<DeValue<'_>>) -> Result<(), ValueError>,
    /// Takes the value over from another.
    pub(super) copy: fn(&mut T, &T),
}

impl<T: Default> Setting<T> {
    /// The environment variable that sets it.
    pub fn env(&self) -> String {
        match self.env {
            Some(name) => name.into(),
            None => format!("GEMMAPOD_SIGNAL_{}", self.key.replace('.', "_").to_ascii_uppercase()),
        }
    }

    /// The default as TOML writes it, or nothing where the setting is not set by default.
    pub fn default(&self) -> Option<String> {
        (self.to_toml)(&T::default())
    }

    /// The section and the name within it; the section of a top-level key is empty.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').unwrap_or(("", self.key))
    }
}

/// One setting, as far as those within tables have it too.
pub(super) fn describe<T: Default>(setting: &Setting<T>) -> Json {
    json!({
        "key": setting.key,
        "type": setting.kind.json(),
        "expected": setting.expected,
        "default": setting.default().and_then(|default| toml_to_json(&default)),
        "description": setting.doc.split_whitespace().collect::<Vec<_>>().join(" "),
    })
}

/// A value that [`super::Value::to_toml`] wrote.
fn toml_to_json(text: &str) -> Option<Json> {
    let table: toml::Table = format!("value = {text}").parse().ok()?;
    serde_json::to_value(table.get("value")?).ok()
}
