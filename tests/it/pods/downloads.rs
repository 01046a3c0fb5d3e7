//! `GET` and `HEAD /:slug`: conditions, ranges, headers and hits.

use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::support::{pod::Pod, raw::Raw, server::TestServer};

/// A server with one pod on it.
pub struct Stored {
    pub server: TestServer,
    pub html: String,
    slug: String,
}

impl Stored {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(toml: &str) -> Self {
        Self::on(TestServer::with(toml).await, Pod::named("pod").html()).await
    }

    pub async fn on(server: TestServer, html: String) -> Self {
        let slug = server.store(html.clone()).await;
        Self { server, html, slug }
    }

    pub fn url(&self) -> String {
        self.server.url(&format!("/{}", self.slug))
    }

    pub async fn get(&self, fields: &[(&str, &str)]) -> Response {
        let request = self.server.http.get(self.url());
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap()
    }

    /// The first compressed answer.
    pub async fn compressed(&self) -> Response {
        self.server.compressed(&self.url(), &self.html).await
    }

    async fn etag(&self) -> String {
        header(&self.get(&[]).await, "etag").unwrap()
    }

    async fn hits(&self) -> u64 {
        let meta = self.server.http.get(self.url() + "/meta").send().await.unwrap();
        meta.json::<Value>().await.unwrap()["hits"].as_u64().unwrap()
    }
}

pub fn header(answer: &Response, name: &str) -> Option<String> {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_etag_is_strong_and_stays() {
    let pod = Stored::new().await;
    let etag = pod.etag().await;
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "{etag}");
    assert_eq!(pod.etag().await, etag);
    let again = pod.server.store(pod.html.clone()).await;
    let other = pod.server.store(Pod::named("other").html()).await;
    let etag_of = async |slug: &str| {
        let answer = pod.server.http.get(pod.server.url(&format!("/{slug}"))).send().await.unwrap();
        header(&answer, "etag").unwrap()
    };
    assert_eq!(etag_of(&again).await, etag, "the same bytes have the same tag");
    assert_ne!(etag_of(&other).await, etag);
}

#[tokio::test]
async fn if_none_match() {
    let pod = Stored::new().await;
    let etag = pod.etag().await;
    for (condition, status) in [
        (etag.clone(), StatusCode::NOT_MODIFIED),
        (format!("W/{etag}"), StatusCode::NOT_MODIFIED),
        (format!("\"a\", {etag}, \"b\""), StatusCode::NOT_MODIFIED),
        ("*".into(), StatusCode::NOT_MODIFIED),
        ("\"a\"".into(), StatusCode::OK),
        ("\"a\", W/\"b\"".into(), StatusCode::OK),
        (etag.trim_matches('"').into(), StatusCode::OK),
    ] {
        let answer = pod.get(&[("if-none-match", &condition)]).await;
        assert_eq!(answer.status(), status, "{condition}");
        assert_eq!(header(&answer, "etag"), Some(etag.clone()));
        assert_eq!(header(&answer, "cache-control").unwrap(), "public, max-age=300, must-revalidate");
        let body = answer.text().await.unwrap();
        assert_eq!(body, if status == StatusCode::OK { &*pod.html } else { "" });
        let head = pod.server.http.head(pod.url()).header("if-none-match", &condition);
        assert_eq!(head.send().await.unwrap().status(), status, "{condition}");
    }
}

#[tokio::test]
async fn a_range() {
    let pod = Stored::new().await;
    let length = pod.html.len();
    let last = length - 1;
    for (range, start, end) in [
        ("bytes=0-0".into(), 0, 1),
        ("bytes=0-99".into(), 0, 100),
        ("bytes=100-199".into(), 100, 200),
        ("bytes=100-".into(), 100, length),
        (format!("bytes={last}-"), last, length),
        (format!("bytes={last}-{last}"), last, length),
        ("bytes=100-999999999999".into(), 100, length),
        ("bytes=-1".into(), last, length),
        ("bytes=-100".into(), length - 100, length),
        // Of more bytes than there are, all are meant (RFC 9110, section 14.1.2).
        (format!("bytes=-{}", length + 1), 0, length),
    ] {
        let answer = pod.get(&[("range", &range)]).await;
        assert_eq!(answer.status(), 206, "{range}");
        let content_range = format!("bytes {start}-{}/{length}", end - 1);
        assert_eq!(header(&answer, "content-range"), Some(content_range), "{range}");
        assert_eq!(header(&answer, "content-length"), Some((end - start).to_string()));
        assert_eq!(header(&answer, "content-type").unwrap(), "text/html; charset=utf-8");
        assert_eq!(answer.text().await.unwrap(), pod.html[start..end]);
    }
}

