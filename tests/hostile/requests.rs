//! Heads of HTTP requests.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{interval, timeout},
};

use crate::support::{
    SOON,
    bytes::{self, Answer, FIN, TEXT, connect, frame},
    pod::Pod,
    siege::Siege,
};

use crate::attack::*;

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
