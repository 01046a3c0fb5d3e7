//! The settings as JSON, for programs that write configurations.

use serde_json::{Value as Json, json};

use super::{setting::describe, settings::SETTINGS};

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
