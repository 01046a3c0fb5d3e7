//! Who holds which pod id and session, and where a frame goes. The states are a table in [`crate::signal`].
//!
//! This is the one place that knows where a pod's origin is. A socket hands its frames in and finds what is meant
//! for it in its [`Outbox`]; nothing else passes between the two.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    ids::{PodId, SocketId},
    state::{State, holder_socket::HolderSocket, stop::Talk},
};
use crate::config::SignalSettings;

pub mod handled;
pub mod member;
pub mod place;
pub mod takeover;

/// All sockets, who they are and whom they talk to.
#[derive(Debug)]
pub struct Directory {
    state: Mutex<State>,
    next_socket: AtomicU64,
    /// Notified when an offer begins to wait.
    offer_waits: Notify,
    limits: ArcSwap<SignalSettings>,
}

/// How much is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Pod ids that an origin holds.
    pub origins: usize,
    /// Sessions between a visitor and an origin.
    pub sessions: usize,
}

impl Directory {
    /// An empty directory.
    pub fn new(limits: SignalSettings) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new()),
            next_socket: AtomicU64::new(0),
            offer_waits: Notify::new(),
            limits: ArcSwap::from_pointee(limits),
        })
    }

    /// The limits that hold now.
    pub fn limits(&self) -> Arc<SignalSettings> {
        self.limits.load_full()
    }

    /// Puts other limits in place; open sockets keep those of their own.
    pub fn set_limits(&self, limits: SignalSettings) {
        self.limits.store(Arc::new(limits));
    }

    /// The pod ids that are held, in no order.
    pub fn origins(&self) -> Vec<String> {
        self.lock().origins().map(ToString::to_string).collect()
    }

    /// How much is live.
    pub fn stats(&self) -> Stats {
        let state = self.lock();
        Stats { origins: state.origins().len(), sessions: state.sessions() }
    }

    /// Tells visitors `origin offline` once their offers have waited for long enough. Never returns.
    pub async fn expire_waiting_offers(&self) {
        loop {
            self.offer_waits.notified().await;
            while let Some(next) = self.expire_offers(Instant::now()) {
                sleep_until(next).await;
            }
        }
    }

    fn expire_offers(&self, now: Instant) -> Option<Instant> {
        self.lock().expire_offers(now)
    }

    /// Refuses the offers that wait, as the broker stops.
    pub(super) fn begin_stop(&self) {
        self.lock().begin_stop();
    }

    /// What the sockets do that were not sent away yet. Without any, returns `None`; then, and once the time `is_over`, sends
    /// away whoever still joins.
    pub(super) fn open_sockets(&self, is_over: bool) -> Option<Vec<(SocketId, Talk)>> {
        self.lock().open_sockets(is_over)
    }

    /// Closes a socket with 1012, as the broker stops.
    pub(super) fn send_away(&self, id: SocketId) {
        self.lock().send_away(id);
    }

    /// The origin that holds a pod id.
    pub fn holder(&self, pod: &str) -> Option<HolderSocket> {
        self.lock().holder(pod)
    }

    /// All pod ids that are held, with the origins that hold them.
    pub fn holders(&self) -> Vec<(PodId, HolderSocket)> {
        self.lock().holders().map(|(pod, holder)| (pod.clone(), *holder)).collect()
    }

    /// Concludes the registration of a pod id by a socket that holds it: it is on record, or it stays without a record, or the
    /// socket has no right to the pod id. Only then is the socket told anything, and do visitors get through to it.
    pub fn registered(&self, socket: SocketId, pod: &PodId, recorded: Result<bool, String>) {
        let mut state = self.lock();
        match recorded {
            Ok(is_recorded) => state.settle(socket, pod, is_recorded),
            Err(sentence) => state.evict(socket, pod, &sentence),
        }
    }

    /// Takes everything from a socket that has no right to a pod id that it holds, tells it why and closes it.
    pub fn evict(&self, socket: SocketId, pod: &str, sentence: &str) {
        self.lock().evict(socket, pod, sentence);
    }

    /// Returns what is notified when a newcomer that waited got its pod id: see [`Directory::take_promoted`].
    pub fn any_promoted(&self) -> Arc<Notify> {
        self.lock().any_promoted()
    }

    /// Takes the pod ids that newcomers got, with those that hold them. Their registrations are to be recorded and concluded:
    /// see [`Directory::registered`].
    pub fn take_promoted(&self) -> Vec<(PodId, HolderSocket)> {
        self.lock().take_promoted()
    }

    /// Looks at the holder of a pod id that another socket waits for. Returns when to look again, or `None` if the takeover is over.
    pub(super) fn check_holder(
        &self,
        pod: &PodId,
        takeover: u64,
        now: Instant,
        patience: Duration,
    ) -> Option<Instant> {
        self.lock().check_holder(pod, takeover, now, patience)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod tests;
