//! `POST /pods` and what stands around it: sizes, types, turns, and the URL of the answer.

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::cors::clients;
use crate::support::{
    SOON,
    pod::Pod,
    raw::{Answer, Raw, ask},
    server::TestServer,
};

const SMALL: &str = "[pods]\nmax_blob = \"2 KiB\"";

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, sentence: &str) {
    assert_eq!((answer.status.as_u16(), answer.json()), (status, json!({ "error": sentence })));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

fn head(fields: &str) -> String {
    format!("POST /pods HTTP/1.1\nHost: broker\nContent-Type: text/html\n{fields}\n\n")
}

/// A pod of exactly `bytes`.
fn pod_of(bytes: usize) -> String {
    let html = Pod::named("pod").html();
    format!("{html}{}", " ".repeat(bytes - html.len()))
}

/// Nothing asks the client for its body.
#[tokio::test]
async fn too_large_by_its_announced_length() {
    let server = TestServer::start().await;
    for fields in ["Content-Length: 52428801", "Content-Length: 99999999999999\nExpect: 100-continue"] {
        let answer = ask(&server.address, &head(fields)).await;
        assert_refused(&answer, 413, "blob too large: this broker takes at most 52428800 bytes");
    }
}

#[tokio::test]
async fn too_large_while_it_is_read() {
    let server = TestServer::with(SMALL).await;
    let mut upload = Raw::open(&server.address).await;
    upload.send(&head("Transfer-Encoding: chunked")).await;
    upload.send(&format!("800\n{}\n", "x".repeat(0x800))).await;
    upload.send("1\nx\n").await;
    // The last chunk, which says that it is the end, was never sent.
    assert_refused(&upload.answer().await, 413, "blob too large: this broker takes at most 2048 bytes");
}

#[tokio::test]
async fn exactly_as_large_as_may_be() {
    let server = TestServer::with(SMALL).await;
    let html = pod_of(2048);
    assert_eq!(server.upload(html.clone()).await.status(), 200);
    let mut upload = Raw::open(&server.address).await;
    upload.send(&head("Transfer-Encoding: chunked")).await;
    upload.send_bytes(format!("800\r\n{html}\r\n0\r\n\r\n").as_bytes()).await;
    assert_eq!(upload.answer().await.status, 200);
    assert_eq!(server.upload(pod_of(2049)).await.status(), 413);
}

/// As many pieces of a byte as a body may have, and one more.
#[tokio::test]
async fn too_many_pieces() {
    let server = TestServer::start().await;
    let mut upload = Raw::open(&server.address).await;
    upload.send(&head("Transfer-Encoding: chunked")).await;
    upload.send_bytes("1\r\nx\r\n".repeat(10_159).as_bytes()).await;
    let message = "the body comes in too many small pieces; send chunks of at least 64 bytes";
    assert_refused(&upload.answer().await, 400, message);

    let mut upload = Raw::open(&server.address).await;
    upload.send(&head("Transfer-Encoding: chunked")).await;
    let html = pod_of(9_000);
    upload.send_bytes(html.chars().map(|c| format!("1\r\n{c}\r\n")).collect::<String>().as_bytes()).await;
    upload.send_bytes(b"0\r\n\r\n").await;
    assert_eq!(upload.answer().await.status, 200);
}

/// The clock of this test jumps to the next time-out whenever nothing moves.
#[tokio::test(start_paused = true)]
async fn too_slow() {
    let server = TestServer::start().await;
    let mut upload = Raw::open(&server.address).await;
    upload.send(&head("Content-Length: 1000")).await;
    upload.send("<!doctype html>").await;
    let start = tokio::time::Instant::now();
    let answer = upload.answer_at_last().await;
    assert_refused(&answer, 408, "the body came slower than 4096 bytes a second");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn ends_before_its_announced_length() {
    let server = TestServer::start().await;
    let mut upload = Raw::open(&server.address).await;
    upload.send(&head("Content-Length: 1000")).await;
    upload.send("<!doctype html>").await;
    upload.finish().await;
    if let Some(answer) = upload.try_answer().await {
        assert_refused(&answer, 400, "the body ended before its announced length");
    }
    server.store(Pod::named("pod").html()).await;
}

#[tokio::test]
async fn content_types() {
    let server = TestServer::start().await;
    let html = Pod::named("pod").html();
    for (content_type, status) in [
        ("text/html", 200),
        ("text/html; charset=utf-8", 200),
        ("Text/HTML ;charset=\"utf-8\"", 200),
        ("text/plain;charset=UTF-8", 200),
        ("text/html5", 415),
        ("text", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
    ] {
        let post = server.http.post(server.url("/pods")).header("content-type", content_type);
        let answer = post.body(html.clone()).send().await.unwrap();
        assert_eq!(answer.status(), status, "{content_type}");
    }
    let nothing_said = "POST /pods HTTP/1.1\nHost: broker\nContent-Length: 0\n\n";
    let answer = ask(&server.address, nothing_said).await;
    assert_refused(&answer, 415, "expected content-type text/html or application/json {html}");
}

/// An encoded body is refused by what its head says, and the client is told how to send it.
#[tokio::test]
async fn content_encodings() {
    const ENCODED: &str = "the body has a Content-Encoding, which this broker does not decode: send the pod as it is, without Content-Encoding";
    let server = TestServer::start().await;
    let html = Pod::named("pod").html();
    for client in clients() {
        for content_type in ["text/html", "application/json", "image/png"] {
            for coding in
                ["gzip", "GZIP", "br", "zstd", "deflate", "identity, gzip", "gzip, identity", "x", "\u{fc}"]
            {
                let post = client.post(server.url("/pods")).header("content-type", content_type);
                let coding = reqwest::header::HeaderValue::from_bytes(coding.as_bytes()).unwrap();
                let answer =
                    post.header("content-encoding", &coding).body("\x1f\u{8b}").send().await.unwrap();
                assert_eq!(answer.status(), 415, "{coding:?}");
                assert_eq!(answer.headers()["accept-encoding"], "identity", "{coding:?}");
                assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "error": ENCODED }), "{coding:?}");
            }
        }
        for coding in ["identity", "Identity", "", "identity, identity"] {
            let post = client.post(server.url("/pods")).header("content-type", "text/html");
            let answer = post.header("content-encoding", coding).body(html.clone()).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{coding:?}");
        }
    }
    let asked = head("Content-Length: 1000\nContent-Encoding: gzip\nExpect: 100-continue");
    assert_refused(&ask(&server.address, &asked).await, 415, ENCODED);
}

