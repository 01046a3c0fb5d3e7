//! The frames of the signalling protocol.

use serde_json::{Value, json};

pub fn register(pod_id: &str) -> Value {
    json!({ "t": "register", "podId": pod_id })
}

pub fn registered(pod_id: &str) -> Value {
    json!({ "t": "registered", "podId": pod_id })
}

/// As a visitor sends it.
pub fn offer(pod_id: &str, session_id: &str, sdp: &str) -> Value {
    json!({ "t": "offer", "podId": pod_id, "sessionId": session_id, "sdp": sdp })
}

/// As an origin gets it.
pub fn offered(session_id: &str, sdp: &str) -> Value {
    json!({ "t": "offer", "sessionId": session_id, "sdp": sdp })
}

pub fn answer(session_id: &str, sdp: &str) -> Value {
    json!({ "t": "answer", "sessionId": session_id, "sdp": sdp })
}

pub fn candidate(session_id: &str, candidate: &str) -> Value {
    json!({ "t": "candidate", "sessionId": session_id, "candidate": { "candidate": candidate } })
}

/// An error about a session, from a peer or from the broker.
pub fn error(session_id: &str, message: &str) -> Value {
    json!({ "t": "error", "sessionId": session_id, "message": message })
}

/// An error of the broker about no session.
pub fn refusal(message: &str) -> Value {
    json!({ "t": "error", "message": message })
}
