//! Sockets that listen.

pub(crate) mod listener;
