//! Which socket is an origin, which a visitor, and which sessions are between them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tokio::sync::Notify;

use super::{close::Close, contest::Contests, outbox::Outbox, queue::Share, wire};

mod holders;

pub use self::holders::Holder;

pub type SocketId = u64;
pub type PodId = Arc<str>;
pub type SessionId = Arc<str>;

/// All sockets. A session stands in both of its sides' roles or in neither.
#[derive(Debug, Default)]
pub struct State {
    sockets: HashMap<SocketId, Socket>,
    origins: HashMap<PodId, Holder>,
    contests: Contests,
    /// Pod ids that newcomers got after they had waited, and that nobody has asked about since.
    promoted: Vec<PodId>,
    any_promoted: Arc<Notify>,
    sessions: usize,
    /// The broker stops: nobody stays.
    stopping: bool,
}

#[derive(Debug)]
struct Socket {
    outbox: Arc<Outbox>,
    role: Role,
    /// The pod id that it registered and that another socket holds.
    contests: Option<PodId>,
}

/// What came of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The socket holds the pod id.
    Holds,
    /// It waits until the holder has shown whether it is there. With a number, this contest is new.
    Waits(Option<u64>),
}

/// What a socket is.
#[derive(Debug)]
pub enum Role {
    /// It has said nothing yet that decides.
    New,
    /// It holds pod ids.
    Origin { pods: Vec<PodId>, sessions: HashMap<SessionId, Visitor> },
    /// It offers to origins.
    Visitor {
        /// The pod of the first offer: the one that is meant where a later offer names none.
        pod: Option<PodId>,
        sessions: HashMap<SessionId, Session>,
    },
    /// It lost its pod id to another and is being closed: whatever it still says is dropped.
    Replaced,
}

/// One negotiation, as its visitor holds it.
#[derive(Debug)]
pub struct Session {
    pod: PodId,
    origin: SocketId,
    /// Its share of the origin's queue.
    share: Arc<Share>,
    candidates: Candidates,
}

/// One negotiation, as its origin holds it.
#[derive(Debug)]
pub struct Visitor {
    socket: SocketId,
    /// The session's share of the visitor's queue.
    share: Arc<Share>,
}

/// Where a frame of a session goes.
#[derive(Debug)]
pub struct Peer {
    /// The outbox of the other side.
    pub outbox: Arc<Outbox>,
    /// The session's share of it.
    pub share: Arc<Share>,
    /// The sender is a visitor: it can wait until there is room.
    pub is_origin: bool,
}

/// Candidates since the last offer, by the side that sent them.
#[derive(Debug, Default)]
struct Candidates {
    from_visitor: u32,
    from_origin: u32,
}

