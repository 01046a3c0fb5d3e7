//! What the values of a setting look like.

use serde_json::{Value as Json, json};

/// How a setting is written.
#[derive(Clone, Copy)]
pub enum ValueKind {
    /// `true` or `false`.
    Boolean,
    /// A TCP port; 0 is any free one.
    Port,
    /// A whole number, at least one.
    Number,
    /// A number of bytes, or text with a unit.
    Size,
    /// Text with units of time.
    Duration,
    /// The path of a file or directory.
    Path,
    /// Any text that the setting takes.
    Text,
    /// One of these names.
    OneOf(&'static [&'static str]),
    /// A list of such values.
    List(&'static ValueKind),
    /// A list of tables, and the settings of each.
    Tables(fn() -> Vec<Json>),
}

impl ValueKind {
    pub(super) fn json(self) -> Json {
        match self {
            Self::Boolean => json!("boolean"),
            Self::Port => json!("port"),
            Self::Number => json!("number"),
            Self::Size => json!("size"),
            Self::Duration => json!("duration"),
            Self::Path => json!("path"),
            Self::Text => json!("text"),
            Self::OneOf(names) => json!({ "one of": names }),
            Self::List(kind) => json!({ "list of": kind.json() }),
            Self::Tables(fields) => json!({ "tables": fields() }),
        }
    }
}
