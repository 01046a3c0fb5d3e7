use std::time::Duration;

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::advance,
};

use super::*;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
/// Frames a second that the sockets of a client may send.
const OF_SOCKETS: u32 = 100;
/// Bytes that HTTP reads at a time.
const READ: usize = 8 * 1024;

/// What comes in from a client without end, and what goes out to it.
struct Peer {
    bytes: Vec<u8>,
    next: usize,
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while buf.remaining() > 0 {
            let length = buf.remaining().min(self.bytes.len() - self.next);
            buf.put_slice(&self.bytes[self.next..self.next + length]);
            self.next = (self.next + length) % self.bytes.len();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection on which `frame` comes again and again.
fn stream<F: Framing>(frame: &[u8], throttle: ReadThrottle) -> ThrottledFrames<Peer, F> {
    let mut stream = ThrottledFrames::new(Peer { bytes: frame.to_vec(), next: 0 }, Some(throttle));
    stream.frames = SmallFrames::after_preface();
    stream
}

/// Returns how many bytes are read before reading has to wait, or before they are as many as `at_most` frames.
fn taken<F: Framing>(stream: &mut ThrottledFrames<Peer, F>, at_most: u32) -> usize {
    let (mut buffer, mut taken) = ([0; READ], 0);
    while taken < at_most as usize * stream.stream.bytes.len()
        && let Some(read) = stream.read(&mut buffer).now_or_never()
    {
        taken += read.unwrap();
    }
    taken
}

fn http2(kind: u8, flags: u8, length: usize) -> Vec<u8> {
    let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, 1]);
    frame.resize(frame.len() + length, 0);
    frame
}

fn record(length: usize) -> Vec<u8> {
    let mut record = vec![23, 3, 3];
    record.extend((length as u16).to_be_bytes());
    record.resize(record.len() + length, 0);
    record
}

fn websocket(first: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(0x80 | length as u8),
        126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.resize(frame.len() + 4 + length, 0);
    frame
}

