//! Strangers fill no log: what they do that is wrong is no line in it, unless the operator asks for more.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::rustls::{ClientConnection, pki_types::ServerName};

use crate::support::{
    certs::{Authority, Files},
    http2_frames::{PREFACE, frame},
    process::{Broker, command},
    tls_client::Client,
};

/// Returns the first bytes of a TLS client, in which every byte of the server's name is `byte`.
fn hello(client: &Client, byte: u8) -> Vec<u8> {
    let name = ["a".repeat(60), "b".repeat(60)].join(".");
    let config = Arc::new(client.0.clone());
    let mut connection = ClientConnection::new(config, ServerName::try_from(name.clone()).unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    let at = hello.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
    hello[at..at + name.len()].fill(byte);
    hello
}

/// Requests that are reset at once, with what stands before them.
fn resets() -> Vec<u8> {
    let reset =
        |stream| [frame(1, 5, stream, b"\x82\x86\x84\x41\x01x"), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
    let resets = (0..100).flat_map(|n| reset(1 + 2 * n)).collect::<Vec<_>>();
    [PREFACE, &resets].concat()
}

/// Sends `bytes` and reads until the other side has had enough.
async fn send(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, bytes: &[u8]) {
    // It may close before it has all of them.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn what_strangers_do_wrong_is_no_line_of_the_log() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("one", &authority.issue(&["one.example"]));
    let mut broker = Broker::spawn(command().args(["--config", &files.config(&["one"])]));
    let client = Client::trusting(&authority.pem());
    for byte in [0, 1, b'-', b'.', b'%', 0xff] {
        let hello = hello(&client, byte);
        send(TcpStream::connect(&broker.address).await.unwrap(), &hello).await;
        send(TcpStream::connect(&broker.address).await.unwrap(), &hello[..hello.len() / 2]).await;
    }
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0; 100], &[0x16, 3, 1, 0xff, 0xff, 1]] {
        send(TcpStream::connect(&broker.address).await.unwrap(), garbage).await;
    }
    let over_http2 = client.with_alpn(&["h2"]);
    let parts: [&[u8]; 4] =
        [&resets(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\xff\0\0\0", &[0xff; 200], b"GET /"];
    for part in parts {
        send(over_http2.connect(&broker.address, "one.example").await.unwrap(), part).await;
    }
    assert!(broker.terminate().success());
    let lines = broker.lines();
    let strangers = lines.iter().filter(|line| !line.contains("stop"));
    assert_eq!(strangers.count(), 0, "{lines:#?}");
}