#[tokio::test]
async fn json_bodies() {
    const NOT_AN_OBJECT: &str = "the body is not a JSON object with one field 'html'";
    const MISSING: &str = "missing 'html' field";
    const NOT_A_STRING: &str = "expected the 'html' field to be a string";
    let server = TestServer::start().await;
    let post = async |body: String| {
        let post =
            server.http.post(server.url("/pods")).header("content-type", "application/json; charset=utf-8");
        let answer = post.body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    for (body, problem) in [
        ("", NOT_AN_OBJECT),
        ("{", NOT_AN_OBJECT),
        ("[1]", NOT_AN_OBJECT),
        ("\"<p>\"", NOT_AN_OBJECT),
        (r#"{"html":"a"} x"#, NOT_AN_OBJECT),
        (r#"{"html":"a","html":"b"}"#, NOT_AN_OBJECT),
        ("{}", MISSING),
        (r#"{"html":null}"#, MISSING),
        (r#"{"html":""}"#, MISSING),
        (r#"{"HTML":"a"}"#, MISSING),
        (r#"{"html":5}"#, NOT_A_STRING),
        (r#"{"html":["a"]}"#, NOT_A_STRING),
        (r#"{"html":"\ud800"}"#, NOT_A_STRING),
    ] {
        assert_eq!(post(body.into()).await, (400, json!({ "error": problem })), "{body}");
    }
    let beside_others = json!({ "name": "x", "html": Pod::named("pod").html(), "z": [1] });
    assert_eq!(post(beside_others.to_string()).await.0, 200);
}

/// Holds an upload open: it has its turn, and the broker waits for the body.
async fn hold_open(server: &TestServer, html: &str) -> Raw {
    hold_open_from(1, server, html).await
}

/// The same for the client 127.0.0.`host`.
async fn hold_open_from(host: u8, server: &TestServer, html: &str) -> Raw {
    let mut upload = Raw::open_from([127, 0, 0, host].into(), &server.address).await;
    upload.send(&head(&format!("Content-Length: {}\nExpect: 100-continue", html.len()))).await;
    assert_eq!(upload.answer().await.status, 100);
    upload
}

fn assert_busy(answer: &Answer) {
    assert_refused(answer, 503, "too many uploads are running; try again later");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn too_many_of_one_client_at_a_time() {
    let server = TestServer::with("[pods]\nmax_uploads_per_address = 1\nupload_wait = \"100ms\"").await;
    let html = pod_of(2048);
    let mut held = hold_open(&server, &html).await;
    assert_busy(&ask(&server.address, &head("Content-Length: 2048\nExpect: 100-continue")).await);
    held.send_bytes(html.as_bytes()).await;
    assert_eq!(held.answer().await.status, 200);
    assert_eq!(server.upload(html).await.status(), 200);
}

#[tokio::test]
async fn an_upload_that_is_given_up_makes_room() {
    let server = TestServer::with("[pods]\nmax_uploads_per_address = 1").await;
    drop(hold_open(&server, &pod_of(2048)).await);
    assert_eq!(server.upload(pod_of(2048)).await.status(), 200);
}

#[tokio::test]
async fn an_upload_that_stands_still_is_none_of_those_that_are_stored() {
    let server = TestServer::with("[pods]\nmax_uploads = 1").await;
    let html = pod_of(2048);
    let mut held = hold_open(&server, &html).await;
    let (half, rest) = html.as_bytes().split_at(1000);
    held.send_bytes(half).await;
    assert_eq!(server.upload(html.clone()).await.status(), 200);
    held.send_bytes(rest).await;
    assert_eq!(held.answer().await.status, 200);
}

/// Three that stand still have all memory that first pieces may take. Of these the slowest ends, which is the one that has stood
/// still for longest, so that a smaller one is taken; the others go on.
#[tokio::test]
async fn too_much_memory_at_a_time() {
    let limits = format!("{SMALL}\nupload_memory = \"21 KiB\"\nupload_wait = \"10s\"");
    let server = TestServer::with(&limits).await;
    let (html, smaller) = (pod_of(2048), pod_of(1024));
    let mut held = Vec::new();
    for client in 1..4 {
        let mut upload = hold_open_from(client, &server, &html).await;
        upload.send_bytes(&html.as_bytes()[..2000 + usize::from(client)]).await;
        held.push(upload);
    }
    let until_one_ends = async {
        while held[0].stir().now_or_never().is_none() {
            let mut upload = hold_open_from(4, &server, &smaller).await;
            upload.send_bytes(smaller.as_bytes()).await;
            assert_eq!(upload.answer().await.status, 200);
        }
    };
    timeout(SOON, until_one_ends).await.expect("three uploads should take all memory");
    let sentence = "the memory for uploads is used up, and this one came slowest; try again later";
    let answer = held.remove(0).answer().await;
    assert_refused(&answer, 503, sentence);
    assert_eq!(answer.header("retry-after"), Some("10"));
    for (client, held) in (2..4).zip(&mut held) {
        held.send_bytes(&html.as_bytes()[2000 + client..]).await;
        assert_eq!(held.answer().await.status, 200);
    }
}

/// The `url` of the answer to an upload with these header fields, without the slug.
async fn base_url(server: &TestServer, version: &str, fields: &str) -> String {
    let html = Pod::named("pod").html();
    let mut upload = Raw::open(&server.address).await;
    let length = html.len();
    upload
        .send(&format!(
            "POST /pods HTTP/{version}\nContent-Type: text/html\nContent-Length: {length}\n{fields}\n"
        ))
        .await;
    upload.send_bytes(html.as_bytes()).await;
    let answer = upload.answer().await.json();
    let url = answer["url"].as_str().unwrap();
    url.strip_suffix(&format!("/{}", answer["id"].as_str().unwrap())).unwrap().to_owned()
}

#[tokio::test]
async fn the_url_begins_with_the_host_that_was_asked() {
    let server = TestServer::start().await;
    let here = format!("http://{}", server.address);
    for (version, fields, url) in [
        ("1.1", "Host: pods.example:8443\n", "http://pods.example:8443"),
        ("1.1", "Host: [::1]:80\n", "http://[::1]:80"),
        (
            "1.1",
            "Host: a.example\nX-Forwarded-Host: b.example\nX-Forwarded-Proto: https\n",
            "http://a.example",
        ),
        ("1.0", "", &*here),
    ] {
        assert_eq!(base_url(&server, version, fields).await, url, "{fields}");
    }
}

#[tokio::test]
async fn the_url_begins_with_public_url_where_that_is_set() {
    let server = TestServer::with("public_url = \"https://pods.example:8443/\"").await;
    let url = base_url(&server, "1.1", "Host: other.example\n").await;
    assert_eq!(url, "https://pods.example:8443");
}

#[tokio::test]
async fn other_methods_and_paths() {
    let server = TestServer::start().await;
    for (method, path, status) in [
        ("OPTIONS", "/pods", 204),
        ("OPTIONS", "/pods/", 404),
        ("POST", "/pods/", 404),
        ("POST", "//pods", 404),
        ("HEAD", "/pods", 404),
        ("PUT", "/pods", 404),
        ("DELETE", "/pods", 404),
        ("POST", "/health", 404),
        ("POST", "/aaaaaaaaaaaa", 404),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\nHost: broker\nContent-Length: 0\nConnection: close\n\n");
        let mut raw = Raw::open(&server.address).await;
        raw.send(&request).await;
        assert_eq!(raw.status().await, status, "{method} {path}");
    }
}
