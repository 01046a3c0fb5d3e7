//! Which pods go where room is short, and how far. Only pods whose grace is over count: whoever floods a broker with new
//! ones makes it delete none of the others.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::SystemTime,
};

use super::rules::{JanitorRules, Moment, age, used_at};
use crate::pods::{Digest, PodRecord, Slug};

/// The pods whose grace is over, and what they take.
#[derive(Default)]
pub struct Room {
    bytes: u64,
    /// How many of them have the same bytes, which are kept once.
    blobs: HashMap<Digest, u32>,
    candidates: BinaryHeap<Reverse<Candidate>>,
}

/// A pod that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    rank: Rank,
    pub slug: Slug,
    digest: Digest,
    bytes: u64,
}

/// Which pods go before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Those that were not used for the grace time.
    Idle { is_signed: bool, used: SystemTime },
    /// By their last use alone: anybody can make a key and sign uploads with it, which must not outweigh the visitors of
    /// a pod.
    InUse(SystemTime),
}

impl Room {
    /// Counts a pod whose grace is over.
    pub fn add(&mut self, record: &PodRecord, rules: &JanitorRules, now: Moment) {
        let of_blob = self.blobs.entry(record.digest).or_default();
        *of_blob += 1;
        if *of_blob == 1 {
            self.bytes += record.blob_size;
        }
        self.candidates.extend(Candidate::of(record, rules, now).map(Reverse));
    }

    /// Returns how many bytes the pods take that are counted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the pod that goes next. It is still counted.
    pub fn pop(&mut self) -> Option<Candidate> {
        self.candidates.pop().map(|Reverse(candidate)| candidate)
    }

    /// Counts a pod no more that is not there any more, or not for long.
    pub fn forget(&mut self, candidate: &Candidate) {
        let Some(of_blob) = self.blobs.get_mut(&candidate.digest) else { return };
        *of_blob -= 1;
        if *of_blob == 0 {
            self.blobs.remove(&candidate.digest);
            self.bytes -= candidate.bytes;
        }
    }
}

impl Candidate {
    /// Returns `None` for a pod whose last use is not known.
    pub fn of(record: &PodRecord, rules: &JanitorRules, now: Moment) -> Option<Self> {
        let used = used_at(record)?;
        let rank = match age(used, now.date) < rules.grace {
            true => Rank::InUse(used),
            false => Rank::Idle { is_signed: record.upload_signed, used },
        };
        Some(Self { rank, slug: record.slug, digest: record.digest, bytes: record.blob_size })
    }
}
