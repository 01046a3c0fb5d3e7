//! Newcomers that register a pod id which another socket holds: they wait until the holder shows that it is there,
//! leaves, or has been silent for too long.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    directory::Directory,
    state::{PodId, SocketId},
};

/// Newcomers that wait for one pod id.
const MAX_NEWCOMERS: usize = 16;

/// All contests, by the pod id that is contested.
#[derive(Debug, Default)]
pub struct Contests {
    by_pod: HashMap<PodId, Newcomers>,
    last: u64,
}

#[derive(Debug)]
struct Newcomers {
    number: u64,
    /// In the order in which they came.
    waiting: Vec<SocketId>,
}

/// How a newcomer was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is the first: the contest begins, under this number.
    Begun(u64),
    /// Others wait already.
    Joined,
    /// Too many wait already.
    Full,
}

impl Contests {
    /// Lets a newcomer wait for a pod id.
    pub fn enter(&mut self, pod: &PodId, newcomer: SocketId) -> Entered {
        if let Some(newcomers) = self.by_pod.get_mut(pod) {
            if newcomers.waiting.len() >= MAX_NEWCOMERS {
                return Entered::Full;
            }
            newcomers.waiting.push(newcomer);
            return Entered::Joined;
        }
        self.last += 1;
        let newcomers = Newcomers { number: self.last, waiting: vec![newcomer] };
        self.by_pod.insert(pod.clone(), newcomers);
        Entered::Begun(self.last)
    }

    /// A newcomer waits no more; a contest without newcomers is over.
    pub fn withdraw(&mut self, pod: &PodId, newcomer: SocketId) {
        if let Some(newcomers) = self.by_pod.get_mut(pod) {
            newcomers.waiting.retain(|waiting| *waiting != newcomer);
            if newcomers.waiting.is_empty() {
                self.by_pod.remove(pod);
            }
        }
    }

    /// Ends the contest for a pod id; who waited, in the order in which they came.
    pub fn end(&mut self, pod: &PodId) -> Vec<SocketId> {
        self.by_pod.remove(pod).map(|newcomers| newcomers.waiting).unwrap_or_default()
    }

    /// Whether the contest with this number still goes on.
    pub fn goes_on(&self, pod: &PodId, number: u64) -> bool {
        self.by_pod.get(pod).is_some_and(|newcomers| newcomers.number == number)
    }

    /// How many pod ids are contested.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_pod.len()
    }
}

/// A contest that has just begun.
#[derive(Debug)]
pub struct Contest {
    pub(super) directory: Arc<Directory>,
    pub(super) pod: PodId,
    pub(super) number: u64,
}

impl Contest {
    /// Replaces the holder if the contest still goes on after `patience`.
    pub async fn decide_after(self, patience: Duration) {
        sleep(patience).await;
        self.decide();
    }

    /// Replaces the holder if the contest still goes on.
    pub fn decide(self) {
        self.directory.decide(&self.pod, self.number);
    }
}
