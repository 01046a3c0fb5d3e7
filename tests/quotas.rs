//! How much may be kept: of all, of one owner key, of one address and day.

mod support;

use gemmapod_signal::{RedbRegistry, SignalServer};
use reqwest::Response;
use serde_json::{Value, json};
use support::{
    pod::Pod,
    server::{TestServer, config},
};

/// A broker with either registry, behind a proxy, so that a test can be any client.
async fn servers(toml: &str) -> Vec<(TestServer, Option<tempfile::TempDir>)> {
    let toml = format!("trusted_proxies = [\"127.0.0.1\"]\n{toml}");
    let directory = tempfile::tempdir().unwrap();
    let registry = RedbRegistry::open(directory.path()).unwrap();
    let durable = TestServer::from(SignalServer::builder().config(config(&toml)).registry(registry)).await;
    vec![(TestServer::with(&toml).await, None), (durable, Some(directory))]
}

async fn upload(server: &TestServer, address: &str, pod: &Pod) -> Response {
    let request = server.http.post(server.url("/pods")).header("x-forwarded-for", address);
    request.header("content-type", "text/html").body(pod.html()).send().await.unwrap()
}

async fn refused(response: Response, status: u16, sentence: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "error": sentence }));
}

async fn taken(server: &TestServer, pod: &Pod) -> String {
    let response = upload(server, "192.0.2.1", pod).await;
    assert_eq!(response.status(), 200);
    response.json::<Value>().await.unwrap()["id"].as_str().unwrap().into()
}

#[tokio::test]
async fn pods_in_all_and_of_one_owner() {
    for (server, _directory) in servers("[quotas]\npods = 5\npods_per_owner = 3").await {
        let pod = Pod::named("p");
        for _ in 0..3 {
            taken(&server, &pod).await;
        }
        let sentence = "this owner key has as many pods here as it may, which is 3: delete one first";
        refused(upload(&server, "192.0.2.1", &pod).await, 403, sentence).await;
        for name in ["a", "b"] {
            taken(&server, &Pod::named(name)).await;
        }
        let sentence = "this broker keeps as many pods as it may, which is 5";
        refused(upload(&server, "192.0.2.1", &Pod::named("c")).await, 507, sentence).await;
        // Quotas change while the broker runs.
        server.handle.reload(config("trusted_proxies = [\"127.0.0.1\"]\n[quotas]\npods = 6"));
        taken(&server, &pod).await;
        refused(
            upload(&server, "192.0.2.1", &pod).await,
            507,
            "this broker keeps as many pods as it may, which is 6",
        )
        .await;
        server.stop().await;
    }
}

#[tokio::test]
async fn bytes_in_all_and_of_one_owner() {
    for (server, directory) in servers("[quotas]\nbytes = \"250 KB\"\nbytes_per_owner = \"150 KB\"").await {
        let key = Pod::named("p").key;
        let pod = |name: &str| Pod::signed_by(key.clone(), name).padded(70_000);
        taken(&server, &pod("a")).await;
        taken(&server, &pod("b")).await;
        let sentence = "the pods of this owner key may take 150000 bytes here, and would take more with this one: delete one first";
        refused(upload(&server, "192.0.2.1", &pod("c")).await, 403, sentence).await;
        if directory.is_some() {
            // The same bytes are kept once.
            taken(&server, &pod("a")).await;
        }
        taken(&server, &Pod::named("other").padded(70_000)).await;
        let sentence = "this broker keeps as much as it may, which is 250000 bytes, or would with this pod";
        refused(upload(&server, "192.0.2.1", &Pod::named("more").padded(70_000)).await, 507, sentence).await;
        if let Some(directory) = directory {
            let files = std::fs::read_dir(directory.path().join("blobs")).unwrap();
            assert_eq!(files.count(), 3, "what was refused leaves nothing");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn pods_and_bytes_of_an_address_and_day() {
    let toml = "[quotas]\npods_per_address_and_day = 3\nbytes_per_address_and_day = \"200 KiB\"";
    for (server, _directory) in servers(toml).await {
        for _ in 0..3 {
            taken(&server, &Pod::named("p")).await;
        }
        let refusal = upload(&server, "192.0.2.1", &Pod::named("p")).await;
        let policy = refusal.headers()["ratelimit-policy"].to_str().unwrap().to_owned();
        assert_eq!(policy, "\"pods-per-address-and-day\";q=3;w=86400");
        let wait: u64 = refusal.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((28_700..=28_800).contains(&wait), "{wait}: a third of a day, in which one is free again");
        let sentence = "your address has uploaded as much as it may in a day; try again later";
        refused(refusal, 429, sentence).await;
        let large = Pod::named("q").padded(150_000);
        assert_eq!(upload(&server, "192.0.2.2", &large).await.status(), 200);
        let refusal = upload(&server, "192.0.2.2", &large).await;
        let policy = refusal.headers()["ratelimit-policy"].to_str().unwrap().to_owned();
        assert_eq!(policy, "\"bytes-per-address-and-day\";q=204800;w=86400;qu=\"content-bytes\"");
        refused(refusal, 429, sentence).await;
        assert_eq!(upload(&server, "192.0.2.3", &large).await.status(), 200);
        server.stop().await;
    }
}
