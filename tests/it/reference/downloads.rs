//! `GET` of everything but the socket: health, pods, what is known of them, and paths that lead nowhere.

use std::fmt;

use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, json};

use super::row::{Judged, Row};
use crate::support::{
    pod::{Pod, hex},
    raw::ask,
    server::TestServer,
};
use sha2::{Digest, Sha256};

/// The fields of a JSON object as they stand in its text.
pub fn keys_in_order(json: &str) -> Vec<String> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut keys = Vec::new();
            while let Some((key, IgnoredAny)) = map.next_entry()? {
                keys.push(key);
            }
            Ok(keys)
        }
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Keys).unwrap()
}

/// A pod of exactly as many bytes as the one that the reference was asked for.
fn pod_of(bytes: usize) -> Pod {
    let mut pod = Pod::named("row");
    let missing = bytes.checked_sub(pod.html().len()).expect("the pod of the reference is larger");
    pod.after.push_str(&" ".repeat(missing));
    assert_eq!(pod.html().len(), bytes);
    pod
}

/// What `answer` holds of the headers that the row tells of.
fn fill_headers(mut here: Value, row: &Row, answer: &reqwest::Response) -> Value {
    for name in row.there.as_object().unwrap().keys() {
        if here.get(name).is_none() {
            here[name] = answer.headers().get(name).map(|value| value.to_str().unwrap()).into();
        }
    }
    here
}

pub async fn health_shape(row: Row) -> Judged {
    let server = TestServer::start().await;
    let answer = server.http.get(server.url("/health")).send().await.unwrap();
    let here = fill_headers(
        json!({
            "status": answer.status().as_u16(),
            "type": answer.headers()["content-type"].to_str().unwrap(),
            "body": null,
        }),
        &row,
        &answer,
    );
    let text = answer.text().await.unwrap();
    assert_eq!(keys_in_order(&text), ["ok", "origins", "sessions", "registry"]);
    let mut here = here;
    here["body"] = serde_json::from_str(&text).unwrap();
    row.matches(here)
}

pub async fn get_pod(row: Row) -> Judged {
    let server = TestServer::start().await;
    let pod = pod_of(row.there["content-length"].as_str().unwrap().parse().unwrap());
    let slug = server.store(pod.html()).await;
    let answer = server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap();
    let here = json!({ "status": answer.status().as_u16(), "same": null });
    let mut here = fill_headers(here, &row, &answer);
    here["same"] = (answer.text().await.unwrap() == pod.html()).into();
    let mut expected = row.there_but("/x-pod-owner", pod.owner());
    expected["etag"] = format!("\"{}\"", hex(&Sha256::digest(pod.html()))).into();
    expected["vary"] = "accept-encoding".into();
    expected["content-security-policy"] =
        lets_the_fallback_start(row.there["content-security-policy"].as_str().unwrap()).into();
    row.mends(here, expected)
}

/// The policy of the reference and the two sources without which it blocks the model in the browser.
fn lets_the_fallback_start(policy: &str) -> String {
    let script = ("'wasm-unsafe-eval' https://cdn", "'wasm-unsafe-eval' blob: https://cdn");
    let models = ("stun: https://cdn", "stun: https://gemmapod.com/api/browser-models https://cdn");
    [script, models].into_iter().fold(policy.to_owned(), |policy, (there, here)| {
        assert_eq!(policy.matches(there).count(), 1, "{policy}");
        policy.replace(there, here)
    })
}

pub async fn get_pod_304(row: Row) -> Judged {
    let server = TestServer::start().await;
    let url = server.url(&format!("/{}", server.store(Pod::named("row").html()).await));
    let first = server.http.get(&url).send().await.unwrap();
    let second =
        server.http.get(&url).header("if-none-match", &first.headers()["etag"]).send().await.unwrap();
    row.mends(second.status().as_u16(), 304)
}

pub async fn get_pod_range(row: Row) -> Judged {
    let server = TestServer::start().await;
    let html = Pod::named("row").html();
    let url = server.url(&format!("/{}", server.store(html.clone()).await));
    let answer = server.http.get(url).header("range", "bytes=0-9").send().await.unwrap();
    let here = fill_headers(json!({ "status": answer.status().as_u16() }), &row, &answer);
    assert_eq!(answer.text().await.unwrap(), html[..10]);
    row.mends(here, json!({ "status": 206, "content-range": format!("bytes 0-9/{}", html.len()) }))
}

