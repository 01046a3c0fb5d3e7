//! Newcomers that register a pod id which another socket holds. Most wait until the holder shows that it is there,
//! leaves, or has been silent for too long. Those of the holder's own owner stand by: they stay while the holder is
//! there, which is asked again and again.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{
    entitlement::Entitlement,
    ids::{PodId, SocketId},
};
use crate::net::network::ClientNetwork;

/// Newcomers that wait for one pod id.
const MAX_NEWCOMERS: usize = 16;
/// All takeovers, by pod id.
#[derive(Debug, Default)]
pub struct Takeovers {
    by_pod: HashMap<PodId, Newcomers>,
    last: u64,
}

#[derive(Debug)]
struct Newcomers {
    number: u64,
    /// When the first ping was sent that the holder has not answered yet.
    pinged: Option<Instant>,
    /// In the order in which they came.
    waiting: Vec<Newcomer>,
}

/// A socket that waits for a pod id.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    pub socket: SocketId,
    pub entitlement: Entitlement,
    pub network: ClientNetwork,
}

impl Newcomer {
    /// Returns whether it stays while the holder is there.
    fn stands_by(&self) -> bool {
        matches!(self.entitlement, Entitlement::Owner(_))
    }
}

/// How a newcomer was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is the first: the takeover begins, under this number, and the holder is to be pinged.
    Begun(u64),
    /// Others wait already; the holder is to be pinged.
    Joined,
    /// Too many wait already.
    Full,
}

/// What is to be done about a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing: the takeover is over.
    Over,
    /// It did not answer in the time that it had: it is to be replaced.
    Silent,
    /// It is to be pinged.
    Ping,
    /// It was pinged, and has until then to answer.
    Wait(Instant),
}

impl Takeovers {
    /// Lets a newcomer wait for a pod id.
    pub fn enter(&mut self, pod: &PodId, newcomer: Newcomer, now: Instant) -> Entered {
        if let Some(newcomers) = self.by_pod.get_mut(pod) {
            if newcomers.waiting.len() >= MAX_NEWCOMERS {
                return Entered::Full;
            }
            newcomers.waiting.push(newcomer);
            newcomers.pinged.get_or_insert(now);
            return Entered::Joined;
        }
        self.last += 1;
        let newcomers = Newcomers { number: self.last, pinged: Some(now), waiting: vec![newcomer] };
        self.by_pod.insert(pod.clone(), newcomers);
        Entered::Begun(self.last)
    }

    /// A newcomer waits no more; a takeover without newcomers is over.
    pub fn withdraw(&mut self, pod: &PodId, newcomer: SocketId) {
        if let Some(newcomers) = self.by_pod.get_mut(pod) {
            newcomers.waiting.retain(|waiting| waiting.socket != newcomer);
            if newcomers.waiting.is_empty() {
                self.by_pod.remove(pod);
            }
        }
    }

    /// Ends the takeover for a pod id; who waited, in the order in which they came.
    pub fn end(&mut self, pod: &PodId) -> Vec<Newcomer> {
        self.by_pod.remove(pod).map(|newcomers| newcomers.waiting).unwrap_or_default()
    }

    /// The holder is there. Returns who waited in vain; those that stand by go on waiting.
    pub fn answered(&mut self, pod: &PodId) -> Vec<Newcomer> {
        let Some(newcomers) = self.by_pod.get_mut(pod) else { return Vec::new() };
        newcomers.pinged = None;
        let refused = newcomers.waiting.extract_if(.., |newcomer| !newcomer.stands_by()).collect();
        if newcomers.waiting.is_empty() {
            self.by_pod.remove(pod);
        }
        refused
    }

    /// Takes out the newcomer that came first.
    pub fn next(&mut self, pod: &PodId) -> Option<Newcomer> {
        let first = self.by_pod.get(pod)?.waiting.first().copied()?;
        self.withdraw(pod, first.socket);
        Some(first)
    }

    /// Looks at the holder of a pod id, which counts as silent `patience` after the first ping that it did not answer.
    pub fn check(&mut self, pod: &PodId, number: u64, now: Instant, patience: Duration) -> Check {
        match self.by_pod.get_mut(pod) {
            Some(newcomers) if newcomers.number == number => match newcomers.pinged {
                Some(pinged) if pinged + patience <= now => Check::Silent,
                Some(pinged) => Check::Wait(pinged + patience),
                None => {
                    newcomers.pinged = Some(now);
                    Check::Ping
                }
            },
            _ => Check::Over,
        }
    }

    /// Gives a holder that has not answered yet the whole time again.
    pub fn renew(&mut self, pod: &PodId, now: Instant) {
        if let Some(pinged) = self.by_pod.get_mut(pod).and_then(|newcomers| newcomers.pinged.as_mut()) {
            *pinged = now;
        }
    }

    /// Returns how many pod ids others wait for.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_pod.len()
    }
}
