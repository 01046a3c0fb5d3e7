use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::FutureExt;
use proptest::{collection::vec, prelude::*};
use tokio::time::{advance, sleep};

use super::*;

const RATE: Rate = Rate { interval: Duration::from_millis(20), burst: Duration::from_millis(200) };
/// What one client may do at once.
const AT_ONCE: usize = 11;
/// The rate of a site.
const OF_SITE: Duration = Duration::from_millis(5);
const AT_ONCE_OF_SITE: usize = 41;

fn throttle(all: &ClientThrottles, client: &str) -> ClientThrottle {
    all.of(client.parse().unwrap(), RATE)
}

fn of_network(all: &ClientThrottles, network: usize) -> ClientThrottle {
    throttle(all, &format!("2001:db8:1:{network:x}::1"))
}

/// Counts as many as need not wait.
fn count(throttle: &ClientThrottle) -> usize {
    (0..1_000).take_while(|_| throttle.try_count(Instant::now(), 1)).count()
}

async fn turn(throttle: &ClientThrottle) {
    throttle.turn(&throttle.wait(), 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_has_its_rate_and_a_48_four_times_as_much() {
    let all = ClientThrottles::default();
    for [one, same] in [["192.0.2.1", "::ffff:192.0.2.1"], ["2001:db8:2:1::1", "2001:db8:2:1::2"]] {
        let (one, same) = (throttle(&all, one), throttle(&all, same));
        assert_eq!((count(&one), count(&same)), (AT_ONCE, 0));
        advance(RATE.interval * 3).await;
        assert_eq!((count(&same), count(&one)), (3, 0));
    }
    let site = || (1..=10).map(|network| count(&of_network(&all, network))).sum::<usize>();
    assert_eq!(site(), AT_ONCE_OF_SITE);
    for other in ["2001:db8:3:1::1", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(count(&throttle(&all, other)), AT_ONCE, "{other}");
    }
    advance(OF_SITE * 7).await;
    assert_eq!(site(), 7);
}

/// Whoever leaves and comes back finds what it has not paid for, and nothing stays for ever.
#[tokio::test(start_paused = true)]
async fn what_is_not_paid_for_outlasts_the_clients() {
    let all = ClientThrottles::default();
    assert_eq!(count(&of_network(&all, 1)), AT_ONCE);
    for n in 0..10_000 {
        drop(throttle(&all, &format!("2001:db9:{n:x}:1::1")));
    }
    assert!(lock(&all.0).by_key.len() <= 2 * MIN_SWEEP);
    assert_eq!(count(&of_network(&all, 1)), 0);
    advance(Duration::from_secs(60)).await;
    for n in 0..1_000 {
        drop(throttle(&all, &format!("2001:db9:{n:x}:1::1")));
    }
    let is_old = |key: &ClientKey| {
        let (ClientKey::Client(address) | ClientKey::Site(address)) = key;
        address.to_string().starts_with("2001:db8")
    };
    assert!(!lock(&all.0).by_key.keys().any(is_old));
}

#[tokio::test(start_paused = true)]
async fn another_rate_holds_for_clients_that_are_there() {
    let all = ClientThrottles::default();
    let before = throttle(&all, "192.0.2.1");
    let slow = Rate { interval: Duration::from_secs(1), burst: Duration::ZERO };
    assert_eq!((count(&all.of([192, 0, 2, 1].into(), slow)), count(&before)), (1, 0));
    advance(Duration::from_millis(999)).await;
    assert_eq!(count(&before), 0);
    advance(Duration::from_millis(1)).await;
    assert_eq!(count(&before), 1);
}

/// Nobody is let in before those that wait, and whoever gives up lets the next one in.
#[tokio::test(start_paused = true)]
async fn who_gives_up_its_turn_costs_the_others_nothing() {
    let all = ClientThrottles::default();
    let (impatient, patient) = (of_network(&all, 1), of_network(&all, 1));
    assert_eq!(count(&impatient), AT_ONCE);
    let begun = Instant::now();
    let mut waiting = (0..1_000).map(|_| Box::pin(turn(&impatient))).collect::<Vec<_>>();
    assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
    let mut last = Box::pin(turn(&patient));
    assert_eq!((&mut last).now_or_never(), None);
    advance(RATE.interval).await;
    assert!(!impatient.try_count(Instant::now(), 1), "others wait");
    drop(waiting);
    last.await;
    assert_eq!(begun.elapsed(), RATE.interval);
    advance(RATE.interval).await;
    assert_eq!(count(&impatient), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Clients of a /48 do as much as they can, some in one place and some in many. Each gets its share, and one that does
    /// little waits for one turn of each at most.
    #[test]
    fn the_clients_of_a_48_take_turns(floods in vec(1..20_usize, 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let all = ClientThrottles::default();
            let done = floods.iter().map(|_| Arc::<AtomicUsize>::default()).collect::<Vec<_>>();
            for (n, places) in floods.iter().enumerate() {
                for _ in 0..*places {
                    let (throttle, done) = (of_network(&all, n), done[n].clone());
                    tokio::spawn(async move {
                        loop {
                            if !throttle.try_count(Instant::now(), 1) {
                                turn(&throttle).await;
                            }
                            done.fetch_add(1, Relaxed);
                        }
                    });
                }
            }
            let quiet = of_network(&all, 99);
            let most = OF_SITE * (floods.len() as u32 + 1);
            for _ in 0..100 {
                sleep(RATE.interval * 5).await;
                let begun = Instant::now();
                if !quiet.try_count(begun, 1) {
                    turn(&quiet).await;
                }
                prop_assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
            }
            let done = done.iter().map(|done| done.load(Relaxed)).collect::<Vec<_>>();
            // Ten seconds, in which the quiet one had a hundred turns.
            let share = (2_000 - 100) / floods.len().max(1);
            for done in &done {
                prop_assert!((share.min(500)..=500 + 100 + AT_ONCE).contains(done), "{done} of {share}");
            }
            prop_assert!(done.iter().max() <= done.iter().min().map(|least| least + AT_ONCE).as_ref(), "{done:?}");
            Ok(())
        })?;
    }
}
