//! `POST /pods` and the preflight before it.

use ed25519_dalek::Signer;
use serde_json::{Value, json};

use super::row::{Judged, Row};
use crate::support::{
    pod::{Pod, envelope},
    raw::ask,
    server::TestServer,
};

/// Posts `body`; status, type and body of the answer.
async fn post(content_type: Option<&str>, body: impl Into<reqwest::Body>) -> Value {
    let server = TestServer::start().await;
    let mut request = server.http.post(server.url("/pods")).body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let answer = request.send().await.unwrap();
    let (status, content_type) = (answer.status().as_u16(), header(&answer, "content-type"));
    let text = answer.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    json!({ "status": status, "type": content_type, "body": body })
}

async fn post_html_text(html: impl Into<String>) -> Value {
    post(Some("text/html"), html.into()).await
}

fn header(answer: &reqwest::Response, name: &str) -> Option<String> {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

/// A refusal by this broker, in the shape of a row.
fn refused(status: u16, sentence: &str) -> Value {
    json!({ "status": status, "type": "application/json", "body": { "error": sentence } })
}

/// A manifest that is some other text in place of base64.
fn html_with_base64(base64: &str) -> String {
    format!("<script>window.__GEMMAPOD_MANIFEST_B64 = \"{base64}\";</script>")
}

pub async fn post_html(row: Row) -> Judged {
    let server = TestServer::start().await;
    let pod = Pod::named("row");
    let answer = server.upload(pod.html()).await;
    let (status, allow, content_type) = (
        answer.status().as_u16(),
        header(&answer, "access-control-allow-origin"),
        header(&answer, "content-type"),
    );
    let text = answer.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    let id = body["id"].as_str().unwrap();
    row.matches(json!({
        "status": status,
        "keys": super::downloads::keys_in_order(&text),
        "idOk": id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "urlOk": body["url"] == server.url(&format!("/{id}")),
        "owner": body["ownerPubkey"] == pod.owner(),
        "size": body["blobSize"] == pod.html().len(),
        "access-control-allow-origin": allow,
        "content-type": content_type,
    }))
}

pub async fn post_plain(row: Row) -> Judged {
    let answer = post(Some("text/plain"), Pod::named("row").html()).await;
    row.matches(answer["status"].clone())
}

pub async fn post_json(row: Row) -> Judged {
    let body = json!({ "html": Pod::named("row").html() }).to_string();
    row.matches(post(Some("application/json"), body).await["status"].clone())
}

pub async fn post_json_nohtml(row: Row) -> Judged {
    row.matches(post(Some("application/json"), "{}").await)
}

pub async fn post_json_broken(row: Row) -> Judged {
    let here = post(Some("application/json"), "{\"html\":").await;
    row.mends(here, refused(400, "the body is not a JSON object with one field 'html'"))
}

pub async fn post_json_html_number(row: Row) -> Judged {
    let here = post(Some("application/json"), "{\"html\":5}").await;
    row.mends(here, refused(400, "expected the 'html' field to be a string"))
}

pub async fn post_ctype_none(row: Row) -> Judged {
    let here = post(None, Pod::named("row").html()).await;
    let expected = row.there_but("/status", 415);
    row.mends(here, expected)
}

pub async fn post_ctype_other(row: Row) -> Judged {
    let here = post(Some("application/octet-stream"), Pod::named("row").html()).await;
    let expected = row.there_but("/status", 415);
    row.mends(here, expected)
}

pub async fn post_empty(row: Row) -> Judged {
    let expected = row.there_but("/status", 400);
    row.mends(post_html_text("").await, expected)
}

pub async fn post_nomanifest(row: Row) -> Judged {
    let expected = row.there_but("/status", 400);
    row.mends(post_html_text("<!doctype html><p>hello</p>").await, expected)
}

const NOT_BASE64: &str =
    "the manifest is not valid base64: expected the standard alphabet with padding, in double quotes";

pub async fn post_b64_bad(row: Row) -> Judged {
    row.mends(post_html_text(html_with_base64("!!!!")).await, refused(400, NOT_BASE64))
}

pub async fn post_b64_padding(row: Row) -> Judged {
    row.mends(post_html_text(html_with_base64("oWNzaW")).await, refused(400, NOT_BASE64))
}

async fn post_manifest(cbor: &[u8]) -> Value {
    post_html_text(Pod::named("row").html_around(cbor)).await
}

pub async fn post_cbor_bad(row: Row) -> Judged {
    let sentence = "the signed manifest is refused: it is not well-formed CBOR";
    row.mends(post_manifest(b"\xff\xff\xff").await, refused(400, sentence))
}

pub async fn post_cbor_empty_map(row: Row) -> Judged {
    let sentence = "the signed manifest is not as expected: missing field `sig`";
    row.mends(post_manifest(b"\xa0").await, refused(400, sentence))
}

pub async fn post_cbor_nested(row: Row) -> Judged {
    let nested = [[0x81; 10_000].as_slice(), b"\x00"].concat();
    row.mends(
        post_manifest(&nested).await,
        refused(400, "the signed manifest is refused: it nests too deeply"),
    )
}

/// The signature is that of another payload.
pub async fn post_sig_tampered(row: Row) -> Judged {
    let signed = Pod::named("row");
    let signature = signed.key.sign(&signed.payload());
    let tampered = signed.with("system_prompt", Some("be evil".into()));
    row.matches(post_manifest(&envelope(&signature.to_bytes(), &tampered.payload())).await)
}

pub async fn post_owner_not_signer(row: Row) -> Judged {
    let other = Pod::named("other");
    let pod = Pod::named("row").with("owner_pubkey", Some(other.owner().into()));
    row.matches(post_html_text(pod.html()).await)
}

pub async fn post_owner_not_hex(row: Row) -> Judged {
    let pod = Pod::named("row").with("owner_pubkey", Some("not hex".into()));
    row.matches(post_html_text(pod.html()).await)
}

pub async fn post_extra_fields(row: Row) -> Judged {
    let pod = Pod::named("row").with("events", Some(ciborium::Value::Array(vec!["anything".into()])));
    row.matches(post_html_text(pod.html()).await["status"].clone())
}

pub async fn post_two_manifests(row: Row) -> Judged {
    let html = Pod::named("first").html() + &Pod::named("second").html();
    let here = post_html_text(html).await;
    let sentence = "the pod assigns __GEMMAPOD_MANIFEST_B64 more than once; expected exactly one manifest";
    row.mends(here, refused(400, sentence))
}

/// The reference's row is what four characters, nine bytes of UTF-8, add to either figure.
pub async fn post_nonascii_blobsize(row: Row) -> Judged {
    let server = TestServer::start().await;
    let pod = Pod::named("row");
    let plain = pod.html();
    let answer: Value = server.upload(plain.clone() + "äöü€").await.json().await.unwrap();
    let meta = server.url(&format!("/{}/meta", answer["id"].as_str().unwrap()));
    let meta: Value = server.http.get(meta).send().await.unwrap().json().await.unwrap();
    let added = |body: &Value| body["blobSize"].as_u64().unwrap() - plain.len() as u64;
    let expected = row.there_but("/reply", row.there["meta"].clone());
    row.mends(json!({ "reply": added(&answer), "meta": added(&meta) }), expected)
}

/// Only the head is sent: the answer is there before there is a body.
pub async fn post_51mb(row: Row) -> Judged {
    let server = TestServer::start().await;
    let length = 51 << 20;
    let head = format!("POST /pods HTTP/1.1\nHost: x\nContent-Type: text/html\nContent-Length: {length}\n\n");
    let answer = ask(&server.address, &head).await;
    let here = json!({
        "status": answer.status.as_u16(),
        "type": answer.header("content-type"),
        "body": answer.json(),
    });
    row.mends(here, refused(413, "blob too large: this broker takes at most 52428800 bytes"))
}

pub async fn post_forwarded(row: Row) -> Judged {
    let server = TestServer::with("public_url = \"https://pods.example\"").await;
    let request = server.http.post(server.url("/pods")).header("content-type", "text/html");
    let request = request.header("x-forwarded-proto", "https").header("x-forwarded-host", "forged.example");
    let body: Value = request.body(Pod::named("row").html()).send().await.unwrap().json().await.unwrap();
    let (base, _slug) = body["url"].as_str().unwrap().rsplit_once('/').unwrap();
    row.mends(base, "https://pods.example")
}

pub async fn options_pods(row: Row) -> Judged {
    let server = TestServer::start().await;
    let preflight = server.http.request(reqwest::Method::OPTIONS, server.url("/pods"));
    let preflight = preflight
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let answer = preflight.send().await.unwrap();
    let mut here = json!({ "status": answer.status().as_u16() });
    for name in
        ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"]
    {
        here[name] = header(&answer, name).into();
    }
    row.matches(here)
}
