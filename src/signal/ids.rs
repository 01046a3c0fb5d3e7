//! What sockets, pod ids and sessions are known by.

use std::sync::Arc;

/// Longest pod id, in bytes. Owners choose them to be read and typed; the record of one is kept under it, so that it must not
/// be long.
pub const MAX_POD_ID: usize = 128;
/// Longest session id, in bytes: room for any UUID or hash that a visitor draws. Each frame of a session repeats it.
pub const MAX_SESSION_ID: usize = 128;

pub type SocketId = u64;
pub type PodId = Arc<str>;
pub type SessionId = Arc<str>;
