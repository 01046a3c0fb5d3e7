//! The order in which the frames that wait for one socket are sent.
//!
//! Visitors at an origin take turns by bytes (self-clocked fair queueing, Golestani 1994): each frame is stamped with the
//! moment at which it would have been sent if all client networks shared the line equally, and the lowest stamp goes
//! first. So a frame of a quiet client does not wait for all that a busy one has queued, however many sessions that has.
//! The frames of one session stay in order.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// Bookkeeping for one waiting frame beside its text.
pub const FRAME_OVERHEAD: usize = 64;

/// What one session has waiting in one queue. It is only changed under the lock of that queue.
#[derive(Debug)]
pub struct Share {
    in_turns: bool,
    queued: AtomicUsize,
    turns: Arc<Turns>,
}

/// The turns that sessions take together: as many as they are, they get the part of the line of one.
#[derive(Debug, Default)]
pub struct Turns {
    /// The stamp of their last frame.
    stamp: AtomicU64,
}

impl Share {
    /// The share of a session that takes turns with the others in the queue.
    pub fn in_turns(turns: Arc<Turns>) -> Arc<Self> {
        Self::new(true, turns)
    }

    /// The share of a session whose frames are sent in the order in which they come.
    pub fn in_order() -> Arc<Self> {
        Self::new(false, Arc::default())
    }

    fn new(in_turns: bool, turns: Arc<Turns>) -> Arc<Self> {
        Arc::new(Self { in_turns, queued: AtomicUsize::new(0), turns })
    }

    /// Returns how many bytes wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }
}

/// A place in the order of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    stamp: u64,
    /// Tells tickets with the same stamp apart, in the order in which they were given.
    number: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: Reverse<Ticket>,
    frame: String,
    /// `None` for a frame of the broker's own.
    share: Option<Arc<Share>>,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ticket.cmp(&other.ticket)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.ticket == other.ticket
    }
}

impl Eq for Waiting {}

/// Frames that wait, and the stamps that order them.
#[derive(Debug, Default)]
pub struct Queue {
    frames: BinaryHeap<Waiting>,
    /// The stamp of the frame that was sent last.
    now: u64,
    /// The highest stamp that a frame has or had.
    last: u64,
    tickets: u64,
    /// Bytes of the broker's own frames that wait.
    own: usize,
}

impl Queue {
    /// Returns the place of a frame that a session adds now.
    pub fn ticket(&mut self, share: &Share, cost: usize) -> Ticket {
        let stamp = match share.in_turns {
            true => self.now.max(share.turns.stamp.load(Relaxed)) + cost as u64,
            false => self.now,
        };
        self.number(stamp)
    }

    fn number(&mut self, stamp: u64) -> Ticket {
        self.tickets += 1;
        Ticket { stamp, number: self.tickets }
    }

    /// Keeps the place of a frame that is to be added later: the frames after it come after it.
    pub fn reserve(&mut self, ticket: Ticket, share: &Share) {
        share.turns.stamp.fetch_max(ticket.stamp, Relaxed);
        self.last = self.last.max(ticket.stamp);
    }

    /// Adds a frame of a session.
    pub fn add(&mut self, ticket: Ticket, share: Arc<Share>, frame: String) {
        self.reserve(ticket, &share);
        share.queued.fetch_add(cost(&frame), Relaxed);
        self.frames.push(Waiting { ticket: Reverse(ticket), frame, share: Some(share) });
    }

    /// Adds a frame of the broker's own before all that wait for their turn: nothing is read from a peer that has many of
    /// them to take, so that others must not be able to put them off.
    pub fn add_own(&mut self, frame: String) {
        self.own += cost(&frame);
        let ticket = self.number(self.now);
        self.frames.push(Waiting { ticket: Reverse(ticket), frame, share: None });
    }

