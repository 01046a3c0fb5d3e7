//! Hostile input with the broker's memory watched: whatever comes, it stays under 400 MB and everybody else is served.
//!
//! Each test is one attack on a broker process of its own. Run with `--nocapture` to see the peak of each.

#![cfg(not(debug_assertions))] // The memory of the release build is what counts: cargo test --release --test hostile

mod support;

use std::{
    io,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};

use tokio_tungstenite::tungstenite::Message;

use support::{
    SOON,
    bytes::{
        self, Answer, BINARY, CLOSE, CONTINUATION, FIN, PING, TEXT, close_code, connect, frame, frame_header,
        upgrade,
    },
    pod::Pod,
    siege::Siege,
    socket::Socket,
};

/// The default of `signal.max_frame`.
const MAX_FRAME: usize = 256 << 10;
/// The default of `pods.max_blob`.
const MAX_BLOB: usize = 50 << 20;

/// Makes `count` of something, some at a time.
async fn many<F: Future>(count: usize, make: impl FnMut(usize) -> F) -> Vec<F::Output> {
    stream::iter(0..count).map(make).buffer_unordered(100).collect().await
}

/// Writes until it is done, the broker breaks the connection, or the broker takes no more for a while.
async fn push(stream: &mut TcpStream, bytes: &[u8]) {
    // Whichever it is: the broker need not like it.
    let _ = timeout(Duration::from_secs(2), stream.write_all(bytes)).await;
}

