//! The uploads that wait for memory.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Notify;

use super::ledger::{Ledger, Payer, Refused};

/// Uploads that wait for memory, by their ids: the first came first.
#[derive(Default)]
pub struct Line {
    waiting: BTreeMap<u64, Waiting>,
    /// How many of them have waited for long.
    long: usize,
}

/// An upload that waits for `step` bytes, of `need` that it needs.
pub struct Waiting {
    pub payer: Payer,
    pub step: u64,
    pub need: u64,
    /// Whether it has waited for long: then no other begins before it.
    pub is_long: bool,
    pub served: Arc<Notify>,
}

/// In which order uploads are served. What is compared first stands first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    is_short: bool,
    is_new: bool,
    /// What its network holds, if it is new.
    held: u64,
    id: u64,
}

impl Line {
    pub fn push(&mut self, id: u64, waiting: Waiting) {
        self.remove(id);
        self.long += usize::from(waiting.is_long);
        self.waiting.insert(id, waiting);
    }

    pub fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.long -= usize::from(waiting.is_long);
        Some(waiting)
    }

    pub fn contains(&self, id: u64) -> bool {
        self.waiting.contains_key(&id)
    }

    /// Returns whether one has waited for long.
    pub fn is_long(&self) -> bool {
        self.long > 0
    }

    /// Notes that an upload has waited for long.
    pub fn set_long(&mut self, id: u64) {
        if let Some(waiting) = self.waiting.get_mut(&id)
            && !waiting.is_long
        {
            waiting.is_long = true;
            self.long += 1;
        }
    }

    /// Gives memory to those that it is enough for. Those that have waited for long are served first, and what one of them
    /// waits for is given to no upload that has nothing yet. Of these, the network that holds least comes first. Uploads that
    /// have something go on: others may wait for what they hold.
    ///
    /// Returns the ids of those that were served.
    pub fn serve(&mut self, ledger: &mut Ledger) -> Vec<u64> {
        let mut served = Vec::new();
        while !self.waiting.is_empty() {
            let before = served.len();
            self.serve_once(ledger, &mut served);
            if served.len() == before {
                break;
            }
        }
        served
    }

    /// As [`Line::serve`], but serves one new upload of each network at most.
    fn serve_once(&mut self, ledger: &mut Ledger, served: &mut Vec<u64>) {
        let turn = |(id, waiting): (&u64, &Waiting)| {
            let is_new = ledger.held_by(waiting.payer, *id) == 0;
            let held = if is_new { ledger.held(waiting.payer) } else { 0 };
            Turn { is_short: !waiting.is_long, is_new, held, id: *id }
        };
        let mut turns: Vec<_> = self.waiting.iter().map(turn).collect();
        turns.sort_unstable();
        let mut is_kept = false;
        for Turn { is_short, is_new, held, id } in turns {
            let waiting = &self.waiting[&id];
            if is_new && (is_kept || held < ledger.held(waiting.payer)) {
                continue;
            }
            match ledger.take(waiting.payer, id, waiting.step, waiting.need) {
                Ok(()) => {
                    waiting.served.notify_one();
                    self.remove(id);
                    served.push(id);
                }
                Err(Refused::ForOthers) if !is_short => is_kept = true,
                Err(_) => {}
            }
        }
    }
}