    /// Takes the next frame.
    pub fn pop(&mut self) -> Option<String> {
        let Waiting { ticket: Reverse(ticket), frame, share } = self.frames.pop()?;
        // A ticket of somebody who had to wait for room may be older.
        self.now = self.now.max(ticket.stamp);
        match share {
            Some(share) => drop(share.queued.fetch_sub(cost(&frame), Relaxed)),
            None => self.own -= cost(&frame),
        }
        if self.frames.is_empty() {
            // An idle socket keeps no memory for frames, nor of who sent most.
            self.frames = BinaryHeap::new();
            self.now = self.last;
        }
        Some(frame)
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        while self.pop().is_some() {}
    }

    /// Returns how many bytes of the broker's own frames wait.
    pub fn own(&self) -> usize {
        self.own
    }
}

/// What a waiting frame takes of a queue.
pub fn cost(frame: &str) -> usize {
    frame.len() + FRAME_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(queue: &mut Queue, share: &Arc<Share>, frame: &str) {
        let ticket = queue.ticket(share, cost(frame));
        queue.add(ticket, share.clone(), frame.into());
    }

    /// The share of a session in a network of its own.
    fn share() -> Arc<Share> {
        Share::in_turns(Arc::default())
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn a_quiet_session_does_not_wait_for_all_that_a_busy_one_has_queued() {
        let (mut queue, busy, quiet) = (Queue::default(), share(), share());
        for n in 0..10 {
            add(&mut queue, &busy, &format!("{n}{}", "x".repeat(1000)));
        }
        queue.pop().unwrap();
        add(&mut queue, &quiet, "quiet 1");
        add(&mut queue, &quiet, "quiet 2");
        queue.add_own("own".into());
        let order: Vec<_> = drain(&mut queue).iter().map(|frame| frame[..1].to_owned()).collect();
        assert_eq!(order.concat(), "oqq123456789");
        assert_eq!((busy.queued(), quiet.queued(), queue.own()), (0, 0, 0));
    }

    #[test]
    fn sessions_share_the_line_by_bytes() {
        let (mut queue, large, small) = (Queue::default(), share(), share());
        for _ in 0..10 {
            add(&mut queue, &large, &"l".repeat(1000 - FRAME_OVERHEAD));
        }
        for _ in 0..100 {
            add(&mut queue, &small, &"s".repeat(100 - FRAME_OVERHEAD));
        }
        let order = drain(&mut queue);
        let early = order.iter().take(55).filter(|frame| frame.starts_with('l')).count();
        assert!((4..=6).contains(&early), "{early} of 10 large frames were among the first half");
    }

    #[test]
    fn sessions_of_one_network_take_turns_together() {
        let (mut queue, turns, quiet) = (Queue::default(), Arc::<Turns>::default(), share());
        for _ in 0..100 {
            add(&mut queue, &Share::in_turns(turns.clone()), "flood");
        }
        queue.pop().unwrap();
        add(&mut queue, &quiet, "quiet");
        assert_eq!(drain(&mut queue).iter().position(|frame| frame == "quiet"), Some(1));
    }

    /// Who gave up frames that waited is not put off once nothing waits any more.
    #[test]
    fn an_idle_queue_remembers_nobody() {
        let (mut queue, busy, quiet) = (Queue::default(), share(), share());
        let ticket = queue.ticket(&busy, 1_000_000);
        queue.reserve(ticket, &busy);
        add(&mut queue, &quiet, "1");
        drain(&mut queue);
        for _ in 0..3 {
            add(&mut queue, &quiet, "quiet");
        }
        add(&mut queue, &busy, "busy!");
        assert_eq!(drain(&mut queue)[1], "busy!");
    }

    #[test]
    fn shares_in_order_keep_the_order_of_arrival() {
        let (mut queue, one, two) = (Queue::default(), Share::in_order(), Share::in_order());
        for (share, frame) in [(&one, "a"), (&two, "b"), (&one, "c")] {
            add(&mut queue, share, frame);
        }
        queue.add_own("d".into());
        add(&mut queue, &two, "e");
        assert_eq!(drain(&mut queue), ["a", "b", "c", "d", "e"]);
    }
}
