//! HTTP/2: plain requests, and WebSockets within one stream (RFC 8441).

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{
    client::{ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::{
    net::TcpStream,
    time::{interval, timeout},
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::support::{
    SOON,
    certs::{Authority, Files},
    frames::{answer, offer, offered},
    http2::Tunnel,
    pod::Pod,
    server::TestServer,
    socket::Socket,
    tls_client::Client,
};

/// A connection of HTTP/2, after the broker's settings have come.
pub async fn connect(client: &Client, address: &str) -> SendRequest<Bytes> {
    let stream: TlsStream<TcpStream> =
        client.clone().with_alpn(&["h2"]).connect(address, "pods.example").await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    // The settings arrive with the first answer.
    let (answer, _) = sender.send_request(get("/health"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    sender
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://pods.example{path}")).version(Version::HTTP_2).body(()).unwrap()
}

fn extended_connect(path: &str, protocol: &'static str, version: &str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://pods.example{path}"))
        .version(Version::HTTP_2)
        .header("sec-websocket-version", version)
        .extension(Protocol::from_static(protocol))
        .body(())
        .unwrap()
}

pub async fn head(answer: ResponseFuture) -> Response<h2::RecvStream> {
    timeout(SOON, answer).await.expect("an answer should have come").unwrap()
}

/// A socket within one stream of the connection.
async fn socket(sender: &mut SendRequest<Bytes>) -> Socket<Tunnel> {
    authorized(sender, &[]).await
}

/// The same whose request has these `Authorization` headers.
pub async fn authorized(sender: &mut SendRequest<Bytes>, authorization: &[&str]) -> Socket<Tunnel> {
    let mut request = extended_connect("/signal", "websocket", "13");
    for value in authorization {
        request.headers_mut().append("authorization", value.parse().unwrap());
    }
    let (answer, send) = sender.send_request(request, false).unwrap();
    let tunnel = Tunnel::granted(head(answer).await, send);
    Socket { stream: WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await }
}

pub async fn broker() -> (TestServer, Client, Files) {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let server = TestServer::with(&files.toml(&["pair"])).await;
    (server, Client::trusting(&authority.pem()), files)
}

#[tokio::test]
async fn sockets_share_one_connection() {
    let (server, client, _files) = broker().await;
    let mut sender = connect(&client, &server.address).await;
    assert!(sender.is_extended_connect_protocol_enabled());
    let mut origin = socket(&mut sender).await;
    origin.register("pod").await;
    let mut visitor = socket(&mut sender).await;
    let sdp = "x".repeat(200_000);
    for (sent, back) in [("OFFER", "ANSWER"), (&*sdp, &*sdp)] {
        visitor.send(offer("pod", "s", sent)).await;
        origin.expect(offered("s", sent)).await;
        origin.send(answer("s", back)).await;
        visitor.expect(answer("s", back)).await;
    }
    // Requests go on beside them, and sockets of HTTP/1.1 meet those of HTTP/2.
    let (health, _) = sender.send_request(get("/health"), true).unwrap();
    assert_eq!(head(health).await.status(), 200);
    let mut other = client.socket(&server.address, "pods.example").await;
    other.send(offer("pod", "other", "OFFER")).await;
    origin.expect(offered("other", "OFFER")).await;
    // A visitor that goes away frees its session, and its stream ends nobody else's.
    drop(visitor);
    origin.nothing().await;
    server.handle.shutdown();
    assert_eq!(origin.closed().await.0, 1012);
    assert_eq!(other.closed().await.0, 1012);
}

#[tokio::test]
async fn a_stop_finishes_what_runs_in_streams_and_no_more() {
    let (server, client, _files) = broker().await;
    let mut sender = connect(&client, &server.address).await;
    let _idle = connect(&client, &server.address).await;
    let mut origin = socket(&mut sender).await;
    origin.register("pod").await;
    // One that never answers its close frame.
    let mut deaf = socket(&mut sender).await;
    deaf.register("deaf").await;
    let html = Pod::named("pod").padded(100_000).html();
    let upload = Request::post("https://pods.example/pods")
        .version(Version::HTTP_2)
        .header("content-type", "text/html")
        .body(())
        .unwrap();
    let (answer, mut send) = sender.send_request(upload, false).unwrap();
    let begun = Instant::now();
    server.handle.shutdown();
    assert_eq!(origin.closed().await.0, 1012);
    origin.answer_close().await;
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    let mut ticks = interval(Duration::from_millis(100));
    for part in html.as_bytes().chunks(html.len() / 20) {
        ticks.tick().await;
        send.send_data(Bytes::copy_from_slice(part), false).unwrap();
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(head(answer).await.status(), 200);
    assert!(begun.elapsed() > Duration::from_millis(1900), "{:?} is not slow", begun.elapsed());
    timeout(Duration::from_secs(1), server.stop()).await.expect("nothing should hold the broker up");
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    let (server, client, _files) = broker().await;
    let mut sender = connect(&client, &server.address).await;
    for (path, protocol, version, status) in [
        ("/signal/", "websocket", "13", StatusCode::NOT_FOUND),
        ("/signal?a=b", "websocket", "13", StatusCode::NOT_FOUND),
        ("/signal", "websocket", "8", StatusCode::UPGRADE_REQUIRED),
        ("/signal", "webtransport", "13", StatusCode::METHOD_NOT_ALLOWED),
        ("/health", "websocket", "13", StatusCode::NOT_FOUND),
    ] {
        let (answer, _send) = sender.send_request(extended_connect(path, protocol, version), false).unwrap();
        assert_eq!(head(answer).await.status(), status, "{path} {protocol} {version}");
    }
    let (answer, _) = sender.send_request(get("/signal"), true).unwrap();
    assert_eq!(head(answer).await.status(), StatusCode::UPGRADE_REQUIRED);
}

#[tokio::test]
async fn an_upload_learns_its_url() {
    let (server, client, _files) = broker().await;
    let mut sender = connect(&client, &server.address).await;
    let upload = Request::post("https://pods.example/pods")
        .version(Version::HTTP_2)
        .header("content-type", "text/html")
        .body(())
        .unwrap();
    let (answer, mut send) = sender.send_request(upload, false).unwrap();
    send.send_data(Pod::named("pod").html().into(), true).unwrap();
    let answer = head(answer).await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let body = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let url = body["url"].as_str().unwrap();
    assert!(url.starts_with("https://pods.example/"), "{url}");
}
