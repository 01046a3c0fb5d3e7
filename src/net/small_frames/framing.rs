//! Finds the frames that carry little in what a client sends.

use std::marker::PhantomData;

/// Frames with fewer bytes than these are small.
const SMALL: u64 = 1024;

/// How frames begin.
pub trait Framing {
    /// Bytes before the first frame.
    const PREFACE: u64 = 0;

    /// Returns the length of a header of which `begin` has come, as far as it is known.
    fn header_length(begin: &[u8]) -> usize;

    /// Returns how many bytes follow a header, and whether its frame is counted.
    fn frame(header: &[u8]) -> (u64, bool);
}

/// Frames of HTTP/2 (RFC 9113, section 4.1). All kinds are counted but large ones of data.
pub struct Http2Frames;

/// Records of TLS (RFC 8446, section 5.1).
pub struct TlsRecords;

/// Frames that a client sends on a WebSocket (RFC 6455, section 5.2). Only fragments are counted that do not end a message:
/// messages and control frames are counted as they are handled.
pub struct WebSocketFrames;

impl Framing for Http2Frames {
    const PREFACE: u64 = 24;

    fn header_length(_: &[u8]) -> usize {
        9
    }

    fn frame(header: &[u8]) -> (u64, bool) {
        const DATA: u8 = 0;
        let length = big_endian(&header[..3]);
        (length, header[3] != DATA || length < SMALL)
    }
}

impl Framing for TlsRecords {
    fn header_length(_: &[u8]) -> usize {
        5
    }

    fn frame(header: &[u8]) -> (u64, bool) {
        let length = big_endian(&header[3..]);
        (length, length < SMALL)
    }
}

impl WebSocketFrames {
    const FIN: u8 = 0x80;
    const MASK: u8 = 0x80;

    fn length_bytes(second: u8) -> usize {
        match second & !Self::MASK {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }
}

impl Framing for WebSocketFrames {
    fn header_length(begin: &[u8]) -> usize {
        const MASKING_KEY: usize = 4;
        2 + begin.get(1).map_or(0, |second| Self::length_bytes(*second) + MASKING_KEY)
    }

    fn frame(header: &[u8]) -> (u64, bool) {
        if header[1] & Self::MASK == 0 {
            // Whatever it is, it is no frame of a client, and ends the socket.
            return (u64::MAX, false);
        }
        let length = match Self::length_bytes(header[1]) {
            0 => u64::from(header[1] & !Self::MASK),
            bytes => big_endian(&header[2..2 + bytes]),
        };
        (length, header[0] & Self::FIN == 0 && length < SMALL)
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Follows frames, however their bytes come.
pub struct SmallFrames<F> {
    header: [u8; 14],
    filled: usize,
    /// Bytes of the frame that are still to come.
    left: u64,
    framing: PhantomData<fn() -> F>,
}

impl<F: Framing> SmallFrames<F> {
    pub fn new() -> Self {
        Self { header: [0; _], filled: 0, left: F::PREFACE, framing: PhantomData }
    }

    /// Follows `bytes`, and returns how many small frames begin in them.
    pub fn read(&mut self, mut bytes: &[u8]) -> u32 {
        let mut small = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= length as u64;
                bytes = &bytes[length..];
                continue;
            }
            let missing = F::header_length(&self.header[..self.filled]) - self.filled;
            let length = missing.min(bytes.len());
            self.header[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
            if F::header_length(&self.header[..self.filled]) == self.filled {
                let (left, is_small) = F::frame(&self.header[..self.filled]);
                (self.left, self.filled) = (left, 0);
                small += u32::from(is_small);
            }
        }
        small
    }
}

#[cfg(test)]
impl<F: Framing> SmallFrames<F> {
    /// The preface of the connection has come.
    pub fn after_preface() -> Self {
        Self { left: 0, ..Self::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count<F: Framing>(bytes: &[u8], step: usize) -> u32 {
        let mut frames = SmallFrames::<F>::new();
        bytes.chunks(step).map(|bytes| frames.read(bytes)).sum()
    }

    #[test]
    fn small_frames_are_found_however_their_bytes_come() {
        let data = |length: usize| {
            let header = [0, (length >> 8) as u8, length as u8, 0, 0, 0, 0, 0, 1];
            [&header[..], &vec![0; length]].concat()
        };
        let http2 = [vec![0; 24], data(0), data(1024), data(1), data(3000), data(1023)].concat();
        let records = [&[23, 3, 3, 0, 1, 0][..], &[23, 3, 3, 4, 0], &[0; 1024], &[23, 3, 3, 0, 0]].concat();
        let websocket = [
            &[1, 0x80, 0, 0, 0, 0][..],
            &[0, 0x80 | 126, 0, 1, 0, 0, 0, 0, b'x'],
            &[0, 0x80 | 127, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0],
            &[0; 1024],
            &[0, 0x80 | 2, 0, 0, 0, 0, 0, 0],
            &[0x80, 0x80, 0, 0, 0, 0],
        ]
        .concat();
        for step in [1, 2, 3, 7, 9, 1000, 10_000] {
            assert_eq!(count::<Http2Frames>(&http2, step), 3, "{step} bytes at a time");
            assert_eq!(count::<TlsRecords>(&records, step), 2, "{step} bytes at a time");
            assert_eq!(count::<WebSocketFrames>(&websocket, step), 3, "{step} bytes at a time");
        }
    }
}
