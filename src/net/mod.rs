//! Connections: sockets that listen, and what happens to a connection before HTTP begins.
//!
//! [`listener`] makes the sockets, [`front`] accepts from them, [`connection_limiter`] bounds how many there are, and
//! [`client_permits`] how much one client does at a time, [`blocking_limiter`] how many threads its work takes,
//! [`handshake_threads`] among it that of TLS handshakes; of a [`budget`] that all share, none takes more than it leaves.
//! [`proxy_protocol`] learns whom a proxy speaks for, [`tls_input`] bounds what TLS reads ahead, [`stream`] is what HTTP gets,
//! [`silent`] knows those on which nothing was sent yet, [`serving`] and [`http`] speak HTTP on it, with a deadline for what is flushed
//! ([`flush_deadline`]), in HTTP/2 with one for each of its [`streams`], a budget for their [`heads`] and an end to the
//! connection after too many [`refusals`]. [`client`] tells who a request comes from, and from which [`network`], [`limits`] how often
//! it may ask, [`throttle`] what waits for its turn, [`request_throttle`] which requests on streams do, and [`read_throttle`]
//! when a connection is read on, also where it has too many [`small_frames`], [`path`] which paths are the same.

pub(crate) mod acceptor;
pub(crate) mod blocking_limiter;
pub(crate) mod budget;
pub(crate) mod client;
pub(crate) mod client_permits;
pub(crate) mod connection_limiter;
pub(crate) mod connection_permits;
mod flush_deadline;
pub(crate) mod handshake_threads;
pub(crate) mod heads;
mod http;
pub(crate) mod http2_places;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod network;
#[cfg(test)]
mod newcomers;
pub(crate) mod path;
mod proxy_protocol;
pub(crate) mod read_throttle;
pub(crate) mod refusals;
pub(crate) mod request_body;
mod request_throttle;
mod response_body;
pub(crate) mod serving;
pub(crate) mod silent;
pub(crate) mod small_frames;
mod stream;
mod streams;
pub(crate) mod throttle;
mod tls_input;
