//! Limits of connections where they begin with TLS.

use std::time::{Duration, Instant};

use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};

use crate::support::{
    SOON,
    certs::{Authority, Files},
    raw::Raw,
    server::TestServer,
    tls_client::{Client, get},
};

/// The begin of a handshake: a record that announces 512 bytes, of a ClientHello.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const SHORT: Duration = Duration::from_millis(300);

pub async fn broker(toml: &str) -> (TestServer, Client, Files) {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let server = TestServer::with(&format!("{}\n{toml}", files.toml(&["pair"]))).await;
    (server, Client::trusting(&authority.pem()), files)
}

async fn is_served(client: &Client, address: &str) -> bool {
    match client.connect(address, "pods.example").await {
        Ok(mut stream) => get(&mut stream, "pods.example", "/health").await.starts_with("HTTP/1.1 200"),
        Err(_) => false,
    }
}

async fn until_served(client: &Client, address: &str) {
    let poll = async {
        while !is_served(client, address).await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, poll).await.expect("a place should have become free");
}

#[tokio::test]
async fn a_handshake_that_is_not_done_in_time_is_cut_off() {
    let (server, client, _files) = broker(
        "[http]\nhead_timeout = \"1h\"\nidle_timeout = \"1h\"\n[http.bounds]\nhandshake_timeout = \"300ms\"",
    )
    .await;
    for (first, dribble) in [(&b""[..], &b""[..]), (HALF_A_HELLO, b""), (HALF_A_HELLO, b"x")] {
        let mut raw = Raw::open(&server.address).await;
        let begun = Instant::now();
        raw.send_bytes(first).await;
        raw.dribble(dribble).await;
        let took = begun.elapsed();
        assert!((SHORT..SHORT * 4).contains(&took), "{first:?} {dribble:?} took {took:?}");
        assert!(raw.try_answer().await.is_none());
    }
    // Only the handshake has this time.
    let mut slow = client.connect(&server.address, "pods.example").await.unwrap();
    sleep(SHORT * 2).await;
    assert!(get(&mut slow, "pods.example", "/health").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn after_the_handshake_a_request_must_come_in_time() {
    let (server, client, _files) = broker(
        "[http]\nhead_timeout = \"300ms\"\nidle_timeout = \"1h\"\n[http.bounds]\nhandshake_timeout = \"1h\"",
    )
    .await;
    for first in ["", "GET /health HTTP/1.1\nHost: pods.example\n"] {
        let mut raw = Raw::on(client.connect(&server.address, "pods.example").await.unwrap());
        let begun = Instant::now();
        raw.send(first).await;
        raw.dribble(b"").await;
        let took = begun.elapsed();
        assert!((SHORT..SHORT * 4).contains(&took), "{first:?} took {took:?}");
    }
}

#[tokio::test]
async fn handshakes_and_sockets_take_their_place_among_the_connections_of_one_address() {
    let (server, client, _files) =
        broker("[http]\nmax_connections_per_address = 2\n[http.bounds]\nhandshake_timeout = \"500ms\"").await;
    let address = &server.address;
    let mut origin = client.socket(address, "pods.example").await;
    origin.register("pod").await;
    // What has not even begun its handshake counts, until it is cut off.
    let _silent = Raw::open(address).await;
    assert!(!is_served(&client, address).await);
    until_served(&client, address).await;
    let second = client.connect(address, "pods.example").await.unwrap();
    assert!(!is_served(&client, address).await);
    drop(second);
    until_served(&client, address).await;
    origin.nothing().await;
}

#[tokio::test]
async fn a_connection_too_many_waits_with_its_handshake() {
    let (server, client, _files) = broker("[http]\nmax_connections = 1").await;
    let mut first = Raw::on(client.connect(&server.address, "pods.example").await.unwrap());
    // One on which nothing was sent would make room.
    first.send("GET /health HTTP/1.1\nHost: pods.example\n\n").await;
    assert_eq!(first.answer().await.status, 200);
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other = other.connect(server.addresses[0]).await.unwrap();
    let second = client.over(other, "pods.example");
    tokio::pin!(second);
    assert!(timeout(SHORT, &mut second).await.is_err(), "there is no room for it yet");
    drop(first);
    let mut second = second.await.unwrap();
    assert!(get(&mut second, "pods.example", "/health").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn silent_connections_make_room_before_their_handshake_and_after_it() {
    let (server, client, _files) = broker(
        "[http]\nmax_connections = 4\nhead_timeout = \"1h\"\n[http.bounds]\nhandshake_timeout = \"1h\"",
    )
    .await;
    let from = async |host: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 34, 0, host], 0).into()).unwrap();
        socket.connect(server.addresses[0]).await.unwrap()
    };
    let (_before, mut held) = ([from(1).await, from(1).await], Vec::new());
    for host in 2..8 {
        held.push(client.over(from(host).await, "pods.example").await.unwrap());
    }
    let mut stream = client.over(from(9).await, "pods.example").await.unwrap();
    assert!(get(&mut stream, "pods.example", "/health").await.starts_with("HTTP/1.1 200"));
}
