//! Floods of frames that belong to no request, or that carry next to nothing.

use std::{path::Path, time::Duration};

use gemmapod_signal::{MemoryRegistry, SignalServer};
use tempfile::TempDir;
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use crate::support::{
    SOON,
    http2::Http2,
    http2_frames::{PREFACE, frame},
    raw::UPGRADE,
    server::{TestServer, config},
};

/// A broker at a Unix socket, whose buffers are small, that takes the addresses of its clients from a PROXY header.
async fn broker(directory: &Path) -> TestServer {
    let toml = format!(
        "trusted_proxies = [\"unix\"]\n[limits]\nexempt = []\n[signal]\nframes_per_second = 10\n\
         [signal.bounds]\nsockets_at_full_rate = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [[listen]]\naddress = \"unix:{}\"\nproxy_protocol = true",
        directory.join("socket").display()
    );
    let registry = MemoryRegistry::new(1 << 20);
    TestServer::from(SignalServer::builder().config(config(&toml)).registry(registry)).await
}

/// Frames of HTTP/2 that are read in a second at most, and bytes that wait in the system's buffers and the broker's.
const FRAMES: f64 = 5_010.0;
const BUFFERS: f64 = 600_000.0;
/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(1);

async fn connect(directory: &Path, proxy_header: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(directory.join("socket")).await.unwrap();
    stream.write_all(proxy_header).await.unwrap();
    stream
}

const CLIENT: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 1 443\r\n";
/// Of a proxy that speaks for itself.
const PROXY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";

/// Sends `flood` again and again while the answers are taken. Returns how many bytes were taken until the time was over or the
/// connection ended.
async fn taken(stream: impl AsyncRead + AsyncWrite + Send + 'static, flood: &[u8]) -> f64 {
    let (mut read, mut write) = io::split(stream);
    let answers = tokio::spawn(async move { io::copy(&mut read, &mut io::sink()).await });
    let (piece, end) = (flood.repeat(8192_usize.div_ceil(flood.len())), Instant::now() + FLOOD);
    let mut taken = 0;
    while let Ok(Ok(length)) = timeout_at(end, write.write(&piece[taken % piece.len()..])).await {
        taken += length;
    }
    answers.abort();
    taken as f64
}

/// A request that goes on after its head.
fn post() -> Vec<u8> {
    let mut block = vec![0x83, 0x87, 0x04, 5];
    block.extend(b"/pods");
    block.extend([0x01, 6]);
    block.extend(b"broker");
    frame(1, 4, 1, &block)
}

/// A request that is whole.
fn get() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, 7];
    block.extend(b"/health");
    block.extend([0x01, 6]);
    block.extend(b"broker");
    frame(1, 5, 1, &block)
}

#[tokio::test]
async fn floods_of_frames_of_http2_are_read_at_their_rate() {
    let directory = TempDir::new().unwrap();
    let window = |stream| frame(8, 0, stream, &1_u32.to_be_bytes());
    let floods = [
        ("WINDOW_UPDATE of the connection", vec![], window(0)),
        ("WINDOW_UPDATE of a stream", post(), window(1)),
        ("WINDOW_UPDATE of a stream that is closed", get(), window(1)),
        ("PRIORITY", vec![], frame(2, 0, 3, &[0, 0, 0, 0, 1])),
        ("SETTINGS", vec![], frame(4, 0, 0, &[])),
        ("an answer to SETTINGS", vec![], frame(4, 1, 0, &[])),
        ("PING", vec![], frame(6, 0, 0, &[0; 8])),
        ("an answer to PING", vec![], frame(6, 1, 0, &[0; 8])),
        ("RST_STREAM of a stream that is closed", get(), frame(3, 0, 1, &8_u32.to_be_bytes())),
        ("GOAWAY", vec![], frame(7, 0, 0, &[0; 8])),
        ("empty DATA", post(), frame(0, 0, 1, &[])),
        ("DATA of padding", post(), frame(0, 8, 1, &[0])),
        ("DATA of a stream that is closed", get(), frame(0, 0, 1, &[])),
        ("CONTINUATION without END_HEADERS", frame(1, 0, 1, &[0x82]), frame(9, 0, 1, &[])),
        ("an unknown kind", vec![], frame(0xbb, 0, 0, &[])),
    ];
    for (what, before, flood) in floods {
        // Each has a broker of its own, in which nothing was counted yet.
        let server = broker(directory.path()).await;
        let mut stream = connect(directory.path(), CLIENT).await;
        stream.write_all(&[PREFACE, &before].concat()).await.unwrap();
        let begun = Instant::now();
        let taken = taken(stream, &flood).await;
        let frames = FRAMES * (2.0 + begun.elapsed().as_secs_f64());
        assert!(taken <= BUFFERS + frames * flood.len() as f64, "{what}: {taken} bytes");
        server.stop().await;
    }
}

fn websocket(first: u8) -> Vec<u8> {
    vec![first, 0x80, 0, 0, 0, 0]
}

#[tokio::test]
async fn floods_of_frames_of_websockets_are_read_at_their_rate() {
    let directory = TempDir::new().unwrap();
    let message = [websocket(1), websocket(0).repeat(8_000), websocket(0x80)].concat();
    for (what, before, flood) in [
        ("empty fragments", websocket(1), websocket(0)),
        ("messages of empty fragments", vec![], message),
        ("empty texts", vec![], websocket(0x81)),
        ("pings", vec![], websocket(0x89)),
        ("pongs that answer nothing", vec![], websocket(0x8a)),
    ] {
        for is_http2 in [false, true] {
            let server = broker(directory.path()).await;
            let mut stream = connect(directory.path(), CLIENT).await;
            let taken = if is_http2 {
                let mut client = Http2::quiet(stream, 1 << 16).await;
                let mut tunnel = client.tunnel().await;
                tunnel.write_all(&before).await.unwrap();
                taken(tunnel, &flood).await
            } else {
                stream.write_all(UPGRADE.as_bytes()).await.unwrap();
                timeout(SOON, stream.read(&mut [0; 4096])).await.unwrap().unwrap();
                stream.write_all(&before).await.unwrap();
                taken(stream, &flood).await
            };
            assert!(taken <= BUFFERS, "{what}, HTTP/2: {is_http2}: {taken} bytes");
            server.stop().await;
        }
    }
}

/// It carries the frames of many clients, which it would else hold up for one another.
#[tokio::test]
async fn a_trusted_proxy_is_read_as_fast_as_ever() {
    let directory = TempDir::new().unwrap();
    let _server = broker(directory.path()).await;
    let mut stream = connect(directory.path(), PROXY).await;
    let windows = frame(8, 0, 0, &1_u32.to_be_bytes()).repeat(100_000);
    let ping = frame(6, 0, 0, b"the last");
    let (mut read, mut write) = stream.split();
    let answered = async {
        let mut answer = Vec::new();
        while !answer.ends_with(b"the last") {
            answer.push(read.read_u8().await.unwrap());
        }
    };
    let sent = async { write.write_all(&[PREFACE, &windows, &ping].concat()).await.unwrap() };
    // At the rate of a client it would take twice as long.
    timeout(SOON, async { tokio::join!(answered, sent) }).await.expect("it should not be held up");
}
