//! What integration tests stand on: a real server on a free port, a WebSocket client, signed pods.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

pub mod bounds;
pub mod bytes;
pub mod certs;
pub mod credential;
pub mod frames;
pub mod http2;
pub mod http2_frames;
pub mod mount;
pub mod pod;
pub mod process;
pub mod raw;
pub mod server;
pub mod siege;
pub mod signed;
pub mod socket;
pub mod throttled;
pub mod tls_client;

use std::{io::Write, time::Duration};

/// How long a test waits for something that should come at once.
pub const SOON: Duration = Duration::from_secs(10);

/// Says in one line that the running test cannot run here. It counts as passed; `tests/run` finds the line.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("test {} ... SKIPPED: {why}\n", thread.name().unwrap_or("of another thread"));
    // Not with `eprintln!`: what that says in a test that passes is not shown.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
