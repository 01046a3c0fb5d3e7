//! The line of frames that wait for room in one queue.

use std::{collections::BTreeMap, sync::Arc, task::Waker};

use super::super::queue::{Share, Ticket, cost};

/// The frames that wait for room in one queue, the first of them first.
#[derive(Debug, Default)]
pub struct Line(pub(super) BTreeMap<Ticket, Parked>);

/// A frame that waits.
#[derive(Debug)]
pub struct Parked {
    pub share: Arc<Share>,
    pub frame: String,
    /// Its sender's.
    pub waker: Option<Waker>,
}

impl Line {
    /// Returns whether nothing waits that comes before `ticket`.
    pub fn is_next(&self, ticket: Ticket) -> bool {
        self.0.first_key_value().is_none_or(|(first, _)| *first >= ticket)
    }

    /// Returns the ticket, share and cost of the frame that comes after `n` others.
    pub fn nth(&self, n: usize) -> Option<(Ticket, Arc<Share>, usize)> {
        let (ticket, parked) = self.0.iter().nth(n)?;
        Some((*ticket, parked.share.clone(), cost(&parked.frame)))
    }

    /// Removes a frame and returns it with its sender's waker.
    pub fn remove(&mut self, ticket: Ticket) -> Option<(String, Option<Waker>)> {
        self.0.remove(&ticket).map(|parked| (parked.frame, parked.waker))
    }

    /// Takes the wakers of all senders.
    pub fn take_wakers(&mut self) -> Vec<Waker> {
        self.0.values_mut().filter_map(|parked| parked.waker.take()).collect()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns how many bytes wait.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.0.values().map(|parked| cost(&parked.frame)).sum()
    }
}