#[tokio::test]
async fn a_range_past_the_end() {
    let pod = Stored::new().await;
    let length = pod.html.len();
    for range in [format!("bytes={length}-"), "bytes=999999-9999999".into(), "bytes=-0".into()] {
        let answer = pod.get(&[("range", &range)]).await;
        assert_eq!(answer.status(), 416, "{range}");
        assert_eq!(header(&answer, "content-range"), Some(format!("bytes */{length}")));
        let sentence = format!("the range is outside of the pod's {length} bytes");
        assert_eq!(answer.json::<Value>().await.unwrap()["error"], sentence);
    }
}

#[tokio::test]
async fn several_ranges_and_what_is_no_range() {
    let pod = Stored::new().await;
    for range in [
        "bytes=0-1,5-6",
        "bytes=0-1, 999999-",
        "lines=0-1",
        "bytes=",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=5",
        "bytes=--1",
    ] {
        let answer = pod.get(&[("range", range)]).await;
        assert_eq!(answer.status(), 200, "{range}");
        assert_eq!(header(&answer, "content-range"), None);
        assert_eq!(answer.text().await.unwrap(), pod.html);
    }
}

#[tokio::test]
async fn if_range() {
    let pod = Stored::new().await;
    let etag = pod.etag().await;
    for (condition, status) in [
        (etag.clone(), 206),
        ("\"other\"".into(), 200),
        (format!("W/{etag}"), 200),
        ("Tue, 24 Nov 2026 05:24:00 GMT".into(), 200),
        // What cannot be read is no match.
        (etag.trim_matches('"').into(), 200),
        ("".into(), 200),
    ] {
        for range in ["bytes=0-9", "bytes=9999999-"] {
            let answer = pod.get(&[("range", range), ("if-range", &condition)]).await;
            let status = if status == 206 && range == "bytes=9999999-" { 416 } else { status };
            assert_eq!(answer.status(), status, "{condition} {range}");
        }
    }
}

#[tokio::test]
async fn head_tells_the_length_and_sends_nothing() {
    let pod = Stored::new().await;
    let get = pod.get(&[]).await;
    let head = pod.server.http.head(pod.url()).header("range", "bytes=0-9").send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "content-length"), Some(pod.html.len().to_string()));
    let without_date = |answer: &Response| {
        let mut headers = answer.headers().clone();
        headers.remove("date");
        headers
    };
    assert_eq!(without_date(&head), without_date(&get));

    // What comes on the wire behind the head is the answer to the next request.
    let mut raw = Raw::open(&pod.server.address).await;
    raw.send(&format!("HEAD /{} HTTP/1.1\nHost: broker\n\n", pod.slug)).await;
    assert_eq!(raw.status().await, 200);
    raw.send("GET / HTTP/1.1\nHost: broker\n\n").await;
    assert_eq!(raw.answer().await.body, "404 Not Found");
}

#[tokio::test]
async fn hits_are_the_gets() {
    let pod = Stored::new().await;
    assert_eq!(pod.hits().await, 0);
    pod.get(&[]).await;
    pod.get(&[]).await;
    assert_eq!(pod.hits().await, 2);
    pod.server.http.head(pod.url()).send().await.unwrap();
    assert_eq!(pod.hits().await, 2, "a HEAD is no hit");
    pod.get(&[("if-none-match", "*")]).await;
    assert_eq!(pod.hits().await, 3, "a visitor whose copy is still good is one");
    pod.server.http.get(pod.server.url("/aaaaaaaaaaaa")).send().await.unwrap();
    assert_eq!(pod.hits().await, 3);
}

#[tokio::test]
async fn the_policies_are_settings() {
    let toml = "[pods]\ncontent_security_policy = \"default-src 'self'\"\npermissions_policy = \"usb=()\"";
    let pod = Stored::with(toml).await;
    let answer = pod.get(&[]).await;
    assert_eq!(header(&answer, "content-security-policy").unwrap(), "default-src 'self'");
    assert_eq!(header(&answer, "permissions-policy").unwrap(), "usb=()");
    assert_eq!(header(&answer, "x-content-type-options").unwrap(), "nosniff");
}

#[tokio::test]
async fn a_query_makes_no_difference() {
    let pod = Stored::new().await;
    let answer = pod.server.http.get(pod.url() + "?utm_source=x").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), pod.html);
}
