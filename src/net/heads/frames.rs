//! Follows the heads in the frames of HTTP/2, and how much memory those that are under way take.

/// Bytes of an ordinary head that is not decoded yet, and of one that is.
const ORDINARY: usize = 4 * 1024;
pub const ORDINARY_DECODED: usize = 16 * 1024;
/// Bytes that a field takes beside its name and value, in a map that has just grown.
pub const FIELD: usize = 208;
/// Bytes that a head may take once a part of it is decoded: as many fields as fit into the list that HTTP/2 allows.
const MAX_DECODED: usize = 256 * 1024;
/// Bytes that one byte of a head takes at most once it is decoded: it may stand for a whole field whose name and value are
/// in a table, or for a part of a text, which gets longer by three fifths (RFC 7541).
const DECODED_BYTE: usize = FIELD + 2;

/// Follows the frames that a client sends (RFC 9113, section 4.1), as far as heads go.
pub struct Frames {
    header: [u8; Self::HEADER],
    filled: usize,
    /// Bytes of the frame's payload that are still to come.
    left: usize,
    kind: u8,
    /// Whether the head ends with this frame.
    ends_head: bool,
    /// Whether a part of the head came in an earlier frame, and was decoded.
    is_continued: bool,
    /// Bytes of the head in earlier frames.
    decoded: usize,
    /// Bytes of the head in this frame.
    bytes: usize,
    /// Heads that have begun.
    heads: u64,
}

impl Default for Frames {
    fn default() -> Self {
        // The preface is skipped as a frame of no kind is.
        let (left, kind) = (Self::PREFACE, u8::MAX);
        Self {
            header: [0; Self::HEADER],
            filled: 0,
            left,
            kind,
            ends_head: true,
            is_continued: false,
            decoded: 0,
            bytes: 0,
            heads: 0,
        }
    }
}

impl Frames {
    pub const PREFACE: usize = 24;
    const HEADER: usize = 9;
    pub const HEADERS: u8 = 1;
    pub const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;

    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = self.left.min(bytes.len());
                self.payload(length);
                bytes = &bytes[length..];
                continue;
            }
            let length = bytes.len().min(Self::HEADER - self.filled);
            self.header[self.filled..self.filled + length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
            if self.filled == Self::HEADER {
                self.filled = 0;
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        self.kind = kind;
        self.ends_head = flags & Self::END_HEADERS != 0;
        self.heads += u64::from(kind == Self::HEADERS);
        self.payload(0);
    }

    fn payload(&mut self, length: usize) {
        self.left -= length;
        if !self.is_of_head() {
            return;
        }
        self.bytes += length;
        if self.left == 0 {
            self.is_continued = !self.ends_head;
            self.decoded = if self.ends_head { 0 } else { self.decoded + self.bytes };
            self.bytes = 0;
        }
    }

    fn is_of_head(&self) -> bool {
        [Self::HEADERS, Self::CONTINUATION].contains(&self.kind)
    }

    /// Returns the number of the head that has begun and is still to come to its end.
    pub fn under_way(&self) -> Option<u64> {
        let is_under_way = self.is_continued || self.is_of_head() && self.left > 0;
        is_under_way.then_some(self.heads)
    }

    /// Returns how much memory the head that is under way takes beyond that of an ordinary one.
    pub fn unfinished(&self) -> usize {
        if !self.is_continued {
            return self.bytes.saturating_sub(ORDINARY);
        }
        let bytes = (self.decoded * DECODED_BYTE + self.bytes).min(MAX_DECODED);
        if bytes > ORDINARY_DECODED { bytes } else { 0 }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a frame of the first stream.
    pub fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(frame.len() + length, b'x');
        frame
    }

    #[test]
    fn unfinished_heads_are_found_however_the_bytes_come() {
        let head = |flags, length| frame(Frames::HEADERS, flags, length);
        let more = |flags, length| frame(Frames::CONTINUATION, flags, length);
        let cut = |mut frame: Vec<u8>| {
            frame.pop();
            frame
        };
        for (frames, unfinished) in [
            (vec![], 0),
            (vec![head(4, 16_000)], 0),
            (vec![head(4, 0)], 0),
            (vec![cut(head(4, ORDINARY))], 0),
            (vec![cut(head(4, 16_000))], 15_999 - ORDINARY),
            (vec![head(0, 0)], 0),
            (vec![head(0, 60)], 0),
            (vec![head(0, 60), more(0, 60)], 120 * DECODED_BYTE),
            (vec![head(0, 60), cut(more(4, 10_001))], 60 * DECODED_BYTE + 10_000),
            (vec![head(0, 10_000)], MAX_DECODED),
            (vec![head(0, 60), more(0, 600), more(4, 1)], 0),
            (vec![head(0, 600), more(4, 1), head(0, 100)], 100 * DECODED_BYTE),
            (vec![head(0, 1), more(4, 1)], 0),
            (vec![head(0, 1), more(4, 0)], 0),
            // Data and settings, as long as a head.
            (vec![cut(frame(0, 0, 16_000))], 0),
            (vec![frame(4, 0, 0), head(4, 20), cut(head(4, 10_000))], 9_999 - ORDINARY),
        ] {
            let bytes = [vec![b'P'; Frames::PREFACE], frames.concat()].concat();
            for step in [1, 2, 9, 1000, bytes.len()] {
                let mut read = Frames::default();
                bytes.chunks(step).for_each(|bytes| read.read(bytes));
                assert_eq!(read.unfinished(), unfinished, "{} frames, {step} bytes at a time", frames.len());
            }
        }
    }
}
