//! Logs: to standard error, for people or as JSON.

mod line_throttle;

use std::{
    fmt,
    io::{IsTerminal, stderr},
};

use tracing::level_filters::LevelFilter;
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

use self::line_throttle::LineThrottle;
use crate::{
    config::{LogFormat, LogLevel, LogSettings},
    printable::printable,
};

/// Changes which lines are logged while the process runs, and tells how many were left out.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    throttle: LineThrottle,
}

impl LogHandle {
    /// Logs the lines that `level` chooses from now on.
    pub fn set_level(&self, level: &LogLevel) {
        // It fails only where the log is gone: then nothing is logged any more.
        let _ = self.filter.reload(filter(level.as_str()));
    }

    /// Logs how many lines were left out since this was logged last, of those kinds of which there are too many.
    pub fn tell_left_out(&self) {
        self.throttle.tell();
    }

    /// Does so every now and then. Never returns.
    pub async fn keep_telling(self) {
        self.throttle.sum().await;
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
    let throttle = LineThrottle::default();
    let (filter, handle) = reload::Layer::new(filter(settings.level.as_str()));
    // A program that embeds the server may have set up its own log already: that one stays.
    let _ = tracing_subscriber::registry().with(filter).with(throttle.clone()).with(layer).try_init();
    LogHandle { filter: handle, throttle }
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

/// Libraries that log what strangers do, a line for each: only their errors are of use, unless a level names them.
const LIBRARIES: [&str; 11] = [
    "h2",
    "hyper",
    "hyper_util",
    "log",
    "redb",
    "rustls",
    "salvo",
    "salvo_core",
    "tokio_rustls",
    "tokio_tungstenite",
    "tungstenite",
];

/// Reads a level that is meant for the broker, or pairs of target and level. With `trace` alone, everything is logged.
fn filter(level: &str) -> Targets {
    let asked: Targets = level.parse().unwrap_or_default();
    let of_broker = asked.default_level().unwrap_or(LevelFilter::OFF);
    if of_broker == LevelFilter::TRACE {
        return asked;
    }
    let is_named =
        |library: &&str| asked.iter().any(|(target, _)| target.split("::").next() == Some(*library));
    let quiet: Vec<_> = LIBRARIES.into_iter().filter(|library| !is_named(library)).collect();
    asked.with_targets(quiet.into_iter().map(|library| (library, of_broker.min(LevelFilter::ERROR))))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_say_no_more_than_errors_unless_they_are_named() {
        let table = [
            ("info", "gemmapod_signal::tls", Level::INFO, true),
            ("info", "rustls::msgs::handshake", Level::WARN, false),
            ("info", "h2::proto::streams", Level::WARN, false),
            ("info", "h2", Level::ERROR, true),
            ("debug", "rustls", Level::WARN, false),
            ("error", "rustls", Level::ERROR, true),
            ("off", "rustls", Level::ERROR, false),
            ("info,rustls=debug", "rustls::server", Level::DEBUG, true),
            ("info,rustls::server=debug", "rustls::server", Level::DEBUG, true),
            ("info,gemmapod_signal::tls=debug", "gemmapod_signal::tls", Level::DEBUG, true),
            ("info,gemmapod_signal::tls=debug", "h2", Level::WARN, false),
            ("gemmapod_signal=debug", "h2", Level::ERROR, false),
            ("trace", "h2", Level::TRACE, true),
        ];
        for (level, target, of_line, is_logged) in table {
            assert_eq!(
                filter(level).would_enable(target, &of_line),
                is_logged,
                "{level}: {target} {of_line}"
            );
        }
    }
}
