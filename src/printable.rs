//! Text of strangers, as it goes to a terminal or into a log.

use std::{borrow::Cow, fmt::Write};

/// Characters of a name that strangers chose, in a line of the log.
const SHOWN: usize = 40;

/// Returns as much of a name as a line of the log shows.
pub fn shown(name: &str) -> Cow<'_, str> {
    cut(name, SHOWN)
}

/// Returns the beginning of `text` that has `room` characters once it is escaped.
pub fn cut(text: &str, mut room: usize) -> Cow<'_, str> {
    for (at, char) in text.char_indices() {
        // As in a log for people; JSON escapes less, or makes it little longer.
        let width = if is_unsafe(char) { char.escape_unicode().len() } else { char.escape_debug().len() };
        if width > room {
            return format!("{}…", &text[..at]).into();
        }
        room -= width;
    }
    text.into()
}

/// Returns `text` with everything escaped that starts another line, commands a terminal, or changes the order in which text
/// is shown.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_unsafe(char) {
            write!(escaped, "{}", char.escape_default()).expect("a string takes everything");
        } else {
            escaped.push(char);
        }
    }
    escaped.into()
}

fn is_unsafe(char: char) -> bool {
    const MARKS: [char; 5] = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
    char.is_control()
        || MARKS.contains(&char)
        || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        for (text, printed) in [
            ("my-pod", "my-pod"),
            ("Zoë's \"pod\" \\ हिन्दी 👩‍💻", "Zoë's \"pod\" \\ हिन्दी 👩‍💻"),
            ("a\nINFO b\r\tc", "a\\nINFO b\\r\\tc"),
            ("\u{1b}[2J\u{7}\u{7f}\u{9b}31m\u{0}", "\\u{1b}[2J\\u{7}\\u{7f}\\u{9b}31m\\u{0}"),
            ("a\u{202e}b\u{2066}\u{2028}\u{200f}", "a\\u{202e}b\\u{2066}\\u{2028}\\u{200f}"),
        ] {
            assert_eq!(printable(text), printed);
        }
    }

    #[test]
    fn a_line_of_the_log_shows_the_beginning_of_a_long_text() {
        for (text, beginning) in [
            ("my-pod".to_owned(), "my-pod".to_owned()),
            ("x".repeat(40), "x".repeat(40)),
            ("x".repeat(41), format!("{}…", "x".repeat(40))),
            ("é".repeat(128), format!("{}…", "é".repeat(40))),
            ("\u{1}".repeat(128), format!("{}…", "\u{1}".repeat(8))),
            ("\"".repeat(128), format!("{}…", "\"".repeat(20))),
            ("x\u{202e}".repeat(64), format!("{}x…", "x\u{202e}".repeat(4))),
        ] {
            assert_eq!(shown(&text), beginning);
            // The longest form that a log gives it.
            let json = serde_json::to_string(&shown(&text)).unwrap();
            assert!(
                json.len() < 100 && printable(&format!("{:?}", shown(&text))).chars().count() < 60,
                "{json}"
            );
        }
    }
}
