//! Connections of HTTP/2 are fewer than those of HTTP/1.1: each may hold as much memory as eight of them.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Scene, Transport};
use crate::support::{SOON, http2::Http2, http2_frames::PREFACE, server::TestServer};

const NO_EXEMPTION: &str = "[limits]\nexempt = []\n[http]\nmax_connections = 1000";
/// What one address leaves of the 256 places of a broker with room for a thousand connections.
const SHARE: usize = 128;

async fn connect(server: &TestServer, client: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::from(client), 0).into()).unwrap();
    socket.connect(server.addresses[0]).await.unwrap()
}

/// A connection of `client` that is served.
async fn served(server: &TestServer, client: [u8; 4]) -> Http2 {
    let mut http2 = Http2::on(connect(server, client).await, 1 << 16).await;
    assert_eq!(http2.request(Method::GET, "/health").await.status(), StatusCode::OK);
    http2
}

#[tokio::test]
async fn a_client_of_http2_that_has_its_share_is_told_to_use_http_1_1() {
    let scene = Scene::with(Transport::Plain, NO_EXEMPTION).await;
    let mut open = Vec::new();
    for _ in 0..SHARE {
        open.push(served(&scene.server, [127, 0, 0, 2]).await);
    }
    let refused = async || {
        let mut stream = connect(&scene.server, [127, 0, 0, 2]).await;
        stream.write_all(PREFACE).await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
        answer
    };
    let answer = refused().await;
    let settings = 9;
    assert_eq!(answer[..settings], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let goaway = &answer[settings..];
    assert_eq!((goaway[3], &goaway[13..17]), (7, &[0, 0, 0, 0xd][..]), "{answer:?}");
    assert!(String::from_utf8_lossy(goaway).ends_with("use HTTP/1.1"));
    assert_eq!(goaway.len(), 9 + usize::from(goaway[2]));

    // HTTP/1.1 of the same client, and HTTP/2 of another one.
    assert!(scene.serves_client([127, 0, 0, 2].into()).await);
    let _other = served(&scene.server, [127, 0, 0, 3]).await;
    // A place that is given back is there for the next one.
    drop(open.pop());
    let taken = async {
        while is_refused(&scene.server).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, taken).await.expect("there is a place again");
}

/// Whether the frame after the broker's settings is GOAWAY.
async fn is_refused(server: &TestServer) -> bool {
    let mut stream = connect(server, [127, 0, 0, 2]).await;
    stream.write_all(PREFACE).await.unwrap();
    let mut settings = [0; 9];
    timeout(SOON, stream.read_exact(&mut settings)).await.expect("settings come").unwrap();
    let mut rest = vec![0; usize::from(settings[2]) + 9];
    timeout(SOON, stream.read_exact(&mut rest)).await.expect("another frame comes").unwrap();
    rest[usize::from(settings[2]) + 3] == 7
}

#[tokio::test]
async fn over_tls_http_1_1_is_chosen_where_there_is_no_place() {
    let scene = Scene::with(Transport::Tls, NO_EXEMPTION).await;
    let client = scene.tls.clone().unwrap().with_alpn(&["h2", "http/1.1"]);
    let connect = async || client.connect(&scene.server.address, "pods.example").await.unwrap();
    let mut open = Vec::new();
    for n in 0..SHARE {
        open.push(connect().await);
        assert_eq!(open[n].get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "{n}");
    }
    let mut last = connect().await;
    assert_eq!(last.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = crate::support::tls_client::get(&mut last, "pods.example", "/health").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
