//! What holds for every upload: a pod is taken if its one manifest is signed by its owner, and else refused.

use std::sync::LazyLock;

use ciborium::Value;
use ed25519_dalek::{Signer, SigningKey};
use proptest::{collection::vec, prelude::*, sample::Index, sample::select};

use super::*;
use crate::pods::signed::{Pod, encode, envelope, hex};

const MOST: usize = 4096;

/// A small pod, its signature and its payload.
static SAMPLE: LazyLock<(Pod, Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let pod = Pod::signed_by(SigningKey::from_bytes(&[7; 32]), "sample");
    let payload = pod.payload();
    let signature = pod.key.sign(&payload).to_bytes().to_vec();
    (pod, signature, payload)
});

/// Ways to assign the manifest; `#` is where it stands.
const ASSIGNMENTS: &[&str] = &[
    "window.__GEMMAPOD_MANIFEST_B64 = \"#\";",
    "__GEMMAPOD_MANIFEST_B64=\"#\"",
    "window[\"__GEMMAPOD_MANIFEST_B64\"] = \"#\";",
    "self['__GEMMAPOD_MANIFEST_B64']\n=\t\"#\",",
    "globalThis[`__GEMMAPOD_MANIFEST_B64`]= \"#\";",
];
/// Ways to read it or to speak of it.
const READS: &[&str] = &[
    "if (window.__GEMMAPOD_MANIFEST_B64 == null) x();",
    "if (\"\" === window.__GEMMAPOD_MANIFEST_B64) {}",
    "__GEMMAPOD_MANIFEST_B64===\"\"",
    "const pod = decode(window.__GEMMAPOD_MANIFEST_B64);",
    "window['__GEMMAPOD_MANIFEST_B64'] != 1;",
    "<!-- __GEMMAPOD_MANIFEST_B64 -->",
    "__GEMMAPOD_MANIFEST_B64",
];
const TEXTS: &[&str] =
    &["", " ", "<p>ü</p>", "=", "\"", "a = \"AAAA\";", "\n", "__GEMMAPOD_MANIFEST", "🦀", "\\"];
/// What base64 of a manifest may be beside itself.
const PIECES: &[&str] = &[
    "__GEMMAPOD_MANIFEST_B64",
    "=",
    "==",
    "\"",
    "'",
    "]",
    " ",
    "\n",
    "AAAA",
    "oA==",
    "o2NzaWc",
    "\u{2003}",
    "é",
    "\0",
    "[",
];

/// Whether the signature in the one manifest of `html` fits, found out on another way than [`verify`].
fn is_signed(html: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(html).ok()?;
    let base64 = text
        .split('"')
        .find_map(|part| BASE64_STANDARD.decode(part).ok().filter(|bytes| bytes.len() > 64))?;
    let field = |map: &Value, name: &str| {
        // A key may be a string of bytes as well as one of text.
        let is_key = |key: &Value| {
            key.as_text() == Some(name) || key.as_bytes().is_some_and(|key| key == name.as_bytes())
        };
        map.as_map()?.iter().find_map(|(key, value)| is_key(key).then(|| value.clone()))
    };
    let bytes = |value: Value| match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Array(items) => {
            items.iter().map(|item| u8::try_from(u128::try_from(item.as_integer()?).ok()?).ok()).collect()
        }
        _ => None,
    };
    let manifest: Value = ciborium::from_reader(&base64[..]).ok()?;
    let (signature, payload) = (bytes(field(&manifest, "sig")?)?, bytes(field(&manifest, "payload")?)?);
    let fields: Value = ciborium::from_reader(&payload[..]).ok()?;
    let owner: OwnerKey = field(&fields, "owner_pubkey")?.as_text()?.parse().ok()?;
    let key = VerifyingKey::from_bytes(&owner.0).ok()?;
    key.verify_strict(&payload, &Signature::from_slice(&signature).ok()?).ok()
}

/// Refused, or taken for the very pod that [`SAMPLE`] is.
fn refused_or_the_same(html: Vec<u8>) -> Result<Option<InvalidPod>, TestCaseError> {
    match VerifiedPod::verify_within(html.clone().into(), MOST) {
        Err(rejected) => Ok(Some(rejected)),
        Ok(pod) => {
            prop_assert_eq!(&pod.record().name, "sample");
            prop_assert_eq!(pod.record().owner_key.to_string(), SAMPLE.0.owner());
            prop_assert_eq!(pod.blob().as_ref(), &html[..]);
            prop_assert_eq!(pod.record().digest, Digest::of(&html));
            Ok(None)
        }
    }
}

/// Another byte in place of one, more often one that base64 has.
fn flipped(mut bytes: Vec<u8>, at: Index, to: u8) -> Vec<u8> {
    let at = at.index(bytes.len());
    bytes[at] = if bytes[at] == to { to ^ 1 } else { to };
    bytes
}

fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), select(b"ABCDEFabcdef0123456789+/=\" _".as_slice())]
}

