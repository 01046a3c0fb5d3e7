//! Whatever is pushed, read, given up and closed, in whatever order: nothing is lost or counted wrongly.

use std::{collections::VecDeque, pin::Pin, task::Wake};

use proptest::{collection::vec, prelude::*};

use super::{
    waiting::{NoRoom, Waiting},
    *,
};
use crate::net::budget::Budget;

const OUTBOXES: usize = 3;
const SESSIONS: usize = 4;
const LIMIT: usize = 20_000;
/// Frames of at most this many bytes always fit an empty queue.
const MAX_FRAME: usize = 15_000;
const TOTAL: usize = 25_000;

#[derive(Clone, Debug)]
enum Step {
    /// A session sends a frame, unless one of its frames waits for room.
    Send {
        outbox: usize,
        session: usize,
        bytes: usize,
    },
    /// The broker says something itself.
    Tell {
        outbox: usize,
        bytes: usize,
    },
    /// A peer takes so many frames.
    Read {
        outbox: usize,
        frames: usize,
    },
    /// A session gives up the frame that waits.
    GiveUp {
        outbox: usize,
        session: usize,
    },
    Close {
        outbox: usize,
        discard: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![1..200_usize, 1..3000_usize, 1..MAX_FRAME];
    let (outbox, session) = (|| 0..OUTBOXES, || 0..SESSIONS);
    prop_oneof![
        12 => (outbox(), session(), size())
            .prop_map(|(outbox, session, bytes)| Step::Send { outbox, session, bytes }),
        2 => (outbox(), 1..300_usize).prop_map(|(outbox, bytes)| Step::Tell { outbox, bytes }),
        8 => (outbox(), 1..8_usize).prop_map(|(outbox, frames)| Step::Read { outbox, frames }),
        1 => (outbox(), session()).prop_map(|(outbox, session)| Step::GiveUp { outbox, session }),
        1 => (outbox(), any::<bool>()).prop_map(|(outbox, discard)| Step::Close { outbox, discard }),
    ]
}

/// Whether who waits was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A session whose frame waits.
struct Sender {
    waiting: Waiting,
    woken: Arc<Woken>,
}

/// One queue, its senders, and the frames that its peer must be sent yet.
struct Receiver {
    outbox: Arc<Outbox>,
    shares: Vec<Arc<Share>>,
    waiting: Vec<Option<Sender>>,
    expected: Vec<VecDeque<String>>,
    own: VecDeque<String>,
    number: usize,
    closed: bool,
}

impl Receiver {
    fn new(budget: &Arc<Budget>) -> Self {
        Self {
            outbox: Arc::new(Outbox::new(LIMIT, budget.of(None))),
            shares: (0..SESSIONS).map(|_| Share::in_turns(Arc::default())).collect(),
            waiting: (0..SESSIONS).map(|_| None).collect(),
            expected: vec![VecDeque::new(); SESSIONS],
            own: VecDeque::new(),
            number: 0,
            closed: false,
        }
    }

    fn text(&mut self, sender: &str, bytes: usize) -> String {
        self.number += 1;
        format!("{sender} {} {}", self.number, "x".repeat(bytes))
    }

    fn send(&mut self, session: usize, bytes: usize) {
        if self.waiting[session].is_some() {
            return;
        }
        let text = self.text(&session.to_string(), bytes);
        match self.outbox.push(&self.shares[session], text.clone()) {
            Pushed::Queued => self.expected[session].push_back(text),
            Pushed::Closed => assert!(self.closed),
            Pushed::Full(frame) => {
                assert_eq!(frame, text);
                self.expected[session].push_back(text);
                let waiting = Waiting::new(self.outbox.clone(), self.shares[session].clone(), frame);
                let woken = Arc::new(Woken(true.into()));
                self.waiting[session] = Some(Sender { waiting, woken });
            }
        }
    }

