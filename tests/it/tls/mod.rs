//! Certificates and TLS, with a real client on the other side.

mod credentials;
mod hsts;
mod http2;
mod http2_hosts;
mod input;
mod limits;
mod log;
mod protocols;
mod reload;
mod self_signed;
mod sni;
mod start;
mod swaps;
