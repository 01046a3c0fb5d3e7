//! Logs: to standard error, for people or as JSON.

use std::io::{IsTerminal, stderr};

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, LogSettings};

/// Sends the log where `settings` say. Only the first call of a process has an effect.
pub fn init(settings: &LogSettings) {
    let layer = fmt::layer().with_writer(stderr);
    let layer = match settings.format {
        LogFormat::Text => {
            let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            layer.with_target(false).with_ansi(colours).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    // A program that embeds the server may have set up its own log already: that one stays.
    let _ =
        tracing_subscriber::registry().with(layer.with_filter(filter(settings.level.as_str()))).try_init();
}

/// A bare level is meant for the broker: the libraries below it only warn, unless everything is asked for.
fn filter(level: &str) -> Targets {
    match level.parse::<Level>() {
        Ok(Level::TRACE) | Err(_) => level.parse().unwrap_or_default(),
        Ok(level) => Targets::new().with_default(level).with_targets(
            ["salvo", "salvo_core", "hyper", "tungstenite"]
                .map(|target| (target, LevelFilter::from_level(level).min(LevelFilter::WARN))),
        ),
    }
}
