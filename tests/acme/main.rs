//! Certificates from a real ACME directory: pebble, with faults put between it and the broker.

/// The pebble of a test, started with `env`; a test ends early, visibly, where pebble is not installed.
macro_rules! pebble {
    ($($env:expr),*) => {
        match crate::pebble::Pebble::start(&[$($env),*]).await {
            Some(pebble) => pebble,
            None => return,
        }
    };
}

#[path = "../support/mod.rs"]
mod support;

mod broker;
mod crash;
mod faults;
mod gate;
mod issue;
mod log;
mod pebble;
mod reload;
mod renewal;
mod tls;
