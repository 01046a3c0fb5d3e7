//! The text of a JSON string, in the place of the string.

use memchr::memchr;

/// Replaces the escapes in what stands between the quotes of a JSON string (RFC 8259, section 7). Returns the length of the
/// text, which is at the beginning, or `None` if one of them is none, or half of a surrogate pair.
pub fn unescape(text: &mut [u8]) -> Option<usize> {
    let next = |text: &[u8], from: usize| memchr(b'\\', &text[from..]).map_or(text.len(), |at| from + at);
    let (mut read, mut written) = (next(text, 0), next(text, 0));
    while read < text.len() {
        let (char, length) = escape(&text[read..])?;
        read += length;
        // No character is longer than its escape.
        written += char.encode_utf8(&mut text[written..]).len();
        let plain = read..next(text, read);
        read = plain.end;
        let length = plain.len();
        text.copy_within(plain, written);
        written += length;
    }
    Some(written)
}

/// Returns the character that the escape at the beginning of `text` stands for, and the length of the escape.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let char = match text.get(1)? {
        b'u' => return unicode_escape(text),
        char @ (b'"' | b'\\' | b'/') => char::from(*char),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    };
    Some((char, 2))
}

fn unicode_escape(text: &[u8]) -> Option<(char, usize)> {
    let units = text.chunks(6).map_while(unit);
    let char = char::decode_utf16(units).next()?.ok()?;
    Some((char, 6 * char.len_utf16()))
}

/// Returns the UTF-16 code unit that `escape` stands for.
fn unit(escape: &[u8]) -> Option<u16> {
    let digits = escape.strip_prefix(br"\u").filter(|digits| digits.len() == 4)?;
    digits.iter().try_fold(0, |unit, digit| Some((unit << 4) | char::from(*digit).to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescaped(text: &str) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let length = unescape(&mut bytes)?;
        bytes.truncate(length);
        Some(String::from_utf8(bytes).unwrap())
    }

    fn as_serde_does(text: &str) -> Option<String> {
        serde_json::from_str(&format!("\"{text}\"")).ok()
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text: String) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescaped(&json[1..json.len() - 1]), Some(text));
        }

        #[test]
        fn any_escapes_mean_what_serde_makes_of_them(
            text in r#"(\\["\\/bfnrtx]|\\u[0-9a-fA-F]{4}|\\u[dD][89a-fA-F][0-9a-f]{2}|\\u00[0-7][0-9]|[ -!#-\[]|é|😀){0,12}"#
        ) {
            prop_assert_eq!(unescaped(&text), as_serde_does(&text));
        }
    }

    #[test]
    fn pairs_and_halves_of_pairs() {
        for text in [
            r"\ud83d\ude00",
            r"a\ud83d\ude00b",
            r"\ud83d",
            r"\ude00",
            r"\ud83d\n",
            r"\ud83d\ud83d",
            r"\ude00\ud83d",
            r"\u00e",
            r"\",
            r"\x",
            r"\u12g4",
            r"\u+123",
            "",
        ] {
            assert_eq!(unescaped(text), as_serde_does(text), "{text}");
        }
        assert_eq!(unescaped(r"a\ud83d\ude00b").unwrap(), "a😀b");
    }
}
