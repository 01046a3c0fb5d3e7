//! Who holds a pod id, and how it passes to another.

use std::collections::HashMap;

use super::{PodId, Refusal, Registered, Role, SocketId, State};
use crate::signal::{admission::Standing, contest::Entered, outbox::Close, wire};

impl State {
    /// Makes a socket that has room an origin, or one more pod its own. Where another holds the pod id, an owner
    /// replaces it, and anybody else waits until it is known whether the holder is still there.
    pub fn register(&mut self, id: SocketId, pod: PodId, standing: Standing) -> Result<Registered, Refusal> {
        match (self.origins.get(&pod).copied(), standing) {
            (None, _) => {}
            (Some(holder), _) if holder == id => return Err(Refusal::AlreadyInitialized),
            (Some(holder), Standing::Owner) => {
                self.refuse_newcomers(&pod);
                self.replace(holder);
            }
            (Some(holder), Standing::Anybody | Standing::Claimant(_)) => {
                let begun = match self.contests.enter(&pod, id) {
                    Entered::Full => return Err(Refusal::Held),
                    Entered::Joined => None,
                    Entered::Begun(number) => Some(number),
                };
                self.socket(id).contests = Some(pod);
                self.sockets[&holder].outbox.ask();
                return Ok(Registered::Waits(begun));
            }
        }
        self.take(id, pod);
        Ok(Registered::Holds)
    }

    /// A socket was heard of: the newcomers that wait for its pod ids wait in vain.
    pub fn is_there(&mut self, holder: SocketId) {
        let Role::Origin { pods, .. } = self.role(holder) else { return };
        for pod in pods.clone() {
            self.refuse_newcomers(&pod);
        }
    }

    /// The time that the holder of a pod id had to show that it is there is over.
    pub fn decide(&mut self, pod: &PodId, contest: u64) {
        if let (true, Some(holder)) = (self.contests.goes_on(pod, contest), self.origins.get(pod).copied()) {
            self.replace(holder);
        }
    }

    fn take(&mut self, id: SocketId, pod: PodId) {
        match self.role(id) {
            Role::Origin { pods, .. } => pods.push(pod.clone()),
            role => *role = Role::Origin { pods: vec![pod.clone()], sessions: HashMap::new() },
        }
        let socket = self.socket(id);
        socket.contests = None;
        // A socket that does not read is closed by its outbox.
        let _ = socket.outbox.push(wire::registered(&pod));
        tracing::info!(pod_id = &*pod, "origin registered");
        self.origins.insert(pod, id);
    }

    /// A pod id has no holder any more: the first who waits for it gets it.
    pub(super) fn vacate(&mut self, pod: &PodId) {
        self.origins.remove(pod);
        let mut newcomers = self.contests.end(pod).into_iter();
        if let Some(first) = newcomers.next() {
            self.take(first, pod.clone());
        }
        newcomers.for_each(|newcomer| self.refuse(newcomer));
    }

    fn refuse_newcomers(&mut self, pod: &PodId) {
        self.contests.end(pod).into_iter().for_each(|newcomer| self.refuse(newcomer));
    }

    fn refuse(&mut self, newcomer: SocketId) {
        let socket = self.socket(newcomer);
        socket.contests = None;
        let _ = socket.outbox.push(wire::error(None, &Refusal::Held.to_string()));
        socket.outbox.close(Close::HELD);
    }

    pub(super) fn withdraw(&mut self, id: SocketId) {
        if let Some(pod) = self.socket(id).contests.take() {
            self.contests.withdraw(&pod, id);
        }
    }

    /// Takes all pods from an origin whose place another takes, and closes its socket.
    fn replace(&mut self, holder: SocketId) {
        self.withdraw(holder);
        self.end_sessions(holder);
        self.sockets[&holder].outbox.close(Close::REPLACED);
        if let Role::Origin { pods, .. } = std::mem::replace(self.role(holder), Role::Replaced) {
            pods.iter().for_each(|pod| self.vacate(pod));
        }
    }
}
