//! What sockets, pod ids and sessions are known by.

use std::sync::Arc;

pub type SocketId = u64;
pub type PodId = Arc<str>;
pub type SessionId = Arc<str>;
