//! What sockets may do to a directory, and how it comes about.

use proptest::prelude::*;
use serde_json::Value;

/// Seats of sockets.
pub const SOCKETS: usize = 6;
pub const PODS: [&str; 3] = ["one", "two \"2\"", "drei-ü"];
const SESSIONS: [&str; 4] = ["a", "b\\", "c\n", "d"];
/// The longest pod id or session id.
pub const MAX_ID: usize = 128;
const NOT_FRAMES: [&str; 8] = ["", "null", "nope", "{", "\"register\"", "[{}]", "17", "{}"];

/// The limits that the tables speak of.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub sessions_per_socket: usize,
    pub candidates_per_session: usize,
    /// Bytes that may wait for one socket.
    pub queue: usize,
    /// How long an offer waits for its origin.
    pub grace_ms: u64,
    /// How long ago the broker started.
    pub uptime_ms: u64,
}

/// An identifier as a frame may hold it.
#[derive(Clone, Debug, PartialEq)]
pub enum Id {
    Missing,
    Number,
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Register,
    Offer,
    Answer,
    Candidate,
    Error,
    Unknown,
}

/// A frame that a socket sends; the payload is a JSON text.
#[derive(Clone, Debug)]
pub struct Ask {
    pub kind: Kind,
    pub pod: Id,
    pub session: Id,
    pub payload: Option<String>,
    /// The owner whose proof a registration comes with.
    pub owner: Option<u8>,
    /// What comes of its record at once; `None` if it is pending.
    pub recorded: Option<Recorded>,
}

/// What comes of the record of a registration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recorded {
    Written,
    Missing,
    Refused,
}

/// One step; sockets are seats that a new socket takes when the one before left.
#[derive(Clone, Debug)]
pub enum Step {
    Ask {
        seat: usize,
        ask: Ask,
    },
    /// Something that is no frame of a known kind.
    Noise {
        seat: usize,
        text: &'static str,
    },
    Leave {
        seat: usize,
    },
    /// A pong came from a socket.
    Heard {
        seat: usize,
    },
    /// The holder of a pod id is looked at.
    Decide {
        pod: &'static str,
    },
    /// The registration of a pod id by its holder is recorded, or its holder loses the right to it.
    Record {
        pod: &'static str,
        recorded: Recorded,
    },
    /// The credential of a socket is revoked.
    Revoke {
        seat: usize,
    },
    /// Time passes.
    Wait {
        ms: u64,
    },
    /// A socket that does not read all the time reads now.
    Read {
        seat: usize,
    },
}

fn id(names: &'static [&'static str]) -> impl Strategy<Value = Id> {
    (0..40_usize).prop_map(|n| match n {
        0 | 1 => Id::Missing,
        2 => Id::Number,
        3 => Id::Text("x".repeat(MAX_ID + 1)),
        n => Id::Text(names[n % names.len()].into()),
    })
}

pub fn step() -> impl Strategy<Value = Step> {
    let kind = (0..20_u8).prop_map(|n| match n {
        0..4 => Kind::Register,
        4..10 => Kind::Offer,
        10..14 => Kind::Answer,
        14..18 => Kind::Candidate,
        18 => Kind::Error,
        _ => Kind::Unknown,
    });
    (0..SOCKETS, 0..32_u8, kind, id(&PODS), id(&SESSIONS), 0..12_usize).prop_map(
        |(seat, what, kind, pod, session, n)| match what {
            0 => Step::Noise { seat, text: NOT_FRAMES[n % NOT_FRAMES.len()] },
            1 => Step::Leave { seat },
            2 => Step::Read { seat },
            3 => Step::Heard { seat },
            4 | 5 => Step::Decide { pod: PODS[n % PODS.len()] },
            6 => Step::Wait { ms: [1, 3_000, 7_999, 8_000, 30_000, 119_999][n % 6] },
            7..=9 => Step::Record { pod: PODS[n % PODS.len()], recorded: recorded(n / PODS.len()) },
            10 if n < 4 => Step::Revoke { seat },
            _ => {
                let payload = if n == 0 { None } else { Some("x".repeat(n % 4 * 20)) };
                let owner = [Some(1), Some(2)].get(n % 5).copied().flatten();
                let recorded = (what > 16).then(|| recorded((seat + n) % 5));
                Step::Ask { seat, ask: Ask { kind, pod, session, payload, owner, recorded } }
            }
        },
    )
}

fn recorded(n: usize) -> Recorded {
    [Recorded::Written, Recorded::Refused, Recorded::Missing].get(n).copied().unwrap_or(Recorded::Written)
}

pub fn limits() -> impl Strategy<Value = Limits> {
    let queue = prop_oneof![Just(100_000_usize), 500..1500_usize, 2500..8000_usize];
    let grace_ms = prop_oneof![1 => Just(0_u64), 4 => Just(8_000)];
    let uptime_ms = prop::sample::select(vec![0, 29_999, 30_000]);
    (1..=3_usize, 1..=4_usize, queue, grace_ms, uptime_ms).prop_map(
        |(sessions_per_socket, candidates_per_session, queue, grace_ms, uptime_ms)| Limits {
            sessions_per_socket,
            candidates_per_session,
            queue,
            grace_ms,
            uptime_ms,
        },
    )
}

/// The frame as its sender writes it.
pub fn render(ask: &Ask) -> Vec<u8> {
    let (tag, field) = match ask.kind {
        Kind::Register => ("register", "sdp"),
        Kind::Offer => ("offer", "sdp"),
        Kind::Answer => ("answer", "sdp"),
        Kind::Candidate => ("candidate", "candidate"),
        Kind::Error => ("error", "message"),
        Kind::Unknown => ("hello", "sdp"),
    };
    let mut frame = format!(r#"{{"t":"{tag}""#);
    for (name, id) in [("podId", &ask.pod), ("sessionId", &ask.session)] {
        match id {
            Id::Missing => {}
            Id::Number => frame += &format!(r#","{name}":7"#),
            Id::Text(text) => frame += &format!(r#","{name}":{}"#, Value::from(&**text)),
        }
    }
    if let (Some(owner), Kind::Register) = (ask.owner, ask.kind) {
        frame += &format!(r#","ownerToken":"{owner}""#);
    }
    if let Some(payload) = &ask.payload {
        frame += &format!(r#","{field}":{payload}"#);
    }
    (frame + "}").into_bytes()
}
