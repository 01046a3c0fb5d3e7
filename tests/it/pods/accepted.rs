//! Pods that are taken, in whichever form the manifest stands in them.

use serde_json::{Value, json};

use super::cors::clients;
use crate::support::{
    pod::{Pod, hex},
    server::TestServer,
};

/// Uploads a pod that must be taken; the answer.
async fn taken(server: &TestServer, html: impl Into<reqwest::Body>) -> Value {
    let answer = server.upload(html).await;
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn ways_to_write_the_assignment() {
    let server = TestServer::start().await;
    let html = Pod::named("pod").html();
    let assignment = "window.__GEMMAPOD_MANIFEST_B64 = ";
    assert!(html.contains(assignment));
    for way in [
        "window.__GEMMAPOD_MANIFEST_B64=",
        "window[\"__GEMMAPOD_MANIFEST_B64\"] = ",
        "window['__GEMMAPOD_MANIFEST_B64'] = ",
        "window[`__GEMMAPOD_MANIFEST_B64`]=",
        "let __GEMMAPOD_MANIFEST_B64\n\t=\n\t",
        "globalThis.__GEMMAPOD_MANIFEST_B64 = ",
    ] {
        taken(&server, html.replace(assignment, way)).await;
    }
}

/// The shim in every pod reads the manifest; only what assigns it counts.
#[tokio::test]
async fn ways_to_read_the_manifest_do_not_count() {
    let server = TestServer::start().await;
    let html = Pod::named("pod").html();
    for read in [
        "atob(window.__GEMMAPOD_MANIFEST_B64)",
        "if (window.__GEMMAPOD_MANIFEST_B64 == \"AAAA\") {}",
        "if (window.__GEMMAPOD_MANIFEST_B64 === \"AAAA\") {}",
        "if (window[\"__GEMMAPOD_MANIFEST_B64\"] == null) {}",
        "if (window.__GEMMAPOD_MANIFEST_B64 !== \"AAAA\") {}",
        "const b64 = window.__GEMMAPOD_MANIFEST_B64;",
        "throw \"__GEMMAPOD_MANIFEST_B64 is missing\"",
    ] {
        let script = format!("<script>{read}</script>");
        taken(&server, format!("{html}{script}")).await;
        taken(&server, format!("{script}{html}")).await;
    }
}

#[tokio::test]
async fn an_owner_key_in_upper_case_is_told_in_lower_case() {
    let server = TestServer::start().await;
    let pod = Pod::named("pod");
    let shouting = pod.clone().with("owner_pubkey", Some(pod.owner().to_uppercase().into()));
    let answer = taken(&server, shouting.html()).await;
    assert_eq!(answer["ownerPubkey"], pod.owner());
    let url = server.url(&format!("/{}", answer["id"].as_str().unwrap()));
    assert_eq!(server.http.get(url).send().await.unwrap().headers()["x-pod-owner"], *pod.owner());
}

#[tokio::test]
async fn a_name_of_1024_bytes_and_what_is_told_of_it() {
    let server = TestServer::start().await;
    let name = "ü".repeat(512);
    let pod = Pod::named("pod").with("name", Some(name.clone().into()));
    let answer = taken(&server, pod.html()).await;
    let url = server.url(&format!("/{}/meta", answer["id"].as_str().unwrap()));
    let meta: Value = server.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(meta["name"], name);
    assert_eq!(meta["ownerPubkey"], pod.owner());
    assert_eq!(meta["manifestSize"], pod.signed_manifest().len());
    assert_eq!(meta["blobSize"], pod.html().len());
    assert_eq!(meta["hits"], 0);
}

/// A pod whose signed manifest has `size` bytes. A byte takes one byte of CBOR if it is below 24 and else two, those of the
/// signature too: so it takes a few signatures.
fn pod_with_manifest_of(size: usize) -> Pod {
    let mut room = size - 1_000;
    loop {
        let text = "x".repeat(room / 2) + &"\n".repeat(room % 2);
        let pod = Pod::named("p").with("system_prompt", Some(ciborium::Value::Text(text)));
        match pod.signed_manifest().len() {
            found if found == size => return pod,
            found => room = room + size - found,
        }
    }
}

#[tokio::test]
async fn a_manifest_of_exactly_the_limit() {
    const LIMIT: usize = 256 << 10;
    let server = TestServer::start().await;
    for size in [LIMIT - 1, LIMIT] {
        taken(&server, pod_with_manifest_of(size).html()).await;
    }
    let answer = server.upload(pod_with_manifest_of(LIMIT + 1).html()).await;
    assert_eq!(answer.status(), 413);
    let sentence = "the manifest is larger than 262144 bytes";
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "error": sentence }));
}

#[tokio::test]
async fn the_same_pod_twice_is_two_pods() {
    let server = TestServer::start().await;
    let html = Pod::named("pod").html();
    let (one, two) = (taken(&server, html.clone()).await, taken(&server, html).await);
    assert_ne!(one["id"], two["id"]);
}

#[tokio::test]
async fn html_comes_back_byte_for_byte() {
    let server = TestServer::start().await;
    let odd = "äöü€😀 \u{feff}\r\n\n\u{0}\u{7f}\u{2028}</script>&amp;<!-- -->";
    let html = format!("\u{feff}{}{odd}", Pod::named("pod").html());
    let slug = taken(&server, html.clone()).await["id"].as_str().unwrap().to_owned();
    let served = server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap();
    assert_eq!(hex(&served.bytes().await.unwrap()), hex(html.as_bytes()));

    let json = json!({ "html": html }).to_string();
    let post = server.http.post(server.url("/pods")).header("content-type", "application/json").body(json);
    let answer: Value = post.send().await.unwrap().json().await.unwrap();
    let url = server.url(&format!("/{}", answer["id"].as_str().unwrap()));
    assert_eq!(server.http.get(url).send().await.unwrap().text().await.unwrap(), html);
}

/// A byte order mark before JSON says nothing; one before or within the HTML is part of it.
#[tokio::test]
async fn json_with_a_byte_order_mark() {
    let server = TestServer::start().await;
    for client in clients() {
        for html in [Pod::named("pod").html(), format!("\u{feff}{}\u{feff}", Pod::named("pod").html())] {
            for json in [json!({ "html": html }).to_string(), format!(" \n{}", json!({ "html": html }))] {
                let post = client.post(server.url("/pods")).header("content-type", "application/json");
                let answer = post.body(format!("\u{feff}{json}")).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{json}");
                let answer: Value = answer.json().await.unwrap();
                let url = server.url(&format!("/{}", answer["id"].as_str().unwrap()));
                let served = client.get(url).send().await.unwrap().bytes().await.unwrap();
                assert_eq!(hex(&served), hex(html.as_bytes()));
            }
        }
        let two = format!("\u{feff}\u{feff}{}", json!({ "html": Pod::named("pod").html() }));
        let post = client.post(server.url("/pods")).header("content-type", "application/json").body(two);
        assert_eq!(post.send().await.unwrap().status(), 400, "one mark is one too few to excuse two");
    }
}
