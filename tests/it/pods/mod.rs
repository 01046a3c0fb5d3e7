//! Pods over HTTP: what is taken, what is refused and with which sentence, and how it is served.

mod accepted;
mod compression;
mod cors;
mod downloads;
mod hits;
mod hosts;
mod registries;
mod rejected;
mod slow_disk;
mod uploads;
