//! Who holds a pod id, who may upload, and what only an owner can do: over real sockets and HTTP.

mod attacks;
mod audience;
mod binding;
mod clocks;
mod commands;
mod credentials;
mod full;
mod networks;
mod owned;
mod pages;
mod proof;
mod records;
mod replays;
mod states;
mod takeover;
mod text;
mod total;
mod uploads;
