//! The frames of the signalling protocol: JSON objects with a tag `t`.
//!
//! `sdp`, `candidate` and what an error says are opaque: they are kept as the bytes that arrived and are written as those
//! bytes. Only their end is looked for, and how deeply they nest.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Arrays and objects within one another that an opaque value may hold. Candidates use one.
const MAX_DEPTH: usize = 32;

/// What a frame says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// An origin takes a pod id.
    Register,
    /// A visitor asks an origin for a connection.
    Offer,
    /// An origin answers a visitor.
    Answer,
    /// A trickled ICE candidate, in either direction.
    Candidate,
    /// One peer tells the other that something went wrong.
    Error,
    /// Anything else: it is passed over, so that newer clients can talk to an older broker.
    Unknown,
}

/// An identifier that a client chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id<'a> {
    /// Absent, `null` or empty.
    Missing,
    /// A string.
    Text(Cow<'a, str>),
    /// Some other JSON value.
    NotText,
}

/// One frame as a client sent it.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// The tag `t`.
    pub kind: FrameKind,
    /// `podId`.
    pub pod_id: Id<'a>,
    /// `sessionId`.
    pub session_id: Id<'a>,
    /// `ownerToken`, of a registration.
    pub owner_token: Id<'a>,
    /// `sdp` or `candidate`, whichever the kind carries; of an error the whole frame. An `sdp` that is `null` is absent, as
    /// is an error that says nothing: one without any field of its own, or whose fields are all `null`.
    pub payload: Option<&'a RawValue>,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON, not UTF-8, or the bare value `null`.
    #[error("invalid json")]
    InvalidJson,
    /// An opaque value nests too deeply.
    #[error("nested too deeply")]
    TooDeep,
}

impl<'a> Frame<'a> {
    /// Reads a frame. JSON that is not an object is a frame of an unknown kind, except `null`.
    ///
    /// # Errors
    ///
    /// The bytes are not JSON, or nest too deeply.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FrameError::InvalidJson)?;
        let mut frame: Self = serde_json::from_str(text).map_err(|_| FrameError::InvalidJson)?;
        let mut max_depth = MAX_DEPTH;
        if frame.kind == FrameKind::Error && frame.payload.is_some() {
            frame.payload = serde_json::from_str(text).ok();
            max_depth += 1;
        }
        match frame.payload {
            Some(payload) if !is_shallow(payload.get(), max_depth) => Err(FrameError::TooDeep),
            _ => Ok(frame),
        }
    }

    /// Returns the frame as the other side of its session gets it; nothing if it carries no opaque value or is in no session.
    pub fn relayed(&self) -> Option<String> {
        match (&self.session_id, self.payload) {
            (Id::Text(session_id), Some(payload)) => Some(relayed(self.kind, session_id, payload)),
            _ => None,
        }
    }

    const UNKNOWN: Self = Self {
        kind: FrameKind::Unknown,
        pod_id: Id::Missing,
        session_id: Id::Missing,
        owner_token: Id::Missing,
        payload: None,
    };
}

impl<'de: 'a, 'a> Deserialize<'de> for Frame<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FrameVisitor)
    }
}

struct FrameVisitor;

