//! When a holder that falls silent is replaced.

use std::{future::pending, future::poll_fn};

use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::{
    config::SignalSettings,
    net::{budget::Budget, network::ClientNetwork},
    signal::{
        directory::{handled::Admitted, place::Place},
        entitlement::Entitlement,
        outbox::{Next, Outbox},
    },
};

/// A holder for whose pod id a newcomer stands by.
#[derive(Clone, Copy, Debug)]
struct Case {
    takeover_timeout: Duration,
    /// How long the holder takes to answer a ping, and when it falls silent.
    answers_after: Duration,
    silent: Duration,
    /// When the newcomer comes, and when another comes and goes.
    newcomer: Duration,
    passer_by: Duration,
}

fn case() -> impl Strategy<Value = Case> {
    let ms = Duration::from_millis;
    let times = (50..5_000_u64, 0..1000_u64, 0..20_000_u64, 0..20_000_u64, 0..30_000_u64);
    times.prop_map(move |(timeout, answers, silent, newcomer, passer_by)| Case {
        takeover_timeout: ms(timeout),
        answers_after: ms(answers * timeout / 1001),
        silent: ms(silent),
        newcomer: ms(newcomer),
        passer_by: ms(passer_by),
    })
}

fn join(directory: &Arc<Directory>) -> (Place, Arc<Outbox>) {
    let outbox = Arc::new(Outbox::new(10_000, Budget::new(10_000).of(None)));
    (directory.join(outbox.clone(), None), outbox)
}

/// When the holder was heard of last, and when it is replaced.
async fn replaced(case: Case) -> (Duration, Duration) {
    let directory = Directory::new(SignalSettings::default());
    let entitlement = Entitlement::Owner([1; 32]);
    let begin = Instant::now();
    let (holder, outbox) = join(&directory);
    holder.hold(&"pod".into(), entitlement);
    let mut heard = Duration::ZERO;
    let answers = async {
        loop {
            match poll_fn(|cx| outbox.poll_next(cx)).await {
                Ok(Next::Ping) => sleep(case.answers_after).await,
                Ok(Next::Frame(_)) => continue,
                Err(_) => pending().await,
            }
            if begin.elapsed() < case.silent && outbox.take_asked() {
                heard = begin.elapsed();
                holder.is_there();
            }
        }
    };
    let passer_by = async {
        sleep(case.passer_by).await;
        let (place, _) = join(&directory);
        // It may be the first; then nobody looks at the holder for it.
        let _ = place.admit("pod".into(), Ok(entitlement), ClientNetwork::default());
        drop(place);
        pending::<()>().await;
    };
    let (newcomer, _) = join(&directory);
    let decided = async {
        sleep(case.newcomer).await;
        let Admitted::TakesOver(takeover) =
            newcomer.admit("pod".into(), Ok(entitlement), ClientNetwork::default())
        else {
            panic!("it should wait");
        };
        takeover.decide(case.takeover_timeout).await;
        begin.elapsed()
    };
    let replaced = tokio::select! {
        replaced = decided => replaced,
        () = answers => unreachable!(),
        () = passer_by => unreachable!(),
    };
    assert_eq!(directory.holder("pod").unwrap().socket, newcomer.id());
    (heard, replaced)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_silent_holder_is_replaced_after_the_timeout_and_a_quarter_at_most(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (heard, replaced) = runtime.block_on(replaced(case));
        // Timers are precise to a millisecond.
        let timeout = case.takeover_timeout;
        let latest = timeout * 5 / 4 + Duration::from_millis(2);
        prop_assert!(replaced <= case.silent.max(case.newcomer) + latest, "{:?}", replaced);
        if case.silent <= case.newcomer {
            prop_assert!(replaced <= case.newcomer + timeout + Duration::from_millis(2), "{:?}", replaced);
        }
        // One that answers is never replaced.
        prop_assert!(replaced >= case.silent && replaced >= heard + timeout, "{:?} {:?}", replaced, heard);
    }
}
