//! The connection of a trusted proxy carries the streams of many clients: none of them ends it for the others.

use crate::support::{
    http2_frames::{
        DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, field, frame, next_frame,
    },
    raw::Raw,
    server::TestServer,
};

/// More than any connection of a client survives.
const MANY: u32 = 300;

/// Fields of the static table of HPACK (RFC 7541, appendix A).
const AUTHORITY: u8 = 1;
const GET: u8 = 2;
const POST: u8 = 3;
const PATH: u8 = 4;
const HTTP: u8 = 6;
const CONTENT_LENGTH: u8 = 28;

/// A field that is whole in the static table.
fn indexed(field: u8) -> Vec<u8> {
    vec![0x80 | field]
}

fn head(method: u8, path: &str) -> Vec<u8> {
    [indexed(method), indexed(HTTP), field(Ok(PATH), path), field(Ok(AUTHORITY), "broker")].concat()
}

/// Reads until a frame of this kind has come for this stream.
async fn until(raw: &mut Raw, kind: u8, stream: u32, what: &str) {
    loop {
        let frame = next_frame(raw).await;
        let frame = frame.unwrap_or_else(|| panic!("{what}: the connection was closed"));
        assert_ne!(frame.kind, GOAWAY, "{what}: the connection was ended: {:?}", frame.payload);
        if (frame.kind, frame.stream) == (kind, stream) {
            return;
        }
    }
}

#[tokio::test]
async fn no_client_of_a_trusted_proxy_ends_its_connection_for_the_others() {
    type Mistake = Box<dyn Fn(u32) -> Vec<u8>>;
    let server = TestServer::with("trusted_proxies = [\"127.0.0.1\"]").await;
    let whole = |block: &[u8], stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    let health = |stream| whole(&head(GET, "/health"), stream);
    let of_head = |block: Vec<u8>| -> Mistake { Box::new(move |stream| whole(&block, stream)) };
    let of_body = |announced, body: &'static [u8]| -> Mistake {
        let block = [head(POST, "/pods"), field(Ok(CONTENT_LENGTH), announced)].concat();
        Box::new(move |stream| {
            [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, END_STREAM, stream, body)].concat()
        })
    };
    let [get, authority] = [[indexed(GET), indexed(HTTP)].concat(), field(Ok(AUTHORITY), "broker")];
    let no_host = [get.clone(), field(Ok(PATH), "/"), field(Ok(AUTHORITY), "<")].concat();
    let of_http1 = [head(GET, "/health"), field(Err("connection"), "close")].concat();
    let mistakes = [
        ("a path that is none", of_head(head(GET, "/<"))),
        ("a query that is none", of_head(head(GET, "/?q=<"))),
        ("a Host that is none", of_head(no_host)),
        ("no path", of_head([get, authority].concat())),
        ("a field of HTTP/1.1", of_head(of_http1)),
        ("a body shorter than announced", of_body("9", b"abc")),
        ("a body longer than announced", of_body("1", b"abc")),
    ];
    let last = 1 + 2 * MANY;
    for (what, mistake) in mistakes {
        let mut raw = Raw::open(&server.address).await;
        raw.send_bytes(PREFACE).await;
        for stream in (1..last).step_by(2) {
            raw.send_bytes(&mistake(stream)).await;
            until(&mut raw, RST_STREAM, stream, what).await;
        }
        raw.send_bytes(&health(last)).await;
        until(&mut raw, HEADERS, last, what).await;
    }
    let mut raw = Raw::open(&server.address).await;
    let taken_back = |stream| [health(stream), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat();
    let all: Vec<u8> = (1..last).step_by(2).flat_map(taken_back).collect();
    raw.send_bytes(&[PREFACE, &all, &health(last)].concat()).await;
    until(&mut raw, HEADERS, last, "requests that are taken back").await;
}
