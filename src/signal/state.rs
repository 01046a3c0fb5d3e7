//! Which socket is an origin, which a visitor, and which sessions are between them.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    mem,
    net::IpAddr,
    sync::Arc,
};

use tokio::{sync::Notify, time::Instant};

use self::{
    holder_socket::{HolderSocket, Record},
    recent_holders::RecentHolders,
    waiting_offers::WaitingOffers,
};
use super::{
    close::Close,
    ids::{PodId, SessionId, SocketId},
    outbox::Outbox,
    queue::{Share, Turns},
    takeovers::{Newcomer, Takeovers},
    wire,
};

pub mod holder_socket;
mod holders;
pub mod offline;
pub(super) mod recent_holders;
pub mod stop;
pub(super) mod waiting_offers;

/// All sockets. A session stands in both of its sides' roles or in neither, unless its offer waits for the origin: then
/// it stands in the visitor's role and in `waiting_offers`.
#[derive(Debug)]
pub struct State {
    sockets: HashMap<SocketId, Socket>,
    origins: HashMap<PodId, HolderSocket>,
    takeovers: Takeovers,
    /// Pod ids that newcomers got after they had waited, and that nobody has asked about since.
    promoted: HashSet<PodId>,
    any_promoted: Arc<Notify>,
    /// Sessions that have an origin.
    sessions: usize,
    waiting_offers: WaitingOffers,
    recent_holders: RecentHolders,
    started: Instant,
    phase: Phase,
}

/// Whether the broker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It runs.
    Running,
    /// What is under way is finished.
    Stopping,
    /// All sockets were sent away; whoever still joins is, too.
    Stopped,
}

#[derive(Debug)]
struct Socket {
    outbox: Arc<Outbox>,
    /// The client's network; `None` for clients that no limit holds for.
    network: Option<IpAddr>,
    role: Role,
    /// The pod id that it registered and that another socket holds.
    awaits: Option<PodId>,
    /// A registration of it is being carried out; it is read no further meanwhile.
    is_registering: bool,
    /// It was closed because the broker stops.
    leaves: bool,
}

/// What came of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The socket holds the pod id. It is told so, and visitors get through to it, with [`State::settle`].
    Holds,
    /// It waits until the holder has shown whether it is there. With a number, this takeover is new.
    Waits(Option<u64>),
}

/// What a socket is.
#[derive(Debug)]
pub enum Role {
    /// It has said nothing yet that decides.
    New,
    /// It holds a pod id, and takes no other: what is refused to it or taken from it ends its socket, and would take its
    /// other pod ids with it.
    Origin {
        pod: PodId,
        sessions: HashMap<SessionId, Visitor>,
        /// The turns of its visitors' networks.
        turns: HashMap<IpAddr, Arc<Turns>>,
    },
    /// It offers to origins.
    Visitor {
        /// The pod of the first offer: the one that is meant where a later offer names none.
        pod: Option<PodId>,
        sessions: HashMap<SessionId, Session>,
    },
    /// It lost a right or was refused one, and is being closed: whatever it still says is dropped.
    Expelled,
}

/// One negotiation, as its visitor holds it.
#[derive(Debug)]
pub struct Session {
    pod: PodId,
    peer: Side,
    /// Its share of the origin's queue.
    share: Arc<Share>,
    exchange: Exchange,
}

/// The other side of a visitor's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// An origin.
    Origin(SocketId),
    /// The origin that the offer with this number waits for.
    Awaited(u64),
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
pub enum Route {
    /// To the other side.
    To(Peer),
    /// Behind the session's offer, which waits for the origin.
    Waits,
}

/// The way to the other side of a session.
#[derive(Debug)]
pub struct Peer {
    /// The outbox of the other side.
    pub outbox: Arc<Outbox>,
    /// The session's share of it.
    pub share: Arc<Share>,
    /// The sender is a visitor: it can wait until there is room.
    pub is_origin: bool,
}

