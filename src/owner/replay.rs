//! What was taken once and is not taken again: nonces of signed requests, and, in a memory of their own, names of tokens.
//!
//! The memory is bounded and does not outlive the process. What was made before the process, or so little after its
//! start that a former process could have taken it from a clock that runs ahead, is refused: so nothing is taken
//! twice across a restart either. The start is dated by how long the process has been running: a clock that is behind
//! at the start and put right later brings nothing back.
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

use super::{sender::Sender, time::seconds, token::LEEWAY};
use crate::pods::OwnerKey;

/// Seconds that the clock of the signer of a request may run ahead.
pub const AHEAD: u64 = 10;
/// Total of the names that are remembered: about 20 MB.
const MAX_NAMES: usize = 65_536;
/// Keys of which something was taken while the memory was full.
const MAX_LATEST: usize = 16_384;
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
    /// When the process started, by the latest of all clocks that told.
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
    #[error("this was taken once already: sign again with another nonce")]
    Again,
    /// It ends before it could be remembered.
    #[error("this has expired: sign again")]
    Over,
    /// It was made in the future.
    #[error("this was signed by a clock that runs more than {0} seconds ahead: set the clock")]
    Ahead(u64),
    /// A former process may have taken it.
    #[error("this was signed before the broker was up: sign again in {0} seconds")]
    BeforeStart(u64),
    /// The clock of the broker was ahead, so that nothing tells it from what a former process may have taken.
    #[error(
        "the clock of this broker was ahead and was set back: it takes signed requests again in {0} seconds, or once its operator has restarted it"
    )]
    ClockWasAhead(u64),
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

impl Replay {
    /// An empty memory for signed requests of a process that starts now.
    pub fn new(now: SystemTime) -> Self {
        let taken = Taken { started: seconds(now), ..Taken::default() };
        Self { ahead: AHEAD, room: MAX_NAMES, taken: Mutex::new(taken) }
    }

    /// The same for owner tokens, which may be made by clocks that are further ahead.
    pub fn of_tokens(now: SystemTime) -> Self {
        Self { ahead: LEEWAY.as_secs(), ..Self::new(now) }
    }

