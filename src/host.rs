//! Which texts are hosts, in a request as in a setting: `pods.example.org`, `192.0.2.1`, `[2001:db8::1]`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Characters of a host name at most (RFC 1035, section 2.3.4), and its trailing dot.
const MAX_NAME: usize = 254;

/// Returns whether `text` is a host, perhaps with a port: `pods.example.org:8443`.
pub fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.find(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    is_port(port) && is_host(host)
}

/// Returns whether `text` is a host name or an IP address, IPv6 in brackets.
pub fn is_host(text: &str) -> bool {
    is_name(text) || is_ipv4(text) || is_ipv6(text)
}

/// Returns whether `text` is a host name: labels of letters, digits, `-` and `_`, which names of containers have. RFC 3986
/// allows more characters, but none that a name in use has, and some of them are dangerous in a URL that is shown.
pub fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() <= MAX_NAME
        && labels(text).all(|label| !label.is_empty() && label.bytes().all(fits))
        && !ends_in_number(text)
}

/// Nothing, or a colon and a port, which may be empty (RFC 3986, section 3.2.3).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    port.is_empty() || (port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// What browsers take for an IPv4 address, right or wrong, and never ask DNS for (URL Standard, "ends in a number").
fn ends_in_number(text: &str) -> bool {
    let last = labels(text).next_back().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    hex.map_or(last.bytes().all(|byte| byte.is_ascii_digit()), |hex| {
        hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Four numbers, as browsers and curl send them whatever was typed. They keep a dot at the end.
fn is_ipv4(text: &str) -> bool {
    text.strip_suffix('.').unwrap_or(text).parse::<Ipv4Addr>().is_ok()
}

fn labels(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.strip_suffix('.').unwrap_or(name).split('.')
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
            "192.0.2.1.",
            "0.0.0.0",
            "1.example",
            "1x",
            "0xx",
            "x.0y",
            "[::1]",
            "[2001:db8::1]:80",
            "[::ffff:192.0.2.1]",
            "x:",
            "x:0",
        ] {
            assert!(is_host_and_port(text), "{text}");
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
            "999.1.1.1",
            "999.1.1.1:80",
            "1.1.1.999.",
            "192.0.2",
            "192.0.2.1.1",
            "192.0.02.1",
            "2130706433",
            "0",
            "pods.example.1",
            "pods.example.09",
            "x.0x",
            "x.0X7f:80",
            "0x7f.1",
            &long,
        ] {
            assert!(!is_host_and_port(text), "{text}");
        }
    }
}
