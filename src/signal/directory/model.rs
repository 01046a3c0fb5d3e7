//! What the tables in [`crate::signal`] say, done the slow and obvious way: flat lists, searched from end to end.

use serde_json::Value;

use super::steps::{Ask, Id, Kind, Limits, MAX_ID, Recorded};

/// Bookkeeping for one waiting frame beside its text.
const FRAME_OVERHEAD: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    New,
    Origin(String),
    /// With the pod id of its first offer.
    Visitor(Option<String>),
    Expelled,
}

/// Why a socket loses a right, as it is told.
pub const REFUSED: &str = "no right to it";
/// How long a holder may be silent.
pub const TAKEOVER_TIMEOUT_MS: u64 = 3_000;
/// How long an offer waits for a registration that is being recorded, where none waits for an origin that is offline.
const RECORDING_MS: u64 = 3_000;

/// Newcomers that may wait for one pod id.
const NEWCOMERS: usize = 16;

/// A frame that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub text: String,
    /// The number of its session; `None` if the broker itself says it.
    pub session: Option<usize>,
    /// Whether its session takes turns with others.
    pub in_turns: bool,
}

/// What newcomers are told that wait in vain.
const HELD: &str = "pod id is held";

/// What a sender is told whose frame has no room.
const TOO_SLOW: &str = "the peer reads too slowly: this frame was dropped";

/// Bookkeeping for one waiting offer beside its frames.
const OFFER_OVERHEAD: usize = 1024;
/// Bytes that may wait for an origin, from one socket.
const WAITING_PER_SOCKET: usize = 64 << 10;
/// How long any pod id may be one whose origin is on its way back.
const AFTER_START_MS: u64 = 30_000;
/// How long the same is so for a pod id whose origin left.
const REMEMBERED_MS: u64 = 120_000;

#[derive(Debug)]
pub struct Socket {
    pub role: Role,
    /// What waits, one list of frames for each step; the frames of one step come in no order.
    pub waiting: Vec<Vec<Waiting>>,
    pub closed: Option<u16>,
}

#[derive(Debug)]
struct Session {
    number: usize,
    id: String,
    pod: String,
    visitor: usize,
    origin: usize,
    candidates_of_visitor: usize,
    candidates_of_origin: usize,
}

/// A session whose offer waits for the origin.
#[derive(Debug)]
struct WaitingOffer {
    id: String,
    pod: String,
    visitor: usize,
    expires_ms: u64,
    frames: Vec<String>,
    candidates: usize,
}

#[derive(Debug)]
pub struct Model {
    limits: Limits,
    now_ms: u64,
    /// In the order in which they came.
    waiting: Vec<WaitingOffer>,
    /// Pod ids, and when their last origin left.
    left: Vec<(String, u64)>,
    pub sockets: Vec<Socket>,
    sessions: Vec<Session>,
    sessions_ever: usize,
    /// Which newcomer waits for which pod id, in the order in which they came, and for which owner it stands by.
    newcomers: Vec<(String, usize, Option<u8>)>,
    /// The owners that the holders of pod ids have proved.
    proofs: Vec<(String, u8)>,
    /// Of pod ids that newcomers wait for: since when their holder owes an answer.
    takeovers: Vec<(String, Option<u64>)>,
    /// Pod ids whose holder is not on record yet.
    pending: Vec<String>,
}

impl Model {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            now_ms: 0,
            waiting: Vec::new(),
            left: Vec::new(),
            sockets: Vec::new(),
            sessions: Vec::new(),
            sessions_ever: 0,
            newcomers: Vec::new(),
            proofs: Vec::new(),
            takeovers: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Lets a socket in; its number.
    pub fn join(&mut self) -> usize {
        self.sockets.push(Socket { role: Role::New, waiting: Vec::new(), closed: None });
        self.sockets.len() - 1
    }

    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The pod ids that are held, in order.
    pub fn origins(&self) -> Vec<String> {
        let mut pods: Vec<_> = self.sockets.iter().filter_map(|socket| pod(&socket.role)).cloned().collect();
        pods.sort();
        pods
    }

