//! Versions of TLS, protocols within it, and signalling through it.

use std::sync::Arc;

use serde_json::json;
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion,
    crypto::ring,
    version::{TLS12, TLS13},
};

use crate::support::{
    certs::{Authority, Files, openssl},
    frames::{answer, candidate, offer, offered},
    server::TestServer,
    tls_client::{Client, get, roots},
};

const VERSIONS: [(&SupportedProtocolVersion, ProtocolVersion); 2] =
    [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)];

/// A client that trusts the authority of `broker` and speaks one version.
fn speaking(version: &'static SupportedProtocolVersion, files: &Files) -> Client {
    let authority = std::fs::read_to_string(files.path("ca.pem")).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap();
    Client(config.with_root_certificates(roots(&authority)).with_no_client_auth())
}

/// A broker for `pods.example`, and a client that trusts it.
async fn broker() -> (TestServer, Client, Files) {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let server = TestServer::with(&files.toml(&["pair"])).await;
    std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
    let client = Client::trusting(&authority.pem());
    (server, client, files)
}

#[tokio::test]
async fn http_2_and_http_1_1_are_offered() {
    let (server, client, _files) = broker().await;
    for (offered, chosen) in [
        (&["http/1.1"][..], Some("http/1.1")),
        (&["h2"], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&[], None),
    ] {
        let client = client.clone().with_alpn(offered);
        let stream = client.connect(&server.address, "pods.example").await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, chosen.map(str::as_bytes), "for {offered:?}");
    }
    let strange = client.with_alpn(&["spdy/3"]);
    assert!(strange.connect(&server.address, "pods.example").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_but_not_1_1() {
    let (server, _, files) = broker().await;
    for (version, expected) in VERSIONS {
        let client = speaking(version, &files);
        let stream = client.connect(&server.address, "pods.example").await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
    }
    let handshake = |version: &'static str| {
        let (address, directory) = (server.address.clone(), files.0.path().to_owned());
        tokio::task::spawn_blocking(move || {
            // Security level 0, or the client itself would refuse the old version.
            let arguments = ["s_client", version, "-cipher", "DEFAULT:@SECLEVEL=0", "-connect", &address];
            openssl(&[&arguments[..], &["-servername", "pods.example", "-brief"]].concat(), &directory)
        })
    };
    let (good, said) = handshake("-tls1_1").await.unwrap();
    assert!(!good && said.contains(" alert "), "{said}");
    let (good, said) = handshake("-tls1_2").await.unwrap();
    assert!(good, "{said}");
}

#[tokio::test]
async fn who_comes_back_with_a_ticket_resumes_its_session() {
    let (server, _, files) = broker().await;
    for (version, _) in VERSIONS {
        let client = speaking(version, &files);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = client.connect(&server.address, "pods.example").await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
            // The tickets of TLS 1.3 come after the handshake.
            get(&mut stream, "pods.example", "/health").await;
        }
    }
}

#[tokio::test]
async fn signalling_over_wss() {
    let (server, client, _files) = broker().await;
    let mut origin = client.socket(&server.address, "pods.example").await;
    origin.register("pod").await;
    let mut visitor = client.socket(&server.address, "pods.example").await;
    visitor.send(offer("pod", "s", "OFFER")).await;
    origin.expect(offered("s", "OFFER")).await;
    origin.send(answer("s", "ANSWER")).await;
    visitor.expect(answer("s", "ANSWER")).await;
    visitor.send(candidate("s", "C")).await;
    origin.expect(json!(candidate("s", "C"))).await;
    // Large enough for many TLS records.
    let sdp = "x".repeat(200_000);
    visitor.send(offer("pod", "s", &sdp)).await;
    origin.expect(offered("s", &sdp)).await;
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_nothing() {
    let (server, _, _files) = broker().await;
    let answer = reqwest::get(server.url("/health")).await;
    assert!(answer.is_err());
}
