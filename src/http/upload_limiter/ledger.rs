//! Which network holds how much of the memory for uploads.

use std::{collections::HashMap, net::IpAddr};

/// The share of the memory that is kept for uploads which need no more than it to be complete.
pub(super) const KEPT: u64 = 3;

/// The share of the memory that requests take at most: bodies find room however many uploads wait. What exceeds it is bounded as
/// connections are.
const REQUESTS: u64 = 3;

/// Who holds how much.
pub struct Ledger {
    total: u64,
    /// What bodies have not taken.
    pub(super) left: u64,
    /// What requests have of that.
    pub(super) requests: u64,
    pub(super) by_network: HashMap<Option<IpAddr>, u64>,
}

impl Ledger {
    pub fn new(total: u64) -> Self {
        Self { total, left: total, requests: 0, by_network: HashMap::new() }
    }

    /// Returns what the uploads of a network hold together.
    pub fn held(&self, network: Option<IpAddr>) -> u64 {
        self.by_network.get(&network).copied().unwrap_or_default()
    }

    /// Returns what a network holds on average.
    pub fn mean(&self) -> u64 {
        self.by_network.values().sum::<u64>() / (self.by_network.len() as u64).max(1)
    }

    /// Takes `bytes` for a request, or as much of it as there is for requests. Returns how much was taken.
    pub fn take_request(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min((self.total / REQUESTS).saturating_sub(self.requests));
        self.requests += taken;
        taken
    }

    pub fn give_back_request(&mut self, bytes: u64) {
        self.requests -= bytes;
    }

    /// Takes `step` bytes for an upload that needs `need` to be complete, or all that it needs. Returns how much was
    /// taken, or `None` if it has to wait.
    ///
    /// No network takes more than would make what it holds exceed what is left before: however slow its uploads are, they
    /// leave half of the memory to the others. An upload takes a step only if any other of its network could still be
    /// completed then, however many requests come, so that uploads which keep arriving never all wait for one another; once
    /// that is not so, it is all that it needs or nothing.
    pub fn take(&mut self, network: Option<IpAddr>, step: u64, need: u64) -> Option<u64> {
        // Clients without an address share nothing with one another but the total.
        let held = network.map_or(0, |_| self.held(network));
        let room_beside = |requests: u64| self.left.saturating_sub(requests).saturating_sub(held);
        let kept = (self.total / KEPT).saturating_add(step.saturating_mul(2));
        let is_ample = room_beside(self.total / REQUESTS) >= kept;
        let taken = if is_ample { step } else { need };
        if taken > room_beside(self.requests) {
            return None;
        }
        self.left -= taken;
        *self.by_network.entry(network).or_default() += taken;
        Some(taken)
    }

    pub fn give_back(&mut self, network: Option<IpAddr>, bytes: u64) {
        self.left += bytes;
        if let Some(held) = self.by_network.get_mut(&network) {
            *held -= bytes;
            if *held == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}
