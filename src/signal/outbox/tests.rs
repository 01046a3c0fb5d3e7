use futures_util::FutureExt;
use tokio::time::sleep;

use super::{
    waiting::{NoRoom, RETRY, Waiting},
    *,
};
use crate::net::budget::Budget;

const FRAME_OVERHEAD: usize = 64;

fn outbox(limit: usize) -> Outbox {
    Outbox::new(limit, Budget::new(1 << 20).of(None))
}

/// The share of a session in a network of its own.
fn new_share() -> Arc<Share> {
    Share::in_turns(Arc::default())
}

fn next(outbox: &Outbox) -> Poll<Result<Next, Close>> {
    outbox.poll_next(&mut Context::from_waker(Waker::noop()))
}

fn frame(text: &str) -> Poll<Result<Next, Close>> {
    Poll::Ready(Ok(Next::Frame(text.into())))
}

#[test]
fn a_session_may_have_as_much_waiting_as_there_is_room_left() {
    let (outbox, flooder, quiet) = (outbox(10_000), new_share(), new_share());
    let flood = "x".repeat(1000 - FRAME_OVERHEAD);
    for _ in 0..5 {
        assert_eq!(outbox.push(&flooder, flood.clone()), Pushed::Queued);
    }
    assert_eq!(outbox.push(&flooder, flood.clone()), Pushed::Full(flood.clone()));
    assert_eq!(outbox.push(&quiet, "y".repeat(5000 - FRAME_OVERHEAD)), Pushed::Queued);
    assert_eq!(outbox.push(&new_share(), flood.clone()), Pushed::Full(flood));
    assert_eq!(outbox.lock().close, None);
}

#[test]
fn what_others_hold_of_the_common_budget_leaves_room_for_whoever_reads() {
    let all = Budget::new(10_000);
    let budget = all.of(None);
    let outboxes: Vec<_> = (0..20).map(|_| Outbox::new(100_000, budget.clone())).collect();
    let hoard = "x".repeat(500);
    for outbox in &outboxes {
        let share = Share::in_order();
        while outbox.push(&share, hoard.clone()) == Pushed::Queued {}
    }
    let (reader, share) = (Outbox::new(100_000, budget.clone()), Share::in_order());
    for _ in 0..100 {
        assert_eq!(reader.push(&share, "y".repeat(FREE - FRAME_OVERHEAD)), Pushed::Queued);
        assert!(matches!(next(&reader), Poll::Ready(Ok(Next::Frame(_)))));
        assert_eq!(next(&reader), Poll::Pending);
    }
    drop((outboxes, reader));
    assert_eq!(all.used(), 0);
}

#[test]
fn what_is_being_written_counts_until_the_next_is_asked_for() {
    let (outbox, share) = (outbox(1000), Share::in_order());
    let half = "x".repeat(500 - FRAME_OVERHEAD);
    assert_eq!(outbox.push(&share, half.clone()), Pushed::Queued);
    assert_eq!(next(&outbox), frame(&half));
    assert_eq!(outbox.push(&share, half.clone()), Pushed::Queued);
    assert_eq!(outbox.push(&share, half.clone()), Pushed::Full(half.clone()));
    assert_eq!(next(&outbox), frame(&half));
    assert_eq!(outbox.push(&share, half.clone()), Pushed::Queued);
}

#[test]
fn who_waits_is_woken_in_turn_once_there_is_room() {
    let (outbox, share) = (Arc::new(outbox(1000)), new_share());
    let large = "x".repeat(1000 - FRAME_OVERHEAD);
    assert_eq!(outbox.push(&share, large.clone()), Pushed::Queued);
    let waiting = |text: &str| {
        let share = new_share();
        let Pushed::Full(frame) = outbox.push(&share, text.into()) else { panic!("it should be full") };
        Waiting::new(outbox.clone(), share, frame)
    };
    let (mut one, mut two) = (waiting("one"), waiting("two"));
    assert_eq!((&mut two).now_or_never(), None);
    assert_eq!((&mut one).now_or_never(), None);
    // Neither of them needs its sender to come in.
    assert_eq!(next(&outbox), frame(&large));
    assert_eq!([next(&outbox), next(&outbox)], [frame("one"), frame("two")]);
    assert_eq!([one.now_or_never(), two.now_or_never()], [Some(Ok(())); 2]);
}

/// A sender may be unable to look after its frame, or give it up.
#[test]
fn a_sender_that_is_stuck_holds_nobody_up() {
    let (outbox, share) = (Arc::new(outbox(1000)), new_share());
    let large = "x".repeat(1000 - FRAME_OVERHEAD);
    assert_eq!(outbox.push(&share, large.clone()), Pushed::Queued);
    let stuck = Waiting::new(outbox.clone(), share.clone(), "stuck".into());
    let given_up = Waiting::new(outbox.clone(), share, large.clone());
    let mut quiet = Waiting::new(outbox.clone(), new_share(), large.clone());
    assert_eq!((&mut quiet).now_or_never(), None);
    assert_eq!([next(&outbox), next(&outbox)], [frame(&large), frame(&large)]);
    drop(given_up);
    assert_eq!([next(&outbox), next(&outbox)], [frame("stuck"), Poll::Pending]);
    assert_eq!(quiet.now_or_never(), Some(Ok(())));
    drop(stuck);
}

