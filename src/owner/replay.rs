//! What was taken once and is not taken again: nonces of signed requests, and, in a memory of their own, names of tokens.
//!
//! The memory is bounded and does not outlive the process. What was made before the process, or so little after its
//! start that a former process could have taken it from a clock that runs ahead, is refused: so nothing is taken
//! twice across a restart either. The start is dated by the latest of three times, so that no clock brings anything back:
//! what the clock shows at the start, what it shows later less the time that the process has been running, and the
//! [`AcceptanceTime`] that former processes left.
//!
//! Anybody can make a key and sign with it. So what is remembered for keys that own nothing here has at most half of the
//! room, and a client network may take at most as much as it leaves of what is left: a flood leaves the owners their
//! half. Where others have used up that too, an owner's next request is taken if it was made after all that was taken of
//! its key: for that, one time is remembered in place of each name.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};

use super::{
    acceptance::AcceptanceTime,
    sender::Sender,
    time::{Utc, seconds},
    token::LEEWAY,
};
use crate::pods::{OwnerKey, RegistryError};

/// Seconds that the clock of the signer of a request may run ahead.
pub const AHEAD: u64 = 10;
/// Total of the names that are remembered: about 20 MB.
const MAX_NAMES: usize = 65_536;
/// Keys of which something was taken while the memory was full.
const MAX_LATEST: usize = 65_536;
/// Names that are remembered for one key.
const MAX_FOR_KEY: u32 = 1024;
/// Names that are remembered for one client network at most, of keys that own something here, and of others.
const MAX_FOR_NETWORK: usize = 4096;

/// The names that were taken, until they would be refused for their age.
#[derive(Debug)]
pub struct Replay {
    /// Seconds that the clock of a signer may run ahead.
    ahead: u64,
    /// Names that are remembered.
    room: usize,
    taken: Mutex<Taken>,
    acceptance_time: AcceptanceTime,
}

#[derive(Debug, Default)]
struct Taken {
    /// From whom each came.
    names: HashMap<Name, Sender>,
    by_end: BTreeSet<(u64, Name)>,
    for_key: HashMap<OwnerKey, OfKey>,
    /// The latest of what was taken of a key while the memory was full.
    latest_of_key: HashMap<OwnerKey, Latest>,
    for_sender: HashMap<Sender, u32>,
    /// How many of them came from keys that own nothing here.
    of_strangers: usize,
    /// When the process started, by the latest of all clocks that told; not before former ones accepted anything.
    started: u64,
    /// The latest time that was seen: a clock that is set back brings nothing back.
    latest: u64,
}

type Name = (OwnerKey, [u8; 32]);

/// What is remembered of one key.
#[derive(Debug, Default)]
struct OfKey {
    names: u32,
    /// When the latest of them was made.
    latest: u64,
}

/// Nothing that was made earlier is taken, until all that was taken is over.
#[derive(Clone, Copy, Debug)]
struct Latest {
    made: u64,
    ends: u64,
}

/// Something that is taken once.
#[derive(Clone, Copy, Debug)]
pub struct Once<'a> {
    /// Who signed it.
    pub key: OwnerKey,
    /// Its name among those of the key.
    pub name: &'a str,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// From when on it is refused for its age, in seconds since 1970.
    pub ends: u64,
    /// Who sends it.
    pub from: Sender,
}

/// Why it is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It was taken before.
    #[error("this was taken once already: sign another one, with a nonce or jti of its own")]
    Again,
    /// It ends before it could be remembered.
    #[error("this has expired: sign another one")]
    Over,
    /// It was made in the future.
    #[error(
        "this broker's clock shows {shows}, and this was signed for a time more than {allowed} seconds later: set the clock that is wrong"
    )]
    Ahead {
        /// Seconds that the clock of a signer may run ahead.
        allowed: u64,
        /// The clock of the broker.
        shows: Utc,
    },
    /// A former process may have taken it.
    /// Seconds by which the next one must be dated later.
    #[error(
        "this was signed before the broker was up: run the command again, or sign another one, {0} seconds later or more"
    )]
    BeforeStart(u64),
    /// The clock of the broker is behind or was ahead, so that nothing tells it from what may have been taken before.
    #[error(
        "this broker's clock shows {shows}, but showed {before} before, and until then nothing signed is accepted. Its operator has to set the clock or, if it is right now, to stop the broker and its sockets, run `gemmapod-signal reset-clock` with the broker's --config or --data-dir, and start it again"
    )]
    Clock {
        /// What it shows now.
        shows: Utc,
        /// The latest that it showed.
        before: Utc,
    },
    /// The key has used too many names.
    #[error("this key has signed {MAX_FOR_KEY} requests within minutes: wait a little")]
    TooManyForKey,
    /// The client network has used too many names.
    #[error("too many signed requests came from this network within minutes: wait a little")]
    TooManyForNetwork,
    /// The memory is full.
    #[error("too many signed requests: try again in some minutes")]
    Full,
}

