//! Hostile input with the broker's memory watched: whatever comes, it stays under 400 MB and everybody else is served.
//!
//! Each test is one attack on a broker process of its own. Run with `--nocapture` to see the peak of each.

#![cfg(not(debug_assertions))] // The memory of the release build is what counts: cargo test --release --test hostile

#[path = "../support/mod.rs"]
mod support;

mod attack;
mod frames;
mod http2;
mod manifests;
mod raw_http2;
mod readers;
mod requests;
mod target;
mod uploads;
mod wire;
