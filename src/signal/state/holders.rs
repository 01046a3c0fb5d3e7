//! Who holds a pod id, and how it passes to another.

use std::{collections::HashMap, iter, net::IpAddr};

use tokio::time::Instant;

use super::{PodId, Refusal, Registered, Role, SocketId, State};
use crate::signal::{
    admission::{Key, Standing},
    close::Close,
    contest::{Entered, Newcomer, RoundEnd},
    wire,
};

/// Promotions that are remembered until somebody asks.
const MAX_PROMOTED: usize = 4096;

/// The origin that holds a pod id.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub socket: SocketId,
    /// The owner key that it proved when it registered the pod id.
    pub proof: Option<Key>,
    /// The network of its client, if it is known.
    pub network: Option<IpAddr>,
    /// Whether the registration is on record.
    pub recorded: bool,
}

impl State {
    /// Makes a socket that has room an origin, or one more pod its own. Where another holds the pod id, the owner
    /// replaces it unless it proved the same key, and anybody else waits until it is known whether the holder is still
    /// there.
    pub fn register(&mut self, pod: PodId, newcomer: Newcomer) -> Result<Registered, Refusal> {
        let Some(holder) = self.origins.get(&pod).copied() else {
            self.take(newcomer, pod);
            return Ok(Registered::Holds);
        };
        if holder.socket == newcomer.socket {
            return Err(Refusal::AlreadyInitialized);
        }
        if let Standing::Owner(key) = newcomer.standing
            && holder.proof != Some(key)
        {
            self.contests.end(&pod).into_iter().for_each(|other| self.refuse(other));
            self.replace(holder.socket);
            self.take(newcomer, pod);
            return Ok(Registered::Holds);
        }
        let begun = match self.contests.enter(&pod, newcomer) {
            Entered::Full => return Err(Refusal::Held),
            Entered::Joined => None,
            Entered::Begun(number) => Some(number),
        };
        self.socket(newcomer.socket).contests = Some(pod);
        self.sockets[&holder.socket].outbox.ask();
        Ok(Registered::Waits(begun))
    }

    /// A socket was heard of: the newcomers that wait for its pod ids wait in vain, except those that stand by.
    pub fn is_there(&mut self, holder: SocketId) {
        let Role::Origin { pods, .. } = self.role(holder) else { return };
        for pod in pods.clone() {
            self.contests.answered(&pod).into_iter().for_each(|newcomer| self.refuse(newcomer));
        }
    }

    /// The time that the holder of a pod id had to show that it is there, since it was asked in round `seen`, is over.
    /// Returns the round that goes on, or `None` if the contest is over.
    pub fn end_round(&mut self, pod: &PodId, contest: u64, seen: u64) -> Option<u64> {
        match (self.contests.end_round(pod, contest, seen), self.origins.get(pod).copied()) {
            (RoundEnd::Next { round, ask }, Some(holder)) => {
                if ask {
                    self.sockets[&holder.socket].outbox.ask();
                }
                Some(round)
            }
            // Its answer may have come, but is not read yet.
            (RoundEnd::Silent, Some(holder)) if self.sockets[&holder.socket].is_registering => Some(seen),
            (RoundEnd::Silent, Some(holder)) => {
                self.replace(holder.socket);
                // Others that stand by wait for the next holder.
                Some(seen)
            }
            (RoundEnd::Over, _) | (_, None) => None,
        }
    }

    /// A registration of this socket is carried out from now on.
    pub fn begin_registration(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.is_registering = true;
        }
    }

    /// A registration of this socket is over: if it holds pod ids for which newcomers wait, it has the whole time of a round
    /// to answer.
    pub fn end_registration(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.is_registering = false;
        if let Role::Origin { pods, .. } = &socket.role {
            pods.iter().for_each(|pod| self.contests.renew_round(pod));
        }
    }

    fn take(&mut self, newcomer: Newcomer, pod: PodId) {
        let Newcomer { socket: id, standing, network } = newcomer;
        match self.role(id) {
            Role::Origin { pods, .. } => pods.push(pod.clone()),
            role => {
                let (sessions, turns) = (HashMap::new(), HashMap::new());
                *role = Role::Origin { pods: vec![pod.clone()], sessions, turns };
            }
        }
        let socket = self.socket(id);
        socket.contests = None;
        socket.outbox.tell(wire::registered(&pod));
        tracing::info!(pod_id = &*pod, "origin registered");
        self.origins
            .insert(pod.clone(), Holder { socket: id, proof: standing.proof(), network, recorded: false });
        self.recent_holders.forget(&pod);
        self.deliver_offers(id, &pod);
    }

    /// A pod id has no holder any more, which was a socket of `network`: the first who waits for it gets it.
    pub(super) fn vacate(&mut self, pod: &PodId, network: Option<IpAddr>) {
        self.origins.remove(pod);
        self.recent_holders.remember(pod, network, Instant::now());
        if let Some(first) = self.next_newcomer(pod) {
            self.take(first, pod.clone());
            if self.promoted.len() < MAX_PROMOTED {
                self.promoted.push(pod.clone());
                self.any_promoted.notify_one();
            }
        }
        self.contests.answered(pod).into_iter().for_each(|newcomer| self.refuse(newcomer));
    }

    /// Takes out the newcomer that came first and is not being closed.
    fn next_newcomer(&mut self, pod: &PodId) -> Option<Newcomer> {
        let (contests, sockets) = (&mut self.contests, &self.sockets);
        iter::from_fn(|| contests.next(pod)).find(|newcomer| !sockets[&newcomer.socket].outbox.is_closing())
    }

    fn refuse(&mut self, newcomer: Newcomer) {
        let socket = self.socket(newcomer.socket);
        socket.contests = None;
        socket.outbox.tell(wire::error(None, &Refusal::Held.to_string()));
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
        let socket = self.socket(holder);
        socket.outbox.close(Close::REPLACED);
        let network = socket.network;
        if let Role::Origin { pods, .. } = std::mem::replace(self.role(holder), Role::Replaced) {
            pods.iter().for_each(|pod| self.vacate(pod, network));
        }
    }
}