/// Frames that come without end are read for two seconds of the rate at once, and after that at the rate.
async fn is_slowed<F: Framing>(what: &str, frame: &[u8], throttle: ReadThrottle, rate: u32) {
    let mut stream = stream::<F>(frame, throttle);
    // Counted are whole reads, of which one each passes by its own allowance and that of the client.
    let reads = 4 * READ.div_ceil(frame.len()) as u32;
    let flood = 3 * rate + 2 * reads;
    let at_once = (taken(&mut stream, flood) / frame.len()) as u32;
    assert!((2 * rate..=2 * rate + reads).contains(&at_once), "{what}: {at_once}");
    let mut later = 0;
    for _ in 0..1_000 {
        advance(Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        later += taken(&mut stream, flood);
    }
    let later = (later / frame.len()) as u32;
    assert!(later <= rate + reads && later > 0, "{what}: {later} in a second");
}

/// Many times what is read at once of small frames comes in.
fn is_free<F: Framing>(what: &str, frame: &[u8], throttle: ReadThrottle, rate: u32) {
    let flood = 5 * rate;
    assert!(taken(&mut stream::<F>(frame, throttle), flood) >= flood as usize * frame.len(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn floods_of_small_frames_are_slowed_and_large_ones_are_free() {
    let rate = HTTP2_FRAMES_PER_SECOND + OF_SOCKETS;
    let throttle = || FrameThrottles::default().http2(CLIENT.into(), OF_SOCKETS);
    for (what, frame) in [
        ("empty DATA", http2(0, 0, 0)),
        ("DATA of a byte", http2(0, 0, 1)),
        ("padded DATA", http2(0, 8, 255)),
        ("DATA that is nearly large", http2(0, 0, 1023)),
        ("HEADERS", http2(1, 5, 40)),
        ("PRIORITY", http2(2, 0, 5)),
        ("RST_STREAM", http2(3, 0, 4)),
        ("SETTINGS", http2(4, 0, 0)),
        ("an answer to SETTINGS", http2(4, 1, 0)),
        ("PUSH_PROMISE", http2(5, 0, 4)),
        ("PING", http2(6, 0, 8)),
        ("an answer to PING", http2(6, 1, 8)),
        ("GOAWAY", http2(7, 0, 8)),
        ("WINDOW_UPDATE", http2(8, 0, 4)),
        ("CONTINUATION", http2(9, 0, 0)),
        ("PRIORITY_UPDATE", http2(16, 0, 4)),
        ("an unknown kind", http2(0xbb, 0, 0)),
        ("a large frame of an unknown kind", http2(0xbb, 0, 1024)),
    ] {
        is_slowed::<Http2Frames>(what, &frame, throttle(), rate).await;
    }
    is_free::<Http2Frames>("DATA of 16 KiB", &http2(0, 0, 16 * 1024), throttle(), rate);
    is_free::<Http2Frames>("DATA of 1 KiB", &http2(0, 0, 1024), throttle(), rate);

    let rate = TLS_RECORDS_PER_SECOND + OF_SOCKETS;
    let throttle = || FrameThrottles::default().tls(CLIENT.into(), OF_SOCKETS);
    for (what, length) in [("without payload", 0), ("of a byte", 18), ("nearly large", 1023)] {
        is_slowed::<TlsRecords>(what, &record(length), throttle(), rate).await;
    }
    is_free::<TlsRecords>("records of 16 KiB", &record(16 * 1024 + 17), throttle(), rate);
    is_free::<TlsRecords>("records of 1 KiB", &record(1024), throttle(), rate);

    let throttle = || ReadThrottle::new(&ClientThrottles::default(), Some(CLIENT.into()), 500, 5_000);
    let message = [websocket(1, 0), websocket(0, 0).repeat(1_000), websocket(0x80, 0)].concat();
    for (what, frame) in [
        ("empty fragments", websocket(0, 0)),
        ("beginnings of texts", websocket(1, 0)),
        ("fragments of a byte", websocket(0, 1)),
        ("fragments with longer lengths", websocket(0, 200)),
    ] {
        is_slowed::<WebSocketFrames>(what, &frame, throttle(), 500).await;
    }
    let at_once = taken(&mut stream::<WebSocketFrames>(&message, throttle()), 100);
    assert!(at_once <= 2 * message.len() + 4 * READ, "messages of a thousand fragments: {at_once}");
    is_free::<WebSocketFrames>("texts of fragments of 4 KiB", &websocket(0, 4096), throttle(), 500);
    is_free::<WebSocketFrames>("what is counted as it is handled", &websocket(0x8a, 0), throttle(), 500);
    is_free::<WebSocketFrames>("what is no frame", &[0; 64], throttle(), 500);
}

/// With a clock that stands still, so that only what was sent pays for anything.
#[tokio::test(start_paused = true)]
async fn windows_of_a_download_are_opened_as_often_as_it_is_taken() {
    for (what, step) in [("every 16 KiB", 16 << 10), ("every 4 KiB", 4 << 10)] {
        let window = [http2(8, 0, 4), http2(8, 0, 4)].concat();
        let all = FrameThrottles::default();
        let mut stream = stream::<Http2Frames>(&window, all.http2(CLIENT.into(), OF_SOCKETS));
        let mut buffer = vec![0; window.len()];
        for _ in 0..(100 << 20) / step {
            stream.write_all(&vec![0; step]).await.unwrap();
            let read = stream.read_exact(&mut buffer).now_or_never();
            read.unwrap_or_else(|| panic!("{what}: it should not have to wait")).unwrap();
        }
        let in_advance = MAX_PAID + 2 * (HTTP2_FRAMES_PER_SECOND + OF_SOCKETS) as usize;
        let at_once = taken(&mut stream, 20_000) / 13;
        assert!(at_once <= in_advance + READ / 13, "not for ever: {at_once}");
    }
}

/// As many as the sockets of a client may send, each in a frame and a record of its own.
#[tokio::test(start_paused = true)]
async fn the_frames_of_sockets_do_not_wait() {
    let of_sockets = 10 * crate::config::SignalSettings::default().frames_per_second_per_address();
    let (frame, record, all) = (http2(0, 0, 200), record(200), FrameThrottles::default());
    let mut http2 = stream::<Http2Frames>(&frame, all.http2(CLIENT.into(), of_sockets));
    let mut tls = stream::<TlsRecords>(&record, all.tls(CLIENT.into(), of_sockets));
    let (mut frame, mut record) = (frame.clone(), record.clone());
    for _ in 0..10 {
        for _ in 0..of_sockets {
            assert!(http2.read_exact(&mut frame).now_or_never().is_some());
            assert!(tls.read_exact(&mut record).now_or_never().is_some());
        }
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_connections_of_a_client_share_its_rate() {
    let (ping, all) = (http2(6, 0, 8), FrameThrottles::default());
    let connection =
        |client: &str| stream::<Http2Frames>(&ping, all.http2(client.parse().unwrap(), OF_SOCKETS));
    let rate = 2 * (HTTP2_FRAMES_PER_SECOND + OF_SOCKETS) as usize;
    let first = taken(&mut connection("2001:db8::1"), 20_000) / ping.len();
    assert!(first >= rate, "{first}");
    let mut second = connection("2001:db8::2");
    // What opens a connection does not wait for those that flood.
    for _ in 0..20 {
        assert!(second.read_exact(&mut vec![0; ping.len()]).now_or_never().is_some());
    }
    let rest = taken(&mut second, 20_000) / ping.len();
    assert!(rest <= 4 * READ / ping.len(), "{rest}");
    let other = taken(&mut connection("2001:db8:1::1"), 20_000) / ping.len();
    assert!(other >= rate, "{other}");
}
