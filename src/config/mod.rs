//! Every setting: its name, its default, its check; and where its value comes from.
//!
//! A value is looked for in this order: flag, environment, file, default. [`Layers`] puts the four together and
//! reports all that is wrong with the place where it stands.

mod access;
mod bounds;
mod contradictions;
mod effective;
mod entries;
mod error;
mod grace;
mod kind;
mod layers;
mod list;
mod live;
mod nearest;
mod net;
mod pod_headers;
#[cfg(test)]
mod properties;
mod rate;
mod reload;
mod schema;
mod section;
mod setting;
mod settings;
mod tls;
mod value;

pub use self::{
    access::{BindMode, Lifetime, UploadPolicy},
    bounds::{HttpBounds, JanitorBounds, PodBounds, SignalBounds},
    error::{ConfigError, Origin},
    grace::Grace,
    kind::ValueKind,
    layers::Layers,
    list::{Entry, List},
    live::Live,
    net::{FileMode, ListenAddress, Network, Purpose, TrustedProxy},
    rate::{Rate, RateLimit},
    schema::settings_json,
    setting::Setting,
    settings::{
        AcmeSettings, CertificateFiles, Config, HealthSettings, HttpSettings, JanitorSettings, LimitSettings,
        Listen, LogSettings, PodSettings, QuotaSettings, SETTINGS, SignalSettings, TlsSettings,
        UploadSettings,
    },
    tls::{AcmeDirectory, ChallengeKind, Contact, Domain, TlsMode},
    value::{
        Hostname, Isolation, LogFormat, LogLevel, OriginsShown, PublicUrl, RegistryKind, Text, Value,
        ValueError,
    },
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
