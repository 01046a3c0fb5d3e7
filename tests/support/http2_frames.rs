//! Frames of HTTP/2 (RFC 9113, section 4.1), written and read by hand.

use tokio::time::timeout;

use super::{SOON, raw::Raw};

/// How a client begins, with settings that change nothing.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags: the first also says that PING and SETTINGS are answers.
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

/// Returns a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field whose name is in the table of every client (RFC 7541, appendix A), or is not.
pub fn field(name: Result<u8, &str>, value: &str) -> Vec<u8> {
    let literal = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    match name {
        Ok(index @ 0..15) => [vec![index], literal(value)].concat(),
        Ok(index) => [vec![15, index - 15], literal(value)].concat(),
        Err(name) => [vec![0], literal(name), literal(value)].concat(),
    }
}

/// A frame that the broker sent.
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Returns the next frame, or nothing if the broker closed the connection.
pub async fn next_frame(raw: &mut Raw) -> Option<Frame> {
    let reading = async {
        let header = exactly(raw, 9).await?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let payload = exactly(raw, number(&header[..3]) as usize).await?;
        Some(Frame { kind: header[3], stream: number(&header[5..]), payload })
    };
    timeout(SOON, reading).await.expect("a frame should have come")
}

async fn exactly(raw: &mut Raw, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    while read < length {
        let more = raw.read(&mut bytes[read..]).await.unwrap_or(0);
        read += (more > 0).then_some(more)?;
    }
    Some(bytes)
}