/// `POST /pods` of a body of known length.
fn upload_head(content_type: &str, length: usize) -> String {
    format!(
        "POST /pods HTTP/1.1\r\nHost: hostile\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
}

const CHUNKED_UPLOAD: &str =
    "POST /pods HTTP/1.1\r\nHost: hostile\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Uploads `body`, reading the answer all the while.
async fn upload(address: &str, content_type: &str, body: &[u8]) -> Answer {
    let mut stream = connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let head = upload_head(content_type, body.len());
    let write = async {
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(body).await
    };
    let read = timeout(SOON * 3, Answer::read(&mut reader));
    let (_, answer) = tokio::join!(write, read);
    answer.expect("the upload should have been answered").expect("the answer should be readable")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_sockets_of_garbage() {
    let siege = Siege::lay("ten_thousand_sockets_of_garbage", &[]).await;
    let address = siege.address();
    let mut noise = vec![0; 4096];
    getrandom::fill(&mut noise).unwrap();
    let mut heads = many(5000, async |n| {
        let mut stream = connect(address).await.unwrap();
        match n % 4 {
            0 => push(&mut stream, &noise).await,
            1 => push(&mut stream, b"GET /signal HTTP/1.1\r\nHost: ").await,
            2 => push(&mut stream, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await,
            _ => push(&mut stream, "A".repeat(4096).as_bytes()).await,
        }
        stream
    })
    .await;
    let almost = [frame_header(FIN | TEXT, MAX_FRAME as u64), vec![b'['; MAX_FRAME - 1]].concat();
    let mut sockets = many(5000, async |n| {
        let mut stream = upgrade(connect(address).await.unwrap()).await;
        match n % 8 {
            0 => push(&mut stream, &almost[..n / 8 % 14]).await,
            1 => push(&mut stream, &frame(0xf0 | TEXT, &noise)).await,
            // Complete, and then idle: its buffer must not stay for nothing.
            2..5 => push(&mut stream, &[&almost[..], b"["].concat()).await,
            _ => push(&mut stream, &almost).await,
        }
        (n, stream)
    })
    .await;
    siege.digested().await;
    siege.bystander_was_served().await;
    let (_, garbage) = sockets.iter_mut().find(|(n, _)| n % 8 == 1).unwrap();
    assert_eq!(close_code(garbage).await, Some(1002));
    heads.clear();
    drop(sockets);
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_upload_of_4_gib() {
    let siege = Siege::lay("a_chunked_upload_of_4_gib", &[]).await;
    let mut stream = connect(siege.address()).await.unwrap();
    stream.write_all(CHUNKED_UPLOAD.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let mut sent = 0_u64;
    let write = async {
        while sent < 4 << 30 {
            if writer.write_all(&chunk).await.is_err() {
                return;
            }
            sent += 1 << 20;
        }
    };
    let read = async {
        let answer = Answer::read(&mut reader).await.expect("the 413 should be readable");
        assert_eq!(answer.status, 413, "{answer:?}");
        // A well-behaved client would stop sending now. This one does not.
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    };
    timeout(SOON * 2, async { tokio::join!(write, read) }).await.expect("the broker should have cut it off");
    assert!(sent < 1 << 30, "{sent} bytes of the upload were taken");
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_uploads_can_read_why() {
    let siege = Siege::lay("refused_uploads_can_read_why", &[]).await;
    let answers = many(20, async |n| {
        let body = vec![b'x'; 8 << 20];
        match n % 2 {
            0 => upload(siege.address(), "application/zip", &body).await.status,
            _ => {
                // It claims more than it may send, and sends much of it before it looks.
                let mut stream = connect(siege.address()).await.unwrap();
                stream.write_all(upload_head("text/html", MAX_BLOB + 1).as_bytes()).await.unwrap();
                stream.write_all(&body).await.expect("a refused upload should not be reset");
                Answer::read(&mut stream).await.expect("the refusal should be readable").status
            }
        }
    });
    let answers = answers.await;
    assert_eq!(answers.iter().filter(|status| **status == 415).count(), 10, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 413).count(), 10, "{answers:?}");
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_uploads_at_once() {
    let siege = Siege::lay("a_thousand_uploads_at_once", &[]).await;
    siege.uploads_may_be_busy();
    let pod = Pod::named("one of many").padded(1_200_000).html();
    let started = Instant::now();
    let uploads = (0..1000).map(async |n| {
        let mut stream = connect(siege.address()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let head = upload_head("text/html", pod.len());
        let write = async {
            writer.write_all(head.as_bytes()).await?;
            if n % 50 == 0 {
                // A slow line: 12 pieces within some three seconds.
                let mut beat = interval(Duration::from_millis(250));
                for piece in pod.as_bytes().chunks(pod.len() / 12) {
                    beat.tick().await;
                    writer.write_all(piece).await?;
                }
                Ok::<(), io::Error>(())
            } else {
                writer.write_all(pod.as_bytes()).await
            }
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 4, Answer::read(&mut reader)));
        let answer = answer.expect("each upload should be answered").expect("each answer should be readable");
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
        answer.status
    });
    let answers = join_all(uploads).await;
    let stored = answers.iter().filter(|status| **status == 200).count();
    let refused = answers.iter().filter(|status| **status == 503).count();
    println!("{stored} stored, {refused} told to retry, {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(stored + refused, 1000, "{answers:?}");
    assert!(stored >= 100, "{stored} were stored");
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_50_mb_and_unknown_length() {
    let siege = Siege::lay("uploads_of_50_mb_and_unknown_length", &["pods.upload_wait=4s"]).await;
    siege.uploads_may_be_busy();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let uploads = (0..200).map(async |n| {
        let mut stream = connect(siege.address()).await.unwrap();
        stream.write_all(CHUNKED_UPLOAD.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let write = async {
            for _ in 0..49 {
                writer.write_all(&chunk).await?;
            }
            // Every tenth stops a little before its end and waits for what happens.
            if n % 10 != 0 {
                writer.write_all(b"0\r\n\r\n").await?;
            }
            Ok::<(), io::Error>(())
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 2, Answer::read(&mut reader)));
        answer.expect("each upload should be answered").expect("each answer should be readable").status
    });
    let answers = join_all(uploads).await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    let [no_pods, stopped, busy] = [400, 408, 503].map(count);
    println!("{no_pods} no pods, {stopped} stopped on their way, {busy} told to retry");
    assert_eq!(no_pods + stopped + busy, 200, "{answers:?}");
    siege.lift().await;
}

/// A visitor with a session `s0`, `s1`, … that never reads.
async fn deaf_visitor(address: &str, pod: &str, n: usize) -> TcpStream {
    let mut visitor = upgrade(bytes::connect_narrow(address).await.unwrap()).await;
    let offer = json!({ "t": "offer", "podId": pod, "sessionId": format!("s{n}"), "sdp": "x" });
    visitor.write_all(&bytes::text(&offer.to_string())).await.unwrap();
    visitor
}

/// Answers of 100 KB for each visitor that does not read: more than its queue and the system's hold.
const ANSWERS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_that_never_read() {
    let siege = Siege::lay("visitors_that_never_read", &["signal.max_queue=257KiB"]).await;
    let address = siege.address();
    let visitors = (0..5).map(async |o| {
        let pod = format!("flood {o}");
        let mut origin = Socket::connect(address).await;
        origin.send(json!({ "t": "register", "podId": pod })).await;
        origin.receive().await;
        let visitors = many(100, async |n| deaf_visitor(address, &pod, n).await).await;
        for _ in 0..100 {
            assert_eq!(origin.receive().await["t"], "offer");
        }
        let sdp = "x".repeat(100_000);
        let answers: Vec<String> = (0..100)
            .map(|n| json!({ "t": "answer", "sessionId": format!("s{n}"), "sdp": sdp }).to_string())
            .collect();
        let (mut write, mut read) = origin.stream.split();
        let flood = async {
            for answer in answers.iter().cycle().take(ANSWERS * 100) {
                write.send(answer.as_str().into()).await.unwrap();
            }
            // All of it has arrived once this is complained about.
            write.send("{".into()).await.unwrap();
        };
        let complaints = async {
            let mut too_slow = 0;
            while let Some(message) = read.next().await {
                let Message::Text(frame) = message.unwrap() else { continue };
                let frame: Value = serde_json::from_str(&frame).unwrap();
                match frame["message"].as_str() {
                    Some("peer does not read") => too_slow += 1,
                    Some("invalid json") => break,
                    other => panic!("{other:?}"),
                }
            }
            too_slow
        };
        let flooded = timeout(SOON * 6, async { tokio::join!(flood, complaints) }).await;
        let ((), too_slow) = flooded.expect("the flood should have been taken");
        assert_eq!(too_slow, 100, "each visitor should have been given up");
        visitors
    });
    let visitors = join_all(visitors).await;
    siege.bystander_was_served().await;
    drop(visitors);
    siege.lift().await;
}

/// A frame that left its queue for a socket that takes nothing must not be forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_with_one_large_frame_each() {
    let siege = Siege::lay("visitors_with_one_large_frame_each", &[]).await;
    let address = siege.address();
    let mut origin = Socket::connect(address).await;
    origin.send(json!({ "t": "register", "podId": "large" })).await;
    origin.receive().await;
    let visitors = many(2500, async |n| deaf_visitor(address, "large", n).await).await;
    for _ in 0..2500 {
        assert_eq!(origin.receive().await["t"], "offer");
    }
    let sdp = "x".repeat(MAX_FRAME - 200);
    for n in 0..2500 {
        origin.send(json!({ "t": "answer", "sessionId": format!("s{n}"), "sdp": sdp })).await;
    }
    siege.digested().await;
    siege.bystander_was_served().await;
    drop((visitors, origin));
    siege.lift().await;
}

/// Those that hold what they may hold and no more: the bystander must have room beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_that_spend_the_common_budget() {
    let settings = [
        "signal.max_frame=64KiB",
        "signal.max_queue=65KiB",
        "signal.max_queue_total=256KiB",
        "signal.frames_per_second=1000000",
    ];
    let siege = Siege::lay("visitors_that_spend_the_common_budget", &settings).await;
    let address = siege.address();
    let mut origin = Socket::connect(address).await;
    origin.send(json!({ "t": "register", "podId": "hoard" })).await;
    origin.receive().await;
    let hoarders = many(8, async |n| deaf_visitor(address, "hoard", n).await).await;
    let mut reader = Socket::connect(address).await;
    reader.send(json!({ "t": "offer", "podId": "hoard", "sessionId": "reader", "sdp": "x" })).await;
    for _ in 0..9 {
        assert_eq!(origin.receive().await["t"], "offer");
    }
    // In step with one that reads, until there is no room: smaller steps than the frames of the bystander.
    let answer = |session: &str| json!({ "t": "answer", "sessionId": session, "sdp": "x".repeat(1000) });
    let mut complaint = Value::Null;
    for n in 0..20_000 {
        origin.send(answer(&format!("s{}", n % 8))).await;
        origin.send(answer("reader")).await;
        complaint = tokio::select! {
            frame = reader.receive() => {
                assert_eq!(frame["t"], "answer");
                continue;
            }
            frame = origin.receive() => frame,
        };
        break;
    }
    assert_eq!(complaint["message"], "peer does not read", "the budget should have been spent");
    siege.bystander_was_served().await;
    assert_ne!(complaint["sessionId"], "reader", "one that reads was given up");
    drop((hoarders, reader, origin));
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_never_reads() {
    let siege = Siege::lay("an_origin_that_never_reads", &[]).await;
    let address = siege.address();
    let mut origin = upgrade(bytes::connect_narrow(address).await.unwrap()).await;
    origin.write_all(&bytes::text(r#"{"t":"register","podId":"deaf"}"#)).await.unwrap();
    // The only thing that it ever reads: it is registered.
    assert_eq!(origin.read_u8().await.unwrap(), FIN | TEXT);
    let sdp = "x".repeat(200_000);
    let told = many(100, async |n| {
        let mut visitor = Socket::connect(address).await;
        let offer =
            json!({ "t": "offer", "podId": "deaf", "sessionId": format!("s{n}"), "sdp": sdp }).to_string();
        for _ in 0..20 {
            visitor.send_text(&offer).await;
        }
        visitor.send_text("{").await;
        let mut told = Vec::new();
        loop {
            let frame = visitor.receive().await;
            match frame["message"].as_str().unwrap() {
                "invalid json" => return told,
                message => told.push(message.to_owned()),
            }
        }
    });
    let told = told.await;
    assert!(told.iter().flatten().any(|message| message == "peer does not read"), "{told:?}");
    assert!(told.iter().all(|told| told.contains(&"origin offline".into())), "{told:?}");
    drop(origin);
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_that_are_never_read() {
    let siege = Siege::lay("downloads_that_are_never_read", &[]).await;
    let address = siege.address();
    let pod = Pod::named("wanted").padded(2_000_000).html();
    let answer = upload(address, "text/html", pod.as_bytes()).await;
    let slug = serde_json::from_str::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned();
    let downloads = many(1000, async |_| {
        let mut stream = bytes::connect_narrow(address).await.unwrap();
        stream.write_all(format!("GET /{slug} HTTP/1.1\r\nHost: hostile\r\n\r\n").as_bytes()).await.unwrap();
        // The answer has begun.
        stream.read_u8().await.unwrap();
        stream
    });
    let downloads = downloads.await;
    siege.bystander_was_served().await;
    drop(downloads);
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_that_nests_without_end() {
    let siege = Siege::lay("json_that_nests_without_end", &[]).await;
    let address = siege.address();
    let bodies = [
        "[".repeat(10 << 20),
        r#"{"a":"#.repeat(2 << 20),
        format!(r#"{{"html": {}"#, "[".repeat(10 << 20)),
        format!(r#"{{"html": {}{}}}"#, "[".repeat(5 << 20), "]".repeat(5 << 20)),
        format!(r#"{{"x": {}, "html": "#, r#"{"a":["#.repeat(1 << 20)),
    ];
    let answers = many(30, async |n| upload(address, "application/json", bodies[n % 5].as_bytes()).await);
    for answer in answers.await {
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    let frames = ["[".repeat(MAX_FRAME - 100), r#"{"t":"#.repeat((MAX_FRAME - 100) / 5)];
    let mut wrapped = vec![];
    for nest in &frames {
        wrapped.push(nest.clone());
        wrapped
            .push(format!(r#"{{"t":"offer","podId":"p","sessionId":"s","sdp":{}"#, &nest[..MAX_FRAME - 200]));
    }
    let half = MAX_FRAME / 2 - 100;
    wrapped.push(format!(
        r#"{{"t":"offer","podId":"p","sessionId":"s","sdp":{}{}}}"#,
        "[".repeat(half),
        "]".repeat(half)
    ));
    many(100, async |n| {
        let mut socket = Socket::connect(address).await;
        for frame in wrapped.iter().cycle().skip(n).take(20) {
            socket.send_text(frame).await;
            let message = socket.receive().await["message"].as_str().unwrap().to_owned();
            assert!(["invalid json", "nested too deeply"].contains(&&*message), "{message}");
        }
    })
    .await;
    siege.lift().await;
}

/// CBOR that claims or holds more than it should.
fn cbor_bombs() -> Vec<Vec<u8>> {
    let claim = |major: u8, length: u64| [vec![major << 5 | 27], length.to_be_bytes().to_vec()].concat();
    let mut bombs = Vec::new();
    for length in [1 << 32, 1 << 62, 1 << 63, u64::MAX] {
        for major in [2, 3, 4, 5] {
            bombs.push(claim(major, length));
            // {"sig": …} and {"sig": [], "payload": …}
            bombs.push([b"\xa2\x63sig".to_vec(), claim(major, length)].concat());
            bombs.push([b"\xa2\x63sig\x80\x67payload".to_vec(), claim(major, length)].concat());
        }
    }
    for opener in [&b"\x81"[..], b"\xc1", b"\xa1\x00", b"\x9f", b"\xbf\x00", b"\x5f", b"\x7f"] {
        bombs.push(opener.repeat(250_000 / opener.len()));
    }
    let items = 250_000_u32;
    bombs.push([vec![0x9a], items.to_be_bytes().to_vec(), vec![0; items as usize]].concat());
    bombs.push([vec![0xba], (items / 2).to_be_bytes().to_vec(), vec![0; items as usize]].concat());
    bombs.push(
        [
            b"\xa2\x63sig\x80\x67payload\x9a".to_vec(),
            items.to_be_bytes().to_vec(),
            vec![0x80; items as usize],
        ]
        .concat(),
    );
    // Well-formed throughout: a payload that is itself a bomb.
    let inner = [vec![0x9a], 120_000_u32.to_be_bytes().to_vec(), vec![0x80; 120_000]].concat();
    for payload in [inner, vec![0x81; 120_000], vec![0x9f; 120_000], claim(4, u64::MAX), claim(3, 1 << 40)] {
        bombs.push(support::pod::envelope(&[0; 64], &payload));
    }
    bombs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cbor_bombs_as_manifests() {
    let siege = Siege::lay("cbor_bombs_as_manifests", &[]).await;
    let bombs = cbor_bombs();
    let pod = Pod::named("bomb");
    let answers = many(bombs.len(), async |n| {
        let html = pod.html_around(&bombs[n]);
        upload(siege.address(), "text/html", html.as_bytes()).await
    });
    for answer in answers.await {
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_of_50_mb() {
    let siege = Siege::lay("manifests_of_50_mb", &[]).await;
    siege.uploads_may_be_busy();
    let name = "__GEMMAPOD_MANIFEST_B64";
    let fill = |piece: &str| piece.repeat(MAX_BLOB / piece.len());
    let fit = |mut body: String| {
        body.truncate(MAX_BLOB);
        body
    };
    let cases = [
        // The whole body is base64, closed and not closed.
        (413, format!("{name}=\"{}\"", "A".repeat(MAX_BLOB - 100))),
        (400, format!("{name}=\"{}", "A".repeat(MAX_BLOB - 100))),
        (400, fill(name)),
        (400, fill(&format!("{name}=="))),
        (400, fill(&format!("{name}='\"]"))),
        (400, fill(&format!("window[\"{name}\"]"))),
        (400, fit(format!("{name}{}", fill(" \t")))),
        (400, fit(format!("{name}={}", fill("\n")))),
        (400, fit(fill(&format!("{name}{}", " ".repeat(500))))),
        (400, fill("\\s")),
        (400, fill("\u{2028}")),
        (400, fill("__GEMMAPOD_MANIFEST_B6")),
    ];
    for (status, body) in &cases {
        assert!(body.len() <= MAX_BLOB);
        let answer = upload(siege.address(), "text/html", body.as_bytes()).await;
        assert_eq!(answer.status, *status, "{answer:?} to {:?}", &body[..60]);
    }
    // The same as JSON, which takes twice the memory, several at once.
    let json = json!({ "html": "\n".repeat(MAX_BLOB / 2 - 100) }).to_string();
    for answer in many(4, async |_| upload(siege.address(), "application/json", json.as_bytes()).await).await
    {
        assert!([400, 503].contains(&answer.status), "{answer:?}");
    }
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_that_abuses_http() {
    let siege = Siege::lay("http_that_abuses_http", &[]).await;
    let address = siege.address();
    let pod = Pod::named("abused").padded(100_000).html();
    let answer = upload(address, "text/html", pod.as_bytes()).await;
    let slug = serde_json::from_str::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned();
    let get = format!("GET /{slug} HTTP/1.1\r\nHost: hostile\r\n");

    // 100,000 requests on one connection, no answer read; then for what is small.
    for request in [format!("{get}\r\n"), "GET /health HTTP/1.1\r\nHost: hostile\r\n\r\n".into()] {
        let mut stream = bytes::connect_narrow(address).await.unwrap();
        push(&mut stream, request.repeat(100_000).as_bytes()).await;
    }
    // Heads that are too large.
    let mut stream = connect(address).await.unwrap();
    let endless = stream::iter(0..).map(|n| format!("X-{n}: {}\r\n", "y".repeat(100)));
    let mut endless = std::pin::pin!(endless.take(1_000_000));
    stream.write_all(get.as_bytes()).await.unwrap();
    let cut_off = async {
        while let Some(line) = endless.next().await {
            if stream.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
        panic!("a head of a million lines was taken");
    };
    timeout(SOON, cut_off).await.expect("an endless head should be cut off");
    let mut stream = connect(address).await.unwrap();
    push(&mut stream, format!("{get}X: {}\r\n\r\n", "y".repeat(1 << 20)).as_bytes()).await;

    // Bodies where none belong.
    let mut stream = connect(address).await.unwrap();
    stream.write_all(format!("{get}Content-Length: 1000000000000\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
    push(&mut stream, &vec![0; 100 << 20]).await;
    let mut stream = connect(address).await.unwrap();
    stream.write_all(format!("{get}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 200);
    push(&mut stream, &b"1\r\nx\r\n".repeat(4 << 20)).await;

    // An upgrade and a megabyte of frames in one go.
    let mut stream = connect(address).await.unwrap();
    push(&mut stream, &[bytes::UPGRADE.as_bytes(), &frame(FIN | TEXT, b"{").repeat(1 << 17)].concat()).await;
    let mut stream = connect(address).await.unwrap();
    push(&mut stream, &[bytes::UPGRADE.as_bytes(), &vec![0xff; 1 << 20]].concat()).await;

    for (header, status) in [
        ("Range: bytes=18446744073709551615-18446744073709551615", 416),
        ("Range: bytes=0-18446744073709551615", 206),
        ("Range: bytes=-18446744073709551615", 206),
        ("Range: bytes=-99999999999999999999999999", 206),
        ("Range: bytes=-0", 416),
        ("Range: bytes=-x", 200),
        ("Range: bytes=99999999999999999999999999-", 416),
        ("Range: bytes=5-1", 200),
        ("If-None-Match: \"\u{1}", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 99999999999999999999999999", 400),
    ] {
        let mut stream = connect(address).await.unwrap();
        stream.write_all(format!("{get}{header}\r\n\r\n").as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream).await.unwrap();
        assert_eq!(answer.status, status, "{header}: {}", answer.head);
    }
    let ranges = (0..1500).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",");
    for method in ["GET", "HEAD"] {
        let mut stream = connect(address).await.unwrap();
        let request = format!("{method} /{slug} HTTP/1.1\r\nHost: h\r\nRange: bytes={ranges}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut byte = [0; 12];
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"HTTP/1.1 200");
    }
    for host in
        ["\u{ff}\u{fe}", "a b", "\"><script>", "[::1", "x".repeat(5000).as_str(), "h:99999999", "@", ""]
    {
        let mut stream = connect(address).await.unwrap();
        let head = format!(
            "POST /pods HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
            pod.len()
        );
        stream.write_all(&[head.as_bytes(), pod.as_bytes()].concat()).await.unwrap();
        let answer = Answer::read(&mut stream).await.unwrap();
        assert!([200, 400].contains(&answer.status), "{host}: {answer:?}");
        if answer.status == 200 {
            let url =
                serde_json::from_str::<Value>(&answer.body).unwrap()["url"].as_str().unwrap().to_owned();
            let harmless = |c: char| c.is_ascii_alphanumeric() || "-_.:/@[]".contains(c);
            assert!(url.chars().all(harmless), "{host:?} led to {url:?}");
        }
    }
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_are_large_and_never_end() {
    let siege = Siege::lay("heads_that_are_large_and_never_end", &[]).await;
    let head = |length| format!("GET / HTTP/1.1\r\nHost: hostile\r\nX: {}", "y".repeat(length));
    for head in [head(15_000), head(31_000), head(390_000)] {
        let streams = many(10_000, async |_| {
            let mut stream = connect(siege.address()).await.unwrap();
            push(&mut stream, head.as_bytes()).await;
            stream
        });
        let streams = streams.await;
        siege.digested().await;
        siege.bystander_was_served().await;
        drop(streams);
    }
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_come_a_byte_at_a_time() {
    let siege = Siege::lay("heads_that_come_a_byte_at_a_time", &["http.head_timeout=3s"]).await;
    let started = Instant::now();
    let streams = (0..1000).map(async |_| {
        let mut stream = connect(siege.address()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let drip = async {
            let mut beat = interval(Duration::from_secs(1));
            for byte in b"GET / HTTP/1.1\r\nHost: hostile\r\n".chunks(1) {
                beat.tick().await;
                if writer.write_all(byte).await.is_err() {
                    break;
                }
            }
        };
        let mut answer = Vec::new();
        tokio::select! {
            () = drip => panic!("a head of 30 seconds was waited for"),
            _ = reader.read_to_end(&mut answer) => {}
        }
    });
    timeout(SOON, join_all(streams)).await.expect("slow heads should have been cut off");
    assert!(started.elapsed() >= Duration::from_secs(3));
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_without_reading_the_pongs() {
    let siege = Siege::lay("pings_without_reading_the_pongs", &["signal.frames_per_second=1000000"]).await;
    let pings = frame(FIN | PING, &[0; 125]).repeat(1000);
    let sockets = many(4, async |_| {
        let mut stream = upgrade(bytes::connect_narrow(siege.address()).await.unwrap()).await;
        // 80 MB: the broker must stop taking them, for where should the pongs go?
        for taken in 0..600 {
            match timeout(Duration::from_secs(2), stream.write_all(&pings)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return (taken, stream),
            }
        }
        panic!("80 MB of pings were taken");
    });
    let sockets = sockets.await;
    println!(
        "{:?} thousands of pings were taken",
        sockets.iter().map(|(taken, _)| taken).collect::<Vec<_>>()
    );
    siege.bystander_was_served().await;
    drop(sockets);
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_end() {
    let siege = Siege::lay("fragments_without_end", &[]).await;
    let begin = frame(TEXT, b"");
    let more = frame(CONTINUATION, b"").repeat(10_000);
    let codes = many(50, async |_| {
        let mut stream = upgrade(connect(siege.address()).await.unwrap()).await;
        stream.write_all(&begin).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let flood = async {
            while writer.write_all(&more).await.is_ok() {}
            std::future::pending().await
        };
        let mut close = [0; 4];
        tokio::select! {
            () = flood => {}
            read = timeout(SOON, reader.read_exact(&mut close)) => {
                read.expect("fragments without end should be cut off").expect("the close frame should be readable");
            }
        }
        assert_eq!(close[0], FIN | CLOSE);
        u16::from_be_bytes([close[2], close[3]])
    });
    for code in codes.await {
        assert_eq!(code, 1009);
    }
    siege.lift().await;
}

/// Control frames between the fragments must not hide how much has been gathered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_with_pings_between_them() {
    let siege = Siege::lay("fragments_with_pings_between_them", &[]).await;
    let piece = [frame(CONTINUATION, &[b'x'; 4096]), frame(FIN | PING, b"")].concat();
    let almost = [frame(TEXT, b"["), piece.repeat(MAX_FRAME / 4096 - 1)].concat();
    let sockets = many(3000, async |_| {
        let mut stream = upgrade(connect(siege.address()).await.unwrap()).await;
        push(&mut stream, &almost).await;
        stream
    });
    let sockets = sockets.await;
    siege.digested().await;
    siege.bystander_was_served().await;
    drop(sockets);
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_rules() {
    let siege = Siege::lay("frames_that_break_the_rules", &[]).await;
    let address = siege.address();
    let unmasked = [vec![FIN | TEXT, 2], b"{}".to_vec()].concat();
    let big = frame(FIN | BINARY, &vec![b'x'; MAX_FRAME + 1]);
    let halves =
        [frame(TEXT, &vec![b'x'; MAX_FRAME / 2]), frame(FIN | CONTINUATION, &vec![b'x'; MAX_FRAME])].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("a frame without a mask", unmasked, 1002),
        ("reserved bits", frame(FIN | 0x70 | TEXT, b"{}"), 1002),
        ("an unknown kind of frame", frame(FIN | 0x3, b"{}"), 1002),
        ("an unknown control frame", frame(FIN | 0xb, b""), 1002),
        ("a control frame in fragments", frame(PING, b""), 1002),
        ("a large ping", frame(FIN | PING, &[0; 126]), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b""), 1002),
        ("a message within a message", [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(), 1002),
        ("text that is not UTF-8", frame(FIN | TEXT, b"\xff\xfe"), 1007),
        ("a frame that is too big", big, 1009),
        ("a message that is too big", halves, 1009),
        ("a claim of 2^63 - 1 bytes", frame_header(FIN | TEXT, u64::MAX >> 1), 1009),
        ("a claim of 2^64 - 1 bytes", frame_header(FIN | TEXT, u64::MAX), 1009),
        (
            "a close frame, then more",
            [frame(FIN | CLOSE, &1000_u16.to_be_bytes()), frame(FIN | TEXT, b"{}").repeat(10_000)].concat(),
            1000,
        ),
        ("a close frame with a bad code", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
    ];
    many(cases.len() * 20, async |n| {
        let (what, bytes, code) = &cases[n % cases.len()];
        let stream = upgrade(connect(address).await.unwrap()).await;
        let (mut reader, mut writer) = stream.into_split();
        // More follows than the broker will ever read: the close frame must arrive all the same.
        let noise = vec![0; 1 << 20];
        let write = async {
            writer.write_all(bytes).await?;
            writer.write_all(&noise).await
        };
        let read = async {
            let mut close = [0; 4];
            let read = reader.read_exact(&mut close).await;
            assert!(read.is_ok(), "{what}: {read:?}");
            assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (FIN | CLOSE, *code), "{what}");
        };
        timeout(SOON, async { tokio::join!(write, read) }).await.unwrap_or_else(|_| panic!("{what}: no end"))
    })
    .await;
    siege.lift().await;
}
