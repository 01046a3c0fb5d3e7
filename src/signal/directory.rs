//! Who holds which pod id and session, and where a frame goes. The states are a table in [`crate::signal`].
//!
//! This is the one place that knows where a pod's origin is. A socket hands its frames in and finds what is meant
//! for it in its [`Outbox`]; nothing else passes between the two.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use serde_json::value::RawValue;
use tokio::sync::Notify;

pub use super::state::Holder;
use super::{
    admission::Standing,
    contest::{Contest, Newcomer},
    outbox::{Close, Outbox, Pushed},
    state::{PodId, Refusal, Registered, Role, SocketId, State},
    wire::{self, Frame, FrameError, Id, Kind},
};
use crate::config::SignalSettings;

/// All sockets, who they are and whom they talk to.
#[derive(Debug)]
pub struct Directory {
    state: Mutex<State>,
    next_socket: AtomicU64,
    limits: ArcSwap<SignalSettings>,
}

/// How much is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Pod ids that an origin holds.
    pub origins: usize,
    /// Sessions between a visitor and an origin.
    pub sessions: usize,
}

/// A socket's place in the directory; dropping it is leaving.
#[derive(Debug)]
pub struct Place {
    directory: Arc<Directory>,
    id: SocketId,
    outbox: Arc<Outbox>,
}

/// A registration that the directory could carry out, once it is admitted.
#[derive(Debug)]
#[must_use = "a registration must be admitted or refused"]
pub struct Registration {
    /// The pod id.
    pub pod: PodId,
    /// The `ownerToken` of the frame.
    pub token: Option<String>,
}

/// What came of a registration.
#[derive(Debug)]
#[must_use = "a contest must be decided"]
pub enum Admitted {
    /// The socket holds the pod id.
    Holds,
    /// It waits for the pod id, and this contest begins with it: it is to be decided when the holder has had the time to
    /// show that it is there.
    Contests(Contest),
    /// It waits together with others, or was refused.
    NotYet,
}

