//! Whatever sockets do, the directory does what the tables in [`crate::signal`] say: it is run beside the
//! [`model`](super::model), and what each socket is sent is compared after each step.

use std::{
    collections::{HashMap, HashSet},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytesize::ByteSize;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::advance};

use super::{
    super::{
        admission::AdmitAll,
        close::Close,
        entitlement::Entitlement,
        outbox::{Next, Outbox},
    },
    handled::{Admitted, Handled, Passing, Registration},
    model::{Model, REFUSED, TAKEOVER_TIMEOUT_MS, Waiting as Expected},
    place::Place,
    steps::{Ask, Id, Kind, Limits, PODS, Recorded, SOCKETS, Step, limits, render, step},
    takeover::Takeover,
    *,
};
use crate::{
    config::{Grace, SignalBounds},
    net::{budget::Budget, network::ClientNetwork},
};

/// The directory and the model side by side.
struct Both {
    directory: Arc<Directory>,
    budget: Arc<Budget>,
    limits: Limits,
    model: Model,
    /// Its clock goes on only where a step says so.
    runtime: Runtime,
    /// The outbox of every socket that ever was, by its number in the model.
    outboxes: Vec<Arc<Outbox>>,
    seats: Vec<Option<(usize, Place)>>,
    /// All that began, decided or not.
    takeovers: Vec<Takeover>,
    /// Which sockets do not read until they are told to.
    lazy: Vec<bool>,
    /// Registrations whose record ended well, and what sockets themselves asked for, pods and sessions: who may hear whom
    /// follows from these alone.
    registered: HashSet<(usize, String)>,
    visited: HashSet<(usize, String)>,
    offered: HashSet<(usize, String)>,
    /// In which step each socket lost a right.
    expelled: HashMap<usize, usize>,
}

impl Both {
    fn new(limits: Limits, lazy: Vec<bool>, runtime: Runtime) -> Self {
        let settings = SignalSettings {
            bounds: SignalBounds {
                sessions_per_socket: limits.sessions_per_socket as u32,
                candidates_per_session: limits.candidates_per_session as u32,
                ..SignalBounds::default()
            },
            max_queue: ByteSize(limits.queue as u64),
            offline_grace: Grace(Duration::from_millis(limits.grace_ms)),
            ..SignalSettings::default()
        };
        let mut both = Self {
            directory: Directory::new(settings),
            budget: Budget::new(usize::MAX),
            limits,
            model: Model::new(limits),
            runtime,
            outboxes: Vec::new(),
            seats: (0..SOCKETS).map(|_| None).collect(),
            takeovers: Vec::new(),
            lazy,
            registered: HashSet::new(),
            visited: HashSet::new(),
            offered: HashSet::new(),
            expelled: HashMap::new(),
        };
        both.wait(limits.uptime_ms);
        both
    }

    fn wait(&mut self, ms: u64) {
        self.runtime.block_on(advance(Duration::from_millis(ms)));
        self.directory.expire_offers(Instant::now());
        self.model.begin_step();
        self.model.wait(ms);
    }

    /// The socket on a seat; a new one if the last one left.
    fn socket(&mut self, seat: usize) -> (usize, &Place) {
        let (number, place) = self.seats[seat].get_or_insert_with(|| {
            let outbox = Arc::new(Outbox::new(self.limits.queue, self.budget.of(None)));
            self.outboxes.push(outbox.clone());
            (self.model.join(), self.directory.join(outbox, None))
        });
        (*number, place)
    }

