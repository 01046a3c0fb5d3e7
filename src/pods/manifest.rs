//! Finds the signed manifest in a pod, decodes it within limits and verifies its signature.
//!
//! A manifest is a CBOR map of `sig` (64 bytes) and `payload` (CBOR too, signed as these very bytes), in base64,
//! assigned to `window.__GEMMAPOD_MANIFEST_B64` by a script in the HTML.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use ciborium::Value;
use ed25519_dalek::{Signature, VerifyingKey};
use memchr::memmem;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    cbor::{self, CborError},
    record::{Digest, OwnerKey, PodRecord, Slug},
};

const NAME: &str = "__GEMMAPOD_MANIFEST_B64";
/// Largest signed manifest, in bytes before base64. It holds texts for a model and is decoded whole, which takes up to
/// four times its size.
const MAX_MANIFEST: usize = 256 << 10;
/// CBOR items in a payload. Real ones have a few dozen.
const MAX_PAYLOAD_ITEMS: usize = 10_000;
/// Bytes in a pod's display name.
const MAX_NAME: usize = 1024;

/// A pod whose signature fits. Only [`VerifiedPod::verify`] makes one, so that nothing else reaches a registry.
///
/// ```compile_fail
/// use gemmapod_signal::{PodRecord, VerifiedPod};
///
/// fn forge(record: PodRecord, blob: bytes::Bytes) -> VerifiedPod {
///     VerifiedPod { record, blob, pod_id: None } // error: the fields are private
/// }
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedPod {
    record: PodRecord,
    blob: Bytes,
    pod_id: Option<String>,
}

/// Why an upload is not a pod: sentences for the person who uploaded it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPod {
    /// The bytes are not UTF-8.
    #[error("the pod is not valid UTF-8")]
    NotUtf8,
    /// Nothing is assigned to `__GEMMAPOD_MANIFEST_B64`.
    #[error("blob is missing __GEMMAPOD_MANIFEST_B64")]
    NoManifest,
    /// There is more than one assignment: a browser would run the last.
    #[error("the pod assigns __GEMMAPOD_MANIFEST_B64 more than once; expected exactly one manifest")]
    SeveralManifests,
    /// What is assigned is not a string of base64.
    #[error(
        "the manifest is not valid base64: expected the standard alphabet with padding, in double quotes"
    )]
    NotBase64,
    /// The manifest is over the limit.
    #[error("the manifest is larger than {0} bytes")]
    TooLarge(usize),
    /// The CBOR of the signed manifest is out of bounds.
    #[error("the signed manifest is refused: {0}")]
    Envelope(CborError),
    /// The CBOR of the payload is out of bounds.
    #[error("the manifest's payload is refused: {0}")]
    Payload(CborError),
    /// A field is missing or of the wrong type.
    #[error("the {part} is not as expected: {problem}")]
    Shape {
        /// Which of the two CBOR items.
        part: &'static str,
        /// What the decoder says.
        problem: String,
    },
    /// `owner_pubkey` is no Ed25519 public key.
    #[error("invalid public key in manifest")]
    BadOwnerKey,
    /// The signature does not fit the payload and the owner key.
    #[error("signature verification failed")]
    BadSignature,
    /// A `signal_url` holds the credential of a host, which the pod would publish.
    #[error(
        "the manifest's signal_url holds a name and a secret (NAME:SECRET@), which everybody who opens the pod could \
         read: build the pod with a signal_url without them; only the pod.toml of the host has them"
    )]
    CredentialInSignalUrl,
    /// The display name is too long.
    #[error("the manifest's name is longer than {MAX_NAME} bytes")]
    NameTooLong,
}

impl VerifiedPod {
    /// Verifies the one manifest in `html`, which may be at most 256 KiB, and gives the pod a new slug.
    ///
    /// # Errors
    ///
    /// `html` is not a pod, or its signature does not fit. See [`InvalidPod`].
    pub fn verify(html: Bytes) -> Result<Self, InvalidPod> {
        Self::verify_within(html, MAX_MANIFEST)
    }

    fn verify_within(html: Bytes, max_manifest: usize) -> Result<Self, InvalidPod> {
        let text = std::str::from_utf8(&html).map_err(|_| InvalidPod::NotUtf8)?;
        let base64 = find(text)?;
        if base64.trim_end_matches('=').len() * 3 / 4 > max_manifest {
            return Err(InvalidPod::TooLarge(max_manifest));
        }
        let signed = BASE64_STANDARD.decode(base64).map_err(|_| InvalidPod::NotBase64)?;
        let manifest = verify(&signed)?;
        let record = PodRecord {
            slug: Slug::random(),
            name: manifest.name,
            owner_key: manifest.owner_key,
            manifest_size: signed.len() as u64,
            blob_size: html.len() as u64,
            created_at: now(),
            hits: 0,
            digest: Digest::of(&html),
            last_hit: None,
            updated_at: None,
            expires: None,
            upload_signed: false,
        };
        Ok(Self { record, blob: html, pod_id: manifest.pod_id })
    }

    /// The same pod under a slug that is there, as another version of the pod that it names.
    pub fn with_slug(mut self, slug: Slug) -> Self {
        self.record.slug = slug;
        self
    }

    /// Returns the same pod as one whose upload was signed by `uploader`, or `None` if it is another owner's.
    pub fn signed_by(mut self, uploader: OwnerKey) -> Option<Self> {
        self.record.upload_signed = true;
        (self.record.owner_key == uploader).then_some(self)
    }

