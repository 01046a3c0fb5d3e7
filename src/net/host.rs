//! Which texts are the host of a request: `pods.example.org`, `192.0.2.1:80`, `[2001:db8::1]:8443`.

use std::net::Ipv6Addr;

/// Characters of a host name at most (RFC 1035, section 2.3.4), and its trailing dot.
const MAX_NAME: usize = 254;

/// Returns whether `text` is a host name or an IP address, perhaps with a port. RFC 3986 allows more characters in a
/// name, but none that a name in use has, and some of them are dangerous in a URL that is shown.
pub fn is_valid(text: &str) -> bool {
    let (host, port) = match text.find(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    is_port(port) && (is_name(host) || is_ipv6(host))
}

/// Nothing, or a colon and a port, which may be empty (RFC 3986, section 3.2.3).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    port.is_empty() || (port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// Labels of letters, digits, `-` and `_`, which names of containers have. An IPv4 address looks the same.
fn is_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() <= MAX_NAME && labels.split('.').all(|label| !label.is_empty() && label.bytes().all(fits))
}

fn is_ipv6(text: &str) -> bool {
    let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_hosts_with_or_without_a_port() {
        for text in [
            "localhost",
            "x",
            "pods.example.org",
            "Pods.Example.ORG:443",
            "pods.example.org.",
            "pods.example.org.:8443",
            "my_broker:8080",
            "xn--bcher-kva.example",
            "192.0.2.1",
            "192.0.2.1:65535",
            "[::1]",
            "[2001:db8::1]:80",
            "[::ffff:192.0.2.1]",
            "x:",
            "x:0",
        ] {
            assert!(is_valid(text), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_one() {
        let long = format!("{}.example", "x".repeat(250));
        for text in [
            "",
            ":80",
            ".",
            "..",
            ".x",
            "x..y",
            "x..",
            "'",
            "x'",
            "\"x\"",
            "x y",
            " x",
            "x:99999",
            "x:65536",
            "x:-1",
            "x:+1",
            "x:1:2",
            "x:a",
            "x:80/",
            "user@x",
            "user:secret@x",
            "x/",
            "x?y",
            "x#y",
            "x%41",
            "x,y",
            "x;y",
            "x&y",
            "x<y",
            "(x)",
            "bücher.example",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[x]",
            "[::1%25eth0]",
            "[::1]x",
            "[::1]:99999",
            "[[::1]]",
            "[v1.x]",
            &long,
        ] {
            assert!(!is_valid(text), "{text}");
        }
    }
}
