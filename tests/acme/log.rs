//! What the broker says in its log, for brokers in this process.

use std::{
    io,
    sync::{LazyLock, Mutex, Once},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing::Level;
use tracing_subscriber::{filter::Targets, prelude::*};

static LINES: LazyLock<Mutex<Vec<String>>> = LazyLock::new(Mutex::default);

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what is logged from now on.
pub fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let ours = Targets::new().with_target("gemmapod_signal", Level::DEBUG);
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Writer);
        tracing_subscriber::registry().with(lines).with(ours).init();
    });
}

/// The lines that hold all of `parts`.
pub fn lines(parts: &[&str]) -> Vec<String> {
    let fits = |line: &&String| parts.iter().all(|part| line.contains(part));
    LINES.lock().unwrap().iter().filter(fits).cloned().collect()
}

/// Waits until there are `count` lines that hold all of `parts`; the last one.
pub async fn wait_for(count: usize, parts: &[&str]) -> String {
    let begin = Instant::now();
    loop {
        let found = lines(parts);
        if found.len() >= count {
            return found[count - 1].clone();
        }
        let told = || lines(&parts[..1]).concat();
        assert!(begin.elapsed() < Duration::from_secs(30), "the log never said {parts:?}, but:\n{}", told());
        sleep(Duration::from_millis(10)).await;
    }
}
