//! Logs: to standard error, for people or as JSON.

use std::{
    fmt,
    io::{IsTerminal, stderr},
};

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    field::RecordFields,
    filter::Targets,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
        layer,
    },
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, LogLevel, LogSettings},
    printable::printable,
};

/// Changes which lines are logged while the process runs.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// Logs the lines that `level` chooses from now on.
    pub fn set_level(&self, level: &LogLevel) {
        // It fails only where the log is gone: then nothing is logged any more.
        let _ = self.0.reload(filter(level.as_str()));
    }
}

/// Sends the log where `settings` say. Only the first call of a process has an effect.
pub fn init(settings: &LogSettings) -> LogHandle {
    let layer = layer().with_writer(stderr);
    let layer = match settings.format {
        LogFormat::Text => {
            let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            layer.fmt_fields(OneLine).with_target(false).with_ansi(colours).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter(settings.level.as_str()));
    // A program that embeds the server may have set up its own log already: that one stays.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    LogHandle(handle)
}

/// Formats the fields of an event so that they stay in its line, whatever strangers wrote into them. JSON has escapes of its
/// own.
struct OneLine;

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&printable(&text))
    }
}

/// A bare level is meant for the broker: the libraries below it only warn, unless everything is asked for.
fn filter(level: &str) -> Targets {
    const LIBRARIES: [&str; 5] = ["salvo", "salvo_core", "hyper", "tungstenite", "rustls"];
    match level.parse::<Level>() {
        Ok(Level::TRACE) | Err(_) => level.parse().unwrap_or_default(),
        Ok(level) => {
            let quiet = LevelFilter::from_level(level).min(LevelFilter::WARN);
            Targets::new().with_default(level).with_targets(LIBRARIES.map(|library| (library, quiet)))
        }
    }
}