/// What was sent since the last offer.
#[derive(Debug, Default)]
struct Exchange {
    /// Candidates from the visitor.
    from_visitor: u32,
    /// Candidates from the origin.
    from_origin: u32,
    answered: bool,
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
    #[error("{0} must be text")]
    NotText(&'static str),
    #[error("{name} is longer than {limit} bytes")]
    TooLong { name: &'static str, limit: usize },
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
    #[error("{0}")]
    TooManyOffers(&'static str),
    #[error("too many candidates")]
    TooManyCandidates,
    #[error("the peer reads too slowly: this frame was dropped")]
    PeerTooSlow,
    #[error("the broker is restarting; try again in a few seconds")]
    Restarting,
}

impl State {
    /// Returns the state of a broker that started just now.
    pub fn new() -> Self {
        Self {
            sockets: HashMap::new(),
            origins: HashMap::new(),
            takeovers: Takeovers::default(),
            sessions: 0,
            waiting_offers: WaitingOffers::default(),
            recent_holders: RecentHolders::default(),
            promoted: HashSet::new(),
            any_promoted: Arc::default(),
            started: Instant::now(),
            phase: Phase::Running,
        }
    }

    /// Lets a socket in.
    pub fn join(&mut self, id: SocketId, outbox: Arc<Outbox>, network: Option<IpAddr>) {
        let is_late = self.phase == Phase::Stopped;
        let socket =
            Socket { outbox, network, role: Role::New, awaits: None, is_registering: false, leaves: false };
        self.sockets.insert(id, socket);
        if is_late {
            self.send_away(id);
        }
    }

    /// The pod ids that are held.
    pub fn origins(&self) -> impl ExactSizeIterator<Item = &PodId> {
        self.origins.keys()
    }

    /// Whether nothing is left of any socket.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
            && self.origins.is_empty()
            && self.takeovers.len() + self.sessions == 0
            && self.waiting_offers.is_empty()
    }

    /// How many sessions there are between a visitor and an origin.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Whether a socket may take a pod id, whichever it is.
    pub fn may_register(&mut self, id: SocketId) -> Result<(), Refusal> {
        match self.role(id) {
            Role::Origin { .. } | Role::Visitor { .. } => Err(Refusal::AlreadyInitialized),
            Role::New | Role::Expelled => Ok(()),
        }
    }

    /// Whether a socket waits for a pod id.
    pub fn awaits_any(&self, id: SocketId) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.awaits.is_some())
    }

    /// Whether a socket holds a pod id.
    pub fn holds(&self, id: SocketId, pod: &str) -> bool {
        self.origins.get(pod).is_some_and(|holder| holder.socket == id)
    }

    /// The origin that holds a pod id.
    pub fn holder(&self, pod: &str) -> Option<HolderSocket> {
        self.origins.get(pod).copied()
    }

    /// The origins that hold pod ids.
    pub fn holders(&self) -> impl Iterator<Item = (&PodId, &HolderSocket)> {
        self.origins.iter()
    }

    /// Returns what is notified when a newcomer that waited got its pod id.
    pub fn any_promoted(&self) -> Arc<Notify> {
        self.any_promoted.clone()
    }

    /// Takes the pod ids that newcomers got, with those that hold them.
    pub fn take_promoted(&mut self) -> Vec<(PodId, HolderSocket)> {
        let promoted = mem::take(&mut self.promoted).into_iter();
        promoted.filter_map(|pod| self.holder(&pod).map(|holder| (pod, holder))).collect()
    }

    /// Returns whether a socket has not left yet.
    pub fn has(&self, id: SocketId) -> bool {
        self.sockets.contains_key(&id)
    }

    /// Expels a socket that has no right to a pod id that it holds.
    pub fn evict(&mut self, id: SocketId, pod: &str, sentence: &str) {
        if self.holds(id, pod) {
            self.expel(id, Close::REGISTRATION_REFUSED, Some(wire::error(None, sentence)));
        }
    }

    fn socket(&mut self, id: SocketId) -> &mut Socket {
        self.sockets.get_mut(&id).expect("a place is in the directory until it is dropped")
    }

    /// The role of a socket that is in the directory, as that of each `Place` is until it is dropped.
    pub fn role(&mut self, id: SocketId) -> &mut Role {
        &mut self.socket(id).role
    }

    /// Makes `visitor` and the origin of `pod` the two sides of a session, or finds that they are. Where nobody holds
    /// the pod id, or its holder is not settled, [`State::await_origin`] comes next.
    pub fn open_session(
        &mut self,
        visitor: SocketId,
        session_id: &str,
        pod: &PodId,
        limit: u32,
    ) -> Result<Route, Refusal> {
        let holder = self.origins.get(pod).filter(|holder| holder.record != Record::Pending);
        let origin = holder.map(|holder| holder.socket);
        if let Role::Visitor { sessions, .. } = self.role(visitor) {
            let full = sessions.len() >= limit as usize;
            match sessions.get_mut(session_id) {
                Some(session) if session.pod != *pod => return Err(Refusal::OtherPod),
                Some(session) => {
                    session.exchange = Exchange::default();
                    let Side::Origin(origin) = session.peer else { return Ok(Route::Waits) };
                    let share = session.share.clone();
                    return self.way_to(origin, share);
                }
                None if full && origin.is_some() => return Err(Refusal::TooManySessions),
                None => {}
            }
        }
        let Some(origin) = origin else { return Ok(Route::Waits) };
        if self.sockets[&origin].leaves {
            return Err(Refusal::Restarting);
        }
        let session_id: SessionId = session_id.into();
        let share = self.admit_visitor(origin, visitor, &session_id).ok_or(Refusal::SessionTaken)?;
        if let Role::Visitor { sessions, .. } = self.role(visitor) {
            let (pod, peer, share) = (pod.clone(), Side::Origin(origin), share.clone());
            sessions.insert(session_id, Session { pod, peer, share, exchange: Exchange::default() });
        }
        self.way_to(origin, share)
    }

