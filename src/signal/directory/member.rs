//! What one socket asks of the directory.

use std::sync::{Arc, MutexGuard};

use arc_swap::Guard;

use super::{
    Directory,
    handled::{Admitted, Handled, Passing, Registration},
    takeover::Takeover,
};
use crate::{
    config::SignalSettings,
    net::network::ClientNetwork,
    signal::{
        admission::Admission,
        close::Close,
        entitlement::Entitlement,
        ids::{MAX_POD_ID, MAX_SESSION_ID, PodId, SocketId},
        outbox::{Outbox, Pushed, waiting::Waiting},
        state::{Peer, Refusal, Registered, Role, Route, State, offline::OfflineRules},
        takeovers::Newcomer,
        wire::{self, Frame, FrameError, FrameKind, Id},
    },
};

/// A socket by its number in the directory, which it may have left.
#[derive(Clone, Debug)]
pub struct Member {
    directory: Arc<Directory>,
    id: SocketId,
    outbox: Arc<Outbox>,
}

impl Member {
    pub(super) fn new(directory: Arc<Directory>, id: SocketId, outbox: Arc<Outbox>) -> Self {
        Self { directory, id, outbox }
    }

    pub(super) fn leave(&self) {
        self.directory.lock().leave(self.id);
    }

    /// Does what the frame in `bytes` asks for as far as `admission` allows it and it can be done at once, or tells the
    /// sender why not.
    pub fn handle(&self, bytes: &[u8], admission: &dyn Admission) -> Handled {
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(error @ (FrameError::InvalidJson | FrameError::TooDeep)) => {
                self.tell(None, &error.to_string());
                return Handled::Done;
            }
        };
        // All sockets wait for the lock: what the frame alone decides is done before.
        let relayed = frame.relayed();
        let counted = self.count(&frame, admission);
        let mut state = self.directory.lock();
        let waits = state.awaits_any(self.id);
        match state.role(self.id) {
            Role::Expelled => return Handled::Done,
            Role::New if waits => return Handled::Done,
            _ => {}
        }
        let handled = match frame.kind {
            FrameKind::Register => self.registration(state, &frame).map(Handled::Registers),
            FrameKind::Offer => self.offer(relayed, counted, state, &frame),
            FrameKind::Answer => self.answer(relayed, state, &frame),
            FrameKind::Candidate => self.candidate(relayed, state, &frame),
            FrameKind::Error => self.peer_error(relayed, state, &frame),
            FrameKind::Unknown => Ok(Handled::Done),
        };
        handled.unwrap_or_else(|refusal| {
            self.refuse(text_of(&frame.session_id), frame.kind, &refusal);
            if let Refusal::TooManyOffers(_) = refusal { Handled::TooMany } else { Handled::Done }
        })
    }

    /// Tells the sender that a frame which waited for room was dropped.
    pub fn give_up(&self, session_id: &str) {
        self.tell(Some(session_id), &Refusal::PeerTooSlow.to_string());
    }

    #[cfg(test)]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The number of the socket.
    #[cfg(test)]
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// The peer was heard of: whoever waits for its pod id waits in vain.
    pub fn is_there(&self) {
        self.directory.lock().is_there(self.id);
    }

    /// A registration is being admitted and recorded from now on, during which no more is read from the socket.
    pub fn begin_registration(&self) {
        self.directory.lock().begin_registration(self.id);
    }

    /// The registration is over.
    pub fn end_registration(&self) {
        self.directory.lock().end_registration(self.id);
    }

    /// Carries out a registration as far as it is entitled to, or tells the sender why it was not admitted.
    pub fn admit(
        &self,
        pod: PodId,
        admitted: Result<Entitlement, String>,
        network: ClientNetwork,
    ) -> Admitted {
        let mut state = self.directory.lock();
        // It may have been closed since it asked: it left, its credential was revoked, or the broker stops.
        if !state.has(self.id) || self.outbox.is_closing() {
            return Admitted::NotYet;
        }
        let registered = match (state.role(self.id), admitted) {
            (Role::Expelled, _) => return Admitted::NotYet,
            (_, Err(sentence)) => Err(Refusal::NotAdmitted(sentence)),
            (_, Ok(entitlement)) => {
                state.register(pod.clone(), Newcomer { socket: self.id, entitlement, network })
            }
        };
        drop(state);
        match registered {
            Ok(Registered::Holds) => Admitted::Holds,
            Ok(Registered::Waits(None)) => Admitted::NotYet,
            Ok(Registered::Waits(Some(number))) => {
                Admitted::TakesOver(Takeover { directory: self.directory.clone(), pod, number })
            }
            Err(refusal) => {
                self.refuse(None, FrameKind::Register, &refusal);
                Admitted::NotYet
            }
        }
    }

    /// Concludes a registration that was admitted: see [`Directory::registered`].
    pub fn registered(&self, pod: &PodId, recorded: Result<bool, String>) {
        self.directory.registered(self.id, pod, recorded);
    }

    /// Registers a pod id that nobody holds.
    #[cfg(test)]
    pub fn hold(&self, pod: &PodId, entitlement: Entitlement) {
        assert!(matches!(
            self.admit(pod.clone(), Ok(entitlement), ClientNetwork::default()),
            Admitted::Holds
        ));
        self.registered(pod, Ok(true));
    }

    /// Takes everything from the socket, tells it why and closes it.
    pub fn expel(&self, sentence: &str, close: Close) {
        self.directory.lock().expel(self.id, close, Some(wire::error(None, sentence)));
    }

    /// Tells the sender why its frame goes nowhere; a refused registration closes the socket, which loses all that it holds.
    fn refuse(&self, session_id: Option<&str>, kind: FrameKind, refusal: &Refusal) {
        let close = match (kind, refusal) {
            (FrameKind::Register, Refusal::AlreadyInitialized) => None,
            (FrameKind::Register, Refusal::Held) => Some(Close::HELD),
            (FrameKind::Register, _) => Some(Close::REGISTRATION_REFUSED),
            _ => None,
        };
        let frame = self.error(session_id, &refusal.to_string());
        match close {
            Some(close) => self.directory.lock().expel(self.id, close, Some(frame)),
            None => self.outbox.tell(frame),
        }
    }

    fn registration(
        &self,
        mut state: MutexGuard<'_, State>,
        frame: &Frame<'_>,
    ) -> Result<Registration, Refusal> {
        state.may_register(self.id)?;
        let pod: PodId = self.pod_id(frame)?.ok_or(Refusal::Required("podId"))?.into();
        let token = match &frame.owner_token {
            Id::Missing => None,
            Id::Text(token) => Some(token.to_string()),
            Id::NotText => return Err(Refusal::NotAdmitted("expected ownerToken to be a text".into())),
        };
        Ok(Registration { pod, token })
    }

    /// Counts an offer that is well-formed.
    fn count(&self, frame: &Frame<'_>, admission: &dyn Admission) -> Result<(), Refusal> {
        let is_whole =
            frame.payload.is_some() && self.pod_id(frame).is_ok() && self.session_id(frame).is_ok();
        match frame.kind {
            FrameKind::Offer if is_whole => admission.count_offer().map_err(Refusal::TooManyOffers),
            _ => Ok(()),
        }
    }

    fn offer(
        &self,
        relayed: Option<String>,
        counted: Result<(), Refusal>,
        mut state: MutexGuard<'_, State>,
        frame: &Frame<'_>,
    ) -> Result<Handled, Refusal> {
        let named = self.pod_id(frame);
        let first_pod = state.visit(self.id, named.as_ref().ok().copied().flatten())?;
        let pod = match named? {
            Some(pod) => pod.into(),
            None => first_pod.ok_or(Refusal::Required("podId"))?,
        };
        let session_id = self.session_id(frame)?;
        let offer = relayed.ok_or(Refusal::Required("sdp"))?;
        counted?;
        let max_sessions = self.limits().bounds.sessions_per_socket;
        match state.open_session(self.id, session_id, &pod, max_sessions)? {
            Route::To(origin) => {
                drop(state);
                self.pass(origin, frame.kind, session_id, offer)
            }
            Route::Waits => {
                state.await_origin(self.id, session_id, pod, offer, max_sessions, self.offline_rules())?;
                self.directory.offer_waits.notify_one();
                Ok(Handled::Done)
            }
        }
    }

    fn answer(
        &self,
        relayed: Option<String>,
        mut state: MutexGuard<'_, State>,
        frame: &Frame<'_>,
    ) -> Result<Handled, Refusal> {
        let Role::Origin { .. } = state.role(self.id) else { return Err(Refusal::WrongRole) };
        let session_id = self.session_id(frame)?;
        let answer = relayed.ok_or(Refusal::Required("sdp"))?;
        let Some(route) = state.route(self.id, session_id) else { return Ok(Handled::Done) };
        let handled = self.send(state, route, frame.kind, session_id, answer)?;
        self.directory.lock().note_answer(self.id, session_id);
        Ok(handled)
    }

    fn candidate(
        &self,
        relayed: Option<String>,
        mut state: MutexGuard<'_, State>,
        frame: &Frame<'_>,
    ) -> Result<Handled, Refusal> {
        if let Role::New = state.role(self.id) {
            return Err(Refusal::Uninitialized);
        }
        let session_id = self.session_id(frame)?;
        let candidate = relayed.ok_or(Refusal::Required("candidate"))?;
        let Some(route) = state.route(self.id, session_id) else {
            return match state.role(self.id) {
                Role::Visitor { .. } => Err(Refusal::OriginOffline),
                _ => Ok(Handled::Done),
            };
        };
        state.count_candidate(self.id, session_id, self.limits().bounds.candidates_per_session)?;
        self.send(state, route, frame.kind, session_id, candidate)
    }

    fn peer_error(
        &self,
        relayed: Option<String>,
        mut state: MutexGuard<'_, State>,
        frame: &Frame<'_>,
    ) -> Result<Handled, Refusal> {
        let (Some(session_id), Some(error)) = (text_of(&frame.session_id), relayed) else {
            return Ok(Handled::Done);
        };
        let Some(route) = state.route(self.id, session_id) else { return Ok(Handled::Done) };
        self.send(state, route, frame.kind, session_id, error)
    }

    /// Sends a frame on its route within a session.
    fn send(
        &self,
        mut state: MutexGuard<'_, State>,
        route: Route,
        kind: FrameKind,
        session_id: &str,
        relayed: String,
    ) -> Result<Handled, Refusal> {
        match route {
            Route::To(peer) => {
                // An origin does not lose a right between this and the push.
                let state = (!peer.is_origin).then_some(state);
                let handled = self.pass(peer, kind, session_id, relayed);
                drop(state);
                handled
            }
            Route::Waits => {
                state.wait_behind(self.id, session_id, relayed, self.offline_rules())?;
                Ok(Handled::Done)
            }
        }
    }

    /// Passes a frame on to the other side of a session. If there is no room for it, a visitor waits; an origin
    /// does not, because it has other visitors.
    fn pass(&self, to: Peer, kind: FrameKind, session_id: &str, relayed: String) -> Result<Handled, Refusal> {
        match kind {
            FrameKind::Offer => to.outbox.credit().grant_offer(),
            _ if to.is_origin => to.outbox.credit().grant_frame(),
            _ => {}
        }
        match to.outbox.push(&to.share, relayed) {
            Pushed::Queued | Pushed::Closed => Ok(Handled::Done),
            Pushed::Full(frame) if to.is_origin => {
                let waiting = Waiting::new(to.outbox, to.share, frame);
                Ok(Handled::Waits(Passing { waiting, session_id: session_id.into() }))
            }
            Pushed::Full(_) => Err(Refusal::PeerTooSlow),
        }
    }

    fn pod_id<'a>(&self, frame: &'a Frame<'_>) -> Result<Option<&'a str>, Refusal> {
        match &frame.pod_id {
            Id::Missing => Ok(None),
            Id::NotText => Err(Refusal::NotText("podId")),
            Id::Text(text) => short("podId", text, MAX_POD_ID).map(Some),
        }
    }

    fn session_id<'a>(&self, frame: &'a Frame<'_>) -> Result<&'a str, Refusal> {
        match &frame.session_id {
            Id::Missing => Err(Refusal::Required("sessionId")),
            Id::NotText => Err(Refusal::NotText("sessionId")),
            Id::Text(text) => short("sessionId", text, MAX_SESSION_ID),
        }
    }

    fn offline_rules(&self) -> OfflineRules {
        let limits = self.limits();
        OfflineRules { grace: limits.offline_grace.0, max_per_pod: limits.max_queue.as_u64() as usize / 2 }
    }

    fn limits(&self) -> Guard<Arc<SignalSettings>> {
        self.directory.limits.load()
    }

    /// Tells this socket that something is wrong.
    fn tell(&self, session_id: Option<&str>, message: &str) {
        self.outbox.tell(self.error(session_id, message));
    }

    /// Renders an error frame. A session id that is too long is not repeated.
    fn error(&self, session_id: Option<&str>, message: &str) -> String {
        let session_id = session_id.filter(|id| id.len() <= MAX_SESSION_ID);
        wire::error(session_id, message)
    }
}

fn text_of<'a>(id: &'a Id<'_>) -> Option<&'a str> {
    match id {
        Id::Text(text) => Some(text),
        Id::Missing | Id::NotText => None,
    }
}

fn short<'a>(name: &'static str, text: &'a str, limit: usize) -> Result<&'a str, Refusal> {
    if text.len() > limit { Err(Refusal::TooLong { name, limit }) } else { Ok(text) }
}
