//! What the values of a setting look like, for programs that write configurations.

use serde_json::{Value as Json, json};

use super::{SETTINGS, settings::Setting};

/// How a setting is written.
#[derive(Clone, Copy)]
pub enum Kind {
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
    List(&'static Kind),
    /// A list of tables, and the settings of each.
    Tables(fn() -> Vec<Json>),
}

impl Kind {
    fn json(self) -> Json {
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

/// All settings as a JSON list, in the order of the documentation: `key`, `type`, `expected` (completes "expected …"),
/// `default` (`null` where it is not set), `env`, `restart` (whether a change holds only after one), `description`.
pub fn settings_json() -> Json {
    let all = SETTINGS.iter().map(|setting| {
        let mut json = describe(setting);
        json["env"] = json!(setting.env());
        json["restart"] = json!(setting.is_read_at_start());
        json
    });
    Json::Array(all.collect())
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
