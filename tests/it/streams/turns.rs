//! Requests on streams take turns: connections within a client, and clients within a /48.

use std::{
    io,
    iter::repeat_n,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use gemmapod_signal::{MemoryRegistry, SignalServer};
use h2::client::SendRequest;
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{
    SOON,
    http2::{Http2, body, request},
    http2_frames::{PREFACE, frame},
    server::{TestServer, config},
};

/// A connection of the client at `address`.
async fn client(server: &TestServer, address: [u8; 4]) -> Http2 {
    Http2::on(connect(server, address).await, 1 << 16).await
}

async fn connect(server: &TestServer, address: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(address), 0).into()).unwrap();
    socket.connect(server.addresses[0]).await.unwrap()
}

/// Four connections with 32 requests each: all but 33 of them are begun five milliseconds after the one before.
#[tokio::test]
async fn many_requests_at_once_are_begun_one_after_the_other() {
    let server = TestServer::with("[limits]\nexempt = []").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&server, [127, 0, 0, 2]).await);
    }
    let other = client(&server, [127, 0, 0, 3]).await;
    let begun = Instant::now();
    let ask = async |mut sender: SendRequest<Bytes>| {
        let (answer, _) =
            sender.send_request(request(Method::GET, "/health").body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        begun.elapsed()
    };
    let ask_32 = |client: &Http2| join_all(repeat_n(client.sender.clone(), 32).map(ask));
    let (times, of_other) = tokio::join!(join_all(clients.iter().map(ask_32)), ask_32(&other));
    let longest = times.into_iter().flatten().max().unwrap();
    assert!(longest >= Duration::from_millis(5 * (128 - 33)), "{longest:?}");
    assert!(of_other.into_iter().max().unwrap() < longest, "another client waits for itself alone");
}

/// The preface and settings of a client of HTTP/2, none of which differs.
/// Begins requests, 16 at a time, and takes them back once the broker has read them, until it ends the connection. Returns
/// how many there were.
async fn take_back(server: &TestServer) -> io::Result<u32> {
    let mut stream = connect(server, [127, 0, 0, 2]).await;
    stream.write_all(PREFACE).await?;
    for first in (1_u32..).step_by(32) {
        let streams = (first..).step_by(2).take(16);
        let get = |id| frame(1, 5, id, b"\x82\x86\x84\x41\x06broker");
        let heads = streams.clone().flat_map(get).collect::<Vec<_>>();
        let ping = [first.to_be_bytes(), *b"ping"].concat();
        let (sent, acknowledged) = ([heads, frame(6, 0, 0, &ping)].concat(), frame(6, 1, 0, &ping));
        let mut read = Vec::new();
        let answered = async {
            stream.write_all(&sent).await?;
            while !read.windows(acknowledged.len()).any(|bytes| bytes == acknowledged) {
                if stream.read_buf(&mut read).await? == 0 {
                    return Ok(false);
                }
            }
            let resets = streams.flat_map(|id| frame(3, 0, id, &[0, 0, 0, 8])).collect::<Vec<_>>();
            stream.write_all(&resets).await?;
            io::Result::Ok(true)
        };
        if !answered.await.unwrap_or(false) || first > 8_000 {
            return Ok(first / 2);
        }
    }
    unreachable!()
}

/// Whoever takes requests back before their turn loses its connection, and leaves the others of its network their turns.
#[tokio::test]
async fn requests_that_are_taken_back_cost_others_no_turn() {
    let server = TestServer::with("[limits]\nexempt = []").await;
    let mut other = client(&server, [127, 0, 0, 2]).await;
    let taken_back = take_back(&server).await.unwrap();
    assert!(taken_back < 2_000, "{taken_back} were taken back on one connection");
    assert_eq!(other.get("/health").await.status(), 200);
}

/// A connection of a client of this name to a listener with the PROXY protocol.
async fn named(server: &TestServer, name: &str) -> Http2 {
    let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
    stream.write_all(format!("PROXY {name} 1 443\r\n").as_bytes()).await.unwrap();
    Http2::on(stream, 1 << 16).await
}

