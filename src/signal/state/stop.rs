//! What each socket is doing while the broker stops, and how it is closed.

use super::{Phase, Refusal, Role, Session, Side, Socket, State};
use crate::signal::{close::Close, ids::SocketId, wire};

/// What a socket is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Talk {
    /// It has sent no frame yet.
    NoFrame,
    /// It is an origin.
    Origin,
    /// It is a visitor, and one of its offers has no answer yet.
    Unanswered(Negotiations),
    /// It is a visitor whose offers all have an answer.
    Answered(Negotiations),
    /// Nothing that an end would disturb.
    Nothing,
}

/// The sessions of one visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiations {
    /// Their origins.
    pub origins: Vec<SocketId>,
    /// Grows with each frame in any of them.
    frames: u64,
}

impl State {
    /// Finishes what goes on: no offer waits for an origin any more, as origins come back to the next broker.
    pub fn begin_stop(&mut self) {
        self.phase = Phase::Stopping;
        for offer in self.waiting_offers.take_all() {
            self.refuse_offer(&offer, &Refusal::Restarting);
        }
    }

    /// What the sockets do that were not sent away yet. Without any, returns `None`; then, and once the time `is_over`, sends
    /// away whoever still joins.
    pub fn open_sockets(&mut self, is_over: bool) -> Option<Vec<(SocketId, Talk)>> {
        let open = self.sockets.iter().filter(|(_, socket)| !socket.leaves);
        let open: Vec<_> = open.map(|(id, socket)| (*id, talk_of(socket))).collect();
        if open.is_empty() || is_over {
            self.phase = Phase::Stopped;
        }
        (!open.is_empty()).then_some(open)
    }

    /// Closes a socket with 1012. A client that still waits for something is told so first: browsers do not notice that
    /// their socket is closed.
    pub fn send_away(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.leaves = true;
        let message = Refusal::Restarting.to_string();
        let outbox = &socket.outbox;
        match &socket.role {
            Role::New => outbox.tell(wire::error(None, &message)),
            Role::Visitor { sessions, .. } => {
                for (session_id, _) in sessions.iter().filter(|(_, session)| !session.exchange.answered) {
                    outbox.tell(wire::error(Some(session_id), &message));
                }
            }
            Role::Origin { .. } | Role::Expelled => {}
        }
        outbox.close(Close::RESTART);
    }
}

fn talk_of(socket: &Socket) -> Talk {
    let sessions = match &socket.role {
        Role::New if socket.awaits.is_some() => return Talk::Nothing,
        Role::New => return Talk::NoFrame,
        Role::Origin { .. } => return Talk::Origin,
        Role::Visitor { sessions, .. } if !sessions.is_empty() => sessions.values(),
        Role::Visitor { .. } | Role::Expelled => return Talk::Nothing,
    };
    let frames_of = |session: &Session| {
        let exchange = &session.exchange;
        u64::from(exchange.from_visitor) + u64::from(exchange.from_origin) + u64::from(exchange.answered)
    };
    let origins = sessions.clone().filter_map(|session| match session.peer {
        Side::Origin(origin) => Some(origin),
        Side::Awaited(_) => None,
    });
    let negotiations = Negotiations {
        origins: origins.collect(),
        frames: sessions.clone().map(|session| 1 + frames_of(session)).sum(),
    };
    match sessions.clone().all(|session| session.exchange.answered) {
        true => Talk::Answered(negotiations),
        false => Talk::Unanswered(negotiations),
    }
}
