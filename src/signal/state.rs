//! Which socket is an origin, which a visitor, and which sessions are between them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::{
    outbox::{Close, Outbox},
    wire,
};

pub type SocketId = u64;
pub type PodId = Arc<str>;
pub type SessionId = Arc<str>;

/// All sockets. A session stands in both of its sides' roles or in neither.
#[derive(Debug, Default)]
pub struct State {
    sockets: HashMap<SocketId, Socket>,
    origins: HashMap<PodId, SocketId>,
    sessions: usize,
    /// The broker stops: nobody stays.
    stopping: bool,
}

#[derive(Debug)]
struct Socket {
    outbox: Arc<Outbox>,
    role: Role,
}

/// What a socket is.
#[derive(Debug)]
pub enum Role {
    /// It has said nothing yet that decides.
    New,
    /// It holds pod ids.
    Origin {
        pods: Vec<PodId>,
        /// The visitor of each session.
        sessions: HashMap<SessionId, SocketId>,
    },
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
    candidates: Candidates,
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
    #[error("session id is taken")]
    SessionTaken,
    #[error("session belongs to another pod")]
    OtherPod,
    #[error("too many sessions")]
    TooManySessions,
    #[error("too many candidates")]
    TooManyCandidates,
    #[error("peer does not read")]
    PeerTooSlow,
}

impl State {
    /// Lets a socket in.
    pub fn join(&mut self, id: SocketId, outbox: Arc<Outbox>) {
        if self.stopping {
            outbox.close(Close::RESTART);
        }
        self.sockets.insert(id, Socket { outbox, role: Role::New });
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

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Whether a socket may take a pod id, whichever it is.
    pub fn has_room(&mut self, id: SocketId, pods_per_socket: u32) -> Result<(), Refusal> {
        match self.role(id) {
            Role::Origin { pods, .. } if pods.len() < pods_per_socket as usize => Ok(()),
            Role::Origin { .. } | Role::Visitor { .. } => Err(Refusal::AlreadyInitialized),
            Role::New | Role::Replaced => Ok(()),
        }
    }

    /// Makes a socket that has room an origin, or one more pod its own; whoever held the pod id is replaced.
    pub fn register(&mut self, id: SocketId, pod: PodId) -> Result<(), Refusal> {
        if let Role::Origin { pods, .. } = self.role(id)
            && pods.contains(&pod)
        {
            return Err(Refusal::AlreadyInitialized);
        }
        if let Some(holder) = self.origins.get(&pod).copied() {
            self.replace(holder);
        }
        match self.role(id) {
            Role::Origin { pods, .. } => pods.push(pod.clone()),
            role => *role = Role::Origin { pods: vec![pod.clone()], sessions: HashMap::new() },
        }
        self.origins.insert(pod, id);
        Ok(())
    }

    /// The role of a socket that is in the directory, as that of each `Place` is until it is dropped.
    pub fn role(&mut self, id: SocketId) -> &mut Role {
        &mut self.sockets.get_mut(&id).expect("a place is in the directory until it is dropped").role
    }

    /// Makes `visitor` and the origin of `pod` the two sides of a session, or finds that they are; the origin's outbox.
    pub fn open_session(
        &mut self,
        visitor: SocketId,
        session_id: &str,
        pod: PodId,
        limit: u32,
    ) -> Result<Arc<Outbox>, Refusal> {
        let origin = self.origins.get(&pod).copied();
        if let Role::Visitor { sessions, .. } = self.role(visitor) {
            let full = sessions.len() >= limit as usize;
            match sessions.get_mut(session_id) {
                Some(session) if session.pod != pod => return Err(Refusal::OtherPod),
                Some(session) => session.candidates = Candidates::default(),
                None if full && origin.is_some() => return Err(Refusal::TooManySessions),
                None => {}
            }
        }
        let origin = origin.ok_or(Refusal::OriginOffline)?;
        let session_id: SessionId = session_id.into();
        let Role::Origin { sessions, .. } = self.role(origin) else { return Err(Refusal::OriginOffline) };
        match sessions.entry(session_id.clone()) {
            Entry::Occupied(holder) if *holder.get() != visitor => return Err(Refusal::SessionTaken),
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => {
                free.insert(visitor);
                self.sessions += 1;
                if let Role::Visitor { sessions, .. } = self.role(visitor) {
                    sessions.insert(session_id, Session { pod, origin, candidates: Candidates::default() });
                }
            }
        }
        Ok(self.sockets[&origin].outbox.clone())
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

    /// The outbox of the other side of one of a socket's own sessions.
    pub fn peer_of(&mut self, id: SocketId, session_id: &str) -> Option<Arc<Outbox>> {
        let peer = match self.role(id) {
            Role::Origin { sessions, .. } => *sessions.get(session_id)?,
            Role::Visitor { sessions, .. } => sessions.get(session_id)?.origin,
            Role::New | Role::Replaced => return None,
        };
        Some(self.sockets.get(&peer)?.outbox.clone())
    }

    /// Counts one candidate that `sender` sends in a session of its own.
    pub fn count_candidate(&mut self, sender: SocketId, session_id: &str, limit: u32) -> Result<(), Refusal> {
        let visitor = match self.role(sender) {
            Role::Origin { sessions, .. } => sessions.get(session_id).copied(),
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

    /// Takes all pods from an origin whose place another takes, and closes its socket.
    fn replace(&mut self, holder: SocketId) {
        self.end_sessions(holder);
        if let Role::Origin { pods, .. } = std::mem::replace(self.role(holder), Role::Replaced) {
            for pod in pods {
                self.origins.remove(&pod);
            }
        }
        self.sockets[&holder].outbox.close(Close::REPLACED);
    }

    /// Ends all sessions of a socket if it is an origin and tells their visitors.
    fn end_sessions(&mut self, origin: SocketId) {
        let Role::Origin { sessions, .. } = self.role(origin) else { return };
        let ended = std::mem::take(sessions);
        self.sessions -= ended.len();
        for (session_id, visitor) in ended {
            if let Role::Visitor { sessions, .. } = self.role(visitor) {
                sessions.remove(&session_id);
            }
            let frame = wire::error(Some(&session_id), &Refusal::OriginOffline.to_string());
            // A visitor that does not read is closed by its outbox.
            let _ = self.sockets[&visitor].outbox.push(frame);
        }
    }

    pub fn leave(&mut self, id: SocketId) {
        self.end_sessions(id);
        let Some(socket) = self.sockets.remove(&id) else { return };
        match socket.role {
            Role::New | Role::Replaced => {}
            Role::Origin { pods, .. } => {
                for pod in pods {
                    self.origins.remove(&pod);
                    tracing::info!(pod_id = &*pod, "origin left");
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
