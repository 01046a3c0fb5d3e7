//! What integration tests stand on: a real server on a free port, a WebSocket client, signed pods.
#![allow(dead_code, reason = "each test binary uses its own part of it")]

pub mod bytes;
pub mod frames;
pub mod mount;
pub mod pod;
pub mod process;
pub mod raw;
pub mod server;
pub mod siege;
pub mod socket;

use std::time::Duration;

/// How long a test waits for something that should come at once.
pub const SOON: Duration = Duration::from_secs(10);
