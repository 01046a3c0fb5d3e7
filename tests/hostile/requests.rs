//! Heads of HTTP requests.

use std::time::{Duration, Instant};

use ::bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};

use crate::{
    attack::many,
    support::{
        SOON,
        bytes::{self, Answer, FIN, TEXT, connect, frame},
        pod::Pod,
    },
    target::{Attack, Body, Head, Transport, over_every_transport},
};

over_every_transport! {
    ranges_that_ask_for_too_much,
    heads_that_are_large_and_never_end,
    heads_that_come_a_byte_at_a_time,
}

/// Writes until it is done, the broker breaks the connection, or the broker takes no more for a while.
async fn push(stream: &mut TcpStream, bytes: &[u8]) {
    // Whichever it is: the broker need not like it.
    let _ = timeout(Duration::from_secs(2), stream.write_all(bytes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_that_abuses_http() {
    let attack = Attack { name: "http_that_abuses_http", transport: Transport::Http1 };
    let siege = attack.begin(&[]).await;
    let address = siege.address();
    let pod = Pod::named("abused").padded(100_000).html();
    let slug = siege.upload("text/html", pod.as_bytes()).await.slug();
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
        ("If-None-Match: \"\u{1}", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 99999999999999999999999999", 400),
    ] {
        let mut stream = connect(address).await.unwrap();
        stream.write_all(format!("{get}{header}\r\n\r\n").as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream).await.unwrap();
        assert_eq!(answer.status, status, "{header}: {}", answer.head);
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

async fn ranges_that_ask_for_too_much(attack: Attack) {
    let target = attack.begin(&[]).await;
    let pod = Pod::named("abused").padded(100_000).html();
    let path = format!("/{}", target.upload("text/html", pod.as_bytes()).await.slug());
    let many_ranges = (0..1500).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",");
    for (range, status) in [
        ("18446744073709551615-18446744073709551615", 416),
        ("0-18446744073709551615", 206),
        ("-18446744073709551615", 206),
        ("-99999999999999999999999999", 206),
        ("-0", 416),
        ("-x", 200),
        ("99999999999999999999999999-", 416),
        ("5-1", 200),
        (&many_ranges, 200),
    ] {
        let range = format!("bytes={range}");
        assert_eq!(target.get(&path, &[("range", &range)]).await.status, status, "{range}");
    }
    let head =
        Head { method: Method::HEAD, path: &path, fields: &[("range", &format!("bytes={many_ranges}"))] };
    let (_upload, mut download) = target.request(head, Body::None).await;
    assert_eq!(download.head().await.unwrap().status, 200);
    target.lift().await;
}

async fn heads_that_are_large_and_never_end(attack: Attack) {
    let target = attack.begin(&[]).await;
    for length in [15_000, 31_000, 390_000] {
        let head = Bytes::from(target.transport.unfinished_head(length));
        let streams = many(10_000 / target.transport.cost(), async |_| {
            let mut stream = target.connect().await;
            stream.push(&head).await;
            stream
        });
        let streams = streams.await;
        target.digested().await;
        target.bystander_was_served().await;
        drop(streams);
    }
    target.lift().await;
}

async fn heads_that_come_a_byte_at_a_time(attack: Attack) {
    let target = attack.begin(&["http.head_timeout=3s", "http.idle_timeout=3s"]).await;
    let started = Instant::now();
    let begin = target.transport.preface();
    let head = target.transport.unfinished_head(20).split_off(begin.len());
    let streams = many(1000 / target.transport.cost(), async |_| {
        let mut stream = target.connect().await;
        stream.write_all(begin).await.unwrap();
        stream.flush().await.unwrap();
        stream
    });
    let streams = streams.await.into_iter().map(async |stream| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let drip = async {
            let mut beat = interval(Duration::from_secs(1));
            for byte in head.chunks(1) {
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
    target.lift().await;
}