    /// Takes something, if it was not taken before. The process has been `running` for as long.
    ///
    /// # Errors
    ///
    /// It was, or might have been, or cannot be remembered.
    pub fn take(&self, once: &Once<'_>, now: SystemTime, running: Duration) -> Result<(), ReplayError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.started = taken.started.max(seconds(now).saturating_sub(running.as_secs()));
        let present = seconds(now);
        let now = taken.forget(present);
        let ahead = now.max(taken.started).saturating_sub(present);
        let too_old = |error| if ahead > self.ahead { ReplayError::ClockWasAhead(ahead) } else { error };
        if once.made > now.saturating_add(self.ahead) {
            return Err(ReplayError::Ahead(self.ahead));
        }
        if once.made <= taken.started.saturating_add(self.ahead) {
            return Err(too_old(ReplayError::BeforeStart(self.ahead)));
        }
        if once.ends <= now {
            return Err(too_old(ReplayError::Over));
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
            Err(ReplayError::Full) if once.from.is_owner => return taken.take_latest(once),
            room => room?,
        }
        let of_key = taken.for_key.entry(once.key).or_default();
        of_key.names += 1;
        of_key.latest = of_key.latest.max(once.made);
        *taken.for_sender.entry(once.from).or_default() += 1;
        taken.of_strangers += usize::from(!once.from.is_owner);
        taken.names.insert(name, once.from);
        taken.by_end.insert((once.ends, name));
        Ok(())
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
mod tests {
    use std::{collections::HashSet, net::Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A memory whose process started when the clock told that, and was right.
    struct Started(Replay, SystemTime);

    impl Started {
        fn new(now: SystemTime) -> Self {
            Self(Replay::new(now), now)
        }

        fn take(&self, once: &Once<'_>, now: SystemTime) -> Result<(), ReplayError> {
            self.0.take(once, now, now.duration_since(self.1).unwrap_or_default())
        }
    }

    fn once(key: u8, name: &str, made: u64) -> Once<'_> {
        Once { key: OwnerKey([key; 32]), name, made, ends: made + 300, from: sender(key, true) }
    }

    fn sender(network: u8, is_owner: bool) -> Sender {
        Sender::new(Some([192, 0, 2, network].into()), is_owner)
    }

    #[test]
    fn a_name_is_taken_once_for_each_key() {
        let replay = Started::new(at(1000));
        assert_eq!(replay.take(&once(1, "a", 2000), at(2000)), Ok(()));
        assert_eq!(replay.take(&once(1, "a", 2000), at(2001)), Err(ReplayError::Again));
        assert_eq!(replay.take(&once(1, "a", 2001), at(2001)), Err(ReplayError::Again));
        assert_eq!(replay.take(&once(2, "a", 2000), at(2001)), Ok(()));
        assert_eq!(replay.take(&once(1, "b", 2000), at(2001)), Ok(()));
        assert_eq!(replay.take(&once(1, "a", 2000), at(2300)), Err(ReplayError::Over));
        assert_eq!(replay.take(&once(1, "a", 2250), at(2300)), Ok(()));
        assert_eq!(replay.take(&once(1, "c", 2311), at(2300)), Err(ReplayError::Ahead(AHEAD)));
        assert_eq!(
            Started::new(at(2000)).take(&once(1, "d", 2010), at(2000)),
            Err(ReplayError::BeforeStart(AHEAD))
        );
    }

    /// A former process may have taken whatever was made before the clock was put right.
    #[test]
    fn a_clock_that_is_put_right_after_the_start_brings_nothing_back() {
        let (behind, running) = (Replay::new(at(1000)), Duration::from_secs(20));
        let made = |made| behind.take(&once(1, "a", made), at(4600), running);
        assert_eq!(made(4570), Err(ReplayError::BeforeStart(AHEAD)));
        assert_eq!(made(4580 + AHEAD), Err(ReplayError::BeforeStart(AHEAD)));
        assert_eq!(made(4600), Ok(()));
    }

    /// Who is refused is told whose clock was wrong, and is not told to sign again in vain.
    #[test]
    fn a_clock_that_was_ahead_is_said_to_be_why() {
        let (at_start, later) = (Replay::new(at(4600)), Replay::new(at(0)));
        later.take(&once(1, "a", 4600), at(4600), Duration::from_secs(4600)).unwrap();
        for replay in [at_start, later] {
            let made = |made| replay.take(&once(1, "b", made), at(made), Duration::from_secs(100));
            assert_eq!(made(1000), Err(ReplayError::ClockWasAhead(3600)));
            assert_eq!(made(1600), Err(ReplayError::ClockWasAhead(3000)));
            assert_eq!(made(4700), Ok(()));
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let replay = Started::new(at(0));
        for name in 0..MAX_FOR_KEY {
            assert_eq!(replay.take(&once(1, &name.to_string(), 100), at(100)), Ok(()));
        }
        assert_eq!(replay.take(&once(1, "x", 100), at(100)), Err(ReplayError::TooManyForKey));
        for key in 2..=63 {
            for name in 0..MAX_FOR_KEY {
                assert_eq!(replay.take(&once(key, &name.to_string(), 100), at(100)), Ok(()));
            }
        }
        // Each network takes at most as much as it leaves.
        for (key, room) in (64..).zip([512, 256, 128, 64, 32, 16, 8, 4, 2, 1]) {
            for name in 0..room {
                assert_eq!(replay.take(&once(key, &name.to_string(), 100), at(100)), Ok(()));
            }
            assert_eq!(replay.take(&once(key, "x", 100), at(100)), Err(ReplayError::Full));
        }
        assert_eq!(replay.take(&once(80, "x", 100), at(100)), Ok(()));
        let stranger = Once { from: sender(81, false), ..once(81, "x", 100) };
        assert_eq!(replay.take(&stranger, at(100)), Err(ReplayError::Full));
        assert_eq!(replay.take(&once(1, "x", 400), at(400)), Ok(()));
        assert_eq!(replay.0.taken.lock().unwrap().for_key.len(), 1);
    }

    #[test]
    fn a_token_may_be_made_by_a_clock_that_is_further_ahead() {
        let tokens = Started(Replay::of_tokens(at(1000)), at(1000));
        assert_eq!(tokens.take(&once(1, "a", 2040), at(2000)), Ok(()));
        assert_eq!(tokens.take(&once(1, "a", 2040), at(2050)), Err(ReplayError::Again));
        assert_eq!(tokens.take(&once(1, "b", 2141), at(2050)), Err(ReplayError::Ahead(90)));
    }

    /// Whoever makes a key for each request fills its network's part, and strangers together their half.
    #[test]
    fn a_flood_of_keys_leaves_the_owners_their_room() {
        let replay = Started::new(at(0));
        let take = |network: u8, key: u32, is_owner| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&key.to_be_bytes());
            let once = Once { key: OwnerKey(bytes), from: sender(network, is_owner), ..once(0, "x", 100) };
            replay.take(&once, at(100))
        };
        let flood = |network, keys: std::ops::Range<u32>, is_owner| {
            keys.map(|key| take(network, key, is_owner)).take_while(Result::is_ok).count()
        };
        assert_eq!(flood(1, 0..5000, false), MAX_FOR_NETWORK);
        assert_eq!(take(1, 5000, false), Err(ReplayError::TooManyForNetwork));
        assert_eq!(take(1, 5000, true), Ok(()), "an owner in the same network");
        for network in 2..=100 {
            flood(network, u32::from(network) << 16..(u32::from(network) << 16) + 5000, false);
        }
        assert_eq!(take(101, 0x0100_0000, false), Err(ReplayError::Full));
        assert_eq!(flood(101, 0x0100_0000..0x0100_0000 + 5000, true), MAX_FOR_NETWORK);
        // Owners may flood too: whoever comes late finds something still.
        for network in 102..=140 {
            let first = u32::from(network) << 16;
            assert_eq!(take(network, first, true), Ok(()));
            flood(network, first..first + 100, true);
        }
    }

    /// Where owners have used up everything, each key has what it makes later and later.
    #[test]
    fn an_owner_is_served_however_many_others_flood() {
        let replay = Started(Replay { room: 8, ..Replay::new(at(0)) }, at(0));
        for key in 1..=8 {
            assert_eq!(replay.take(&once(key, "x", 100), at(100)), Ok(()));
        }
        for key in 9..=200 {
            assert_eq!(replay.take(&once(key, "a", 100), at(100)), Ok(()));
            assert_eq!(replay.take(&once(key, "a", 100), at(100)), Err(ReplayError::Full), "again");
            assert_eq!(replay.take(&once(key, "b", 99), at(100)), Err(ReplayError::Full), "perhaps again");
            assert_eq!(replay.take(&once(key, "b", 101), at(101)), Ok(()));
        }
        assert_eq!(replay.take(&once(1, "y", 100), at(101)), Err(ReplayError::Full), "perhaps again");
        assert_eq!(replay.take(&once(1, "y", 101), at(101)), Ok(()));
        let stranger = Once { from: sender(201, false), ..once(201, "x", 101) };
        assert_eq!(replay.take(&stranger, at(101)), Err(ReplayError::Full));
        assert_eq!(replay.take(&once(9, "b", 101), at(401)), Err(ReplayError::Over));
        assert_eq!(replay.take(&once(9, "c", 101 + 1), at(401)), Ok(()));
    }

    /// A customer of IPv6 has any number of /64s.
    #[test]
    fn the_networks_of_one_site_share_their_room() {
        let replay = Started::new(at(0));
        let take = |network: u128, key: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&key.to_be_bytes());
            let from = Sender::new(Some(Ipv6Addr::from(network).into()), true);
            replay.take(&Once { key: OwnerKey(bytes), from, ..once(0, "x", 100) }, at(100))
        };
        let site = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0));
        let taken = (0..40_000_u32).take_while(|n| take(site + (u128::from(*n) << 64), *n).is_ok()).count();
        assert_eq!(taken, MAX_FOR_NETWORK);
        assert_eq!(take(site + (1 << 80), 50_000), Ok(()));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Pass(u64),
        SetBack(u64),
        Restart,
        /// A restart with a clock that is behind, and put right before anything is shown but one other thing.
        RestartBehind(u64),
        Show {
            name: u8,
            made: i64,
        },
        ShowAgain(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (1_u64..200).prop_map(Event::Pass),
            1 => (1_u64..400).prop_map(Event::SetBack),
            1 => Just(Event::Restart),
            1 => (1_u64..4000).prop_map(Event::RestartBehind),
            5 => (any::<u8>(), -320_i64..20).prop_map(|(name, made)| Event::Show { name, made }),
            5 => any::<usize>().prop_map(Event::ShowAgain),
        ]
    }

    proptest! {
        /// For every order of requests, waits, steps of the clock and restarts, nothing is taken twice. (A clock
        /// that is behind after a restart and stays so is not among them: nothing can be known of that.)
        #[test]
        fn nothing_is_taken_twice(
            events in prop::collection::vec(event(), 0..80),
            room in prop_oneof![Just(MAX_NAMES), 1_usize..8],
        ) {
            let start = |now| Replay { room, ..Replay::new(at(now)) };
            let (mut now, mut latest) = (10_000_u64, 10_000);
            let (mut replay, mut running) = (start(now), 0);
            let mut shown: Vec<(String, u64)> = Vec::new();
            let mut taken = HashSet::new();
            for event in events {
                let show = match event {
                    Event::Pass(seconds) => { now += seconds; running += seconds; None }
                    Event::SetBack(seconds) => { now -= seconds.min(now - 5000); None }
                    Event::Restart => { now = latest.max(now); (replay, running) = (start(now), 0); None }
                    Event::RestartBehind(seconds) => {
                        now = latest.max(now);
                        (replay, running) = (start(now - seconds), 0);
                        let _ = replay.take(&once(2, "other", now), at(now), Duration::ZERO);
                        None
                    }
                    Event::Show { name, made } => Some((name.to_string(), now.saturating_add_signed(made))),
                    Event::ShowAgain(index) if !shown.is_empty() => Some(shown[index % shown.len()].clone()),
                    Event::ShowAgain(_) => None,
                };
                latest = latest.max(now);
                if let Some((name, made)) = show {
                    if replay.take(&once(1, &name, made), at(now), Duration::from_secs(running)).is_ok() {
                        prop_assert!(taken.insert((name.clone(), made)), "{name} of {made} twice");
                    }
                    shown.push((name, made));
                }
            }
        }
    }
}