    /// Lets those who wait and were woken try again, until nobody is woken any more.
    fn settle(&mut self) {
        let mut settled = false;
        while !std::mem::replace(&mut settled, true) {
            for session in 0..SESSIONS {
                let Some(Sender { waiting, woken }) = &mut self.waiting[session] else { continue };
                if !woken.0.swap(false, Ordering::Relaxed) {
                    continue;
                }
                let waker = Waker::from(woken.clone());
                match Pin::new(waiting).poll(&mut Context::from_waker(&waker)) {
                    Poll::Pending => continue,
                    // It tries again after a while.
                    Poll::Ready(Err(NoRoom)) => woken.0.store(true, Ordering::Relaxed),
                    Poll::Ready(Ok(())) => {
                        self.waiting[session] = None;
                        settled = false;
                    }
                }
            }
        }
    }

    /// Takes frames, of each sender in order.
    fn read(&mut self, frames: usize) {
        for _ in 0..frames {
            match self.outbox.poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(Next::Frame(frame))) => {
                    let sender = frame.split(' ').next().unwrap();
                    let expected = match sender.parse::<usize>() {
                        Ok(session) => self.expected[session].pop_front(),
                        Err(_) => self.own.pop_front(),
                    };
                    assert_eq!(Some(frame), expected);
                }
                Poll::Ready(Ok(Next::Ping)) => panic!("nobody asked"),
                Poll::Ready(Err(_)) => {
                    assert!(self.closed, "a peer that reads was closed");
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// A session gives up the frame that waits.
    fn give_up(&mut self, session: usize) {
        let frames = self.outbox.lock().line.len();
        self.waiting[session] = None;
        if self.outbox.lock().line.len() < frames {
            self.expected[session].pop_back();
        }
    }

    fn close(&mut self, discard: bool) {
        for session in 0..SESSIONS {
            self.give_up(session);
        }
        if discard {
            self.outbox.discard(Close::TOO_SLOW);
            self.expected.iter_mut().for_each(VecDeque::clear);
            self.own.clear();
        } else {
            self.outbox.close(Close::REPLACED);
        }
        self.closed = true;
    }

    /// Nothing is left of what was sent, and nobody waits.
    fn assert_done(self) {
        assert!(self.waiting.iter().all(Option::is_none), "somebody waits although nothing else does");
        let inner = self.outbox.lock();
        let left: usize = self.expected.iter().map(VecDeque::len).sum();
        assert_eq!(
            (left, self.own.len()),
            (0, 0),
            "frames were lost: {:?} {} {}",
            inner.close,
            inner.bytes,
            inner.line.len()
        );
        assert_eq!((inner.bytes, inner.queue.own(), inner.line.len()), (0, 0, 0));
        assert!(self.shares.iter().all(|share| share.queued() == 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accounts_come_back_to_zero_and_no_receiver_that_reads_is_closed(steps in vec(step(), 1..120)) {
        let budget = Budget::new(TOTAL);
        let mut receivers: Vec<_> = (0..OUTBOXES).map(|_| Receiver::new(&budget)).collect();
        for step in steps {
            match step {
                Step::Send { outbox, session, bytes } => receivers[outbox].send(session, bytes),
                Step::Tell { outbox, bytes } => {
                    let receiver = &mut receivers[outbox];
                    let text = receiver.text("own", bytes);
                    receiver.outbox.tell(text.clone());
                    if !receiver.closed {
                        receiver.own.push_back(text);
                    }
                }
                Step::Read { outbox, frames } => receivers[outbox].read(frames),
                Step::GiveUp { outbox, session } => receivers[outbox].give_up(session),
                Step::Close { outbox, discard } => receivers[outbox].close(discard),
            }
            receivers.iter_mut().for_each(Receiver::settle);
            for receiver in &receivers {
                let inner = receiver.outbox.lock();
                prop_assert!(inner.bytes <= LIMIT + inner.queue.own() + inner.leaving);
            }
            let beside = |receiver: &Receiver| {
                let inner = receiver.outbox.lock();
                inner.queue.own() + inner.leaving
            };
            prop_assert!(budget.used() <= TOTAL + receivers.iter().map(beside).sum::<usize>());
        }
        for _ in 0..400 {
            receivers.iter_mut().for_each(|receiver| receiver.read(1));
            receivers.iter_mut().for_each(Receiver::settle);
        }
        receivers.into_iter().for_each(Receiver::assert_done);
        prop_assert_eq!(budget.used(), 0);
    }
}
