//! What holds for every frame, whatever bytes it is made of.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::Value;

use super::*;

/// What an object holds, read another way than [`Frame::parse`] does: field by field, the last of a name counts.
type Fields<'a> = HashMap<String, &'a RawValue>;

const SPACES: &[&str] = &["", "", "", " ", "\n", "\t", "\r\n  "];
const SCALARS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "7",
    "-1.50e+02",
    "1e999",
    "123456789012345678901234567890",
    r#""""#,
    r#""v=0\r\no=-""#,
    r#""\u00fc\/""#,
    r#""ü🦀""#,
    r#""\ud83e\udd80""#,
    r#""\ud800""#,
    r#""\udc00x""#,
    r#""[[{""#,
    r#""\\\"]""#,
    r#""s""#,
    r#""null""#,
];
const FIELDS: &[&str] = &[
    "t",
    "t",
    "podId",
    "sessionId",
    "sdp",
    "sdp",
    "candidate",
    "message",
    "x",
    r"\u0074",
    r"sess\u0069onId",
    r"\ud800",
];
const TAGS: &[&str] =
    &["register", "offer", "offer", "answer", "candidate", "error", "registered", r"o\u0066fer"];
/// Pieces of JSON and of what is nearly JSON.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "nul",
    "null",
    "1",
    ".",
    "e9",
    "-",
    " ",
    "\u{feff}",
    "\0",
    "\x7f",
    r#""t":"#,
    r#""offer""#,
    r#""sdp":"#,
    r#""ü""#,
    "'",
    "//",
    "NaN",
    "\u{a0}",
];

/// One level around `#`: brackets within strings are no levels.
const AROUND: &[&str] =
    &["[#]", r#"{"a":#}"#, r#"["]",#]"#, r#"[ # ,"\"["]"#, r#"{"{\\":#}"#, r#"{"a":1,"b" : #}"#];

/// JSON of all kinds with space in odd places, sometimes very deep.
fn json() -> impl Strategy<Value = String> {
    let leaf = select(SCALARS).prop_map(String::from);
    let tree = leaf.prop_recursive(6, 24, 4, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..4), select(SPACES))
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))),
            (vec((select(FIELDS), inner), 0..4), select(SPACES)).prop_map(object),
        ]
    });
    let deep = (1_usize..200, any::<bool>()).prop_map(|(depth, bare)| {
        if bare {
            "[".repeat(depth) + &"]".repeat(depth)
        } else {
            r#"{"":"#.repeat(depth) + "[]" + &"}".repeat(depth)
        }
    });
    prop_oneof![8 => tree, 1 => deep]
}

fn object((fields, space): (Vec<(&str, String)>, &str)) -> String {
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| format!("{space}\"{name}\"{space}:{value}")).collect();
    format!("{{{}{space}}}", fields.join(&format!("{space},")))
}

/// Frames as clients send them, and with fields missing, doubled or of a wrong kind.
fn frame() -> impl Strategy<Value = String> {
    let tag = select(TAGS).prop_map(|tag| ("t", format!("\"{tag}\"")));
    let field = (select(FIELDS), json());
    (
        prop_oneof![3 => vec(tag.clone(), 1), 1 => vec(tag, 0..3)],
        vec(field, 0..6),
        select(SPACES),
        any::<bool>(),
    )
        .prop_map(|(mut fields, more, space, tag_last)| {
            fields.extend(more);
            if tag_last {
                fields.reverse();
            }
            object((fields, space))
        })
}

