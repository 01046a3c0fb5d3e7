//! The examples do what they show.

#[allow(dead_code, reason = "its main is not what is tried here")]
#[path = "../../examples/custom_registry.rs"]
mod custom_registry;
#[path = "../../examples/embed.rs"]
mod embed;

use std::{
    fs,
    time::{Duration, SystemTime},
};

use gemmapod_signal::{
    Clock, SignalServer,
    owner::{
        components::Parts,
        key::OwnerSecret,
        signature,
        token::{self, TokenRequest},
    },
};
use reqwest::{Method, header::HeaderMap};
use serde_json::json;

use crate::support::{
    pod::Pod,
    server::{TestServer, config},
};

#[test]
fn the_embedding_program_serves_and_stops() {
    embed::main().unwrap();
}

#[tokio::test]
async fn the_registry_of_plain_files_keeps_pods_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let registry = || custom_registry::Directory(directory.path().into());
    let start =
        async || TestServer::from(SignalServer::builder().config(config("")).registry(registry())).await;
    let server = start().await;
    let html = Pod::named("plain").html();
    let slug = server.store(html.clone()).await;
    assert_eq!(fs::read_to_string(directory.path().join(format!("{slug}.html"))).unwrap(), html);
    server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap();
    assert_eq!(server.health().await["registry"], "directory");
    server.stop().await;

    let server = start().await;
    let body = server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap().text().await.unwrap();
    assert_eq!(body, html);
    let meta = server.http.get(server.url(&format!("/{slug}/meta"))).send().await.unwrap();
    assert_eq!(meta.json::<serde_json::Value>().await.unwrap()["hits"], 2);
    server.stop().await;
}

/// It does not bring what owners need, which is said, and makes nothing unsafe.
#[tokio::test]
async fn a_registry_without_versions_and_bindings_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let registry = custom_registry::Directory(directory.path().into());
    let settings = "public_url = \"https://pods.example.org\"\n[signal]\ntakeover_timeout = \"1h\"";
    let clock = Clock::default();
    let builder = SignalServer::builder().config(config(settings)).registry(registry);
    let server = TestServer::from(builder.clock(clock.clone())).await;
    clock.pass(Duration::from_secs(20));
    let now = SystemTime::now() + Duration::from_secs(20);
    let pod = Pod::named("plain");
    let secret = OwnerSecret::from_bytes(pod.key.as_bytes());
    let (slug, html) = (server.store(pod.html()).await, pod.html());
    let (path, none) = (format!("/{slug}"), HeaderMap::new());
    let origin = "https://pods.example.org";
    let signed = |method: &Method, nonce: &str, body: Option<&[u8]>| -> HeaderMap {
        let parts = Parts { method, origin, path_and_query: &path, headers: &none };
        signature::sign(&secret, &parts, body, nonce, now).into_iter().collect()
    };
    let put = server.http.put(server.url(&path)).headers(signed(&Method::PUT, "1", Some(html.as_bytes())));
    let put = put
        .header("host", "pods.example.org")
        .header("content-type", "text/html")
        .body(html)
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 501);
    assert_eq!(put.text().await.unwrap(), r#"{"error":"this broker's registry cannot replace a pod"}"#);

    // Nothing binds the pod id to the key: its token replaces nobody.
    let lifetime = Duration::from_mins(5);
    let request = TokenRequest { pod_id: "pod", audience: origin, lifetime, once: None };
    let token = token::issue(&secret, &request, now).unwrap();
    let mut holder = server.origin("pod").await;
    let mut newcomer = server.connect().await;
    newcomer.send(json!({ "t": "register", "podId": "pod", "ownerToken": token })).await;
    tokio::select! {
        closed = newcomer.closed() => assert_eq!(closed, (4003, "pod id is held".into())),
        told = holder.receive() => panic!("the holder was told {told}"),
    }

    let delete = server.http.delete(server.url(&path)).headers(signed(&Method::DELETE, "2", None));
    let delete = delete.header("host", "pods.example.org");
    assert_eq!(delete.send().await.unwrap().status(), 204);
    server.stop().await;
}
