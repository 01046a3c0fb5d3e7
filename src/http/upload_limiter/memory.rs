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

/// The memory of all uploads. Whoever fits is served: a large upload that waits must not hold up small ones.
pub struct UploadMemory {
    state: Mutex<State>,
    /// How long an upload waits for memory before those that come slowest are ended.
    patience: Duration,
}

struct State {
    ledger: Ledger,
    arrivals: Arrivals,
    line: Line,
    /// Until when an upload is favoured, unless it takes more before.
    favoured_until: Instant,
    /// How long an upload is favoured that takes nothing.
    lease: Duration,
}

impl State {
    /// Notes that what the uploads of a payer hold has changed.
    fn changed(&mut self, payer: Payer) {
        self.line.update(payer, &self.ledger);
        self.serve();
    }

    /// Has others leave memory for the upload that needs least, while it comes. Otherwise those that are ended would make room
    /// for all that wait, of which many may stand still afterwards.
    fn favour_first(&mut self) {
        self.end_lease();
        if self.ledger.favoured.is_none()
            && let Some((payer, id)) = self.line.first_begun(&self.ledger)
        {
            self.ledger.favoured = Some((payer, id));
            self.extend_lease(id);
        }
    }

    fn extend_lease(&mut self, id: u64) {
        if self.ledger.favoured.is_some_and(|(_, favoured)| favoured == id) {
            self.favoured_until = Instant::now() + self.lease;
        }
    }

    fn end_lease(&mut self) {
        if Instant::now() >= self.favoured_until {
            self.ledger.favoured = None;
        }
    }

    /// Gives what is left to those that wait for it.
    fn serve(&mut self) {
        self.end_lease();
        for id in self.line.serve(&mut self.ledger) {
            self.extend_lease(id);
            self.arrivals.set_waiting(id, false);
        }
    }
}

impl UploadMemory {
    /// Returns memory of `bytes` bytes for uploads that wait for it for `wait` at most.
    pub fn new(bytes: u64, wait: Duration) -> Arc<Self> {
        let (arrivals, line) = Default::default();
        let (patience, favoured_until) = (wait / 4, Instant::now());
        let lease = patience / 4;
        let state = State { ledger: Ledger::new(bytes), arrivals, line, favoured_until, lease };
        Arc::new(Self { state: Mutex::new(state), patience })
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
        Reservation { memory: self.clone(), payer, id, pace, ended, waited: Duration::ZERO }
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
    /// For how long it has waited for all of its pieces.
    waited: Duration,
}

impl Reservation {
    pub fn bytes(&self) -> u64 {
        self.memory.lock().ledger.held_by(self.payer, self.id)
    }

    /// Waits for `step` more bytes, of `need` that the upload may still take.
    pub async fn grow(&mut self, step: u64, need: u64) {
        let patience = self.memory.patience;
        let Some(served) = self.wait(step, need) else { return };
        let began = Instant::now();
        // Whoever has waited for a piece before does not begin anew with the next one.
        let mut next = began + patience.saturating_sub(self.waited);
        while timeout_at(next, served.notified()).await.is_err() {
            let mut state = self.memory.lock();
            if !state.line.contains(self.payer, self.id) {
                break;
            }
            let State { arrivals, ledger, line, .. } = &mut *state;
            // Others that wait take what is given back too.
            let missing =
                line.needed.max(need).saturating_sub(ledger.available(ledger.held_by(self.payer, self.id)));
            if arrivals.end_slowest(ledger, self.payer, missing, patience) {
                state.favour_first();
            }
            state.serve();
            next += patience;
        }
        self.waited += began.elapsed();
    }

    /// Takes `step` bytes, or returns what tells that they were given.
    fn wait(&mut self, step: u64, need: u64) -> Option<Arc<Notify>> {
        let mut state = self.memory.lock();
        state.end_lease();
        if state.ledger.take(self.payer, self.id, step, need).is_ok() {
            let State { ledger, line, .. } = &mut *state;
            line.update(self.payer, ledger);
            state.extend_lease(self.id);
            return None;
        }
        let State { ledger, arrivals, line, .. } = &mut *state;
        let served = Arc::new(Notify::new());
        let waiting = Waiting { step, need, served: served.clone() };
        line.push(self.payer, self.id, waiting, ledger);
        arrivals.set_waiting(self.id, true);
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
        state.ledger.favoured.take_if(|(_, favoured)| *favoured == self.id);
        state.ledger.complete(self.payer, self.id);
        state.changed(self.payer);
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
        state.changed(self.payer);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.arrivals.remove(self.id);
        let State { ledger, line, .. } = &mut *state;
        line.remove(self.payer, self.id, ledger);
        ledger.favoured.take_if(|(_, favoured)| *favoured == self.id);
        ledger.give_back(self.payer, self.id, ledger.held_by(self.payer, self.id));
        state.changed(self.payer);
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod tests;
