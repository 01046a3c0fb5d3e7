//! Bounds how many lines of a kind are logged: of some, strangers can cause any number.
//!
//! A kind is a place in the code that logs. Of each, a number of lines is written at once and a few a second after that; the
//! rest is counted, and one line says how many they were.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{
    net::throttle::{Rate, Throttle},
    printable::cut,
};

/// Lines of a kind that are written at once.
const BURST: u32 = 100;
/// One more is written in this time.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long lines that are left out are counted.
const SUM_INTERVAL: Duration = Duration::from_secs(10);

/// Characters of their message that are repeated.
const MAX_MESSAGE: usize = 100;

/// Leaves lines out; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct LineThrottle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kinds: Mutex<HashMap<Identifier, Kind>>,
    any_left_out: Notify,
}

/// A kind of line. There are as many as places in the code.
#[derive(Debug)]
struct Kind {
    throttle: Throttle,
    left_out: LeftOut,
}

#[derive(Debug)]
struct LeftOut {
    lines: u64,
    level: Level,
    /// The message of the first of them.
    message: String,
}

impl LineThrottle {
    /// Says every now and then how many lines were left out. Never returns.
    pub async fn sum(&self) {
        loop {
            self.0.any_left_out.notified().await;
            sleep(SUM_INTERVAL).await;
            self.tell();
        }
    }

    /// Says how many lines were left out since this was said last.
    pub fn tell(&self) {
        let mut left_out = Vec::new();
        for kind in self.lock().values_mut().filter(|kind| kind.left_out.lines > 0) {
            let none = LeftOut { lines: 0, level: kind.left_out.level, message: String::new() };
            left_out.push(mem::replace(&mut kind.left_out, none));
        }
        for LeftOut { lines, level, message } in left_out {
            match level {
                Level::ERROR => tracing::error!(lines, "more lines like this were left out: {message}"),
                Level::WARN => tracing::warn!(lines, "more lines like this were left out: {message}"),
                _ => tracing::info!(lines, "more lines like this were left out: {message}"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Kind>> {
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for LineThrottle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Whoever asks for more than the level info wants all of it.
        if *metadata.level() > Level::INFO || metadata.target() == module_path!() {
            return true;
        }
        let mut kinds = self.lock();
        let Kind { throttle, left_out } = kinds.entry(metadata.callsite()).or_insert_with(|| Kind {
            throttle: Throttle::new(Rate { interval: INTERVAL, burst: INTERVAL * (BURST - 1) }),
            left_out: LeftOut { lines: 0, level: *metadata.level(), message: String::new() },
        });
        if throttle.try_count(Instant::now(), 1) {
            return true;
        }
        left_out.lines += 1;
        if left_out.lines == 1 {
            event.record(&mut Message(&mut left_out.message));
            self.0.any_left_out.notify_one();
        }
        false
    }
}

/// Notes the message of an event.
struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let mut message = String::new();
            // It fails where a value cannot be formatted: then the line has no message.
            let _ = write!(message, "{value:?}");
            *self.0 = cut(&message, MAX_MESSAGE).into_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    /// Keeps the lines that are written: level, message and fields.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Lines {
        fn take(&self) -> Vec<String> {
            mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            struct Text(String);
            impl Visit for Text {
                fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                    write!(self.0, " {field}={value:?}").unwrap();
                }
            }
            let mut text = Text(event.metadata().level().to_string());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }

    fn log() -> (LineThrottle, Lines, tracing::subscriber::DefaultGuard) {
        let (throttle, lines) = (LineThrottle::default(), Lines::default());
        let subscriber = Registry::default().with(throttle.clone()).with(lines.clone());
        (throttle, lines, tracing::subscriber::set_default(subscriber))
    }

    fn register(n: u32) {
        tracing::info!(n, "origin registered");
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_flood_the_first_lines_are_written_and_then_a_sum() {
        let (throttle, lines, _guard) = log();
        let summing = async {
            throttle.sum().await;
        };
        let flood = async {
            (0..1_000).for_each(register);
            assert_eq!(lines.take().len(), BURST as usize);
            // Another kind, and lines that somebody asked for, go on.
            tracing::error!("the registry could not serve a request");
            (0..1_000).for_each(|n| tracing::debug!(n, "peer is gone"));
            assert_eq!(lines.take().len(), 1_001);
            sleep(SUM_INTERVAL + INTERVAL / 2).await;
            let sum = "INFO message=more lines like this were left out: origin registered lines=900";
            assert_eq!(lines.take(), [sum]);
            // Nothing more is said until there is more.
            sleep(SUM_INTERVAL * 10).await;
            assert!(lines.take().is_empty());
        };
        tokio::select! {
            () = summing => unreachable!(),
            () = flood => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_that_goes_on_for_hours_writes_a_few_lines_a_second() {
        let (throttle, lines, _guard) = log();
        let flood = async {
            for n in 0..3_600 * 100 {
                register(n);
                tracing::warn!(n, "the registry took too long to record a registration");
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = throttle.sum() => unreachable!(),
            () = flood => {}
        }
        throttle.tell();
        let (written, sums): (Vec<_>, Vec<_>) =
            lines.take().into_iter().partition(|line| !line.contains("were left out"));
        // In an hour: two a second and what came at once, and a sum in ten seconds, of each kind.
        assert!(written.len() <= 2 * (3_600 * 2 + BURST as usize), "{}", written.len());
        assert!(sums.len() <= 2 * 361, "{}", sums.len());
        let counted = |line: &String| line.split("lines=").nth(1)?.split(' ').next()?.parse::<usize>().ok();
        let left_out: usize = sums.iter().filter_map(counted).sum();
        assert_eq!(written.len() + left_out, 2 * 3_600 * 100, "each line is written or counted");
        assert_eq!(throttle.lock().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn two_logs_share_nothing() {
        let (_throttle, lines, guard) = log();
        (0..1_000).for_each(register);
        assert_eq!(lines.take().len(), BURST as usize);
        drop(guard);
        let (_throttle, lines, _guard) = log();
        register(0);
        assert_eq!(lines.take().len(), 1);
    }
}