    /// Enters a session of `visitor` at its origin. Returns its share of the origin's queue, or `None` if another session
    /// has its id.
    fn admit_visitor(
        &mut self,
        origin: SocketId,
        visitor: SocketId,
        session_id: &SessionId,
    ) -> Option<Arc<Share>> {
        let network = self.socket(visitor).network;
        let Role::Origin { sessions, turns, .. } = self.role(origin) else { return None };
        let Entry::Vacant(free) = sessions.entry(session_id.clone()) else { return None };
        free.insert(Visitor { socket: visitor, share: Share::in_order() });
        if turns.len() > 2 * sessions.len() {
            turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let turns = network.map(|network| turns.entry(network).or_default().clone()).unwrap_or_default();
        self.sessions += 1;
        Some(Share::in_turns(turns))
    }

    /// Returns the way of an offer to an origin, unless the origin was sent away.
    fn way_to(&self, origin: SocketId, share: Arc<Share>) -> Result<Route, Refusal> {
        if self.sockets[&origin].leaves {
            return Err(Refusal::Restarting);
        }
        Ok(Route::To(self.peer(origin, share, true)))
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
            Role::New | Role::Origin { .. } | Role::Expelled => Err(Refusal::WrongRole),
        }
    }

    /// Returns where a frame goes that a socket sends in one of its own sessions.
    pub fn route(&mut self, id: SocketId, session_id: &str) -> Option<Route> {
        let (socket, share, is_origin) = match self.role(id) {
            Role::Origin { sessions, .. } => {
                let Visitor { socket, share } = sessions.get(session_id)?;
                (*socket, share.clone(), false)
            }
            Role::Visitor { sessions, .. } => {
                let Session { peer, share, .. } = sessions.get(session_id)?;
                let Side::Origin(origin) = peer else { return Some(Route::Waits) };
                (*origin, share.clone(), true)
            }
            Role::New | Role::Expelled => return None,
        };
        Some(Route::To(self.peer(socket, share, is_origin)))
    }

    /// Notes that `origin` answered in a session of its own.
    pub fn note_answer(&mut self, origin: SocketId, session_id: &str) {
        if let Some(Role::Origin { sessions, .. }) = self.sockets.get(&origin).map(|socket| &socket.role)
            && let Some(visitor) = sessions.get(session_id).map(|visitor| visitor.socket)
            && let Role::Visitor { sessions, .. } = self.role(visitor)
            && let Some(session) = sessions.get_mut(session_id)
        {
            session.exchange.answered = true;
        }
    }

    /// Counts one candidate that `sender` sends in a session of its own.
    pub fn count_candidate(&mut self, sender: SocketId, session_id: &str, limit: u32) -> Result<(), Refusal> {
        let visitor = match self.role(sender) {
            Role::Origin { sessions, .. } => sessions.get(session_id).map(|visitor| visitor.socket),
            Role::Visitor { .. } | Role::New | Role::Expelled => Some(sender),
        };
        if let Some(Role::Visitor { sessions, .. }) = visitor.map(|visitor| self.role(visitor))
            && let Some(session) = sessions.get_mut(session_id)
        {
            let sent = match visitor == Some(sender) {
                true => &mut session.exchange.from_visitor,
                false => &mut session.exchange.from_origin,
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
        let ended = mem::take(sessions);
        self.sessions -= ended.len();
        for (session_id, Visitor { socket, .. }) in ended {
            if let Role::Visitor { sessions, .. } = self.role(socket) {
                sessions.remove(&session_id);
            }
            let frame = wire::error(Some(&session_id), &Refusal::OriginOffline.to_string());
            self.sockets[&socket].outbox.tell(frame);
        }
    }

    /// A socket has ended.
    pub fn leave(&mut self, id: SocketId) {
        let refused = self.strip(id);
        self.sockets.remove(&id);
        refused.into_iter().for_each(|newcomer| self.refuse(newcomer));
    }

    /// Takes a socket's role from it, with its pod id and sessions. Returns the newcomers that wait in vain for its pod id.
    fn strip(&mut self, id: SocketId) -> Vec<Newcomer> {
        self.withdraw(id);
        self.end_sessions(id);
        let network = self.socket(id).network;
        match mem::replace(self.role(id), Role::Expelled) {
            Role::New | Role::Expelled => Vec::new(),
            Role::Origin { pod, .. } => self.vacate(&pod, network),
            Role::Visitor { sessions, .. } => {
                self.end_visits(sessions);
                Vec::new()
            }
        }
    }

    /// Ends the sessions of a visitor; nobody is told.
    fn end_visits(&mut self, sessions: HashMap<SessionId, Session>) {
        for (session_id, session) in sessions {
            match session.peer {
                Side::Origin(origin) => {
                    self.sessions -= 1;
                    if let Role::Origin { sessions, .. } = self.role(origin) {
                        sessions.remove(&session_id);
                    }
                }
                Side::Awaited(number) => drop(self.waiting_offers.remove(number)),
            }
        }
    }
}
