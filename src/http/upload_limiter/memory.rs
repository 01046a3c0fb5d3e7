//! The memory for the bodies of uploads, which is taken as they arrive.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Ledger, Payer},
    line::{Line, Waiting},
    slowest::{Arrival, Arrivals, Pace},
};
use crate::net::connection_limiter::customer_key;

/// The memory of all uploads. Whoever fits is served, in no order: a large upload that waits must not hold up small ones, until
/// it has waited for long.
pub struct UploadMemory {
    state: Mutex<State>,
    /// How long an upload waits for memory before it goes before others and the slowest one is ended.
    patience: Duration,
}

struct State {
    ledger: Ledger,
    arrivals: Arrivals,
    line: Line,
}

impl State {
    /// Gives what is left to those that wait for it.
    fn serve(&mut self) {
        for id in self.line.serve(&mut self.ledger) {
            self.arrivals.set_waiting(id, false);
        }
    }
}

impl UploadMemory {
    /// Returns memory of `bytes` bytes for uploads that wait for it for `wait` at most.
    pub fn new(bytes: u64, wait: Duration) -> Arc<Self> {
        let (arrivals, line) = Default::default();
        let state = State { ledger: Ledger::new(bytes), arrivals, line };
        Arc::new(Self { state: Mutex::new(state), patience: wait / 4 })
    }

    /// Takes `bytes` for the request of an upload, without waiting: it is there already.
    pub fn request(self: &Arc<Self>, bytes: u64) -> RequestMemory {
        let bytes = self.lock().ledger.take_request(bytes);
        RequestMemory { memory: self.clone(), bytes }
    }

    /// Returns the reservation of an upload of `client`, which begins to arrive now: nothing yet.
    pub fn reservation(self: &Arc<Self>, client: Option<IpAddr>) -> Reservation {
        let network = client.map(customer_key);
        let mut state = self.lock();
        let (id, arrival) = state.arrivals.begin(network, self.patience);
        let Arrival { payer, pace, ended, .. } = arrival;
        let (payer, pace, ended) = (*payer, pace.clone(), ended.clone());
        Reservation { memory: self.clone(), payer, id, pace, ended }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of a request; dropping it gives it back.
pub struct RequestMemory {
    memory: Arc<UploadMemory>,
    bytes: u64,
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.ledger.give_back_request(self.bytes);
        state.serve();
    }
}

/// Memory of the body of one upload; dropping it gives it back.
pub struct Reservation {
    memory: Arc<UploadMemory>,
    payer: Payer,
    id: u64,
    pace: Arc<Pace>,
    ended: CancellationToken,
}

impl Reservation {
    pub fn bytes(&self) -> u64 {
        self.memory.lock().ledger.held_by(self.payer, self.id)
    }

    /// Waits for `step` more bytes, of `need` that the upload may still take.
    pub async fn grow(&mut self, step: u64, need: u64) {
        let patience = self.memory.patience;
        let Some(served) = self.wait(step, need) else { return };
        let mut next = Instant::now() + patience;
        while timeout_at(next, served.notified()).await.is_err() {
            let mut state = self.memory.lock();
            if !state.line.contains(self.id) {
                return;
            }
            state.line.set_long(self.id);
            let State { arrivals, ledger, .. } = &mut *state;
            arrivals.end_slowest(ledger, self.payer, patience);
            next += patience;
        }
    }

    /// Takes `step` bytes, or returns what tells that they were given.
    fn wait(&mut self, step: u64, need: u64) -> Option<Arc<Notify>> {
        let mut state = self.memory.lock();
        let is_new = state.ledger.held_by(self.payer, self.id) == 0;
        let may_take = !is_new || !state.line.is_long();
        if may_take && state.ledger.take(self.payer, self.id, step, need).is_ok() {
            return None;
        }
        let is_long = state.arrivals.waited(self.id) >= self.memory.patience;
        let served = Arc::new(Notify::new());
        let waiting = Waiting { payer: self.payer, step, need, is_long, served: served.clone() };
        state.line.push(self.id, waiting);
        state.arrivals.set_waiting(self.id, true);
        if !may_take {
            state.serve();
        }
        Some(served)
    }

    /// Notes how many bytes of the upload have arrived.
    pub fn received(&self, bytes: u64) {
        self.pace.received(bytes);
    }

    /// Notes that all have: the upload needs no more, and is not slow any more.
    pub fn mark_arrived(&self) {
        let mut state = self.memory.lock();
        state.arrivals.remove(self.id);
        state.ledger.complete(self.payer, self.id);
        state.serve();
    }

    /// Returns a token that is cancelled when the upload came slowest while others waited.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let mut state = self.memory.lock();
        let spare = state.ledger.held_by(self.payer, self.id).saturating_sub(bytes);
        state.ledger.give_back(self.payer, self.id, spare);
        state.serve();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.arrivals.remove(self.id);
        state.line.remove(self.id);
        let held = state.ledger.held_by(self.payer, self.id);
        state.ledger.give_back(self.payer, self.id, held);
        state.serve();
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod tests;