impl Directory {
    /// An empty directory.
    pub fn new(limits: SignalSettings) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            next_socket: AtomicU64::new(0),
            limits: ArcSwap::from_pointee(limits),
        })
    }

    /// Lets a socket in; what is meant for it goes into `outbox`.
    pub fn join(self: &Arc<Self>, outbox: Arc<Outbox>) -> Place {
        let id = self.next_socket.fetch_add(1, Ordering::Relaxed);
        self.lock().join(id, outbox.clone());
        Place { directory: self.clone(), id, outbox }
    }

    /// The limits that hold now.
    pub fn limits(&self) -> Arc<SignalSettings> {
        self.limits.load_full()
    }

    /// Puts other limits in place; open sockets keep those of their own.
    pub fn set_limits(&self, limits: SignalSettings) {
        self.limits.store(Arc::new(limits));
    }

    /// The pod ids that are held, in no order.
    pub fn origins(&self) -> Vec<String> {
        self.lock().origins().map(ToString::to_string).collect()
    }

    /// How much is live.
    pub fn live(&self) -> Live {
        let state = self.lock();
        Live { origins: state.origins().len(), sessions: state.sessions() }
    }

    /// Closes from now on whoever joins; the outboxes of those who are there.
    pub(super) fn stop(&self) -> Vec<Arc<Outbox>> {
        self.lock().stop()
    }

    /// The origin that holds a pod id.
    pub fn holder(&self, pod: &str) -> Option<Holder> {
        self.lock().holder(pod)
    }

    /// All pod ids that are held, with the origins that hold them.
    pub fn holders(&self) -> Vec<(PodId, Holder)> {
        self.lock().holders().map(|(pod, holder)| (pod.clone(), *holder)).collect()
    }

    /// The registration of a pod id by a socket is on record.
    pub fn recorded(&self, socket: SocketId, pod: &str) {
        self.lock().recorded(socket, pod);
    }

    /// Returns what is notified when a newcomer that waited got its pod id: see [`Directory::take_promoted`].
    pub fn any_promoted(&self) -> Arc<Notify> {
        self.lock().any_promoted()
    }

    /// Takes the pod ids that newcomers got, and that are not on record yet, with those that hold them.
    pub fn take_promoted(&self) -> Vec<(PodId, Holder)> {
        self.lock().take_promoted()
    }

    /// The time that the holder of a pod id had to show that it is there is over. Returns the round that goes on, or
    /// `None` if the contest is over.
    pub(super) fn end_round(&self, pod: &PodId, contest: u64, seen: u64) -> Option<u64> {
        self.lock().end_round(pod, contest, seen)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Does what the frame in `bytes` asks for, or tells the sender why not. A registration that could be carried
    /// out is handed back, to be admitted first.
    pub fn handle(&self, bytes: &[u8]) -> Option<Registration> {
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(error @ (FrameError::InvalidJson | FrameError::TooDeep)) => {
                self.tell(None, &error.to_string());
                return None;
            }
        };
        let mut state = self.directory.lock();
        let waits = state.contests_any(self.id);
        match state.role(self.id) {
            Role::Replaced => return None,
            Role::New if waits => return None,
            _ => {}
        }
        let done = match frame.kind {
            Kind::Register => match self.registration(state, &frame) {
                Ok(registration) => return Some(registration),
                Err(refusal) => Err(refusal),
            },
            Kind::Offer => self.offer(state, &frame),
            Kind::Answer => self.answer(state, &frame),
            Kind::Candidate => self.candidate(state, &frame),
            Kind::Error => self.peer_error(state, &frame),
            Kind::Unknown => return None,
        };
        if let Err(refusal) = done {
            self.refuse(text_of(&frame.session_id), frame.kind, &refusal);
        }
        None
    }

    /// The number of the socket.
    #[cfg(test)]
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// The peer was heard of: whoever waits for one of its pod ids waits in vain.
    pub fn is_there(&self) {
        self.directory.lock().is_there(self.id);
    }

    /// Carries out a registration as its standing allows, or tells the sender why it was not admitted.
    pub fn admit(&self, pod: PodId, admitted: Result<Standing, String>, network: Option<IpAddr>) -> Admitted {
        let mut state = self.directory.lock();
        let registered = match (state.role(self.id), admitted) {
            (Role::Replaced, _) => return Admitted::NotYet,
            (_, Err(sentence)) => Err(Refusal::NotAdmitted(sentence)),
            (_, Ok(standing)) => state.register(pod.clone(), Newcomer { socket: self.id, standing, network }),
        };
        drop(state);
        match registered {
            Ok(Registered::Holds) => Admitted::Holds,
            Ok(Registered::Waits(None)) => Admitted::NotYet,
            Ok(Registered::Waits(Some(number))) => {
                Admitted::Contests(Contest { directory: self.directory.clone(), pod, number, round: 0 })
            }
            Err(refusal) => {
                self.refuse(None, Kind::Register, &refusal);
                Admitted::NotYet
            }
        }
    }

    /// What the admission made of a registration that was carried out: whether it is on record, or why the socket must
    /// give the pod id up.
    pub fn registered(&self, pod: &str, recorded: Result<bool, String>) {
        match recorded {
            Ok(true) => self.directory.recorded(self.id, pod),
            Ok(false) => {}
            Err(sentence) => self.refuse(None, Kind::Register, &Refusal::NotAdmitted(sentence)),
        }
    }

    /// Tells the sender why its frame goes nowhere; a refused registration closes the socket.
    fn refuse(&self, session_id: Option<&str>, kind: Kind, refusal: &Refusal) {
        self.tell(session_id, &refusal.to_string());
        match (kind, refusal) {
            (Kind::Register, Refusal::Held) => self.outbox.close(Close::HELD),
            (Kind::Register, Refusal::AlreadyInitialized) => {}
            (Kind::Register, _) => self.outbox.close(Close::REGISTRATION_REFUSED),
            _ => {}
        }
    }

    fn registration(
        &self,
        mut state: MutexGuard<'_, State>,
        frame: &Frame<'_>,
    ) -> Result<Registration, Refusal> {
        state.has_room(self.id, self.limits().pods_per_socket)?;
        let pod: PodId = self.pod_id(frame)?.ok_or(Refusal::Required("podId"))?.into();
        if state.holds(self.id, &pod) {
            return Err(Refusal::AlreadyInitialized);
        }
        let token = match &frame.owner_token {
            Id::Missing => None,
            Id::Text(token) => Some(token.to_string()),
            Id::NotText => return Err(Refusal::NotAdmitted("expected ownerToken to be a text".into())),
        };
        Ok(Registration { pod, token })
    }

    fn offer(&self, mut state: MutexGuard<'_, State>, frame: &Frame<'_>) -> Result<(), Refusal> {
        let named = self.pod_id(frame);
        let first_pod = state.visit(self.id, named.as_ref().ok().copied().flatten())?;
        let pod = match named? {
            Some(pod) => pod.into(),
            None => first_pod.ok_or(Refusal::Required("podId"))?,
        };
        let session_id = self.session_id(frame)?;
        let sdp = frame.payload.ok_or(Refusal::Required("sdp"))?;
        let origin = state.open_session(self.id, session_id, pod, self.limits().sessions_per_socket)?;
        drop(state);
        self.pass(&origin, frame.kind, session_id, sdp)
    }

    fn answer(&self, mut state: MutexGuard<'_, State>, frame: &Frame<'_>) -> Result<(), Refusal> {
        let Role::Origin { .. } = state.role(self.id) else { return Err(Refusal::WrongRole) };
        let session_id = self.session_id(frame)?;
        let sdp = frame.payload.ok_or(Refusal::Required("sdp"))?;
        let Some(visitor) = state.peer_of(self.id, session_id) else { return Ok(()) };
        drop(state);
        self.pass(&visitor, frame.kind, session_id, sdp)
    }

    fn candidate(&self, mut state: MutexGuard<'_, State>, frame: &Frame<'_>) -> Result<(), Refusal> {
        if let Role::New = state.role(self.id) {
            return Err(Refusal::Uninitialized);
        }
        let session_id = self.session_id(frame)?;
        let candidate = frame.payload.ok_or(Refusal::Required("candidate"))?;
        let Some(peer) = state.peer_of(self.id, session_id) else {
            return match state.role(self.id) {
                Role::Visitor { .. } => Err(Refusal::OriginOffline),
                _ => Ok(()),
            };
        };
        state.count_candidate(self.id, session_id, self.limits().candidates_per_session)?;
        drop(state);
        self.pass(&peer, frame.kind, session_id, candidate)
    }

    fn peer_error(&self, mut state: MutexGuard<'_, State>, frame: &Frame<'_>) -> Result<(), Refusal> {
        let (Some(session_id), Some(message)) = (text_of(&frame.session_id), frame.payload) else {
            return Ok(());
        };
        let Some(peer) = state.peer_of(self.id, session_id) else { return Ok(()) };
        drop(state);
        self.pass(&peer, frame.kind, session_id, message)
    }

    /// Passes an opaque value on to the other side of a session.
    fn pass(&self, to: &Outbox, kind: Kind, session_id: &str, payload: &RawValue) -> Result<(), Refusal> {
        match to.push(wire::relayed(kind, session_id, payload)) {
            Pushed::Queued | Pushed::Closed => Ok(()),
            Pushed::Overflowed => Err(Refusal::PeerTooSlow),
        }
    }

    fn pod_id<'a>(&self, frame: &'a Frame<'_>) -> Result<Option<&'a str>, Refusal> {
        match &frame.pod_id {
            Id::Missing => Ok(None),
            Id::NotText => Err(Refusal::Required("podId")),
            Id::Text(text) => short("podId", text, self.limits().max_pod_id).map(Some),
        }
    }

    fn session_id<'a>(&self, frame: &'a Frame<'_>) -> Result<&'a str, Refusal> {
        let text = text_of(&frame.session_id).ok_or(Refusal::Required("sessionId"))?;
        short("sessionId", text, self.limits().max_session_id)
    }

    fn limits(&self) -> Guard<Arc<SignalSettings>> {
        self.directory.limits.load()
    }

    /// Tells this socket that something is wrong. A session id that is too long is not repeated.
    fn tell(&self, session_id: Option<&str>, message: &str) {
        let session_id = session_id.filter(|id| id.len() <= self.limits().max_session_id as usize);
        self.push(wire::error(session_id, message));
    }

    fn push(&self, frame: String) {
        // A socket that does not read its own errors is closed by its outbox.
        let _ = self.outbox.push(frame);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.directory.lock().leave(self.id);
    }
}

fn text_of<'a>(id: &'a Id<'_>) -> Option<&'a str> {
    match id {
        Id::Text(text) => Some(text),
        Id::Missing | Id::NotText => None,
    }
}

fn short<'a>(name: &'static str, text: &'a str, limit: u32) -> Result<&'a str, Refusal> {
    if text.len() > limit as usize { Err(Refusal::TooLong { name, limit }) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread, time::Duration};

    use super::*;

    /// The watchdog relies on it.
    #[test]
    fn a_directory_that_is_held_up_tells_nothing() {
        let directory = Directory::new(SignalSettings::default());
        let (sender, answer) = channel();
        thread::scope(|scope| {
            let held = directory.lock();
            scope.spawn(|| sender.send(directory.live()).unwrap());
            answer.recv_timeout(Duration::from_millis(200)).unwrap_err();
            drop(held);
        });
        assert_eq!(answer.recv().unwrap(), Live { origins: 0, sessions: 0 });
    }
}
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod steps;
