//! Newcomers that register a pod id which another socket holds. Most wait until the holder shows that it is there,
//! leaves, or has been silent for too long. Those of the holder's own owner stand by: they stay while the holder is
//! there, which is asked again and again.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    admission::Standing,
    directory::Directory,
    state::{PodId, SocketId},
};

/// Newcomers that wait for one pod id.
const MAX_NEWCOMERS: usize = 16;
/// A holder is asked no more often than this, whatever `takeover_timeout` is.
const SHORTEST_ROUND: Duration = Duration::from_millis(50);

/// All contests, by the pod id that is contested.
#[derive(Debug, Default)]
pub struct Contests {
    by_pod: HashMap<PodId, Newcomers>,
    last: u64,
}

#[derive(Debug)]
struct Newcomers {
    number: u64,
    /// How often the holder was asked.
    round: u64,
    /// Whether the holder has not answered yet.
    asked: bool,
    /// In the order in which they came.
    waiting: Vec<Newcomer>,
}

/// A socket that waits for a pod id.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    pub socket: SocketId,
    pub standing: Standing,
    pub network: Option<IpAddr>,
}

impl Newcomer {
    /// Returns whether it stays while the holder is there.
    fn stands_by(&self) -> bool {
        matches!(self.standing, Standing::Owner(_))
    }
}

/// How a newcomer was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is the first: the contest begins, under this number, and the holder is to be asked.
    Begun(u64),
    /// Others wait already; the holder is to be asked.
    Joined,
    /// Too many wait already.
    Full,
}

/// What is to be done at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundEnd {
    /// The contest is over.
    Over,
    /// The holder did not answer in the time that it had: it is to be replaced.
    Silent,
    /// The holder has been asked, or is to be asked now (`ask`), in this round.
    Next { round: u64, ask: bool },
}

impl Contests {
    /// Lets a newcomer wait for a pod id.
    pub fn enter(&mut self, pod: &PodId, newcomer: Newcomer) -> Entered {
        if let Some(newcomers) = self.by_pod.get_mut(pod) {
            if newcomers.waiting.len() >= MAX_NEWCOMERS {
                return Entered::Full;
            }
            newcomers.waiting.push(newcomer);
            newcomers.ask();
            return Entered::Joined;
        }
        self.last += 1;
        let newcomers = Newcomers { number: self.last, round: 0, asked: true, waiting: vec![newcomer] };
        self.by_pod.insert(pod.clone(), newcomers);
        Entered::Begun(self.last)
    }

    /// A newcomer waits no more; a contest without newcomers is over.
    pub fn withdraw(&mut self, pod: &PodId, newcomer: SocketId) {
        if let Some(newcomers) = self.by_pod.get_mut(pod) {
            newcomers.waiting.retain(|waiting| waiting.socket != newcomer);
            if newcomers.waiting.is_empty() {
                self.by_pod.remove(pod);
            }
        }
    }

    /// Ends the contest for a pod id; who waited, in the order in which they came.
    pub fn end(&mut self, pod: &PodId) -> Vec<Newcomer> {
        self.by_pod.remove(pod).map(|newcomers| newcomers.waiting).unwrap_or_default()
    }

    /// The holder is there. Returns who waited in vain; those that stand by go on waiting.
    pub fn answered(&mut self, pod: &PodId) -> Vec<Newcomer> {
        let Some(newcomers) = self.by_pod.get_mut(pod) else { return Vec::new() };
        newcomers.asked = false;
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

    /// The time of a round is over for a holder that was last asked in round `seen`.
    pub fn end_round(&mut self, pod: &PodId, number: u64, seen: u64) -> RoundEnd {
        match self.by_pod.get_mut(pod) {
            Some(newcomers) if newcomers.number == number => {
                if newcomers.asked && newcomers.round == seen {
                    return RoundEnd::Silent;
                }
                let ask = newcomers.ask();
                RoundEnd::Next { round: newcomers.round, ask }
            }
            _ => RoundEnd::Over,
        }
    }

    /// Gives a holder that has not answered yet the time of another round.
    pub fn renew_round(&mut self, pod: &PodId) {
        if let Some(newcomers) = self.by_pod.get_mut(pod).filter(|newcomers| newcomers.asked) {
            newcomers.round += 1;
        }
    }

    /// How many pod ids are contested.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_pod.len()
    }
}

impl Newcomers {
    /// Begins another round, unless one goes on.
    fn ask(&mut self) -> bool {
        let ask = !self.asked;
        if ask {
            self.asked = true;
            self.round += 1;
        }
        ask
    }
}

/// A contest that has just begun.
#[derive(Debug)]
pub struct Contest {
    pub(super) directory: Arc<Directory>,
    pub(super) pod: PodId,
    pub(super) number: u64,
    /// The round in which the holder was last seen asked.
    pub(super) round: u64,
}

impl Contest {
    /// Replaces the holder once it leaves a question unanswered for `patience`, as long as anybody waits.
    pub async fn decide(mut self, patience: Duration) {
        loop {
            sleep(patience.max(SHORTEST_ROUND)).await;
            if !self.end_round() {
                return;
            }
        }
    }

    /// Ends a round. Returns whether the contest goes on.
    pub fn end_round(&mut self) -> bool {
        match self.directory.end_round(&self.pod, self.number, self.round) {
            Some(round) => {
                self.round = round;
                true
            }
            None => false,
        }
    }
}
