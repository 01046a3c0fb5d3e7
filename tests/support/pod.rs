//! Signed pods, made as the GemmaPod CLI makes them.

use base64::{Engine, prelude::BASE64_STANDARD};
use ciborium::Value;
use ed25519_dalek::{Signer, SigningKey};

/// The parts of a pod; change one, then ask for the HTML.
#[derive(Clone)]
pub struct Pod {
    pub key: SigningKey,
    /// The fields of the payload.
    pub manifest: Vec<(String, Value)>,
    /// What stands around the manifest in the HTML.
    pub before: String,
    pub after: String,
}

impl Pod {
    /// A small pod named `name`, signed by a key of its own.
    pub fn named(name: &str) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        Self::signed_by(SigningKey::from_bytes(&seed), name)
    }

    pub fn signed_by(key: SigningKey, name: &str) -> Self {
        let text = |text: &str| Value::Text(text.into());
        let field = |name: &str, value| (name.to_owned(), value);
        let manifest = vec![
            field("v", Value::Integer(1.into())),
            field("id", text(name)),
            field("name", text(name)),
            field("persona", text("")),
            field("system_prompt", text("be brief")),
            field("owner_pubkey", text(&hex(key.verifying_key().as_bytes()))),
            field("transport", Value::Map(vec![(text("preferred"), Value::Array(vec![text("dartc")]))])),
            field("tools", Value::Array(Vec::new())),
        ];
        Self { key, manifest, before: "<!doctype html><script>window.".into(), after: "</script>".into() }
    }

    /// The same pod with one field of its manifest set anew, or taken away.
    pub fn with(mut self, name: &str, value: Option<Value>) -> Self {
        self.manifest.retain(|(field, _)| field != name);
        self.manifest.extend(value.map(|value| (name.to_owned(), value)));
        self
    }

    /// The same pod with `bytes` of padding in its HTML.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.after.push_str(&format!("<!--{}-->", "x".repeat(bytes)));
        self
    }

    pub fn owner(&self) -> String {
        hex(self.key.verifying_key().as_bytes())
    }

    pub fn payload(&self) -> Vec<u8> {
        let fields = self.manifest.iter().map(|(name, value)| (Value::Text(name.clone()), value.clone()));
        encode(&Value::Map(fields.collect()))
    }

    /// The signed manifest: a map of two arrays of bytes, as serde writes a `Vec<u8>`.
    pub fn signed_manifest(&self) -> Vec<u8> {
        let payload = self.payload();
        envelope(&self.key.sign(&payload).to_bytes(), &payload)
    }

    pub fn html(&self) -> String {
        self.html_around(&self.signed_manifest())
    }

    /// The HTML with other bytes in place of the signed manifest.
    pub fn html_around(&self, signed_manifest: &[u8]) -> String {
        let base64 = BASE64_STANDARD.encode(signed_manifest);
        format!("{}__GEMMAPOD_MANIFEST_B64 = \"{base64}\";{}", self.before, self.after)
    }
}

pub fn envelope(signature: &[u8], payload: &[u8]) -> Vec<u8> {
    let array =
        |bytes: &[u8]| Value::Array(bytes.iter().map(|byte| Value::Integer((*byte).into())).collect());
    encode(&Value::Map(vec![
        (Value::Text("sig".into()), array(signature)),
        (Value::Text("payload".into()), array(payload)),
    ]))
}

pub fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
