//! The uploads that wait for memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use tokio::sync::Notify;

use super::ledger::{Ledger, Payer};

/// How many uploads are refused before a round of serving ends. The payer that can be completed first stands first, so that
/// those behind would be refused too.
const MAX_REFUSED: usize = 16;

/// Uploads that wait for memory. Those that hold some are served before those that hold none: others may wait for what they
/// hold.
///
/// Payers are kept in the order in which they are served, so that those behind cost nothing.
#[derive(Default)]
pub struct Line {
    by_payer: HashMap<Payer, Queue>,
    /// Payers with an upload that waits and holds memory: the one that needs least to be completed stands first.
    begun: BTreeSet<(u64, Payer)>,
    /// What uploads that wait and hold memory need.
    pub needed: u64,
    /// Payers with an upload that waits and holds nothing.
    new: BTreeSet<(NewTurn, Payer)>,
    /// How often the ledger was asked for memory.
    #[cfg(test)]
    pub asked: usize,
}

/// The uploads of one payer that wait, by their ids, and its places in the line.
#[derive(Default)]
struct Queue {
    waiting: BTreeMap<u64, Waiting>,
    needed: u64,
    begun: Option<u64>,
    new: Option<NewTurn>,
}

/// When an upload that holds nothing is served. What is compared first stands first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NewTurn {
    /// What its payer holds.
    held: u64,
    /// The smallest came first.
    id: u64,
}

/// An upload that waits for `step` bytes, of `need` that it needs.
pub struct Waiting {
    pub step: u64,
    pub need: u64,
    pub served: Arc<Notify>,
}

impl Line {
    pub fn push(&mut self, payer: Payer, id: u64, waiting: Waiting, ledger: &Ledger) {
        self.by_payer.entry(payer).or_default().waiting.insert(id, waiting);
        self.update(payer, ledger);
    }

    pub fn remove(&mut self, payer: Payer, id: u64, ledger: &Ledger) -> Option<Waiting> {
        let waiting = self.by_payer.get_mut(&payer)?.waiting.remove(&id)?;
        self.update(payer, ledger);
        Some(waiting)
    }

    pub fn contains(&self, payer: Payer, id: u64) -> bool {
        self.by_payer.get(&payer).is_some_and(|queue| queue.waiting.contains_key(&id))
    }

    /// Returns the payer and the id of the upload that needs least, of those that hold some memory.
    pub fn first_begun(&self, ledger: &Ledger) -> Option<(Payer, u64)> {
        let (_, payer) = *self.begun.first()?;
        let begun = self.by_payer[&payer].waiting.iter().filter(|(id, _)| ledger.held_by(payer, **id) > 0);
        begun.min_by_key(|(_, waiting)| waiting.need).map(|(id, _)| (payer, *id))
    }

    /// Moves a payer to its place in the line. To be called whenever what it holds has changed.
    pub fn update(&mut self, payer: Payer, ledger: &Ledger) {
        let Some(queue) = self.by_payer.get_mut(&payer) else { return };
        let is_new = |id: u64| ledger.held_by(payer, id) == 0;
        let begun = queue.waiting.iter().filter(|(id, _)| !is_new(**id)).map(|(_, waiting)| waiting.need);
        let needed = begun.clone().sum();
        self.needed = self.needed + needed - queue.needed;
        queue.needed = needed;
        let begun = begun.min().map(|need| if ledger.claim(payer) > 0 { ledger.claim(payer) } else { need });
        let new = queue.waiting.keys().copied().find(|id| is_new(*id));
        let new = new.map(|id| NewTurn { held: ledger.held(payer), id });
        if begun != queue.begun {
            queue.begun.map(|turn| self.begun.remove(&(turn, payer)));
            queue.begun = begun;
            self.begun.extend(begun.map(|turn| (turn, payer)));
        }
        if new != queue.new {
            queue.new.map(|turn| self.new.remove(&(turn, payer)));
            queue.new = new;
            self.new.extend(new.map(|turn| (turn, payer)));
        }
        if queue.waiting.is_empty() {
            self.by_payer.remove(&payer);
        }
    }

    /// Gives memory to those that it is enough for. Returns the ids of those that were served.
    pub fn serve(&mut self, ledger: &mut Ledger) -> Vec<u64> {
        let mut served = Vec::new();
        loop {
            let before = served.len();
            self.serve_begun(ledger, &mut served);
            self.serve_new(ledger, &mut served);
            if served.len() == before {
                return served;
            }
        }
    }

    /// Serves each payer once, beginning with the one that needs least.
    fn serve_begun(&mut self, ledger: &mut Ledger, served: &mut Vec<u64>) {
        let mut refused = 0;
        let mut next = self.begun.first().copied();
        while let Some(turn) = next.filter(|_| refused < MAX_REFUSED) {
            let (_, payer) = turn;
            let waiting = self.by_payer[&payer].waiting.iter();
            let begun = waiting.map(|(id, waiting)| (ledger.held_by(payer, *id), waiting.need, *id));
            let mut begun: Vec<_> = begun.filter(|(held, ..)| *held > 0).collect();
            begun.sort_unstable_by_key(|(held, need, _)| i128::from(*need) - i128::from(*held));
            match begun.iter().find(|(.., id)| self.take(ledger, payer, *id)) {
                Some((.., id)) => served.push(*id),
                None => refused += begun.len(),
            }
            next = self.begun.range((Excluded(turn), Unbounded)).next().copied();
        }
    }

    /// Serves uploads that hold nothing, until one is refused: those behind hold more and need as much.
    fn serve_new(&mut self, ledger: &mut Ledger, served: &mut Vec<u64>) {
        while let Some((turn, payer)) = self.new.first().copied() {
            if !self.take(ledger, payer, turn.id) {
                return;
            }
            served.push(turn.id);
        }
    }

    /// Takes memory for an upload that waits. Returns whether there was enough.
    fn take(&mut self, ledger: &mut Ledger, payer: Payer, id: u64) -> bool {
        #[cfg(test)]
        {
            self.asked += 1;
        }
        let waiting = &self.by_payer[&payer].waiting[&id];
        if ledger.take(payer, id, waiting.step, waiting.need).is_err() {
            return false;
        }
        waiting.served.notify_one();
        self.remove(payer, id, ledger);
        true
    }
}
