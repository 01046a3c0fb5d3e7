//! Fields that describe a representation come with a representation only.

use super::client::{Ask, VERSIONS};
use crate::support::{pod::Pod, raw::Answer, server::TestServer};

/// Fields of a pod that an error must not have: a cache or a browser would take them for the pod's.
const OF_A_POD: [&str; 10] = [
    "etag",
    "content-encoding",
    "last-modified",
    "accept-ranges",
    "vary",
    "content-security-policy",
    "permissions-policy",
    "origin-agent-cluster",
    "x-pod-owner",
    "expires",
];

fn is_an_error_alone(answer: &Answer, what: &str) {
    for field in OF_A_POD {
        assert_eq!(answer.header(field), None, "{what}: {answer:?}");
    }
    assert!(matches!(answer.header("cache-control"), None | Some("no-store")), "{what}: {answer:?}");
    assert!(answer.header("content-type").is_some(), "{what}: {answer:?}");
}

#[tokio::test]
async fn an_error_has_no_field_of_the_pod() {
    for settings in ["", "[pods]\nisolation = \"sandbox\""] {
        let server = TestServer::with(settings).await;
        let html = Pod::named("pod").padded(10_000).html();
        let slug = server.store(html.clone()).await;
        let url = server.url(&format!("/{slug}"));
        drop(server.compressed(&url, &html).await);
        let (pod, missing) = (format!("/{slug}"), "/AAAAAAAAAAAA".to_owned());
        let asks = [
            (Ask::new("GET", &pod).field("range", "bytes=9999999-"), 416),
            (Ask::new("GET", &pod).field("range", "bytes=9999999-").field("accept-encoding", "gzip"), 416),
            (Ask::new("GET", &pod).field("if-match", "\"x\""), 412),
            (Ask::new("HEAD", &pod).field("if-match", "\"x\""), 412),
            (Ask::new("GET", &pod).field("if-match", "\"x\"").field("accept-encoding", "gzip"), 412),
            (Ask::new("GET", &missing), 404),
            (Ask::new("GET", &missing).field("range", "bytes=0-1"), 404),
            (Ask::new("PUT", &pod), 401),
            (Ask::new("DELETE", &pod), 401),
            (Ask::new("POST", "/pods"), 415),
            (Ask::new("GET", "/signal"), 426),
            (Ask::new("DELETE", "/signal"), 405),
        ];
        for (ask, status) in asks {
            for version in VERSIONS {
                let answer = ask.over(version, &server.address).await;
                let what = format!("{ask:?} {version:?} {settings}");
                assert_eq!(answer.status, status, "{what}");
                is_an_error_alone(&answer, &what);
                let range = format!("bytes */{}", html.len());
                assert_eq!(answer.header("content-range"), (status == 416).then_some(&*range), "{what}");
            }
        }
        server.stop().await;
    }
}
