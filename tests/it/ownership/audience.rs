//! The address that proofs are made for where no `public_url` is set, on a listener of both families.

use gemmapod_signal::{Clock, MemoryRegistry, SignalServer};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::proof::{Owner, UP, later, register};
use crate::support::{
    raw::{ask, upload_head},
    server::{TestServer, config},
    socket::Socket,
};

#[tokio::test]
async fn proofs_are_for_the_address_that_the_client_reached() {
    let clock = Clock::default();
    let builder = SignalServer::builder()
        .config(config("[[listen]]\naddress = \"[::]:0\""))
        .registry(MemoryRegistry::new(64 << 20))
        .clock(clock.clone());
    let server = TestServer::from(builder).await;
    clock.pass(UP);
    let port = server.addresses[0].port();
    for (host, name) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "LocalHost"),
        ("[::1]", "[::1]"),
        ("[::1]", "localhost"),
    ] {
        let what = format!("{host} as {name}");
        let owner = Owner::new();
        let (address, origin) = (format!("{host}:{port}"), format!("http://{}:{port}", name.to_lowercase()));
        // Without a Host, the URL is the one of the address too.
        let html = owner.pod("mine").html();
        let old = upload_head(html.len()).replace("HTTP/1.1\nHost: broker", "HTTP/1.0");
        let stored = ask(&address, &format!("{old}{html}")).await.json();
        let slug = stored["id"].as_str().unwrap();
        assert_eq!(stored["url"], format!("http://{address}/{slug}"), "{what}");

        let headers = owner.signature(&Method::DELETE, &origin, &format!("/{slug}"), None, later());
        let fields = headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
        let request =
            format!("DELETE /{slug} HTTP/1.1\nHost: {name}:{port}\n{}\n", fields.collect::<String>());
        let answer = ask(&address, &request).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{what}: {answer:?}");

        let mut socket = Socket::connect(&address).await;
        let token = owner.token_at(&what, &origin, later());
        socket.send(register(&what, &token)).await;
        socket.expect(json!({ "t": "registered", "podId": what })).await;
    }
}
