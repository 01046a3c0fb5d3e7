//! Normalization of request paths (RFC 3986, section 6.2.2.2).

use std::borrow::Cow;

/// Returns `path` with every percent-encoded unreserved character decoded: both spellings name the same resource.
/// Everything else stays as it is, so that `%2f` is no separator and `%00` is no character.
pub fn normalize(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut normalized = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normalized += before;
        match unreserved(after) {
            Some(character) => {
                normalized.push(character);
                rest = &after[2..];
            }
            None => {
                normalized.push('%');
                rest = after;
            }
        }
    }
    normalized += rest;
    Cow::Owned(normalized)
}

/// Returns the unreserved character (RFC 3986, section 2.3) that the two hex digits at the start of `text` encode.
fn unreserved(text: &str) -> Option<char> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    let character = char::from(u8::from_str_radix(digits, 16).ok()?);
    (character.is_ascii_alphanumeric() || "-._~".contains(character)).then_some(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unreserved_characters_have_one_spelling_and_all_others_keep_theirs() {
        for (path, normalized) in [
            ("/health", "/health"),
            ("/%68ealth", "/health"),
            ("/%68%65%61%6C%6c%74%68", "/heallth"),
            ("/%2d%2D%5f%2e%7E", "/--_.~"),
            ("/a%2fb%2Fc", "/a%2fb%2Fc"),
            ("/%00%20%25%3f%23%7f%80%ff%c3%a4", "/%00%20%25%3f%23%7f%80%ff%c3%a4"),
            // Decoded once only.
            ("/%2568ealth", "/%2568ealth"),
            ("/%", "/%"),
            ("/%6", "/%6"),
            ("/%6g%g8%+8", "/%6g%g8%+8"),
            ("/%%68", "/%h"),
            ("/ä%ä6", "/ä%ä6"),
        ] {
            assert_eq!(normalize(path), normalized, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_spelling_of_plain_text_is_that_text(text in "[A-Za-z0-9._~-]{0,20}", encoded in any::<u32>(), upper in any::<u32>()) {
            let spelled: String = text.char_indices().map(|(at, character)| match (encoded >> at & 1, upper >> at & 1) {
                (0, _) => character.to_string(),
                (_, 0) => format!("%{:02x}", u32::from(character)),
                _ => format!("%{:02X}", u32::from(character)),
            }).collect();
            prop_assert_eq!(normalize(&spelled), text);
        }

        #[test]
        fn separators_are_neither_made_nor_lost(path in "(/|%|%2[fFeE]|%2|[a-f0-9.?#ä]){0,20}") {
            let separators = |text: &str| text.matches(['/', '?', '#']).count();
            prop_assert_eq!(separators(&normalize(&path)), separators(&path));
        }
    }
}
