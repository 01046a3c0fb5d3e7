//! What is known of a stored pod, and the names that it goes by.

use std::{fmt, str::FromStr, time::SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// The name under which a pod is stored and served: 12 characters of base64url (RFC 4648, section 5), 72 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slug([u8; Self::LEN]);

impl Slug {
    /// Characters in a slug.
    pub const LEN: usize = 12;

    /// A new slug from the system's random numbers. It does not begin with `-`, so that no command takes it for an option.
    ///
    /// # Panics
    ///
    /// If the system has no random numbers to give.
    pub fn random() -> Self {
        loop {
            let mut bits = [0; 9];
            getrandom::fill(&mut bits).expect("the system gives random numbers");
            let mut slug = [0; Self::LEN];
            BASE64_URL_SAFE_NO_PAD.encode_slice(bits, &mut slug).expect("nine bytes are twelve characters");
            if slug[0] != b'-' {
                return Self(slug);
            }
        }
    }

    /// The slug as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a slug is ASCII")
    }
}

/// A text is not a slug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a slug has 12 characters out of A-Z, a-z, 0-9, - and _")]
pub struct NotASlug;

impl FromStr for Slug {
    type Err = NotASlug;

    fn from_str(text: &str) -> Result<Self, NotASlug> {
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().map_err(|_| NotASlug)?;
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if bytes.iter().all(fits) { Ok(Self(bytes)) } else { Err(NotASlug) }
    }
}

/// The Ed25519 public key that a pod is signed with; it is written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey(pub [u8; 32]);

/// The SHA-256 of a blob; it is written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `blob`.
    pub fn of(blob: &[u8]) -> Self {
        Self(Sha256::digest(blob).into())
    }
}

/// A text is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hex digits")]
pub struct NotHex;

fn from_hex(text: &str) -> Result<[u8; 32], NotHex> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(NotHex);
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(NotHex);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Ok(bytes)
}

fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Text forms: `Display`, `Debug`, `FromStr` and serde as a string.
macro_rules! as_text {
    ($type:ty, |$value:ident, $f:ident| $write:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $value = self;
                $write
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

as_text!(Slug, |slug, f| f.write_str(slug.as_str()));
as_text!(OwnerKey, |key, f| write_hex(&key.0, f));
as_text!(Digest, |digest, f| write_hex(&digest.0, f));

impl FromStr for OwnerKey {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        from_hex(text).map(Self)
    }
}

impl FromStr for Digest {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        from_hex(text).map(Self)
    }
}

/// What is known of a stored pod. As JSON it has the seven fields of `GET /:id/meta`, in their order, and `digest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    /// Under which name it is served.
    #[serde(rename = "id")]
    pub slug: Slug,
    /// The display name in its manifest.
    pub name: String,
    /// Who signed it.
    #[serde(rename = "ownerPubkey")]
    pub owner_key: OwnerKey,
    /// Bytes of the signed manifest, before base64.
    pub manifest_size: u64,
    /// Bytes of the HTML.
    pub blob_size: u64,
    /// When it was uploaded, to the millisecond.
    #[serde(with = "iso8601")]
    pub created_at: SystemTime,
    /// How often it was fetched.
    pub hits: u64,
    /// The SHA-256 of the HTML.
    pub digest: Digest,
    /// When it was last fetched, as far as the registry keeps that.
    #[serde(skip)]
    pub last_hit: Option<SystemTime>,
    /// When its owner put the present version in place of the first one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some_iso8601")]
    pub updated_at: Option<SystemTime>,
    /// From when on it is not served any more.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some_iso8601")]
    pub expires: Option<SystemTime>,
    /// Whether its owner signed the upload, and so the whole page. Otherwise only the manifest is known to be the
    /// owner's, a copy of which anybody can put into another page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upload_signed: bool,
}

impl PodRecord {
    /// The record of this version where `before` is the one that it replaces, if both have the same owner.
    pub fn in_place_of(self, before: &Self) -> Option<Self> {
        (self.owner_key == before.owner_key).then_some(Self {
            created_at: before.created_at,
            updated_at: Some(self.created_at),
            hits: before.hits,
            last_hit: before.last_hit,
            expires: before.expires,
            ..self
        })
    }

    /// Whether both are of the same upload.
    pub fn is_version_of(&self, other: &Self) -> bool {
        let upload = |record: &Self| (record.slug, record.digest, record.created_at, record.updated_at);
        upload(self) == upload(other)
    }

    /// Whether it is not to be served at `now`.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

pub(super) mod iso8601 {
    //! Times as ISO 8601 with milliseconds, as JavaScript's `toISOString` writes them.

    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

mod some_iso8601 {
    //! The same for a time that may be missing.

    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::iso8601;

    #[derive(Deserialize)]
    struct Time(#[serde(with = "iso8601")] SystemTime);

    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => iso8601::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_twelve_url_safe_characters() {
        let slug = Slug::random();
        assert_eq!(slug.as_str().parse(), Ok(slug));
        assert_ne!(Slug::random(), slug);
        assert!((0..1000).all(|_| !Slug::random().as_str().starts_with('-')));
        for text in ["", "short", "aaaaaaaaaaaaa", "aaaaaaaaaaa.", "aaaaaaaaaaa/", "äaaaaaaaaaa"] {
            assert_eq!(text.parse::<Slug>(), Err(NotASlug), "{text}");
        }
    }

    #[test]
    fn a_record_is_the_seven_fields_in_order_and_its_digest() {
        let record = PodRecord {
            slug: "abcdefghi-_1".parse().unwrap(),
            name: "n".into(),
            owner_key: OwnerKey([0xab; 32]),
            manifest_size: 1,
            blob_size: 2,
            created_at: SystemTime::UNIX_EPOCH,
            hits: 3,
            digest: Digest::of(b""),
            last_hit: None,
            updated_at: None,
            expires: None,
            upload_signed: false,
        };
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            json,
            format!(
                r#"{{"id":"abcdefghi-_1","name":"n","ownerPubkey":"{}","manifestSize":1,"blobSize":2,"createdAt":"1970-01-01T00:00:00.000Z","hits":3,"digest":"{}"}}"#,
                "ab".repeat(32),
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            )
        );
        assert_eq!(serde_json::from_str::<PodRecord>(&json).unwrap(), record);
    }
}
