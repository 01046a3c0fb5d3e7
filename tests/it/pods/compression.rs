//! Pods with `Content-Encoding: gzip`.

use std::io::Read;

use flate2::read::GzDecoder;

use super::downloads::{Stored, header};
use crate::support::{
    pod::Pod,
    server::{TestServer, config},
};

const TAKES_GZIP: (&str, &str) = ("accept-encoding", "gzip, deflate, br");

/// A pod that is worth compressing.
async fn stored() -> Stored {
    let mut pod = Pod::named("pod");
    pod.after.push_str(&"a visitor opens a pod, ".repeat(5_000));
    Stored::on(TestServer::start().await, pod.html()).await
}

fn unpacked(gzip: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(gzip).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn who_takes_gzip_gets_it_once_the_pod_was_asked_for() {
    let pod = stored().await;
    let plain = pod.get(&[]).await;
    let answer = pod.compressed().await;
    assert_eq!(header(&answer, "content-encoding").unwrap(), "gzip");
    for name in ["content-type", "content-security-policy", "cache-control", "x-pod-owner", "vary"] {
        assert_eq!(header(&answer, name), header(&plain, name), "{name}");
    }
    let length: usize = header(&answer, "content-length").unwrap().parse().unwrap();
    let body = answer.bytes().await.unwrap();
    assert_eq!(body.len(), length);
    assert!(body.len() < pod.html.len() / 10, "{} bytes", body.len());
    assert_eq!(unpacked(&body), pod.html);
}

#[tokio::test]
async fn who_does_not_take_gzip_gets_the_pod_as_it_is() {
    let pod = stored().await;
    pod.compressed().await;
    for accept in [&[][..], &[("accept-encoding", "br")], &[("accept-encoding", "gzip;q=0, *")]] {
        let answer = pod.get(accept).await;
        assert_eq!(header(&answer, "content-encoding"), None, "{accept:?}");
        assert_eq!(header(&answer, "vary").as_deref(), Some("accept-encoding"));
        assert_eq!(answer.text().await.unwrap(), pod.html);
    }
}

#[tokio::test]
async fn head_tells_of_the_compressed_pod() {
    let pod = stored().await;
    let got = pod.compressed().await;
    let head = pod.server.http.head(pod.url()).header(TAKES_GZIP.0, TAKES_GZIP.1).send().await.unwrap();
    for name in ["content-encoding", "content-length", "etag", "vary"] {
        assert_eq!(header(&head, name), header(&got, name), "{name}");
    }
}

#[tokio::test]
async fn each_coding_has_its_tag_and_both_are_known() {
    let pod = stored().await;
    let packed = header(&pod.compressed().await, "etag").unwrap();
    let plain = header(&pod.get(&[]).await, "etag").unwrap();
    assert_ne!(packed, plain);
    for (tag, accept, status) in [
        (&packed, "gzip", 304),
        (&plain, "gzip", 304),
        (&plain, "br", 304),
        // It may have come to have it through a cache, but does not say that it can read it.
        (&packed, "br", 200),
    ] {
        let answer = pod.get(&[("if-none-match", tag), ("accept-encoding", accept)]).await;
        assert_eq!(answer.status(), status, "{tag} {accept}");
        if status == 304 {
            assert_eq!(header(&answer, "etag").as_ref(), Some(tag));
            assert_eq!(header(&answer, "vary").as_deref(), Some("accept-encoding"));
        }
    }
}

#[tokio::test]
async fn a_range_is_one_of_the_pod_as_it_is() {
    let pod = stored().await;
    let packed = header(&pod.compressed().await, "etag").unwrap();
    let answer = pod.get(&[TAKES_GZIP, ("range", "bytes=5-9")]).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "content-encoding")), (206, None));
    assert_eq!(answer.text().await.unwrap(), pod.html[5..10]);
    // Whoever holds the beginning of the compressed pod cannot go on with bytes of the other.
    let answer = pod.get(&[TAKES_GZIP, ("range", "bytes=5-9"), ("if-range", &packed)]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), pod.html);
}

#[tokio::test]
async fn a_reload_turns_it_off() {
    let pod = stored().await;
    pod.compressed().await;
    let off = config("[pods]\ncompression_memory = 1");
    pod.server.handle.reload(off);
    let answer = pod.get(&[TAKES_GZIP]).await;
    assert_eq!(header(&answer, "content-encoding"), None);
    assert_eq!(answer.text().await.unwrap(), pod.html);
}

#[tokio::test]
async fn a_reload_keeps_compressed_pods() {
    let pod = stored().await;
    pod.compressed().await;
    assert!(pod.server.handle.reload(config("")).is_empty());
    let answer = pod.get(&[TAKES_GZIP]).await;
    assert_eq!(header(&answer, "content-encoding").as_deref(), Some("gzip"));
}
