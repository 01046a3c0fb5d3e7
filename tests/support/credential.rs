//! Credentials of hosts, as their WebSocket client presents them.

use base64::{Engine, prelude::BASE64_STANDARD};

/// The header that a client makes of `wss://NAME:SECRET@host`.
pub fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{secret}")))
}

/// What a host is told whose credential is wrong.
pub const UNKNOWN: &str = "this credential is unknown or revoked: make one with `gemmapod-signal credentials add` and \
                           put the line that it prints into the pod.toml of the host";

/// How its socket is closed then, and when it is revoked.
pub fn closed() -> (u16, String) {
    (1008, "credential refused".into())
}
