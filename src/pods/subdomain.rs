//! The DNS label of a slug: its 9 bytes in base32 (RFC 4648, section 6, lower case), because a host's name knows no
//! difference of case, and neither `_` nor a `-` at its begin.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};

use super::Slug;

/// Characters in a label.
pub const LABEL: usize = 15;

/// The label under which a pod has an origin of its own.
pub fn label_of(slug: &Slug) -> String {
    let bits = BASE64URL_NOPAD.decode(slug.as_str().as_bytes()).expect("a slug is base64url");
    BASE32_NOPAD.encode(&bits).to_ascii_lowercase()
}

/// The slug of a label, in any case.
pub fn slug_of_label(label: &str) -> Option<Slug> {
    if label.len() != LABEL {
        return None;
    }
    let bits = BASE32_NOPAD.decode(label.to_ascii_uppercase().as_bytes()).ok()?;
    BASE64URL_NOPAD.encode(&bits).parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_label_is_one_slugs_alone(slug in "[A-Za-z0-9_-]{12}") {
            let slug: Slug = slug.parse().unwrap();
            let label = label_of(&slug);
            prop_assert_eq!(label.len(), LABEL);
            prop_assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
            prop_assert_eq!(slug_of_label(&label), Some(slug));
            prop_assert_eq!(slug_of_label(&label.to_ascii_uppercase()), Some(slug));
        }

        #[test]
        fn any_text_is_the_label_of_a_slug_or_of_none(text in "[a-z2-7]{14,16}|.{0,20}") {
            if let Some(slug) = slug_of_label(&text) {
                prop_assert_eq!(label_of(&slug), text.to_ascii_lowercase());
            }
        }
    }
}
