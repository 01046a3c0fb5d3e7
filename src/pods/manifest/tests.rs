//! The largest manifest.

use ed25519_dalek::SigningKey;

use super::*;
use crate::pods::signed::Pod;

/// Base64 ends in no, one or two characters of padding; the limit is of the bytes within.
#[test]
fn a_manifest_of_exactly_the_limit() {
    let mut paddings = Vec::new();
    for name in ["a", "aa", "aaa", "aaaa"] {
        let pod = Pod::signed_by(SigningKey::from_bytes(&[7; 32]), name);
        let (size, html) = (pod.signed_manifest().len(), pod.html());
        paddings.push(html.matches('=').count());
        assert_eq!(VerifiedPod::verify_within(html.clone().into(), size).unwrap().blob(), html.as_bytes());
        let refused = VerifiedPod::verify_within(html.into(), size - 1).unwrap_err();
        assert_eq!(refused, InvalidPod::TooLarge(size - 1));
    }
    paddings.sort_unstable();
    paddings.dedup();
    assert_eq!(paddings.len(), 3, "all lengths of padding are there: {paddings:?}");
}