/// Bytes that are shown as text where it can be done.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Anything that may arrive.
fn bytes() -> impl Strategy<Value = Bytes> {
    let mutated =
        (frame(), any::<prop::sample::Index>(), any::<u8>(), 0..3_u8).prop_map(|(json, at, byte, how)| {
            let mut bytes = json.into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            bytes
        });
    prop_oneof![
        1 => vec(any::<u8>(), 0..48),
        2 => vec(select(PIECES), 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
        2 => (json(), select(SPACES)).prop_map(|(json, space)| format!("{space}{json}{space}").into_bytes()),
        4 => frame().prop_map(String::into_bytes),
        4 => mutated,
    ]
    .prop_map(Bytes)
}

/// What [`Frame::parse`] takes for JSON, said without it: UTF-8 that is JSON by its grammar (RFC 8259), except
/// `null`. How deep values nest, how large numbers are and whether surrogates are paired is all one within the
/// values of an object and within an array, which are only passed on or passed over; a bare scalar and the names
/// of an object's fields must be what [`Value`] can hold.
fn is_frame(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let bare = text.trim_matches([' ', '\t', '\r', '\n']);
    serde_json::from_str::<IgnoredAny>(text).is_ok()
        && match bare.as_bytes() {
            b"null" => false,
            [b'{', ..] => serde_json::from_str::<HashMap<String, IgnoredAny>>(text).is_ok(),
            [b'[', ..] => true,
            _ => serde_json::from_str::<Value>(text).is_ok(),
        }
}

/// What [`Value`] cannot hold although it is JSON: numbers beyond `f64`, half a surrogate pair, more than 127 levels.
fn is_limit_of_value(error: &serde_json::Error) -> bool {
    let error = error.to_string();
    ["number out of range", "lone leading surrogate", "unexpected end of hex escape", "recursion limit"]
        .iter()
        .any(|limit| error.starts_with(limit))
}

/// The names of an object's fields, however often they stand there.
fn names_of(json: &str) -> Vec<String> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
            let mut names = Vec::new();
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                names.push(name);
            }
            Ok(names)
        }
    }

    serde_json::Deserializer::from_str(json).deserialize_map(Names).unwrap()
}