/// A value of any type.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<String>().prop_map(Value::Text),
        any::<i64>().prop_map(|n| Value::Integer(n.into())),
        vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
        Just(Value::Null),
        Just(Value::Bool(true)),
        Just(Value::Float(1.5)),
        Just(Value::Map(Vec::new())),
        Just(Value::Array(vec![Value::Array(Vec::new())])),
        Just(Value::Tag(7, Box::new(Value::Text("x".into())))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused(
        bytes in prop_oneof![vec(any::<u8>(), 0..64), any::<String>().prop_map(String::into_bytes)],
        pieces in vec(select(PIECES), 0..16),
        at in any::<Index>(),
    ) {
        let mut html = pieces.concat().into_bytes();
        html.splice(at.index(html.len() + 1).., bytes);
        prop_assert!(VerifiedPod::verify_within(html.into(), MOST).is_err());
    }

    #[test]
    fn a_pod_has_exactly_one_assignment(
        parts in vec((select(TEXTS), prop_oneof![1 => Just(""), 3 => select(READS)]), 0..6),
        assignments in vec((any::<Index>(), select(ASSIGNMENTS)), 0..4),
    ) {
        let base64 = BASE64_STANDARD.encode(SAMPLE.0.signed_manifest());
        let mut html: Vec<_> = parts.iter().map(|(text, read)| format!("{text};{read};")).collect();
        for (at, assignment) in &assignments {
            html.insert(at.index(html.len() + 1), format!("{};", assignment.replace('#', &base64)));
        }
        let rejected = refused_or_the_same(html.concat().into_bytes())?;
        let expected = match assignments.len() {
            0 => Some(InvalidPod::NoManifest),
            1 => None,
            _ => Some(InvalidPod::SeveralManifests),
        };
        prop_assert_eq!(rejected, expected);
    }

    #[test]
    fn a_byte_that_is_changed_spoils_the_pod_or_changes_nothing_that_is_signed(at in any::<Index>(), to in any_byte()) {
        let html = flipped(SAMPLE.0.html().into_bytes(), at, to);
        let signed = is_signed(&html).is_some();
        let rejected = refused_or_the_same(html)?;
        prop_assert!(rejected.is_some() || signed);
    }

    #[test]
    fn a_changed_payload_is_refused(at in any::<Index>(), to in any_byte()) {
        let (pod, signature, payload) = &*SAMPLE;
        let html = pod.html_around(&envelope(signature, &flipped(payload.clone(), at, to)));
        prop_assert!(refused_or_the_same(html.into_bytes())?.is_some());
    }

    #[test]
    fn a_changed_signature_is_refused(at in any::<Index>(), to in any::<u8>(), length in prop_oneof![9 => Just(64), 1 => 0..64_usize, 1 => 65..99_usize]) {
        let (pod, signature, payload) = &*SAMPLE;
        let mut signature = if length == 64 { flipped(signature.clone(), at, to) } else { signature.clone() };
        signature.resize(length, 0);
        let html = pod.html_around(&envelope(&signature, payload));
        prop_assert_eq!(refused_or_the_same(html.into_bytes())?, Some(InvalidPod::BadSignature));
    }

    #[test]
    fn a_changed_envelope_is_refused_or_holds_the_same(
        at in any::<Index>(), to in any::<u8>(), as_bytes in any::<bool>(), more in value(),
    ) {
        let (pod, signature, payload) = &*SAMPLE;
        let signed = if as_bytes {
            let field = |name: &str, bytes: &[u8]| (Value::Text(name.into()), Value::Bytes(bytes.into()));
            let more = (Value::Text("more".into()), more);
            encode(&Value::Map(vec![field("payload", payload), more, field("sig", signature)]))
        } else {
            envelope(signature, payload)
        };
        prop_assert_eq!(refused_or_the_same(pod.html_around(&signed).into_bytes())?, None);
        refused_or_the_same(pod.html_around(&flipped(signed, at, to)).into_bytes())?;
    }

    #[test]
    fn a_pod_is_taken_if_its_owner_signed_it(
        name in ".{0,8}",
        seeds in (0..4_u8, 0..4_u8),
        field in prop_oneof![3 => Just("theme"), 1 => select(["v", "id", "name", "persona", "owner_pubkey", "transport"].as_slice())],
        value in prop::option::of(value()),
        max_manifest in prop_oneof![Just(MOST), 400..900_usize],
    ) {
        let key = |seed| SigningKey::from_bytes(&[seed; 32]);
        let owner = hex(key(seeds.1).verifying_key().as_bytes());
        let pod = Pod::signed_by(key(seeds.0), &name).with("owner_pubkey", Some(Value::Text(owner.clone())));
        let pod = pod.with(field, value.clone());
        let size = pod.signed_manifest().len();
        let html = pod.html();
        let signed = is_signed(html.as_bytes()).is_some();
        match VerifiedPod::verify_within(html.clone().into(), max_manifest) {
            Ok(taken) => {
                prop_assert!(signed && seeds.0 == seeds.1 && size <= max_manifest);
                let record = taken.record();
                // Tags mean nothing.
                let value = value.map(|value| if let Value::Tag(_, value) = value { *value } else { value });
                let name = if let ("name", Some(Value::Text(name))) = (field, value) { name } else { name };
                prop_assert_eq!(&record.name, &name);
                prop_assert_eq!(record.owner_key.to_string(), owner);
                prop_assert_eq!((record.manifest_size, record.blob_size), (size as u64, html.len() as u64));
                prop_assert_eq!(record.hits, 0);
            }
            Err(InvalidPod::TooLarge(_)) => prop_assert!(size > max_manifest),
            Err(InvalidPod::BadSignature) => prop_assert!(!signed && seeds.0 != seeds.1),
            Err(InvalidPod::BadOwnerKey) => prop_assert_eq!(field, "owner_pubkey"),
            Err(InvalidPod::Shape { .. }) => prop_assert_ne!(field, "theme"),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn an_upload_takes_no_more_memory_than_a_few_times_its_manifest(at in any::<Index>(), to in any_byte()) {
        let mut html = flipped(SAMPLE.0.html().into_bytes(), at, to);
        html.extend([b' '; 16 << 10]);
        let html = Bytes::from(html);
        let taken = allocation_counter::measure(|| drop(VerifiedPod::verify_within(html.clone(), MOST)));
        prop_assert!(taken.bytes_max < 4 * MOST as u64 + 8192, "{:?}", taken);
    }
}