impl<'de> Visitor<'de> for FrameVisitor {
    type Value = Frame<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    /// As in JSON.parse, the last of several fields of one name counts.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Frame<'de>, A::Error> {
        let (mut kind, mut pod_id, mut session_id, mut owner_token) = (None, None, None, None);
        let (mut sdp, mut candidate, mut further) = (None, None, None);
        while let Some(field) = map.next_key::<Field>()? {
            let slot = match field {
                Field::T => &mut kind,
                Field::PodId => &mut pod_id,
                Field::SessionId => &mut session_id,
                Field::OwnerToken => &mut owner_token,
                Field::Sdp => &mut sdp,
                Field::Candidate => &mut candidate,
                Field::Other => {
                    let value = map.next_value::<&'de RawValue>()?;
                    further = further.or(Some(value).filter(|value| value.get() != "null"));
                    continue;
                }
            };
            *slot = Some(map.next_value::<&'de RawValue>()?);
        }
        let kind = kind.map_or(FrameKind::Unknown, kind_of);
        let payload = match kind {
            FrameKind::Offer | FrameKind::Answer => sdp,
            FrameKind::Candidate => candidate,
            FrameKind::Error => further,
            FrameKind::Register | FrameKind::Unknown => None,
        };
        Ok(Frame {
            kind,
            pod_id: id_of(pod_id),
            session_id: id_of(session_id),
            owner_token: id_of(owner_token),
            // The last candidate is `null`.
            payload: payload.filter(|payload| kind == FrameKind::Candidate || payload.get() != "null"),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Frame<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Frame::UNKNOWN)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Frame<'de>, E> {
        Err(E::custom("null is not a frame"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Frame<'de>, E> {
        Ok(Frame::UNKNOWN)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Frame<'de>, E> {
        Ok(Frame::UNKNOWN)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Frame<'de>, E> {
        Ok(Frame::UNKNOWN)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Frame<'de>, E> {
        Ok(Frame::UNKNOWN)
    }

    fn visit_str<E>(self, _: &str) -> Result<Frame<'de>, E> {
        Ok(Frame::UNKNOWN)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    T,
    PodId,
    SessionId,
    OwnerToken,
    Sdp,
    Candidate,
    #[serde(other)]
    Other,
}

fn kind_of(raw: &RawValue) -> FrameKind {
    match id_of(Some(raw)) {
        Id::Text(text) => match &*text {
            "register" => FrameKind::Register,
            "offer" => FrameKind::Offer,
            "answer" => FrameKind::Answer,
            "candidate" => FrameKind::Candidate,
            "error" => FrameKind::Error,
            _ => FrameKind::Unknown,
        },
        Id::Missing | Id::NotText => FrameKind::Unknown,
    }
}

fn id_of(raw: Option<&RawValue>) -> Id<'_> {
    let Some(text) = raw.map(RawValue::get) else { return Id::Missing };
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some("") => Id::Missing,
        Some(inner) if !inner.contains('\\') => Id::Text(Cow::Borrowed(inner)),
        Some(_) => serde_json::from_str(text).map_or(Id::NotText, |text: String| Id::Text(Cow::Owned(text))),
        None if text == "null" => Id::Missing,
        None => Id::NotText,
    }
}

/// Whether arrays and objects in valid JSON nest at most `max_depth` deep.
fn is_shallow(json: &str, max_depth: usize) -> bool {
    // What has few brackets at all, be they in strings, cannot nest deeply: so it is with every real candidate.
    if memchr::memchr2_iter(b'[', b'{', json.as_bytes()).take(max_depth + 1).count() <= max_depth {
        return true;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth > max_depth {
            return false;
        }
    }
    true
}

/// A frame that carries an opaque value within a session: an offer, an answer, a candidate or a peer's error.
fn relayed(kind: FrameKind, session_id: &str, payload: &RawValue) -> String {
    let (tag, field) = match kind {
        FrameKind::Offer => ("offer", Some("sdp")),
        FrameKind::Answer => ("answer", Some("sdp")),
        FrameKind::Candidate => ("candidate", Some("candidate")),
        FrameKind::Error | FrameKind::Register | FrameKind::Unknown => ("error", None),
    };
    let mut json = String::with_capacity(64 + session_id.len() + payload.get().len());
    json.extend([r#"{"t":""#, tag, r#"","sessionId":"#]);
    push_string(&mut json, session_id);
    match field {
        Some(field) => json.extend([r#",""#, field, r#"":"#, payload.get()]),
        None => push_fields(&mut json, payload),
    }
    json.push('}');
    json
}

/// Adds the fields of an error frame to one with another tag and session id.
fn push_fields(json: &mut String, frame: &RawValue) {
    let mut fields = serde_json::Deserializer::from_str(frame.get());
    fields.deserialize_map(FieldWriter(json)).expect("an error frame is an object");
}

struct FieldWriter<'a>(&'a mut String);

impl<'de> Visitor<'de> for FieldWriter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let value = map.next_value::<&'de RawValue>()?;
            if !["t", "sessionId"].contains(&&*name) {
                self.0.push(',');
                push_string(self.0, &name);
                self.0.extend([":", value.get()]);
            }
        }
        Ok(())
    }
}

/// The broker's acknowledgement of a registration.
pub fn registered(pod_id: &str) -> String {
    let mut json = String::with_capacity(32 + pod_id.len());
    json.push_str(r#"{"t":"registered","podId":"#);
    push_string(&mut json, pod_id);
    json.push('}');
    json
}

/// An error of the broker's own, about a session or about the socket as a whole.
pub fn error(session_id: Option<&str>, message: &str) -> String {
    let mut json = String::from(r#"{"t":"error""#);
    if let Some(session_id) = session_id {
        json.push_str(r#","sessionId":"#);
        push_string(&mut json, session_id);
    }
    json.push_str(r#","message":"#);
    push_string(&mut json, message);
    json.push('}');
    json
}

fn push_string(json: &mut String, text: &str) {
    json.push_str(&serde_json::to_string(text).expect("a string is JSON"));
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_kept_byte_for_byte() {
        let json = r#"{"t":"offer","podId":"p","sessionId":"s","sdp": { "a" : 1.0e+02, "b":"\u00fc\/" } }"#;
        let frame = Frame::parse(json.as_bytes()).unwrap();
        assert_eq!(
            relayed(frame.kind, "s", frame.payload.unwrap()),
            r#"{"t":"offer","sessionId":"s","sdp":{ "a" : 1.0e+02, "b":"\u00fc\/" }}"#
        );
    }

    #[test]
    fn an_error_is_passed_on_as_a_whole_but_for_its_session_id() {
        let json = r#" {"code" : 7,"podId":"p","sessionId":"s","t":"error","d\u0065tail":{ "a":1.0 },"message":null} "#;
        let frame = Frame::parse(json.as_bytes()).unwrap();
        assert_eq!(
            relayed(frame.kind, "x\"", frame.payload.unwrap()),
            r#"{"t":"error","sessionId":"x\"","code":7,"podId":"p","detail":{ "a":1.0 },"message":null}"#
        );
        for json in [r#"{"t":"error","sessionId":"s","podId":"p"}"#, r#"{"t":"error","message":null}"#] {
            assert!(Frame::parse(json.as_bytes()).unwrap().payload.is_none(), "{json}");
        }
    }

    #[test]
    fn ids_are_text_missing_or_neither() {
        for (json, id) in [
            (r#"{"t":"register"}"#, Id::Missing),
            (r#"{"t":"register","podId":null}"#, Id::Missing),
            (r#"{"t":"register","podId":""}"#, Id::Missing),
            (r#"{"t":"register","podId":7}"#, Id::NotText),
            (r#"{"t":"register","podId":["x"]}"#, Id::NotText),
            (r#"{"t":"register","podId":"\ud800"}"#, Id::NotText),
            (r#"{"t":"register","podId":"a\u0062"}"#, Id::Text("ab".into())),
            (r#"{"podId":"x","t":"register","podId":"last"}"#, Id::Text("last".into())),
        ] {
            assert_eq!(Frame::parse(json.as_bytes()).unwrap().pod_id, id, "{json}");
        }
    }

    #[test]
    fn json_that_is_no_object_is_unknown_but_null_is_an_error() {
        for json in ["[]", "[[1],{}]", "5", "-5", "1.5", "true", r#""register""#, "{}", r#"{"t":7}"#] {
            assert_eq!(Frame::parse(json.as_bytes()).unwrap().kind, FrameKind::Unknown, "{json}");
        }
        for json in ["null", "", "{", "nope", "{}{}", r#"{"t":"register",}"#, "\u{feff}{}"] {
            assert_eq!(Frame::parse(json.as_bytes()).unwrap_err(), FrameError::InvalidJson, "{json}");
        }
        for bytes in [b"\"\xff\"".as_slice(), b"{\"x\":\"\xff\"}", b"[\"\xff\"]"] {
            assert_eq!(Frame::parse(bytes).unwrap_err(), FrameError::InvalidJson, "{bytes:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_outside_strings_only() {
        let nested = |depth: usize| {
            format!(r#"{{"t":"candidate","candidate":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        assert!(Frame::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(Frame::parse(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err(), FrameError::TooDeep);
        let brackets = format!(r#"{{"t":"candidate","candidate":["\"{}"]}}"#, "[".repeat(100));
        assert!(Frame::parse(brackets.as_bytes()).is_ok());
    }

    #[test]
    fn own_frames_escape_what_they_carry() {
        assert_eq!(registered("a\"b\n"), r#"{"t":"registered","podId":"a\"b\n"}"#);
        assert_eq!(error(None, "invalid json"), r#"{"t":"error","message":"invalid json"}"#);
        assert_eq!(error(Some("s\\"), "x"), r#"{"t":"error","sessionId":"s\\","message":"x"}"#);
    }
}