/// Who waits for the common budget does not hold those up who need none of it.
#[test]
fn a_frame_without_budget_is_passed_by_small_ones() {
    let all = Budget::new(1000);
    let budget = all.of(None);
    let outbox = Arc::new(Outbox::new(100_000, budget.clone()));
    assert!(budget.take(1000, 0));
    let large = Waiting::new(outbox.clone(), new_share(), "x".repeat(2 * FREE));
    let small = Waiting::new(outbox.clone(), new_share(), "small".into());
    assert_eq!(small.now_or_never(), Some(Ok(())));
    assert_eq!(next(&outbox), frame("small"));
    assert_eq!(next(&outbox), Poll::Pending);
    budget.give_back(1000);
    all.set_limit(100_000);
    assert_eq!(large.now_or_never(), Some(Ok(())));
}

#[test]
fn a_close_that_hurries_does_so_after_another_too() {
    let outbox = outbox(1000);
    let hurried = |outbox: &Outbox| outbox.poll_hurried(&mut Context::from_waker(Waker::noop()));
    outbox.close(Close::REPLACED);
    assert_eq!(hurried(&outbox), Poll::Pending);
    outbox.close(Close::RESTART);
    assert_eq!(hurried(&outbox), Poll::Ready(Close::REPLACED));
}

#[test]
fn who_waits_for_a_queue_that_is_closed_waits_no_more() {
    let (outbox, share) = (Arc::new(outbox(1000)), new_share());
    let large = "x".repeat(1000 - FRAME_OVERHEAD);
    assert_eq!(outbox.push(&share, large.clone()), Pushed::Queued);
    let mut waiting = Waiting::new(outbox.clone(), new_share(), large);
    assert_eq!((&mut waiting).now_or_never(), None);
    outbox.close(Close::REPLACED);
    assert_eq!(waiting.now_or_never(), Some(Ok(())));
    assert!(next(&outbox).is_ready());
    assert_eq!(next(&outbox), Poll::Ready(Err(Close::REPLACED)));
}

/// Nothing of this queue could make room: what waits elsewhere has spent the common budget.
#[test]
fn a_frame_that_nothing_could_make_room_for_does_not_wait() {
    let all = Budget::new(1000);
    let budget = all.of(None);
    let outbox = Arc::new(Outbox::new(100_000, budget.clone()));
    assert!(budget.take(1000, 0));
    let (share, large) = (new_share(), "x".repeat(2 * FREE));
    let Pushed::Full(large) = outbox.push(&share, large) else { panic!("the budget is spent") };
    assert_eq!(Waiting::new(outbox, share, large).now_or_never(), Some(Err(NoRoom)));
}

/// Its sender is told that it was dropped, so that it must not arrive.
#[tokio::test(start_paused = true)]
async fn a_frame_is_delivered_or_given_up_but_not_both() {
    let all = Budget::new(1000);
    let budget = all.of(None);
    let outbox = Arc::new(Outbox::new(100_000, budget.clone()));
    assert!(budget.take(1000, 0));
    let waiting = |session: &str| Waiting::new(outbox.clone(), new_share(), session.repeat(2 * FREE));
    // Each looks for room every 100 ms.
    let (one, two) = (waiting("1").pass(RETRY * 3 / 2), waiting("2").pass(RETRY * 3 / 2));
    let reader = async {
        sleep(RETRY * 5 / 4).await;
        budget.give_back(1000);
        all.set_limit(3 * FREE);
        next(&outbox)
    };
    let (one, two, read) = tokio::join!(one, two, reader);
    assert_eq!((one, two, read), (true, false, frame(&"1".repeat(2 * FREE))));
    all.set_limit(usize::MAX);
    assert_eq!(next(&outbox), Poll::Pending);
}

#[test]
fn the_brokers_own_frames_are_always_queued_and_more_are_not_to_be_caused() {
    let (outbox, share) = (outbox(1000), Share::in_order());
    assert_eq!(outbox.push(&share, "x".repeat(1000 - FRAME_OVERHEAD)), Pushed::Queued);
    while !outbox.owes_too_much() {
        outbox.tell("own".into());
    }
    while let Poll::Ready(Ok(_)) = next(&outbox) {}
    assert!(!outbox.owes_too_much());
    assert_eq!(outbox.lock().bytes, 0);
}

#[test]
fn a_ping_goes_ahead_and_is_asked_for_once() {
    let outbox = outbox(1000);
    outbox.tell("a".into());
    assert!(!outbox.take_asked());
    outbox.ask();
    outbox.ask();
    assert_eq!(next(&outbox), Poll::Ready(Ok(Next::Ping)));
    assert_eq!(next(&outbox), frame("a"));
    assert_eq!(next(&outbox), Poll::Pending);
    assert!(outbox.take_asked());
    assert!(!outbox.take_asked());
}

#[test]
fn what_waits_is_sent_before_the_close_unless_it_is_discarded() {
    for discarded in [false, true] {
        let outbox = outbox(1000);
        outbox.tell("a".into());
        match discarded {
            true => outbox.discard(Close::TOO_SLOW),
            false => outbox.close(Close::TOO_SLOW),
        }
        outbox.close(Close::RESTART);
        outbox.tell("b".into());
        if !discarded {
            assert_eq!(next(&outbox), frame("a"));
        }
        assert_eq!(next(&outbox), Poll::Ready(Err(Close::TOO_SLOW)));
    }
}

/// However many queues of its own a client lets fill up, and in whatever order.
#[test]
fn the_queues_of_one_client_leave_as_much_to_others() {
    let budget = Budget::new(1 << 20);
    let outbox = |address: &str| Outbox::new(1 << 20, budget.of(Some(address.parse().unwrap())));
    let fill = |outbox: &Outbox| {
        let share = Share::in_order();
        (0..1000).take_while(|_| outbox.push(&share, "x".repeat(1000)) == Pushed::Queued).count()
    };
    let flood = [(); 50].map(|()| outbox("192.0.2.1"));
    for outbox in &flood {
        fill(outbox);
    }
    assert!(fill(&outbox("192.0.2.2")) > 100);
}