/// Why something was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] ReplayError),
    /// The registry failed to keep the time, so that a later process could accept it again.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Replay {
    /// An empty memory for signed requests of a process that starts now.
    pub fn new(now: SystemTime, acceptance_time: AcceptanceTime) -> Self {
        let started = seconds(now).max(acceptance_time.seconds());
        let taken = Taken { started, ..Taken::default() };
        Self { ahead: AHEAD, room: MAX_NAMES, taken: Mutex::new(taken), acceptance_time }
    }

    /// The same for owner tokens, which may be made by clocks that are further ahead.
    pub fn of_tokens(now: SystemTime, acceptance_time: AcceptanceTime) -> Self {
        Self { ahead: LEEWAY.as_secs(), ..Self::new(now, acceptance_time) }
    }

    /// Accepts something that neither this process nor a former one has accepted, so that no later one does. The process
    /// has been `running` for as long.
    ///
    /// # Errors
    ///
    /// Returns an error if it was or may have been accepted before, or if that cannot be remembered.
    pub async fn accept(
        &self,
        once: &Once<'_>,
        now: SystemTime,
        running: Duration,
    ) -> Result<(), NotAccepted> {
        let latest = self.take(once, now, running)?;
        Ok(self.acceptance_time.cover(once.made.saturating_sub(self.ahead), latest).await?)
    }

    /// Remembers something, if it was not taken before. Returns the latest time that was seen.
    fn take(&self, once: &Once<'_>, now: SystemTime, running: Duration) -> Result<u64, ReplayError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.started = taken.started.max(now.checked_sub(running).map_or(0, seconds));
        let present = seconds(now);
        let now = taken.forget(present);
        let (shows, before) = (Utc(present), now.max(taken.started));
        let is_wrong = before > present.saturating_add(self.ahead);
        let because =
            |error| if is_wrong { ReplayError::Clock { shows, before: Utc(before) } } else { error };
        if once.made > now.saturating_add(self.ahead) {
            return Err(because(ReplayError::Ahead { allowed: self.ahead, shows }));
        }
        let earliest = taken.started.saturating_add(self.ahead).saturating_add(1);
        if once.made < earliest {
            return Err(because(ReplayError::BeforeStart(earliest - once.made)));
        }
        if once.ends <= now {
            return Err(because(ReplayError::Over));
        }
        let name = (once.key, Sha256::digest(once.name).into());
        if taken.names.contains_key(&name) {
            return Err(ReplayError::Again);
        }
        if taken
            .latest_of_key
            .get(&once.key)
            .is_some_and(|latest| once.made <= latest.made && now < latest.ends)
        {
            return Err(ReplayError::Full);
        }
        match taken.has_room(once, self.room) {
            Err(ReplayError::Full) if once.from.is_owner => return taken.take_latest(once).map(|()| now),
            room => room?,
        }
        let of_key = taken.for_key.entry(once.key).or_default();
        of_key.names += 1;
        of_key.latest = of_key.latest.max(once.made);
        *taken.for_sender.entry(once.from).or_default() += 1;
        taken.of_strangers += usize::from(!once.from.is_owner);
        taken.names.insert(name, once.from);
        taken.by_end.insert((once.ends, name));
        Ok(now)
    }
}

impl Taken {
    /// Forgets what is over; the time that holds.
    fn forget(&mut self, now: u64) -> u64 {
        self.latest = self.latest.max(now);
        while let Some((ends, name)) = self.by_end.first().copied() {
            if ends > self.latest {
                break;
            }
            self.by_end.pop_first();
            if let Some(of_key) = self.for_key.get_mut(&name.0) {
                of_key.names -= 1;
                if of_key.names == 0 {
                    self.for_key.remove(&name.0);
                }
            }
            if let Some(from) = self.names.remove(&name) {
                if let Some(names) = self.for_sender.get_mut(&from) {
                    *names -= 1;
                    if *names == 0 {
                        self.for_sender.remove(&from);
                    }
                }
                self.of_strangers -= usize::from(!from.is_owner);
            }
        }
        self.latest
    }

    /// Takes something of a key that owns something here without room for its name.
    fn take_latest(&mut self, once: &Once<'_>) -> Result<(), ReplayError> {
        if self.for_key.get(&once.key).is_some_and(|of_key| once.made <= of_key.latest) {
            return Err(ReplayError::Full);
        }
        if self.latest_of_key.len() >= MAX_LATEST && !self.latest_of_key.contains_key(&once.key) {
            let now = self.latest;
            self.latest_of_key.retain(|_, latest| now < latest.ends);
            if self.latest_of_key.len() >= MAX_LATEST {
                return Err(ReplayError::Full);
            }
        }
        let latest = self.latest_of_key.entry(once.key).or_insert(Latest { made: 0, ends: 0 });
        *latest = Latest { made: once.made, ends: latest.ends.max(once.ends) };
        Ok(())
    }

    fn has_room(&self, once: &Once<'_>, room: usize) -> Result<(), ReplayError> {
        let mut left = room - self.names.len();
        if !once.from.is_owner {
            left = left.min(room / 2 - self.of_strangers);
        }
        if left == 0 {
            return Err(ReplayError::Full);
        }
        if self.for_key.get(&once.key).is_some_and(|of_key| of_key.names >= MAX_FOR_KEY) {
            return Err(ReplayError::TooManyForKey);
        }
        let of_network = self.for_sender.get(&once.from).map_or(0, |names| *names as usize);
        if of_network >= MAX_FOR_NETWORK {
            return Err(ReplayError::TooManyForNetwork);
        }
        if of_network >= left {
            return Err(ReplayError::Full);
        }
        Ok(())
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
