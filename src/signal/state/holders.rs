//! Who holds a pod id, and how it passes to another.

use std::{collections::HashMap, iter, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{
    Refusal, Registered, Role, State,
    holder_socket::{HolderSocket, Record},
};
use crate::{
    printable::shown,
    signal::{
        close::Close,
        entitlement::Entitlement,
        ids::{PodId, SocketId},
        takeovers::{Check, Entered, Newcomer},
        wire,
    },
};

/// How many times a holder is pinged in the time after which it counts as silent.
const PINGS: u32 = 4;

impl State {
    /// Makes a new socket an origin. Where another holds the pod id, the owner
    /// replaces it unless it proved the same key, and anybody else waits until it is known whether the holder is still
    /// there.
    pub fn register(&mut self, pod: PodId, newcomer: Newcomer) -> Result<Registered, Refusal> {
        self.may_register(newcomer.socket)?;
        let Some(holder) = self.origins.get(&pod).copied() else {
            self.take(newcomer, pod);
            return Ok(Registered::Holds);
        };
        if let Entitlement::Owner(key) = newcomer.entitlement
            && holder.proof != Some(key)
        {
            self.takeovers.end(&pod).into_iter().for_each(|other| self.refuse(other));
            self.expel(holder.socket, Close::REPLACED, None);
            self.take(newcomer, pod);
            return Ok(Registered::Holds);
        }
        let begun = match self.takeovers.enter(&pod, newcomer, Instant::now()) {
            Entered::Full => return Err(Refusal::Held),
            Entered::Joined => None,
            Entered::Begun(number) => Some(number),
        };
        self.socket(newcomer.socket).awaits = Some(pod);
        self.sockets[&holder.socket].outbox.ask();
        Ok(Registered::Waits(begun))
    }

    /// A socket was heard of: the newcomers that wait for its pod id wait in vain, except those that stand by.
    pub fn is_there(&mut self, holder: SocketId) {
        let Role::Origin { pod, .. } = self.role(holder) else { return };
        let pod = pod.clone();
        self.takeovers.answered(&pod).into_iter().for_each(|newcomer| self.refuse(newcomer));
    }

    /// Looks at the holder of a pod id that another socket waits for: pings it, or expels it if nothing came from it for `patience` since it was
    /// pinged. Returns when to look again, or `None` if the takeover is over.
    pub fn check_holder(
        &mut self,
        pod: &PodId,
        takeover: u64,
        now: Instant,
        patience: Duration,
    ) -> Option<Instant> {
        let holder = self.origins.get(pod)?.socket;
        let next_ping = now + patience / PINGS;
        match self.takeovers.check(pod, takeover, now, patience) {
            Check::Over => None,
            Check::Ping => {
                self.sockets[&holder].outbox.ask();
                Some(next_ping)
            }
            Check::Wait(deadline) => Some(deadline.min(next_ping)),
            // Its answer may have come, but is not read yet.
            Check::Silent if self.sockets[&holder].is_registering => Some(next_ping),
            Check::Silent => {
                self.expel(holder, Close::REPLACED, None);
                // Others that stand by wait for the next holder.
                Some(now)
            }
        }
    }

    /// A registration of this socket is carried out from now on.
    pub fn begin_registration(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.is_registering = true;
        }
    }

    /// A registration of this socket is over: if it holds a pod id for which newcomers wait, it has the whole time
    /// to answer again.
    pub fn end_registration(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.is_registering = false;
        if let Role::Origin { pod, .. } = &socket.role {
            self.takeovers.renew(pod, Instant::now());
        }
    }

    /// Gives a newcomer a pod id that nobody holds, until its registration is recorded: see [`State::settle`].
    fn take(&mut self, newcomer: Newcomer, pod: PodId) {
        let Newcomer { socket: id, entitlement, network } = newcomer;
        *self.role(id) = Role::Origin { pod: pod.clone(), sessions: HashMap::new(), turns: HashMap::new() };
        self.socket(id).awaits = None;
        let holder =
            HolderSocket { socket: id, proof: entitlement.proof(), network, record: Record::Pending };
        self.origins.insert(pod, holder);
    }

    /// The registration of a pod id by this socket stays, and is on record if `is_recorded`: its client is told so, and
    /// visitors get through to it.
    pub fn settle(&mut self, id: SocketId, pod: &PodId, is_recorded: bool) {
        let Some(holder) = self.origins.get_mut(pod).filter(|holder| holder.socket == id) else { return };
        let was_pending = holder.record == Record::Pending;
        match is_recorded {
            true => holder.record = Record::Written,
            false if was_pending => holder.record = Record::Missing,
            false => {}
        }
        if was_pending {
            self.sockets[&id].outbox.tell(wire::registered(pod));
            tracing::info!(pod_id = &*shown(pod), "origin registered");
            self.recent_holders.forget(pod);
            self.deliver_offers(id, pod);
        }
    }

    /// A pod id has no holder any more, which was a socket of `network`: the first who waits for it gets it. Returns who
    /// waits in vain.
    pub(super) fn vacate(&mut self, pod: &PodId, network: Option<IpAddr>) -> Vec<Newcomer> {
        tracing::info!(pod_id = &*shown(pod), "origin left");
        self.origins.remove(pod);
        self.promoted.remove(pod);
        self.recent_holders.remember(pod, network, Instant::now());
        if let Some(first) = self.next_newcomer(pod) {
            self.take(first, pod.clone());
            self.promoted.insert(pod.clone());
            self.any_promoted.notify_one();
        }
        self.takeovers.answered(pod)
    }

    /// Takes out the newcomer that came first and is not being closed.
    fn next_newcomer(&mut self, pod: &PodId) -> Option<Newcomer> {
        let (takeovers, sockets) = (&mut self.takeovers, &self.sockets);
        iter::from_fn(|| takeovers.next(pod)).find(|newcomer| !sockets[&newcomer.socket].outbox.is_closing())
    }

    pub(super) fn refuse(&mut self, newcomer: Newcomer) {
        let held = wire::error(None, &Refusal::Held.to_string());
        self.expel(newcomer.socket, Close::HELD, Some(held));
    }

    pub(super) fn withdraw(&mut self, id: SocketId) {
        if let Some(pod) = self.socket(id).awaits.take() {
            self.takeovers.withdraw(&pod, id);
        }
    }

    /// Takes everything from a socket that lost a right or was refused one, and closes it: of what waits for it, it is sent
    /// nothing, and of what it sends nothing is passed on. Does nothing if it has left.
    pub fn expel(&mut self, id: SocketId, close: Close, told: Option<String>) {
        let Some(socket) = self.sockets.get(&id) else { return };
        socket.outbox.expel(close, told);
        // Newcomers hold nothing that others wait for.
        self.strip(id).into_iter().for_each(|newcomer| self.refuse(newcomer));
    }
}
