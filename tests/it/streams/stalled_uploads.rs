//! Uploads that stand still: they keep no others out.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use h2::{SendStream, client::ResponseFuture};
use http::Method;
use tokio::{
    net::TcpSocket,
    time::{interval, timeout},
};

use crate::support::{
    SOON,
    http2::{self, Http2},
    pod::Pod,
    raw::{Raw, upload_head},
    server::TestServer,
};

/// The address 127.0.`network`.`host`.
fn address(network: u8, host: u8) -> IpAddr {
    [127, 0, network, host].into()
}

/// What is known of the length of an upload, and how much of it comes.
const KINDS: [(Option<usize>, usize); 4] =
    [(Some(1_200_000), 0), (Some(1_200_000), 600_000), (Some(50_000_000), 0), (None, 1000)];

/// An upload over HTTP/1.1, of which the broker has asked for the body.
async fn stall(server: &TestServer, client: IpAddr, (length, sent): (Option<usize>, usize)) -> Raw {
    let framing = match length {
        Some(length) => format!("Content-Length: {length}"),
        None => "Transfer-Encoding: chunked".into(),
    };
    let mut upload = Raw::open_from(client, &server.address).await;
    upload
        .send(&format!(
            "POST /pods HTTP/1.1\nHost: broker\nContent-Type: text/html\n{framing}\nExpect: 100-continue\n\n"
        ))
        .await;
    assert_eq!(upload.answer().await.status, 100);
    let size = if length.is_none() { format!("{sent:x}\r\n") } else { String::new() };
    upload.send_bytes(&[size.as_bytes(), &vec![b'x'; sent]].concat()).await;
    upload
}

/// Uploads on one connection of HTTP/2, two of each kind, of which as much comes as the connection has room for.
async fn stall_streams(
    server: &TestServer,
    client: IpAddr,
) -> (Http2, Vec<(ResponseFuture, SendStream<Bytes>)>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    let stream = socket.connect(server.addresses[0]).await.unwrap();
    let mut client = Http2::on(stream, 1 << 16).await;
    let mut uploads = Vec::new();
    for (length, sent) in [KINDS, KINDS].concat() {
        let mut head = http2::request(Method::POST, "/pods").header("content-type", "text/html");
        if let Some(length) = length {
            head = head.header("content-length", length);
        }
        client.sender = client.sender.ready().await.unwrap();
        let (answer, mut body) = client.sender.send_request(head.body(()).unwrap(), false).unwrap();
        body.send_data(vec![b'x'; sent].into(), false).unwrap();
        uploads.push((answer, body));
    }
    (client, uploads)
}

async fn upload(server: &TestServer, client: IpAddr, html: &str) -> u16 {
    let mut upload = Raw::open_from(client, &server.address).await;
    upload.send(&upload_head(html.len())).await;
    upload.send_bytes(html.as_bytes()).await;
    upload.answer().await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_every_kind_that_stand_still_keep_no_others_out() {
    let server = TestServer::with("[pods.bounds]\nupload_grace = \"1h\"").await;
    let (mut stalled, mut streams) = (Vec::new(), Vec::new());
    for host in 1..=10 {
        for kind in [KINDS, KINDS].concat() {
            stalled.push(stall(&server, address(1, host), kind).await);
        }
        streams.push(stall_streams(&server, address(2, host)).await);
    }
    let html = Pod::named("p").padded(1_200_000).html();
    for host in 1..=3 {
        assert_eq!(upload(&server, address(3, host), &html).await, 200);
    }
    let is_ended = |raw: &mut Raw| raw.stir().now_or_never().is_some();
    assert_eq!(stalled.iter_mut().filter_map(|raw| is_ended(raw).then_some(())).count(), 0);
    let answers = streams.iter_mut().flat_map(|(_, uploads)| uploads).map(|(answer, _)| answer);
    assert_eq!(answers.filter_map(FutureExt::now_or_never).count(), 0);
}

/// One client sends as much as it may, and then nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_does_not_take_the_memory_of_all() {
    let settings = "[pods]\nmax_blob = \"1 MiB\"\nupload_memory = \"3 MiB\"\nupload_wait = \"4s\"\n\
        [pods.bounds]\nupload_grace = \"1h\"";
    let server = TestServer::with(settings).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(stall(&server, address(1, 1), (Some(1 << 20), 600_000)).await);
    }
    let html = Pod::named("p").padded(500_000).html();
    assert_eq!(upload(&server, address(1, 2), &html).await, 200);
    let is_ended = async {
        let mut ticks = interval(Duration::from_millis(10));
        while slow.iter_mut().all(|raw| raw.stir().now_or_never().is_none()) {
            ticks.tick().await;
        }
    };
    timeout(SOON, is_ended).await.expect("the third should not wait for ever");
}

/// What they take together is ten times what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_uploads_do_not_wait_for_one_another() {
    let settings = "[pods]\nmax_blob = \"512 KiB\"\nupload_memory = \"1536 KiB\"\nupload_wait = \"8s\"";
    let server = TestServer::with(settings).await;
    let html = Pod::named("p").padded(500_000).html();
    let (first, rest) = html.as_bytes().split_at(60_000);
    let mut uploads = Vec::new();
    for host in 1..=30 {
        let mut upload = Raw::open_from(address(1, host), &server.address).await;
        upload.send(&upload_head(html.len())).await;
        upload.send_bytes(first).await;
        uploads.push(upload);
    }
    let answers = uploads.iter_mut().map(async |upload| {
        upload.send_bytes(rest).await;
        upload.answer().await.status
    });
    assert_eq!(join_all(answers).await, [200; 30]);
}

/// All memory is held by uploads that were half sent, from many addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_taken_although_others_hold_all_memory() {
    let settings = "[pods]\nmax_blob = \"1 MiB\"\nupload_memory = \"3 MiB\"\nupload_wait = \"8s\"\n\
        [pods.bounds]\nupload_grace = \"1h\"";
    let server = TestServer::with(settings).await;
    let mut slow = Vec::new();
    for host in 1..=5 {
        slow.push(stall(&server, address(1, host), (Some(1 << 20), 600_000)).await);
    }
    let html = Pod::named("p").padded(500_000).html();
    assert_eq!(upload(&server, address(2, 1), &html).await, 200);
}