pub async fn get_pod_encoding(row: Row) -> Judged {
    let server = TestServer::start().await;
    let html = pod_of(100_000).html();
    let url = server.url(&format!("/{}", server.store(html.clone()).await));
    let here = fill_headers(json!({}), &row, &server.compressed(&url, &html).await);
    row.mends(here, json!({ "content-encoding": "gzip" }))
}

pub async fn head_pod(row: Row) -> Judged {
    let server = TestServer::start().await;
    let pod = pod_of(row.there["content-length"].as_str().unwrap().parse().unwrap());
    let slug = server.store(pod.html()).await;
    let answer = server.http.head(server.url(&format!("/{slug}"))).send().await.unwrap();
    let here = fill_headers(json!({ "status": answer.status().as_u16() }), &row, &answer);
    row.matches(here)
}

pub async fn get_meta(row: Row) -> Judged {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("row").html()).await;
    let answer = server.http.get(server.url(&format!("/{slug}/meta"))).send().await.unwrap();
    let here = json!({ "status": answer.status().as_u16(), "keys": null, "createdAt": null });
    let mut here = fill_headers(here, &row, &answer);
    let text = answer.text().await.unwrap();
    here["keys"] = keys_in_order(&text).into();
    let body: Value = serde_json::from_str(&text).unwrap();
    here["createdAt"] = is_iso8601_millis(body["createdAt"].as_str().unwrap()).into();
    row.matches(here)
}

/// As `toISOString` writes times: 2026-11-24T05:24:00.123Z.
fn is_iso8601_millis(time: &str) -> bool {
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

pub async fn hits_counted(row: Row) -> Judged {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("row").html()).await;
    for _ in 0..row.there.as_u64().unwrap() {
        server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap();
    }
    let meta = server.http.get(server.url(&format!("/{slug}/meta"))).send().await.unwrap();
    row.matches(meta.json::<Value>().await.unwrap()["hits"].clone())
}

/// Asks for `path` as it stands: a proper client would tidy it up.
async fn leads_nowhere(row: Row, server: &TestServer, path: &str) -> Judged {
    let answer = ask(&server.address, &format!("GET {path} HTTP/1.1\nHost: x\n\n")).await;
    row.matches(json!({ "status": answer.status.as_u16(), "body": answer.body }))
}

pub async fn get(row: Row) -> Judged {
    leads_nowhere(row, &TestServer::start().await, "/").await
}

pub async fn get_aaaaaaaaaaaa(row: Row) -> Judged {
    leads_nowhere(row, &TestServer::start().await, "/aaaaaaaaaaaa").await
}

pub async fn get_short(row: Row) -> Judged {
    leads_nowhere(row, &TestServer::start().await, "/short").await
}

pub async fn get_aaaaaaaaaaaa_meta(row: Row) -> Judged {
    leads_nowhere(row, &TestServer::start().await, "/aaaaaaaaaaaa/meta").await
}

pub async fn get_id(row: Row) -> Judged {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("row").html()).await;
    leads_nowhere(row, &server, &format!("/{slug}/")).await
}

pub async fn get_favicon_ico(row: Row) -> Judged {
    leads_nowhere(row, &TestServer::start().await, "/favicon.ico").await
}

pub async fn get_etc_passwd(row: Row) -> Judged {
    leads_nowhere(row, &TestServer::start().await, "/../etc/passwd").await
}

pub async fn get_2e_2e_x(row: Row) -> Judged {
    leads_nowhere(row, &TestServer::start().await, "/%2e%2e/x").await
}

pub async fn get_pods(row: Row) -> Judged {
    let server = TestServer::start().await;
    row.matches(server.http.get(server.url("/pods")).send().await.unwrap().status().as_u16())
}

pub async fn delete_pod_anonymous(row: Row) -> Judged {
    let server = TestServer::start().await;
    let url = server.url(&format!("/{}", server.store(Pod::named("row").html()).await));
    let refused = server.http.delete(&url).send().await.unwrap();
    assert_eq!(server.http.get(&url).send().await.unwrap().status(), 200, "the pod is still there");
    row.mends(refused.status().as_u16(), 401)
}

pub async fn get_signal_plain(row: Row) -> Judged {
    let server = TestServer::start().await;
    let answer = ask(&server.address, "GET /signal HTTP/1.1\nHost: x\n\n").await;
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let here = json!({
        "status": answer.status.as_u16(),
        "type": answer.header("content-type"),
        "body": answer.json(),
    });
    row.mends(
        here,
        json!({
            "status": 426,
            "type": "application/json",
            "body": { "error": "expected an upgrade to websocket" },
        }),
    )
}
