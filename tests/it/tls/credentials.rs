//! Credentials of hosts over TLS, with HTTP/1.1 and HTTP/2 (RFC 8441).

use std::time::SystemTime;

use gemmapod_signal::{
    AddedCredential, Credential, CredentialLimits, Digest, MemoryRegistry, OwnerKey, Registry, SignalServer,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http2;
use crate::support::{
    certs::{Authority, Files},
    credential::{UNKNOWN, basic, closed},
    frames::{answer, offer, offered, refusal, register},
    server::{TestServer, config},
    socket::Socket,
    tls_client::Client,
};

async fn broker() -> (TestServer, Client, Files) {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let registry = MemoryRegistry::new(1 << 20);
    let credential = Credential {
        owner_key: OwnerKey([1; 32]),
        name: "home".parse().unwrap(),
        secret_hash: Digest::of(b"secret"),
        pod_ids: None,
        created_at: SystemTime::now(),
    };
    let limits = CredentialLimits { per_key: 1, total: 10 };
    assert_eq!(registry.add_credential(credential, limits).await.unwrap(), AddedCredential::Added);
    let config = config(&files.toml(&["pair"]));
    let server = TestServer::from(SignalServer::builder().config(config).registry(registry)).await;
    (server, Client::trusting(&authority.pem()), files)
}

async fn refused<S: AsyncRead + AsyncWrite + Unpin>(mut socket: Socket<S>) {
    socket.send(register("pod")).await;
    socket.expect(refusal(UNKNOWN)).await;
    assert_eq!(socket.closed().await, closed());
    socket.answer_close().await;
}

async fn http1(
    server: &TestServer,
    client: &Client,
    secret: &str,
) -> Socket<impl AsyncRead + AsyncWrite + Unpin> {
    let stream = client.connect(&server.address, "pods.example").await.unwrap();
    Socket::upgraded(stream, "wss://pods.example/signal", &[&basic("home", secret)]).await
}

#[tokio::test]
async fn over_http_1_1() {
    let (server, client, _files) = broker().await;
    refused(http1(&server, &client, "wrong").await).await;
    http1(&server, &client, "secret").await.register("pod").await;
}

#[tokio::test]
async fn over_http_2_one_stream_is_refused_and_the_others_go_on() {
    let (server, client, _files) = broker().await;
    let mut sender = http2::connect(&client, &server.address).await;
    let mut host = http2::authorized(&mut sender, &[&basic("home", "secret")]).await;
    host.register("pod").await;
    refused(http2::authorized(&mut sender, &[&basic("home", "wrong")]).await).await;
    refused(http2::authorized(&mut sender, &[&basic("garage", "secret")]).await).await;
    let mut visitor = http2::authorized(&mut sender, &[]).await;
    visitor.send(offer("pod", "s", "OFFER")).await;
    host.expect(offered("s", "OFFER")).await;
    host.send(answer("s", "ANSWER")).await;
    visitor.expect(answer("s", "ANSWER")).await;
}