    /// The same pod, which is not served any more after `lifetime`.
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.record.expires = self.record.created_at.checked_add(lifetime);
        self
    }

    /// The pod id that its manifest's transport names: the one under which its origin registers.
    pub fn pod_id(&self) -> Option<&str> {
        self.pod_id.as_deref()
    }

    /// The same pod, as if it came at `date`.
    #[cfg(test)]
    pub(crate) fn at(mut self, date: SystemTime) -> Self {
        self.record.created_at = date;
        self
    }

    /// What is known of the pod.
    pub fn record(&self) -> &PodRecord {
        &self.record
    }

    /// The HTML.
    pub fn blob(&self) -> &Bytes {
        &self.blob
    }

    /// Record and HTML.
    pub fn into_parts(self) -> (PodRecord, Bytes) {
        (self.record, self.blob)
    }
}

/// The time, cut to the millisecond that a record keeps.
fn now() -> SystemTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_millis(since_epoch.as_millis() as u64)
}

/// The base64 in the one assignment to [`NAME`]; reading the variable, as the shim does, is no assignment.
fn find(html: &str) -> Result<&str, InvalidPod> {
    let mut assigned =
        memmem::find_iter(html.as_bytes(), NAME).filter_map(|at| assignment(&html[at + NAME.len()..]));
    let value = assigned.next().ok_or(InvalidPod::NoManifest)?;
    if assigned.next().is_some() {
        return Err(InvalidPod::SeveralManifests);
    }
    let quoted = value.strip_prefix('"').ok_or(InvalidPod::NotBase64)?;
    let end = memchr::memchr(b'"', quoted.as_bytes()).ok_or(InvalidPod::NotBase64)?;
    Ok(&quoted[..end])
}

/// What is assigned, if an assignment follows the name: `x = …`, `window["x"] = …`, but not `x == …`.
fn assignment(rest: &str) -> Option<&str> {
    let rest = rest.trim_start_matches(['"', '\'', '`', ']']).trim_start();
    let value = rest.strip_prefix('=')?;
    (!value.starts_with('=')).then(|| value.trim_start())
}

#[derive(Deserialize)]
struct Envelope {
    sig: Vec<u8>,
    payload: Vec<u8>,
}

/// The fields that the clients need, and no more: unknown ones are for newer clients.
#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "v")]
    _version: u8,
    #[serde(rename = "id")]
    _id: String,
    name: String,
    #[serde(rename = "persona")]
    _persona: String,
    #[serde(rename = "system_prompt")]
    _system_prompt: String,
    owner_pubkey: String,
    #[serde(rename = "transport")]
    _transport: Transport,
}

#[derive(Deserialize)]
struct Transport {}

struct Manifest {
    name: String,
    owner_key: OwnerKey,
    pod_id: Option<String>,
}

/// The part of a payload that names the pod id. Older pods have `webrtc` in place of `dartc`.
#[derive(Deserialize)]
struct Reachable {
    transport: BTreeMap<String, Value>,
}

fn pod_id(payload: &[u8]) -> Option<String> {
    // Whatever else is there is for newer clients, and no reason to refuse a pod.
    let reachable: Reachable = ciborium::from_reader(payload).ok()?;
    let by = ["dartc", "webrtc"].iter().find_map(|by| reachable.transport.get(*by)?.as_map())?;
    let (_, pod_id) = by.iter().find(|(key, _)| key.as_text() == Some("pod_id"))?;
    pod_id.as_text().filter(|pod_id| !pod_id.is_empty()).map(Into::into)
}

fn verify(signed: &[u8]) -> Result<Manifest, InvalidPod> {
    // Each item takes a byte at least, and there are at most `max_manifest` of those.
    cbor::check(signed, usize::MAX).map_err(InvalidPod::Envelope)?;
    let envelope: Envelope = decode("signed manifest", signed)?;
    cbor::check(&envelope.payload, MAX_PAYLOAD_ITEMS).map_err(InvalidPod::Payload)?;
    let payload: Payload = decode("manifest's payload", &envelope.payload)?;
    let owner_key: OwnerKey = payload.owner_pubkey.parse().map_err(|_| InvalidPod::BadOwnerKey)?;
    let key = VerifyingKey::from_bytes(&owner_key.0).map_err(|_| InvalidPod::BadOwnerKey)?;
    if key.is_weak() {
        return Err(InvalidPod::BadOwnerKey);
    }
    let signature = Signature::from_slice(&envelope.sig).map_err(|_| InvalidPod::BadSignature)?;
    key.verify_strict(&envelope.payload, &signature).map_err(|_| InvalidPod::BadSignature)?;
    if payload.name.len() > MAX_NAME {
        return Err(InvalidPod::NameTooLong);
    }
    if signal_url::has_credential(&envelope.payload) {
        return Err(InvalidPod::CredentialInSignalUrl);
    }
    Ok(Manifest { name: payload.name, owner_key, pod_id: pod_id(&envelope.payload) })
}

fn decode<T: DeserializeOwned>(part: &'static str, cbor: &[u8]) -> Result<T, InvalidPod> {
    ciborium::from_reader(cbor).map_err(|error| {
        let problem = match error {
            ciborium::de::Error::Semantic(_, problem) => problem,
            _ => "it is not well-formed CBOR".into(),
        };
        InvalidPod::Shape { part, problem }
    })
}

#[cfg(test)]
mod properties;
mod signal_url;
#[cfg(test)]
mod tests;
