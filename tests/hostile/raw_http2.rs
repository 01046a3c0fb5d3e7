//! Frames of HTTP/2, written by hand.

pub use crate::support::http2_frames::*;
use crate::target::Transport;

/// The largest payload that a frame may have.
pub const MAX_PAYLOAD: usize = 16 << 10;

/// One setting.
pub fn setting(key: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&key.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

pub fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A header block (RFC 7541) without compression.
pub fn block(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // Names that every table has: `:method`, `:scheme` with `https`, `:path`, `:authority`.
    let parts = [(2, method), (4, path), (1, "hostile")];
    let mut block = vec![0x87];
    for (name, value) in parts {
        block.push(name);
        block.extend(literal(value.as_bytes()));
    }
    for (name, value) in fields {
        block.push(0);
        block.extend(literal(name.as_bytes()));
        block.extend(literal(value.as_bytes()));
    }
    block
}

/// The beginning of a string of `length` bytes.
pub fn string_length(length: usize) -> Vec<u8> {
    if length < 0x7f {
        return vec![length as u8];
    }
    let (mut bytes, mut rest) = (vec![0x7f], length - 0x7f);
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

pub fn literal(string: &[u8]) -> Vec<u8> {
    [&string_length(string.len()), string].concat()
}

/// A request without a body, on `stream`.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block("GET", path, &[]))
}

impl Transport {
    /// What comes before the first request.
    pub fn preface(self) -> &'static [u8] {
        if self.is_http2() { PREFACE } else { b"" }
    }

    /// A head that is not at its end after `length` bytes of a field.
    pub fn unfinished_head(self, length: usize) -> Vec<u8> {
        let value = vec![b'y'; length];
        if !self.is_http2() {
            return [b"GET / HTTP/1.1\r\nHost: hostile\r\nX: ", &*value].concat();
        }
        let block =
            [block("GET", "/", &[]), vec![0], literal(b"x"), string_length(length + 1), value].concat();
        let mut frames = PREFACE.to_vec();
        for (n, piece) in block.chunks(MAX_PAYLOAD).enumerate() {
            let (kind, flags) = if n == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            frames.extend(frame(kind, flags, 1, piece));
        }
        frames
    }

    /// How many times as much as without TLS a connection costs the attacker: what is divided by it takes as long.
    pub fn cost(self) -> usize {
        if self == Self::Http2OverTls { 4 } else { 1 }
    }
}
