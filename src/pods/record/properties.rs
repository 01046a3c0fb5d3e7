//! The names of pods, owners and blobs are read as they are written, and nothing else is one.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Text of about the right length, of the right characters or nearly.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9_-]{11,13}",
        "[A-Za-z0-9_./+-]{12}",
        "[0-9a-fA-F]{63,65}",
        "[0-9a-gG é]{64}",
        ".{0,16}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_is_a_name_by_its_length_and_characters_alone(text in text()) {
        let fits = |length: usize, of: fn(char) -> bool| text.chars().count() == length && text.chars().all(of);
        let is_slug = fits(12, |c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        prop_assert_eq!(text.parse::<Slug>().ok().map(|slug| slug.to_string()), is_slug.then(|| text.clone()));
        let as_hex = fits(64, |c| c.is_ascii_hexdigit()).then(|| text.to_ascii_lowercase());
        prop_assert_eq!(text.parse::<OwnerKey>().ok().map(|key| key.to_string()), as_hex.clone());
        prop_assert_eq!(text.parse::<Digest>().ok().map(|digest| digest.to_string()), as_hex);
    }

    #[test]
    fn a_record_is_read_as_it_is_written(
        slug in "[A-Za-z0-9_-]{12}",
        name in any::<String>(),
        (owner_key, digest) in any::<([u8; 32], [u8; 32])>(),
        (manifest_size, blob_size, hits) in any::<(u64, u64, u64)>(),
        // The last second that RFC 3339 can write is in the year 9999.
        millis in 0..253_402_300_800_000_u64,
        later in prop::option::of(0..253_402_300_800_000_u64),
        upload_signed in any::<bool>(),
    ) {
        let record = PodRecord {
            slug: slug.parse().unwrap(),
            name,
            owner_key: OwnerKey(owner_key),
            manifest_size,
            blob_size,
            created_at: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            hits,
            digest: Digest(digest),
            last_hit: None,
            updated_at: later.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis)),
            expires: later.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis / 2)),
            upload_signed,
        };
        let json = serde_json::to_string(&record).unwrap();
        prop_assert_eq!(serde_json::from_str::<PodRecord>(&json).unwrap(), record);
    }
}