/// Ten connections ask for more than may wait; then somebody else asks once, on another connection.
#[tokio::test]
async fn a_flood_of_requests_does_not_hold_up_other_connections() {
    let (site, v4) = ("2001:db8::", "198.51.100.1");
    for (flood, other) in [
        (format!("TCP6 2001:db8:1:1::1 {site}"), format!("TCP6 2001:db8:1:2::1 {site}")),
        (format!("TCP6 2001:db8:1:1::1 {site}"), format!("TCP6 2001:db8:1:1::2 {site}")),
        (format!("TCP4 192.0.2.1 {v4}"), format!("TCP4 192.0.2.1 {v4}")),
    ] {
        let config = config(
            "trusted_proxies = [\"127.0.0.1\"]\nlisten = [{ address = \"127.0.0.1:0\", proxy_protocol = true }]\n\
             [limits]\nexempt = []",
        );
        let registry = MemoryRegistry::new(1 << 20);
        let server = TestServer::from(SignalServer::builder().config(config).registry(registry)).await;
        let answered = Arc::<AtomicUsize>::default();
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(named(&server, &flood).await);
        }
        let mut quiet = named(&server, &other).await;
        for sender in clients.iter().flat_map(|client| repeat_n(&client.sender, 32)) {
            let (mut sender, answered) = (sender.clone(), answered.clone());
            tokio::spawn(async move {
                let request = request(Method::GET, "/health").body(()).unwrap();
                let answer = sender.send_request(request, true).unwrap().0.await;
                if answer.is_ok_and(|answer| answer.status() == 200) {
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        let takes_turns = async {
            while answered.load(Relaxed) < 40 {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, takes_turns).await.expect("the flood should be answered");
        assert_eq!(quiet.get("/health").await.status(), 200, "{other}");
        let before = answered.load(Relaxed);
        assert!(before < 200, "{other}: {before} others were answered before");
    }
}

/// The clients of a /48 have as many requests waiting as they may, with heads that are just ordinary ones: together they would
/// take more than all heads may that are not.
#[tokio::test]
async fn heads_that_wait_take_no_more_than_there_is_for_heads() {
    let config = config(
        "trusted_proxies = [\"127.0.0.1\"]\nlisten = [{ address = \"127.0.0.1:0\", proxy_protocol = true }]\n\
         [limits]\nexempt = []\nreads = \"off\"\nreads_per_address = \"off\"",
    );
    let registry = MemoryRegistry::new(1 << 20);
    let server = TestServer::from(SignalServer::builder().config(config).registry(registry)).await;
    // The status, and whether it was the head that found no room; nothing if the connection ended.
    let ask = async |mut sender: SendRequest<Bytes>| {
        let request = (0..60).fold(request(Method::GET, "/health"), |request, n| {
            request.header(format!("x-field-{n}"), "a value of some length")
        });
        let answer = sender.send_request(request.body(()).unwrap(), true).ok()?.0.await.ok()?;
        let status = answer.status().as_u16();
        let body = body(answer).await.ok()?;
        Some((status, String::from_utf8_lossy(&body).contains("large heads")))
    };
    let mut clients = Vec::new();
    for address in 0..12 {
        for _ in 0..9 {
            clients.push(named(&server, &format!("TCP6 2001:db8:1:{address}::1 2001:db8::")).await);
        }
    }
    let flood = join_all(clients.iter().flat_map(|client| repeat_n(client.sender.clone(), 32)).map(ask));
    let other = named(&server, "TCP6 2001:db8:2::1 2001:db8::").await;
    let others = join_all(repeat_n(other.sender.clone(), 32).map(ask));
    let (answers, others) = tokio::join!(flood, others);
    assert_eq!(others, [Some((200, false)); 32], "another network is answered");
    let of = |answer| answers.iter().filter(|found| **found == Some(answer)).count();
    let (answered, refused) = (of((200, false)), of((503, true)));
    println!("{answered} of {} were answered, {refused} found no room for their heads", answers.len());
    assert!(answered > 1_000 && refused > 0, "{answered} were answered, {refused} found no room");
}

/// Whether a client is exempt is asked anew for each request, also on connections that are there.
#[tokio::test]
async fn a_reload_changes_who_takes_turns() {
    let settings =
        |exempt| format!("[limits]\nexempt = [{exempt}]\nreads = \"off\"\nreads_per_address = \"off\"");
    let here = r#""127.0.0.0/8""#;
    let server = TestServer::with(&settings(here)).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(client(&server, [127, 0, 0, 2]).await);
    }
    let refused = async || {
        let ask = async |mut sender: SendRequest<Bytes>| {
            let (answer, _) =
                sender.send_request(request(Method::GET, "/health").body(()).unwrap(), true).unwrap();
            answer.await.unwrap().status() == 503
        };
        let senders = clients.iter().flat_map(|client| repeat_n(client.sender.clone(), 32));
        join_all(senders.map(ask)).await.into_iter().filter(|refused| *refused).count()
    };
    assert_eq!(refused().await, 0);
    assert!(server.handle.reload(config(&settings(""))).is_empty());
    assert!(refused().await > 0, "as many wait as may");
    assert!(server.handle.reload(config(&settings(here))).is_empty());
    assert_eq!(refused().await, 0);
}
