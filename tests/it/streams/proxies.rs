//! The connection of a trusted proxy carries the streams of many clients: none of them ends it for the others.

use super::heads::exactly;
use crate::support::{
    http2::{PREFACE, frame},
    raw::Raw,
    server::TestServer,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const OPEN: &str = "the connection should be open";

/// More than any connection of a client survives.
const MANY: u32 = 300;

/// A field without Huffman code, whose name is in the static table (RFC 7541, section 6.2.2).
fn field(name: u8, value: &str) -> Vec<u8> {
    let name = if name < 15 { vec![name] } else { vec![15, name - 15] };
    [&name, &[value.len() as u8][..], value.as_bytes()].concat()
}

fn head(method: u8, path: &str, more: &[u8]) -> Vec<u8> {
    [&[0x80 | method, 0x86], &*field(4, path), &field(1, "broker"), more].concat()
}

const GET: u8 = 2;
const POST: u8 = 3;
const CONTENT_LENGTH: u8 = 28;

/// Reads until a frame of this kind has come for this stream.
async fn until(raw: &mut Raw, kind: u8, stream: u32) {
    loop {
        let header = exactly(raw, 9).await.expect(OPEN);
        let payload = exactly(raw, u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize)
            .await
            .expect(OPEN);
        assert_ne!(header[3], GOAWAY, "the connection was ended: {payload:?}");
        if (header[3], &header[5..]) == (kind, &stream.to_be_bytes()[..]) {
            return;
        }
    }
}

#[tokio::test]
async fn no_client_of_a_trusted_proxy_ends_its_connection_for_the_others() {
    let server = TestServer::with("trusted_proxies = [\"127.0.0.1\"]").await;
    let whole = |block: &[u8], stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    let bodies = |length: &'static str, body: &'static [u8]| {
        let block = head(POST, "/pods", &field(CONTENT_LENGTH, length));
        move |stream| {
            [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, body)].concat()
        }
    };
    type Mistake = Box<dyn Fn(u32) -> Vec<u8>>;
    let of_head = |block: Vec<u8>| Box::new(move |stream| whole(&block, stream)) as Mistake;
    let connection_field = [&[0, 10][..], b"connection", &[5], b"close"].concat();
    let mistakes: [(&str, Mistake); 7] = [
        ("a path that is none", of_head(head(GET, "/<", &[]))),
        ("a query that is none", of_head(head(GET, "/?q=<", &[]))),
        ("a Host that is none", of_head([&[0x82, 0x86][..], &field(4, "/"), &field(1, "<")].concat())),
        ("no path", of_head([&[0x82, 0x86][..], &field(1, "broker")].concat())),
        ("a field of HTTP/1.1", of_head(head(GET, "/health", &connection_field))),
        ("a body shorter than announced", Box::new(bodies("9", b"abc"))),
        ("a body longer than announced", Box::new(bodies("1", b"abc"))),
    ];
    for (what, mistake) in mistakes {
        let mut raw = Raw::open(&server.address).await;
        raw.send_bytes(PREFACE).await;
        for n in 0..MANY {
            raw.send_bytes(&mistake(1 + 2 * n)).await;
            until(&mut raw, RST_STREAM, 1 + 2 * n).await;
        }
        raw.send_bytes(&whole(&head(GET, "/health", &[]), 1 + 2 * MANY)).await;
        println!("{what}: {MANY} times");
        until(&mut raw, HEADERS, 1 + 2 * MANY).await;
    }
    let mut raw = Raw::open(&server.address).await;
    let taken_back = |stream| {
        [whole(&head(GET, "/health", &[]), stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
            .concat()
    };
    let all: Vec<u8> = (0..MANY).flat_map(|n| taken_back(1 + 2 * n)).collect();
    raw.send_bytes(&[PREFACE, &all, &whole(&head(GET, "/health", &[]), 1 + 2 * MANY)].concat()).await;
    until(&mut raw, HEADERS, 1 + 2 * MANY).await;
}
