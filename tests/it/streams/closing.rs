//! Refusals that come before the body was read.

use super::{Scene, TRANSPORTS};
use crate::support::{pod::Pod, raw::Raw};

/// A client that keeps connections for its next request has to know when it cannot: each refusal after which the broker
/// closes says so, and after each other one the connection serves the next request.
#[tokio::test]
async fn a_refusal_tells_whether_the_connection_goes_on() {
    let html = Pod::named("pod").html();
    let length = html.len();
    let requests = [
        ("POST", "/pods", "Content-Type: application/zip\n"),
        ("POST", "/pods/", "Content-Type: text/html\n"),
        ("POST", "/nothing/there", "Content-Type: text/html\n"),
        ("POST", "/health", "Content-Type: text/html\n"),
        ("PUT", "/aaaaaaaaaaaa", "Content-Type: text/html\n"),
        ("DELETE", "/aaaaaaaaaaaa", ""),
        ("GET", "/nothing-there", ""),
    ];
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "[limits]\nexempt = []\nuploads_per_address = \"1000/s\"").await;
        for (method, path, fields) in requests {
            for expect in ["", "Expect: 100-continue\n"] {
                let at = format!("{transport:?} {method} {path} {expect:?}");
                let mut raw = scene.http1().await;
                let head = format!(
                    "{method} {path} HTTP/1.1\nHost: pods.example\n{fields}{expect}Content-Length: {length}\n\n"
                );
                raw.send_bytes(&[head.replace('\n', "\r\n").as_bytes(), html.as_bytes()].concat()).await;
                let answer = final_answer(&mut raw).await;
                assert!(answer.status.is_client_error(), "{at}: {answer:?}");
                if answer.header("connection") == Some("close") {
                    continue;
                }
                raw.send("GET /health HTTP/1.1\nHost: pods.example\n\n").await;
                let next = raw.try_answer().await.unwrap_or_else(|| panic!("{at}: closed without a word"));
                assert_eq!(next.status, 200, "{at}");
            }
        }
    }
}

/// What is left of a body may be more than the broker reads of it, or it is not known how much it is.
#[tokio::test]
async fn a_refusal_says_that_the_rest_of_a_large_body_is_not_read() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "").await;
        for length in ["Content-Length: 100000000", "Content-Length: 1000000", "Transfer-Encoding: chunked"] {
            for content_type in ["application/zip", "text/html"] {
                let mut raw = scene.http1().await;
                raw.send(&format!(
                    "POST /pods/ HTTP/1.1\nHost: pods.example\nContent-Type: {content_type}\n{length}\n\n"
                ))
                .await;
                let answer = raw.answer().await;
                assert!(answer.status.is_client_error(), "{answer:?}");
                assert_eq!(answer.header("connection"), Some("close"), "{transport:?} {length}: {answer:?}");
            }
        }
    }
}

/// The same where the limit of a client is used up.
#[tokio::test]
async fn too_many_uploads_are_told_so_too() {
    for transport in TRANSPORTS {
        let settings = "[limits]\nexempt = []\nuploads_per_address = \"1/day burst 1\"";
        let scene = Scene::with(transport, settings).await;
        let html = Pod::named("pod").html();
        scene.store(&html).await;
        let mut raw = scene.http1().await;
        let head = format!(
            "POST /pods HTTP/1.1\nHost: pods.example\nContent-Type: text/html\nExpect: 100-continue\nContent-Length: {}\n\n",
            html.len()
        );
        raw.send_bytes(&[head.replace('\n', "\r\n").as_bytes(), html.as_bytes()].concat()).await;
        let answer = final_answer(&mut raw).await;
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("connection"), Some("close"), "{transport:?}");
    }
}

/// The answer after those that ask for more.
async fn final_answer(raw: &mut Raw) -> crate::support::raw::Answer {
    loop {
        let answer = raw.answer().await;
        if !answer.status.is_informational() {
            return answer;
        }
    }
}

/// A refusal that does not wait for all of the body says that the connection ends with it.
#[tokio::test]
async fn a_refusal_that_reads_no_more_says_so() {
    let settings = "[pods.bounds]\nupload_grace = \"100ms\"";
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, settings).await;
        for (content_type, length, status, ends) in [
            ("application/zip", 70_000_000, 415, true),
            ("application/zip", 7, 415, false),
            ("text/html", 70_000_000, 413, true),
            ("text/html", 1000, 408, true),
        ] {
            let mut client = scene.http1().await;
            client
                .send(&format!(
                    "POST /pods HTTP/1.1\nHost: broker\nContent-Type: {content_type}\nContent-Length: {length}\n\n"
                ))
                .await;
            let answer = client.answer().await;
            assert_eq!(answer.status, status);
            assert_eq!(
                answer.header("connection") == Some("close"),
                ends,
                "{transport:?} {content_type} {length}"
            );
        }
    }
}
