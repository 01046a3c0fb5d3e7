//! Restarts and clocks that step: nothing is accepted twice.

use std::{collections::HashSet, sync::Arc};

use proptest::prelude::*;

use super::{
    tests::{at, once},
    *,
};
use crate::pods::{MemoryRegistry, Registry as _};

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    /// The clock is set, ahead or back.
    Set(i64),
    /// The same while the broker is down.
    Restart(i64),
    Show {
        is_token: bool,
        name: u8,
        made: i64,
    },
    ShowAgain(usize),
}

fn step() -> impl Strategy<Value = i64> {
    prop_oneof![3 => -400_i64..0, 1 => 0_i64..400, 1 => -8000_i64..8000]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1_u64..200).prop_map(Event::Pass),
        1 => step().prop_map(Event::Set),
        1 => Just(Event::Restart(0)),
        1 => step().prop_map(Event::Restart),
        5 => (any::<bool>(), any::<u8>(), -320_i64..100)
            .prop_map(|(is_token, name, made)| Event::Show { is_token, name, made }),
        5 => any::<usize>().prop_map(Event::ShowAgain),
    ]
}

/// A broker that restarts, with what a disk keeps of it.
struct Broker {
    disk: Arc<MemoryRegistry>,
    room: usize,
    now: u64,
    running: u64,
    /// Of signed requests, and of tokens.
    memories: [Replay; 2],
}

impl Broker {
    fn new(disk: Arc<MemoryRegistry>, room: usize, now: u64) -> Self {
        let time = AcceptanceTime::new(disk.clone());
        let memories = [Replay::new(at(now), time.clone()), Replay::of_tokens(at(now), time)];
        let memories = memories.map(|memory| Replay { room, ..memory });
        Self { disk, room, now, running: 0, memories }
    }

    fn restart(&mut self, step: i64) {
        let now = self.now.saturating_add_signed(step);
        *self = Self::new(self.disk.clone(), self.room, now);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.running += seconds;
    }

    async fn accepts(&self, is_token: bool, name: &str, made: u64) -> bool {
        let running = Duration::from_secs(self.running);
        self.memories[usize::from(is_token)].accept(&once(1, name, made), at(self.now), running).await.is_ok()
    }
}

proptest! {
    /// For every order of requests, waits, restarts and steps of the clock, nothing is accepted twice, and what is made
    /// after the latest time that any clock showed is accepted.
    #[test]
    fn nothing_is_accepted_twice(
        events in prop::collection::vec(event(), 0..80),
        room in prop_oneof![Just(MAX_NAMES), 1_usize..8],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut broker = Broker::new(Arc::new(MemoryRegistry::new(0)), room, 1_000_000);
        let mut latest = broker.now;
        let mut shown: Vec<(bool, String, u64)> = Vec::new();
        let mut accepted = HashSet::new();
        for event in events {
            let show = match event {
                Event::Pass(seconds) => { broker.pass(seconds); None }
                Event::Set(step) => { broker.now = broker.now.saturating_add_signed(step); None }
                Event::Restart(step) => { broker.restart(step); None }
                Event::Show { is_token, name, made } => {
                    Some((is_token, name.to_string(), broker.now.saturating_add_signed(made)))
                }
                Event::ShowAgain(index) if !shown.is_empty() => Some(shown[index % shown.len()].clone()),
                Event::ShowAgain(_) => None,
            };
            latest = latest.max(broker.now);
            if let Some((is_token, name, made)) = show {
                if runtime.block_on(broker.accepts(is_token, &name, made)) {
                    let is_new = accepted.insert((is_token, name.clone(), made));
                    prop_assert!(is_new, "{name} of {made} twice");
                }
                shown.push((is_token, name, made));
            }
        }
        for is_token in [false, true] {
            latest += 1 + LEEWAY.as_secs();
            broker.pass(latest.saturating_sub(broker.now));
            prop_assert!(runtime.block_on(broker.accepts(is_token, "fresh", latest)));
        }
    }
}

/// An attacker waits for a clock that comes to the same time again.
#[tokio::test]
async fn a_restart_with_a_clock_that_is_behind_brings_nothing_back() {
    let mut broker = Broker::new(Arc::new(MemoryRegistry::new(0)), MAX_NAMES, 1000);
    broker.pass(1000);
    assert!(broker.accepts(false, "a", 2000).await);
    for _ in 0..2 {
        broker.restart(-500);
        broker.pass(500);
        assert!(!broker.accepts(false, "a", 2000).await);
    }
    broker.pass(AHEAD + 1);
    assert!(broker.accepts(false, "b", 2000 + AHEAD + 1).await);
}

/// A disk may be slow, and a flood of strangers' keys must not wear it out.
#[tokio::test]
async fn the_time_is_kept_once_in_ten_seconds() {
    let disk = Arc::new(MemoryRegistry::new(0));
    let mut broker = Broker::new(disk.clone(), MAX_NAMES, 1000);
    broker.pass(100);
    for made in 1100..1100 + AHEAD {
        assert!(broker.accepts(false, &made.to_string(), made).await);
        assert_eq!(disk.acceptance_time(), at(1100));
        broker.pass(1);
    }
    assert!(broker.accepts(false, "1111", 1111).await);
    assert_eq!(disk.acceptance_time(), at(1110));
}