    fn run(&mut self, step: Step, at: usize) -> Result<(), TestCaseError> {
        match step {
            Step::Ask { seat, ask } => self.ask(seat, ask, at)?,
            Step::Noise { seat, text } => {
                let (me, place) = self.socket(seat);
                prop_assert!(matches!(place.handle(text.as_bytes(), &AdmitAll), Handled::Done));
                self.model.begin_step();
                if serde_json::from_str::<Value>(text).map_or(true, |value| value.is_null()) {
                    self.model.not_json(me);
                }
            }
            Step::Leave { seat } => self.leave(seat)?,
            Step::Heard { seat } => {
                let (me, place) = self.socket(seat);
                place.is_there();
                self.model.begin_step();
                self.model.heard(me);
            }
            Step::Decide { pod } => {
                // Those that are over change nothing.
                let patience = Duration::from_millis(TAKEOVER_TIMEOUT_MS);
                let goes_on = |takeover: &Takeover| takeover.check_holder(Instant::now(), patience).is_some();
                self.takeovers.retain(|takeover| &*takeover.pod != pod || goes_on(takeover));
                self.model.begin_step();
                self.model.decide(pod);
            }
            Step::Record { pod, recorded } => {
                if let Some(holder) = self.directory.holder(pod) {
                    self.directory.registered(holder.socket, &pod.into(), outcome(recorded));
                }
                self.note_record(pod, recorded);
                self.model.begin_step();
                self.model.record(pod, recorded);
            }
            Step::Revoke { seat } => {
                let (me, place) = self.socket(seat);
                place.expel(REFUSED, Close::CREDENTIAL_REFUSED);
                self.model.begin_step();
                self.model.expel(me, 1008, Some((None, REFUSED)));
            }
            Step::Wait { ms } => self.wait(ms),
            Step::Read { seat } => {
                let (me, _) = self.socket(seat);
                return self.compare(me);
            }
        }
        for (me, socket) in self.model.sockets.iter().enumerate() {
            if socket.closed.is_some() {
                self.expelled.entry(me).or_insert(at);
            }
        }
        for seat in 0..SOCKETS {
            let number = self.seats[seat].as_ref().map(|(number, _)| *number);
            let closed = number.and_then(|number| self.model.sockets[number].closed);
            if matches!(closed, Some(1008 | 4003)) {
                // The socket reads no more frames from now on.
                self.leave(seat)?;
            }
        }
        for seat in 0..SOCKETS {
            if let (false, Some((me, _))) = (self.lazy[seat], &self.seats[seat]) {
                self.compare(*me)?;
            }
        }
        let live = Stats { origins: self.model.origins().len(), sessions: self.model.sessions() };
        prop_assert_eq!(self.directory.stats(), live);
        let mut origins = self.directory.origins();
        origins.sort();
        prop_assert_eq!(origins, self.model.origins());
        Ok(())
    }

    fn ask(&mut self, seat: usize, mut ask: Ask, at: usize) -> Result<(), TestCaseError> {
        let (me, place) = self.socket(seat);
        // Each payload says who sent it in which step.
        ask.payload = ask.payload.map(|padding| json!([me, at, padding]).to_string());
        match place.handle(&render(&ask), &AdmitAll) {
            Handled::Done | Handled::TooMany => {}
            Handled::Registers(Registration { pod, token }) => {
                let owner = token.map(|token| [token.parse().unwrap(); 32]);
                let entitlement = owner.map_or(Entitlement::Open(None), Entitlement::Owner);
                match place.admit(pod.clone(), Ok(entitlement), ClientNetwork::default()) {
                    Admitted::TakesOver(takeover) => self.takeovers.push(takeover),
                    Admitted::Holds => {
                        if let Some(recorded) = ask.recorded {
                            place.registered(&pod, outcome(recorded));
                            if recorded != Recorded::Refused {
                                self.registered.insert((me, pod.to_string()));
                            }
                        }
                    }
                    Admitted::NotYet => {}
                }
            }
            // As if the time were over.
            Handled::Waits(Passing { session_id, .. }) => place.give_up(&session_id),
        }
        self.model.begin_step();
        self.model.ask(me, &ask);
        self.note(me, &ask);
        Ok(())
    }

    fn leave(&mut self, seat: usize) -> Result<(), TestCaseError> {
        if let Some((me, place)) = self.seats[seat].take() {
            self.compare(me)?;
            drop(place);
            self.model.begin_step();
            self.model.leave(me);
        }
        Ok(())
    }