/// Why a frame goes nowhere: the message of the error frame that its sender gets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("already initialized")]
    AlreadyInitialized,
    #[error("uninitialized socket")]
    Uninitialized,
    #[error("wrong role")]
    WrongRole,
    #[error("{0} required")]
    Required(&'static str),
    #[error("{name} is longer than {limit} bytes")]
    TooLong { name: &'static str, limit: u32 },
    #[error("origin offline")]
    OriginOffline,
    #[error("pod id is held")]
    Held,
    #[error("{0}")]
    NotAdmitted(String),
    #[error("session id is taken")]
    SessionTaken,
    #[error("session belongs to another pod")]
    OtherPod,
    #[error("too many sessions")]
    TooManySessions,
    #[error("too many candidates")]
    TooManyCandidates,
    #[error("the peer reads too slowly: this frame was dropped")]
    PeerTooSlow,
}

impl State {
    /// Lets a socket in.
    pub fn join(&mut self, id: SocketId, outbox: Arc<Outbox>) {
        if self.stopping {
            outbox.close(Close::RESTART);
        }
        self.sockets.insert(id, Socket { outbox, role: Role::New, contests: None });
    }

    /// Closes from now on whoever joins; the outboxes of those who are there.
    pub fn stop(&mut self) -> Vec<Arc<Outbox>> {
        self.stopping = true;
        self.sockets.values().map(|socket| socket.outbox.clone()).collect()
    }

    /// The pod ids that are held.
    pub fn origins(&self) -> impl ExactSizeIterator<Item = &PodId> {
        self.origins.keys()
    }

    /// Whether nothing is left of any socket.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty() && self.origins.is_empty() && self.contests.len() + self.sessions == 0
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Whether a socket may take a pod id, whichever it is.
    pub fn has_room(&mut self, id: SocketId, pods_per_socket: u32) -> Result<(), Refusal> {
        let contests = self.contests_any(id);
        match self.role(id) {
            Role::Origin { pods, .. } if pods.len() < pods_per_socket as usize && !contests => Ok(()),
            Role::Origin { .. } | Role::Visitor { .. } => Err(Refusal::AlreadyInitialized),
            Role::New | Role::Replaced => Ok(()),
        }
    }

    /// Whether a socket waits for a pod id.
    pub fn contests_any(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.contests.is_some())
    }

    /// Whether a socket holds a pod id.
    pub fn holds(&self, id: SocketId, pod: &str) -> bool {
        self.origins.get(pod).is_some_and(|holder| holder.socket == id)
    }

    /// The origin that holds a pod id.
    pub fn holder(&self, pod: &str) -> Option<Holder> {
        self.origins.get(pod).copied()
    }

    /// The origins that hold pod ids.
    pub fn holders(&self) -> impl Iterator<Item = (&PodId, &Holder)> {
        self.origins.iter()
    }

    /// The registration of a pod id by this socket is on record.
    pub fn recorded(&mut self, id: SocketId, pod: &str) {
        if let Some(holder) = self.origins.get_mut(pod).filter(|holder| holder.socket == id) {
            holder.recorded = true;
        }
    }

    /// Returns what is notified when a newcomer that waited got its pod id.
    pub fn any_promoted(&self) -> Arc<Notify> {
        self.any_promoted.clone()
    }

    /// Takes the pod ids that newcomers got, with those that hold them.
    pub fn take_promoted(&mut self) -> Vec<(PodId, Holder)> {
        let promoted = std::mem::take(&mut self.promoted).into_iter();
        promoted.filter_map(|pod| self.holder(&pod).map(|holder| (pod, holder))).collect()
    }

    fn socket(&mut self, id: SocketId) -> &mut Socket {
        self.sockets.get_mut(&id).expect("a place is in the directory until it is dropped")
    }

    /// The role of a socket that is in the directory, as that of each `Place` is until it is dropped.
    pub fn role(&mut self, id: SocketId) -> &mut Role {
        &mut self.socket(id).role
    }

    /// Makes `visitor` and the origin of `pod` the two sides of a session, or finds that they are. Returns the way to the
    /// origin.
    pub fn open_session(
        &mut self,
        visitor: SocketId,
        session_id: &str,
        pod: PodId,
        limit: u32,
    ) -> Result<Peer, Refusal> {
        let origin = self.origins.get(&pod).map(|holder| holder.socket);
        if let Role::Visitor { sessions, .. } = self.role(visitor) {
            let full = sessions.len() >= limit as usize;
            match sessions.get_mut(session_id) {
                Some(session) if session.pod != pod => return Err(Refusal::OtherPod),
                Some(session) => {
                    session.candidates = Candidates::default();
                    let (origin, share) = (session.origin, session.share.clone());
                    return Ok(self.peer(origin, share, true));
                }
                None if full && origin.is_some() => return Err(Refusal::TooManySessions),
                None => {}
            }
        }
        let origin = origin.ok_or(Refusal::OriginOffline)?;
        let session_id: SessionId = session_id.into();
        let Role::Origin { sessions, .. } = self.role(origin) else { return Err(Refusal::OriginOffline) };
        let Entry::Vacant(free) = sessions.entry(session_id.clone()) else {
            return Err(Refusal::SessionTaken);
        };
        free.insert(Visitor { socket: visitor, share: Share::in_order() });
        self.sessions += 1;
        let share = Share::in_turns();
        if let Role::Visitor { sessions, .. } = self.role(visitor) {
            let candidates = Candidates::default();
            sessions.insert(session_id, Session { pod, origin, share: share.clone(), candidates });
        }
        Ok(self.peer(origin, share, true))
    }

    fn peer(&self, socket: SocketId, share: Arc<Share>, is_origin: bool) -> Peer {
        Peer { outbox: self.sockets[&socket].outbox.clone(), share, is_origin }
    }

    /// Makes a new socket a visitor; the pod of its first offer.
    pub fn visit(&mut self, id: SocketId, pod: Option<&str>) -> Result<Option<PodId>, Refusal> {
        let role = self.role(id);
        if let Role::New = role {
            *role = Role::Visitor { pod: pod.map(Into::into), sessions: HashMap::new() };
        }
        match role {
            Role::Visitor { pod, .. } => Ok(pod.clone()),
            Role::New | Role::Origin { .. } | Role::Replaced => Err(Refusal::WrongRole),
        }
    }

    /// Returns the way to the other side of one of a socket's own sessions.
    pub fn peer_of(&mut self, id: SocketId, session_id: &str) -> Option<Peer> {
        let (socket, share, is_origin) = match self.role(id) {
            Role::Origin { sessions, .. } => {
                let Visitor { socket, share } = sessions.get(session_id)?;
                (*socket, share.clone(), false)
            }
            Role::Visitor { sessions, .. } => {
                let Session { origin, share, .. } = sessions.get(session_id)?;
                (*origin, share.clone(), true)
            }
            Role::New | Role::Replaced => return None,
        };
        Some(self.peer(socket, share, is_origin))
    }

    /// Counts one candidate that `sender` sends in a session of its own.
    pub fn count_candidate(&mut self, sender: SocketId, session_id: &str, limit: u32) -> Result<(), Refusal> {
        let visitor = match self.role(sender) {
            Role::Origin { sessions, .. } => sessions.get(session_id).map(|visitor| visitor.socket),
            Role::Visitor { .. } | Role::New | Role::Replaced => Some(sender),
        };
        if let Some(Role::Visitor { sessions, .. }) = visitor.map(|visitor| self.role(visitor))
            && let Some(session) = sessions.get_mut(session_id)
        {
            let sent = match visitor == Some(sender) {
                true => &mut session.candidates.from_visitor,
                false => &mut session.candidates.from_origin,
            };
            *sent = sent.saturating_add(1);
            if *sent > limit {
                return Err(Refusal::TooManyCandidates);
            }
        }
        Ok(())
    }

    /// Ends all sessions of a socket if it is an origin and tells their visitors.
    fn end_sessions(&mut self, origin: SocketId) {
        let Role::Origin { sessions, .. } = self.role(origin) else { return };
        let ended = std::mem::take(sessions);
        self.sessions -= ended.len();
        for (session_id, Visitor { socket, .. }) in ended {
            if let Role::Visitor { sessions, .. } = self.role(socket) {
                sessions.remove(&session_id);
            }
            let frame = wire::error(Some(&session_id), &Refusal::OriginOffline.to_string());
            self.sockets[&socket].outbox.tell(frame);
        }
    }

    pub fn leave(&mut self, id: SocketId) {
        self.withdraw(id);
        self.end_sessions(id);
        let Some(socket) = self.sockets.remove(&id) else { return };
        match socket.role {
            Role::New | Role::Replaced => {}
            Role::Origin { pods, .. } => {
                for pod in pods {
                    tracing::info!(pod_id = &*pod, "origin left");
                    self.vacate(&pod);
                }
            }
            Role::Visitor { sessions, .. } => {
                self.sessions -= sessions.len();
                for (session_id, session) in sessions {
                    if let Role::Origin { sessions, .. } = self.role(session.origin) {
                        sessions.remove(&session_id);
                    }
                }
            }
        }
    }
}
