//! What is remembered, for how long, and how much of it.

use std::{net::Ipv6Addr, sync::Arc};

use super::*;
use crate::pods::MemoryRegistry;

pub fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What no process has left anything in.
fn fresh() -> AcceptanceTime {
    AcceptanceTime::new(Arc::new(MemoryRegistry::new(0)))
}

/// A memory whose process started when the clock told that, and was right.
struct Started(Replay, SystemTime);

impl Started {
    fn new(now: SystemTime) -> Self {
        Self(Replay::new(now, fresh()), now)
    }

    fn take(&self, once: &Once<'_>, now: SystemTime) -> Result<(), ReplayError> {
        self.0.take(once, now, now.duration_since(self.1).unwrap_or_default()).map(drop)
    }
}

pub fn once(key: u8, name: &str, made: u64) -> Once<'_> {
    Once { key: OwnerKey([key; 32]), name, made, ends: made + 300, from: sender(key, true) }
}

fn ahead(allowed: u64, shows: u64) -> ReplayError {
    ReplayError::Ahead { allowed, shows: Utc(shows) }
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
    assert_eq!(replay.take(&once(1, "c", 2311), at(2300)), Err(ahead(AHEAD, 2300)));
    assert_eq!(Started::new(at(2000)).take(&once(1, "d", 2010), at(2000)), Err(ReplayError::BeforeStart(1)));
}

/// A former process may have taken whatever was made before the clock was put right.
#[test]
fn a_clock_that_is_put_right_after_the_start_brings_nothing_back() {
    let (behind, running) = (Replay::new(at(1000), fresh()), Duration::from_secs(20));
    let made = |made| behind.take(&once(1, "a", made), at(4600), running).map(drop);
    assert_eq!(made(4570), Err(ReplayError::BeforeStart(11 + AHEAD)));
    assert_eq!(made(4580 + AHEAD), Err(ReplayError::BeforeStart(1)));
    assert_eq!(made(4600), Ok(()));
}

/// Who is refused is told whose clock was wrong, and is not told to sign again in vain.
#[test]
fn a_clock_that_was_ahead_is_said_to_be_why() {
    let (at_start, later) = (Replay::new(at(4600), fresh()), Replay::new(at(0), fresh()));
    later.take(&once(1, "a", 4600), at(4600), Duration::from_secs(4600)).unwrap();
    for replay in [at_start, later] {
        let made = |made| replay.take(&once(1, "b", made), at(made), Duration::from_secs(100)).map(drop);
        let wrong = |shows| Err(ReplayError::Clock { shows: Utc(shows), before: Utc(4600) });
        assert_eq!(made(1000), wrong(1000));
        assert_eq!(made(1600), wrong(1600));
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
    let tokens = Started(Replay::of_tokens(at(1000), fresh()), at(1000));
    assert_eq!(tokens.take(&once(1, "a", 2040), at(2000)), Ok(()));
    assert_eq!(tokens.take(&once(1, "a", 2040), at(2050)), Err(ReplayError::Again));
    assert_eq!(tokens.take(&once(1, "b", 2141), at(2050)), Err(ahead(90, 2050)));
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
    let replay = Started(Replay { room: 8, ..Replay::new(at(0), fresh()) }, at(0));
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