    /// What a socket was sent since it last read is what the model says, and nobody's but its peer's.
    fn compare(&mut self, me: usize) -> Result<(), TestCaseError> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut frames = Vec::new();
        let closed = loop {
            match self.outboxes[me].poll_next(&mut cx) {
                Poll::Ready(Ok(Next::Frame(frame))) => frames.push(frame),
                Poll::Ready(Ok(Next::Ping)) => {}
                Poll::Ready(Err(close)) => break Some(close.code),
                Poll::Pending => break None,
            }
        };
        let steps = self.model.read(me).into_iter().enumerate();
        let mut expected: Vec<(usize, Expected)> =
            steps.flat_map(|(step, frames)| frames.into_iter().map(move |frame| (step, frame))).collect();
        let mut sent = Vec::new();
        for text in &frames {
            let found = expected.iter().position(|(_, frame)| frame.text == *text);
            prop_assert!(found.is_some(), "socket {} was sent {} too", me, text);
            sent.push(expected.remove(found.unwrap()));
        }
        prop_assert!(expected.is_empty(), "socket {} lacks {:?}", me, expected);
        // What takes turns may overtake frames of others, and be overtaken by the broker's own. Nothing else may overtake
        // anything.
        for (n, (step, frame)) in sent.iter().enumerate() {
            let overtaken = sent[n..].iter().filter(|(later, _)| later < step);
            for (_, other) in overtaken {
                let may_overtake = match frame.session {
                    Some(_) => frame.in_turns && frame.session != other.session,
                    None => other.in_turns,
                };
                prop_assert!(may_overtake, "socket {}: {:?} overtook {:?}", me, frame, other);
            }
        }
        prop_assert_eq!(closed, self.model.sockets[me].closed, "socket {}", me);
        frames.iter().try_for_each(|frame| self.may_hear(me, frame))
    }

    /// Notes that the holder of a pod id, if there is one, is on record.
    fn note_record(&mut self, pod: &str, recorded: Recorded) {
        if let Some(holder) = self.model.holder(pod).filter(|_| recorded != Recorded::Refused) {
            self.registered.insert((holder, pod.into()));
        }
    }

    /// Notes what a socket asks for, whatever comes of it.
    fn note(&mut self, me: usize, ask: &Ask) {
        if let (Kind::Offer, Id::Text(pod)) = (ask.kind, &ask.pod) {
            self.visited.insert((me, pod.clone()));
        }
        if let (Kind::Offer, Id::Text(session)) = (ask.kind, &ask.session) {
            self.offered.insert((me, session.clone()));
        }
    }

    /// What one peer sends another hears only within a session that the visitor asked for, with an origin that is on record
    /// for a pod that the visitor named, and only before either of them loses a right.
    fn may_hear(&self, me: usize, frame: &str) -> Result<(), TestCaseError> {
        let frame: Value =
            serde_json::from_str(frame).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let sender = ["sdp", "candidate", "message"].iter().find_map(|field| frame[field][0].as_u64());
        let (Some(sender), Some(session)) = (sender, frame["sessionId"].as_str()) else { return Ok(()) };
        let opened = |visitor: usize, origin: usize| {
            self.offered.contains(&(visitor, session.into()))
                && PODS.iter().any(|pod| {
                    self.visited.contains(&(visitor, (*pod).into()))
                        && self.registered.contains(&(origin, (*pod).into()))
                })
        };
        let sender = sender as usize;
        prop_assert!(opened(me, sender) || opened(sender, me), "{} heard {} of {}", me, frame, sender);
        let sent = ["sdp", "candidate", "message"].iter().find_map(|field| frame[field][1].as_u64());
        let lost = self.expelled.get(&sender);
        prop_assert!(lost.is_none_or(|lost| sent.unwrap() as usize <= *lost), "{} was expelled", sender);
        prop_assert!(self.model.sockets[me].closed.is_none(), "{} was expelled and is sent {}", me, frame);
        Ok(())
    }

    /// After all left nothing is left.
    fn end(mut self) -> Result<(), TestCaseError> {
        (0..SOCKETS).try_for_each(|seat| self.leave(seat))?;
        prop_assert_eq!(self.directory.stats(), Stats { origins: 0, sessions: 0 });
        prop_assert!(self.directory.lock().is_empty(), "{:?}", self.directory);
        self.outboxes.clear();
        prop_assert_eq!(self.budget.used(), 0);
        Ok(())
    }
}

fn outcome(recorded: Recorded) -> Result<bool, String> {
    match recorded {
        Recorded::Written => Ok(true),
        Recorded::Missing => Ok(false),
        Recorded::Refused => Err(REFUSED.into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_directory_does_what_the_tables_say(
        limits in limits(),
        lazy in vec(prop::bool::weighted(0.2), SOCKETS),
        steps in vec(step(), 1..48),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let clock = runtime.handle().clone();
        let _clock = clock.enter();
        let mut both = Both::new(limits, lazy, runtime);
        for (at, step) in steps.into_iter().enumerate() {
            both.run(step, at)?;
        }
        both.end()?;
    }
}