    pub fn begin_step(&mut self) {
        self.sockets.iter_mut().for_each(|socket| socket.waiting.push(Vec::new()));
    }

    /// Takes what waits for a socket.
    pub fn read(&mut self, me: usize) -> Vec<Vec<Waiting>> {
        std::mem::take(&mut self.sockets[me].waiting)
    }

    pub fn not_json(&mut self, me: usize) {
        self.tell(me, None, "invalid json");
    }

    pub fn leave(&mut self, me: usize) {
        self.lose_all(me);
    }

    /// A socket loses a right, and with it all that it has; nothing that waits for it is sent to it.
    pub fn expel(&mut self, me: usize, code: u16, told: Option<(Option<&str>, &str)>) {
        if self.sockets[me].closed.is_none() {
            self.sockets[me].waiting.iter_mut().for_each(Vec::clear);
            if let Some((session, message)) = told {
                self.tell(me, session, message);
            }
            self.sockets[me].closed = Some(code);
        }
        self.lose_all(me);
    }

    /// What came of the record of a pod id's holder.
    pub fn record(&mut self, pod: &str, recorded: Recorded) {
        let Some(holder) = self.holder(pod) else { return };
        match recorded {
            Recorded::Refused => self.expel(holder, 1008, Some((None, REFUSED))),
            Recorded::Written | Recorded::Missing if self.pending.iter().any(|pending| pending == pod) => {
                self.pending.retain(|pending| pending != pod);
                self.open(holder, pod);
            }
            Recorded::Written | Recorded::Missing => {}
        }
    }

