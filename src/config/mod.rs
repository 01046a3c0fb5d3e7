//! Every setting: its name, its default, its check; and where its value comes from.
//!
//! A value is looked for in this order: flag, environment, file, default. [`Layers`] puts the four together and
//! reports all that is wrong with the place where it stands.

mod error;
mod layers;
mod list;
mod nearest;
mod settings;
mod value;

pub use self::{
    error::{ConfigError, Origin},
    layers::Layers,
    list::{Entry, List},
    settings::{Config, HttpSettings, LogSettings, PodSettings, SETTINGS, Setting, SignalSettings},
    value::{Hostname, LogFormat, LogLevel, PublicUrl, RegistryKind, Value},
};

impl Config {
    /// Reads a configuration from the TOML in `text`; what it does not name keeps its default.
    ///
    /// # Errors
    ///
    /// Everything that is wrong: unknown keys, values of the wrong kind, settings that contradict one another.
    pub fn from_toml(text: &str) -> Result<Self, Vec<ConfigError>> {
        Layers::default().toml("configuration", text).finish()
    }
}
