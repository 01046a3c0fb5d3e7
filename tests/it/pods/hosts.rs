//! A request that names no valid host is refused, whatever it asks for, by listeners that serve and by those that
//! redirect.

use serde_json::Value;

use super::cors::clients;
use crate::support::{
    pod::Pod,
    raw::{Answer, Raw, ask},
    server::TestServer,
};

const ROUTES: [&str; 11] = [
    "GET /health",
    "HEAD /health",
    "GET /signal",
    "POST /pods",
    "OPTIONS /pods",
    "GET /aaaaaaaaaaaa",
    "PUT /aaaaaaaaaaaa",
    "DELETE /aaaaaaaaaaaa",
    "GET /aaaaaaaaaaaa/meta",
    "GET /owner/x/pods",
    "GET /not/there",
];

/// Header fields that no HTTP/1.1 request may have.
const WRONG: [&str; 15] = [
    "",
    "Host:\n",
    "Host: '\n",
    "Host: x:99999\n",
    "Host: x:y\n",
    "Host: x y\n",
    "Host: a,b\n",
    "Host: user@x\n",
    "Host: [::1\n",
    "Host: [x]\n",
    "Host: x/y\n",
    "Host: 999.1.1.1\n",
    "Host: pods.example.1\n",
    "Host: x.0x7f:80\n",
    "Host: a\nHost: a\n",
];

async fn answer(server: &TestServer, listener: usize, line: &str, fields: &str) -> Answer {
    let mut raw = Raw::open(&server.addresses[listener].to_string()).await;
    raw.send(&format!("{line} HTTP/1.1\n{fields}Content-Length: 0\nConnection: close\n\n")).await;
    if line.starts_with("HEAD") {
        let status = raw.status().await;
        return Answer { status, headers: Default::default(), body: "{\"error\":\"\"}".into() };
    }
    raw.answer().await
}

#[tokio::test]
async fn a_request_without_a_valid_host_is_refused_on_every_route() {
    let listeners = "public_url = \"https://pods.example\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
        [[listen]]\naddress = \"127.0.0.1:0\"\npurpose = \"redirect\"\n";
    let server = TestServer::with(listeners).await;
    for line in ROUTES {
        for fields in WRONG {
            for listener in [0, 1] {
                let answer = answer(&server, listener, line, fields).await;
                let error = answer.json()["error"].as_str().map(ToOwned::to_owned);
                assert!(
                    answer.status == 400 && error.is_some(),
                    "{line} {fields:?} on listener {listener}: {answer:?}"
                );
            }
        }
        let refused = answer(&server, 0, line, "Host: pods.example\n").await;
        assert!(line.starts_with("HEAD") || !refused.body.contains("host"), "{line}: {refused:?}");
    }
}

#[tokio::test]
async fn a_whole_url_needs_a_valid_host_too() {
    let server = TestServer::start().await;
    for url in ["http://x:99999/health", "http://'/health", "http://user@x/health", "http://999.1.1.1/health"]
    {
        let answer = answer(&server, 0, &format!("GET {url}"), "Host: x\n").await;
        assert_eq!(answer.status, 400, "{url}: {answer:?}");
    }
    let answer = answer(&server, 0, "GET http://a.example/health", "Host: b.example\n").await;
    assert_eq!(answer.status, 200, "the URL counts: {answer:?}");
}

#[tokio::test]
async fn every_form_of_a_host_is_served() {
    let server = TestServer::start().await;
    for host in [
        "x",
        "X.Example.:8443",
        "192.0.2.1",
        "192.0.2.1:1",
        "[::1]",
        "[2001:db8::1]:443",
        "my_broker:80",
        "x:",
    ] {
        let answer = ask(&server.address, &format!("GET /health HTTP/1.1\nHost: {host}\n\n")).await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
    for old in ["GET /health HTTP/1.0\n\n", "GET /health HTTP/1.0\nHost: x\n\n"] {
        assert_eq!(ask(&server.address, old).await.status, 200, "{old:?}");
    }
    let wrong = ask(&server.address, "GET /health HTTP/1.0\nHost: x:99999\n\n").await;
    assert_eq!(wrong.status, 400);
}

/// What a trusted proxy was asked for is no host either: the broker goes by its own.
#[tokio::test]
async fn an_invalid_forwarded_host_is_in_no_url() {
    let server = TestServer::with("trusted_proxies = [\"127.0.0.1\"]").await;
    for (name, value) in [
        ("x-forwarded-host", "x:99999"),
        ("x-forwarded-host", "'"),
        ("x-forwarded-host", "999.1.1.1"),
        ("forwarded", "for=192.0.2.1;host=\"x:99999\""),
        ("forwarded", "for=192.0.2.1;host=\"'\""),
        ("forwarded", "for=192.0.2.1;host=999.1.1.1"),
    ] {
        let post =
            server.http.post(server.url("/pods")).header(name, value).header("content-type", "text/html");
        let answer = post.body(Pod::named("pod").html()).send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        let url = format!("{}/{}", server.url(""), body["id"].as_str().unwrap());
        assert_eq!(body["url"], url, "{name}: {value}");
    }
}

/// A refused upload is read on, so that its client sees why; the connection goes on.
#[tokio::test]
async fn a_refused_upload_learns_why() {
    let server = TestServer::start().await;
    let mut raw = Raw::open(&server.address).await;
    let body = "x".repeat(3 << 20);
    let head =
        format!("POST /pods HTTP/1.1\nHost: '\nContent-Type: text/html\nContent-Length: {}\n\n", body.len());
    raw.send(&head).await;
    raw.send_bytes(body.as_bytes()).await;
    assert_eq!(raw.answer().await.status, 400);
}

#[tokio::test]
async fn http2_without_tls_knows_hosts_too() {
    let server = TestServer::start().await;
    let [_, http2] = clients();
    for host in ["x:99999", "'", "user@x", "999.1.1.1", ""] {
        let answer = http2.get(server.url("/health")).header("host", host).send().await;
        // It names two hosts, or none that is valid.
        assert!(answer.map_or(true, |answer| answer.status() == 400), "{host}");
    }
}