    /// Time passes: offers that have waited for long enough are refused.
    pub fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        let (expired, left) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.expires_ms <= self.now_ms);
        self.waiting = left;
        let expired: Vec<WaitingOffer> = expired;
        for waiting in expired {
            self.tell(waiting.visitor, Some(&waiting.id), "origin offline");
        }
    }

    /// A sign of life, which need not be a frame.
    pub fn heard(&mut self, me: usize) {
        if let Some(pod) = pod(&self.sockets[me].role).cloned() {
            self.pinged(&pod, None);
            self.refuse_newcomers(&pod, false);
        }
    }

    /// The holder of a pod id is looked at.
    pub fn decide(&mut self, pod: &str) {
        let Some((_, pinged)) = self.takeovers.iter().find(|(contested, _)| contested == pod) else { return };
        match *pinged {
            Some(at) if at + TAKEOVER_TIMEOUT_MS <= self.now_ms => {
                let holder = self.holder(pod).expect("only pod ids that are held are contested");
                self.expel(holder, 4001, None);
            }
            Some(_) => {}
            None => self.pinged(pod, Some(self.now_ms)),
        }
    }

    /// Notes since when the holder of a pod id that another socket waits for owes an answer.
    fn pinged(&mut self, pod: &str, at: Option<u64>) {
        let of_pod = self.takeovers.iter_mut().filter(|(contested, _)| contested == pod);
        of_pod.for_each(|(_, pinged)| *pinged = at.map(|at| pinged.unwrap_or(at)));
    }

    /// A takeover without newcomers is over.
    fn forget_contests(&mut self) {
        let newcomers = &self.newcomers;
        self.takeovers.retain(|(contested, _)| newcomers.iter().any(|(pod, ..)| pod == contested));
    }

    fn waits(&self, me: usize) -> bool {
        self.newcomers.iter().any(|(_, newcomer, _)| *newcomer == me)
    }

    pub fn holder(&self, wanted: &str) -> Option<usize> {
        self.sockets.iter().position(|socket| pod(&socket.role).is_some_and(|held| held == wanted))
    }

    /// Takes everything from a socket; whoever waits for what it held gets it.
    fn lose_all(&mut self, me: usize) {
        self.sessions.retain(|session| session.visitor != me);
        self.waiting.retain(|waiting| waiting.visitor != me);
        self.newcomers.retain(|(_, newcomer, _)| *newcomer != me);
        self.forget_contests();
        self.end_sessions_of_origin(me);
        let lost = pod(&self.sockets[me].role).cloned();
        self.sockets[me].role = Role::Expelled;
        if let Some(pod) = lost {
            self.pending.retain(|pending| *pending != pod);
            self.pinged(&pod, None);
            self.left.push((pod.clone(), self.now_ms));
            self.proofs.retain(|(held, _)| *held != pod);
            if let Some(at) = self.newcomers.iter().position(|(contested, ..)| *contested == pod) {
                let (_, first, owner) = self.newcomers.remove(at);
                self.hold(first, &pod, owner);
            }
            self.refuse_newcomers(&pod, false);
        }
    }

    /// Refuses who waits for a pod id, and with `all` who stands by for it too.
    fn refuse_newcomers(&mut self, pod: &str, all: bool) {
        let (refused, left): (Vec<_>, _) = std::mem::take(&mut self.newcomers)
            .into_iter()
            .partition(|(contested, _, owner)| contested == pod && (all || owner.is_none()));
        self.newcomers = left;
        self.forget_contests();
        for (_, newcomer, _) in refused {
            self.expel(newcomer, 4003, Some((None, HELD)));
        }
    }

    fn hold(&mut self, me: usize, pod: &str, owner: Option<u8>) {
        self.sockets[me].role = Role::Origin(pod.into());
        self.proofs.extend(owner.map(|owner| (pod.into(), owner)));
        self.pending.push(pod.into());
    }

    /// Tells a holder that it holds a pod id, and lets the visitors that wait through to it.
    fn open(&mut self, me: usize, pod: &str) {
        self.say(me, format!(r#"{{"t":"registered","podId":{}}}"#, Value::from(pod)));
        self.left.retain(|(left, _)| left != pod);
        let (waited, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.pod == pod);
        self.waiting = left;
        for WaitingOffer { id, pod, visitor, frames, candidates, .. } in waited {
            if self.sessions.iter().any(|session| session.origin == me && session.id == id) {
                self.tell(visitor, Some(&id), "session id is taken");
                continue;
            }
            let told = id.clone();
            self.sessions_ever += 1;
            let number = self.sessions_ever;
            self.sessions.push(Session {
                number,
                id,
                pod,
                visitor,
                origin: me,
                candidates_of_visitor: candidates,
                candidates_of_origin: 0,
            });
            if frames.into_iter().any(|text| !self.queue(me, text, number, true)) {
                self.tell(visitor, Some(&told), TOO_SLOW);
            }
        }
    }

    pub fn ask(&mut self, me: usize, ask: &Ask) {
        let done = match (self.sockets[me].role.clone(), ask.kind) {
            (Role::Expelled, _) | (_, Kind::Unknown) => Ok(()),
            (Role::New, _) if self.waits(me) => Ok(()),
            (Role::Origin(_) | Role::Visitor(_), Kind::Register) => Err("already initialized".into()),
            (Role::New, Kind::Register) => self.register(me, ask),
            (Role::Origin(_), Kind::Offer) => Err("wrong role".into()),
            (Role::New | Role::Visitor(_), Kind::Offer) => self.offer(me, ask),
            (Role::New | Role::Visitor(_), Kind::Answer) => Err("wrong role".into()),
            (Role::Origin(_), Kind::Answer) => self.within_session(me, ask, "sdp"),
            (Role::New, Kind::Candidate) => Err("uninitialized socket".into()),
            (Role::Origin(_) | Role::Visitor(_), Kind::Candidate) => {
                self.within_session(me, ask, "candidate")
            }
            (_, Kind::Error) => self.peer_error(me, ask),
        };
        if let Err(message) = done {
            let session = match &ask.session {
                Id::Text(session) if session.len() <= MAX_ID => Some(&**session),
                _ => None,
            };
            self.tell(me, session, &message);
        }
    }

    fn register(&mut self, me: usize, ask: &Ask) -> Result<(), String> {
        let pod = match self.fit("podId", &ask.pod) {
            Ok(pod) => pod,
            Err(message) => {
                let session = text(&ask.session).filter(|id| id.len() <= MAX_ID);
                self.expel(me, 1008, Some((session, &message)));
                return Ok(());
            }
        };
        let proven = self.proofs.iter().find(|(held, _)| *held == pod).map(|(_, owner)| *owner);
        let waiting = self.newcomers.iter().filter(|(contested, ..)| *contested == pod).count();
        match self.holder(&pod) {
            Some(holder) if ask.owner.is_some() && ask.owner != proven => {
                self.refuse_newcomers(&pod, true);
                self.expel(holder, 4001, None);
            }
            Some(_) if waiting == NEWCOMERS => {
                self.expel(me, 4003, Some((None, HELD)));
                return Ok(());
            }
            Some(_) => {
                match waiting {
                    0 => self.takeovers.push((pod.clone(), Some(self.now_ms))),
                    _ => self.pinged(&pod, Some(self.now_ms)),
                }
                self.newcomers.push((pod, me, ask.owner));
                return Ok(());
            }
            None => {}
        }
        self.hold(me, &pod, ask.owner);
        if let Some(recorded) = ask.recorded {
            self.record(&pod, recorded);
        }
        Ok(())
    }

    fn offer(&mut self, me: usize, ask: &Ask) -> Result<(), String> {
        let pod = self.fit("podId", &ask.pod);
        if self.sockets[me].role == Role::New {
            self.sockets[me].role = Role::Visitor(pod.clone().ok());
        }
        let pod = match (&ask.pod, &self.sockets[me].role) {
            (Id::Missing, Role::Visitor(Some(first))) => first.clone(),
            _ => pod?,
        };
        let id = self.fit("sessionId", &ask.session)?;
        let sdp = ask.payload.clone().ok_or("sdp required")?;
        let origin = self.holder(&pod).filter(|_| !self.pending.contains(&pod));
        let mine = self.sessions.iter().filter(|session| session.visitor == me).count()
            + self.waiting.iter().filter(|waiting| waiting.visitor == me).count();
        if let Some(at) = self.waiting_of(me, &id) {
            if self.waiting[at].pod != pod {
                return Err("session belongs to another pod".into());
            }
            // A later offer takes the place of the one before and of all that followed it.
            self.waiting[at].frames.clear();
            self.waiting[at].candidates = 0;
            return self.append(at, relayed("offer", &id, "sdp", &sdp));
        }
        let number = match self.sessions.iter_mut().find(|session| session.visitor == me && session.id == id)
        {
            Some(session) if session.pod != pod => return Err("session belongs to another pod".into()),
            Some(session) => {
                (session.candidates_of_visitor, session.candidates_of_origin) = (0, 0);
                session.number
            }
            None if origin.is_none() => return self.await_origin(me, pod, id, &sdp, mine),
            None => {
                let origin = origin.ok_or("origin offline")?;
                if mine >= self.limits.sessions_per_socket {
                    return Err("too many sessions".into());
                }
                if self.sessions.iter().any(|session| session.origin == origin && session.id == id) {
                    return Err("session id is taken".into());
                }
                let (candidates_of_visitor, candidates_of_origin) = (0, 0);
                let id = id.clone();
                self.sessions_ever += 1;
                self.sessions.push(Session {
                    number: self.sessions_ever,
                    id,
                    pod,
                    visitor: me,
                    origin,
                    candidates_of_visitor,
                    candidates_of_origin,
                });
                self.sessions_ever
            }
        };
        self.pass(me, number, relayed("offer", &id, "sdp", &sdp))
    }

    fn await_origin(
        &mut self,
        me: usize,
        pod: String,
        id: String,
        sdp: &str,
        mine: usize,
    ) -> Result<(), String> {
        let is_new = self.now_ms < AFTER_START_MS;
        let left = |(left, at): &(String, u64)| *left == pod && self.now_ms < at + REMEMBERED_MS;
        let is_pending = self.holder(&pod).is_some();
        if !is_pending && (self.limits.grace_ms == 0 || !(is_new || self.left.iter().any(left))) {
            return Err("origin offline".into());
        }
        if mine >= self.limits.sessions_per_socket {
            return Err("too many sessions".into());
        }
        let frame = relayed("offer", &id, "sdp", sdp);
        let grace_ms = if self.limits.grace_ms == 0 { RECORDING_MS } else { self.limits.grace_ms };
        let expires_ms = self.now_ms + grace_ms;
        self.waiting.push(WaitingOffer {
            id,
            pod,
            visitor: me,
            expires_ms,
            frames: Vec::new(),
            candidates: 0,
        });
        self.append(self.waiting.len() - 1, frame)
    }

    fn waiting_of(&self, me: usize, id: &str) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.visitor == me && waiting.id == id)
    }

    /// Puts a frame behind an offer that waits; the session ends if there is no room.
    fn append(&mut self, at: usize, frame: String) -> Result<(), String> {
        self.waiting[at].frames.push(frame);
        let bytes = |of: &dyn Fn(&&WaitingOffer) -> bool| -> usize {
            let frames = |waiting: &WaitingOffer| -> usize {
                waiting.frames.iter().map(|frame| frame.len() + FRAME_OVERHEAD).sum()
            };
            self.waiting.iter().filter(of).map(|waiting| OFFER_OVERHEAD + frames(waiting)).sum()
        };
        let WaitingOffer { pod, visitor, .. } = &self.waiting[at];
        if bytes(&|waiting| waiting.pod == *pod) <= self.limits.queue / 2
            && bytes(&|waiting| waiting.visitor == *visitor) <= WAITING_PER_SOCKET
        {
            return Ok(());
        }
        self.waiting.remove(at);
        Err("origin offline".into())
    }

    /// An answer or a candidate, by an origin or a visitor.
    fn within_session(&mut self, me: usize, ask: &Ask, carries: &str) -> Result<(), String> {
        let id = self.fit("sessionId", &ask.session)?;
        let payload = ask.payload.clone().ok_or(format!("{carries} required"))?;
        let limit = self.limits.candidates_per_session;
        if let Some(at) = self.waiting_of(me, &id) {
            self.waiting[at].candidates += 1;
            if self.waiting[at].candidates > limit {
                return Err("too many candidates".into());
            }
            return self.append(at, relayed("candidate", &id, carries, &payload));
        }
        let Some(session) = self.session_of(me, &id) else {
            return match self.sockets[me].role {
                Role::Visitor(_) => Err("origin offline".into()),
                _ => Ok(()),
            };
        };
        let from_visitor = session.visitor == me;
        let number = session.number;
        if ask.kind == Kind::Answer {
            return self.pass(me, number, relayed("answer", &id, carries, &payload));
        }
        let sent =
            if from_visitor { &mut session.candidates_of_visitor } else { &mut session.candidates_of_origin };
        *sent += 1;
        if *sent > limit {
            return Err("too many candidates".into());
        }
        self.pass(me, number, relayed("candidate", &id, carries, &payload))
    }

    fn peer_error(&mut self, me: usize, ask: &Ask) -> Result<(), String> {
        let (Some(id), Some(message)) = (text(&ask.session), &ask.payload) else { return Ok(()) };
        let pod = match &ask.pod {
            Id::Missing => String::new(),
            Id::Number => r#","podId":7"#.into(),
            Id::Text(pod) => format!(r#","podId":{}"#, Value::from(&**pod)),
        };
        let error = format!(r#"{{"t":"error","sessionId":{}{pod},"message":{message}}}"#, Value::from(id));
        if let Some(at) = self.waiting_of(me, id) {
            return self.append(at, error);
        }
        let Some(session) = self.session_of(me, id) else { return Ok(()) };
        let number = session.number;
        self.pass(me, number, error)
    }

    fn session_of(&mut self, me: usize, id: &str) -> Option<&mut Session> {
        self.sessions
            .iter_mut()
            .find(|session| (session.visitor == me || session.origin == me) && session.id == id)
    }

    fn end_sessions_of_origin(&mut self, origin: usize) {
        let (ended, left) =
            std::mem::take(&mut self.sessions).into_iter().partition(|session| session.origin == origin);
        self.sessions = left;
        let ended: Vec<Session> = ended;
        for session in ended {
            self.tell(session.visitor, Some(&session.id), "origin offline");
        }
    }

    fn fit(&self, name: &str, id: &Id) -> Result<String, String> {
        match id {
            Id::Text(text) if text.len() <= MAX_ID => Ok(text.clone()),
            Id::Text(_) => Err(format!("{name} is longer than {} bytes", MAX_ID)),
            Id::Number => Err(format!("{name} must be text")),
            Id::Missing => Err(format!("{name} required")),
        }
    }

    /// Passes something on within a session, if there is room.
    fn pass(&mut self, me: usize, number: usize, text: String) -> Result<(), String> {
        let session = self.sessions.iter().find(|session| session.number == number).expect("it is open");
        let in_turns = session.visitor == me;
        let to = if in_turns { session.origin } else { session.visitor };
        if self.queue(to, text, number, in_turns) { Ok(()) } else { Err(TOO_SLOW.into()) }
    }

    /// Puts a frame of a session into the queue of its receiver. Returns whether there was room.
    fn queue(&mut self, to: usize, text: String, number: usize, in_turns: bool) -> bool {
        let socket = &mut self.sockets[to];
        if socket.closed.is_some() {
            return true;
        }
        let cost = |frame: &Waiting| frame.text.len() + FRAME_OVERHEAD;
        let frame = Waiting { text, session: Some(number), in_turns };
        let of_session =
            socket.waiting.iter().flatten().filter(|waiting| waiting.session == frame.session).map(cost);
        let all = socket.waiting.iter().flatten().map(cost).sum::<usize>();
        if of_session.sum::<usize>() + cost(&frame) + all > self.limits.queue {
            return false;
        }
        socket.waiting.last_mut().expect("a step has begun").push(frame);
        true
    }

    fn tell(&mut self, to: usize, session: Option<&str>, message: &str) {
        let session = session.map_or(String::new(), |id| format!(r#""sessionId":{},"#, Value::from(id)));
        self.say(to, format!(r#"{{"t":"error",{session}"message":{}}}"#, Value::from(message)));
    }

    /// Says something that is no peer's.
    fn say(&mut self, to: usize, text: String) {
        let socket = &mut self.sockets[to];
        if socket.closed.is_none() {
            let frame = Waiting { text, session: None, in_turns: false };
            socket.waiting.last_mut().expect("a step has begun").push(frame);
        }
    }
}

fn relayed(tag: &str, id: &str, field: &str, payload: &str) -> String {
    format!(r#"{{"t":"{tag}","sessionId":{},"{field}":{payload}}}"#, Value::from(id))
}

fn pod(role: &Role) -> Option<&String> {
    match role {
        Role::Origin(pod) => Some(pod),
        Role::New | Role::Visitor(_) | Role::Expelled => None,
    }
}

fn text(id: &Id) -> Option<&str> {
    match id {
        Id::Text(text) => Some(text),
        Id::Missing | Id::Number => None,
    }
}
