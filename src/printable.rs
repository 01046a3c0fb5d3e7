//! Text of strangers, as it goes to a terminal or into a log.

use std::{borrow::Cow, fmt::Write};

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
}