fn id(raw: Option<&&RawValue>) -> Id<'static> {
    match raw.map(|raw| serde_json::from_str::<Value>(raw.get())) {
        None | Some(Ok(Value::Null)) => Id::Missing,
        Some(Ok(Value::String(text))) if text.is_empty() => Id::Missing,
        Some(Ok(Value::String(text))) => Id::Text(text.into()),
        Some(_) => Id::NotText,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_is_any_json_but_null(Bytes(bytes) in bytes()) {
        let parsed = Frame::parse(&bytes);
        let refused = matches!(parsed, Err(FrameError::InvalidJson));
        prop_assert_eq!(!refused, is_frame(&bytes));
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(value) => prop_assert_eq!(refused, value.is_null()),
            Err(error) => prop_assert!(refused || is_limit_of_value(&error), "{}", error),
        }
    }

    #[test]
    fn of_several_fields_of_one_name_the_last_counts(Bytes(bytes) in bytes()) {
        let Ok(frame) = Frame::parse(&bytes) else { return Ok(()) };
        let fields: Fields<'_> = serde_json::from_slice(&bytes).unwrap_or_default();
        let (kind, carries) = match id(fields.get("t")) {
            Id::Text(tag) => match &*tag {
                "register" => (FrameKind::Register, None),
                "offer" => (FrameKind::Offer, Some("sdp")),
                "answer" => (FrameKind::Answer, Some("sdp")),
                "candidate" => (FrameKind::Candidate, Some("candidate")),
                "error" => (FrameKind::Error, None),
                _ => (FrameKind::Unknown, None),
            },
            _ => (FrameKind::Unknown, None),
        };
        prop_assert_eq!(frame.kind, kind);
        prop_assert_eq!(frame.pod_id, id(fields.get("podId")));
        prop_assert_eq!(frame.session_id, id(fields.get("sessionId")));
        let payload = match kind {
            FrameKind::Error => frame.payload.map(|_| std::str::from_utf8(&bytes).unwrap().trim()),
            _ => carries.and_then(|field| fields.get(field)).map(|raw| raw.get()),
        };
        let payload = payload.filter(|raw| kind == FrameKind::Candidate || *raw != "null");
        prop_assert_eq!(frame.payload.map(RawValue::get), payload);
    }

    #[test]
    fn a_payload_is_passed_on_byte_for_byte(Bytes(bytes) in bytes(), session_id in any::<String>()) {
        let Ok(Frame { kind, payload: Some(payload), .. }) = Frame::parse(&bytes) else { return Ok(()) };
        let inside = bytes.as_ptr_range();
        let held = payload.get().as_bytes().as_ptr_range();
        prop_assert!(inside.start <= held.start && held.end <= inside.end);

        let relayed = relayed(kind, &session_id, payload);
        let again = Frame::parse(relayed.as_bytes()).unwrap();
        prop_assert_eq!(again.kind, kind);
        let fields: Fields<'_> = serde_json::from_str(&relayed).unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(fields["sessionId"].get()).unwrap(), session_id);
        if kind != FrameKind::Error {
            prop_assert_eq!(again.payload.map(RawValue::get), Some(payload.get()));
            prop_assert_eq!(fields.len(), 3);
        }
    }

    #[test]
    fn an_error_is_passed_on_with_all_its_fields(Bytes(bytes) in bytes(), session_id in any::<String>()) {
        let Ok(Frame { kind: FrameKind::Error, payload, .. }) = Frame::parse(&bytes) else { return Ok(()) };
        let mut sent: Fields<'_> = serde_json::from_slice(&bytes).unwrap();
        let of_others = ["t", "podId", "sessionId", "ownerToken", "sdp", "candidate"];
        let says = |(name, value): (&String, &&RawValue)| {
            !of_others.contains(&&**name) && value.get() != "null"
        };
        let Some(payload) = payload else {
            prop_assert!(!sent.iter().any(says), "{:?}", sent);
            return Ok(());
        };
        let relayed = relayed(FrameKind::Error, &session_id, payload);
        prop_assert!(relayed.len() <= 64 + session_id.len() * 6 + bytes.len());
        let mut passed: Fields<'_> = serde_json::from_str(&relayed).unwrap();
        for fields in [&mut sent, &mut passed] {
            fields.remove("t");
            fields.remove("sessionId");
        }
        let texts = |fields: &Fields<'_>| -> HashMap<_, _> {
            fields.iter().map(|(name, value)| (name.clone(), value.get().to_owned())).collect()
        };
        prop_assert_eq!(texts(&passed), texts(&sent));
    }

    /// Whichever of several fields of one name the peer reads, it reads what the broker read.
    #[test]
    fn what_the_broker_reads_stands_once_in_what_it_passes_on(
        Bytes(bytes) in bytes(),
        session_id in any::<String>(),
    ) {
        let Ok(Frame { kind, payload: Some(payload), .. }) = Frame::parse(&bytes) else { return Ok(()) };
        let relayed = relayed(kind, &session_id, payload);
        let names = names_of(&relayed);
        for name in ["t", "sessionId"] {
            prop_assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{}", relayed);
        }
        prop_assert!(kind == FrameKind::Error || names.len() == 3, "{}", relayed);
    }

    #[test]
    fn a_payload_nests_to_the_limit_and_no_deeper(
        around in vec(select(AROUND), 24..40),
        inner in select(SCALARS),
        is_error: bool,
    ) {
        let payload = around.iter().fold(inner.to_owned(), |inner, around| around.replace('#', &inner));
        let (field, tag) = if is_error { ("detail", "error") } else { ("sdp", "offer") };
        let json = format!(r#"{{"{field}":{payload},"t":"{tag}"}}"#);
        match Frame::parse(json.as_bytes()) {
            Ok(frame) => {
                prop_assert!(around.len() <= MAX_DEPTH);
                let whole = if is_error { &json } else { &payload };
                prop_assert_eq!(frame.payload.unwrap().get(), whole);
            }
            Err(error) => {
                prop_assert!(around.len() > MAX_DEPTH);
                prop_assert_eq!(error, FrameError::TooDeep);
            }
        }
    }

    #[test]
    fn reading_a_frame_takes_no_more_memory_than_a_few_times_its_size(Bytes(bytes) in bytes()) {
        let taken = allocation_counter::measure(|| drop(Frame::parse(&bytes)));
        prop_assert!(taken.bytes_max <= 512 + 4 * bytes.len() as u64, "{:?}", taken);
    }
}
