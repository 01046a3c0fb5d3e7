//! How much may be kept: of all, of one owner key, of one address and day.

use gemmapod_signal::{MemoryRegistry, RedbRegistry, SignalServer};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{
    pod::Pod,
    server::{TestServer, config},
    signed,
};

/// A broker with either registry, behind a proxy, so that a test can be any client.
async fn servers(toml: &str) -> Vec<(TestServer, Option<tempfile::TempDir>)> {
    let toml = format!("trusted_proxies = [\"127.0.0.1\"]\n{toml}");
    let directory = tempfile::tempdir().unwrap();
    let registry = RedbRegistry::open(directory.path()).unwrap();
    let durable = signed::server(SignalServer::builder().config(config(&toml)).registry(registry)).await;
    let memory = MemoryRegistry::new(64 << 20);
    let memory = signed::server(SignalServer::builder().config(config(&toml)).registry(memory)).await;
    vec![(memory, None), (durable, Some(directory))]
}

/// An upload that the owner signed.
async fn upload(server: &TestServer, address: &str, pod: &Pod) -> Response {
    let html = pod.html();
    let signature = signed::signature(server, pod, &html);
    let request = server.http.post(server.url("/pods")).header("x-forwarded-for", address).headers(signature);
    request.header("content-type", "text/html").body(html).send().await.unwrap()
}

async fn upload_unsigned(server: &TestServer, address: &str, pod: &Pod) -> Response {
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
        let sentence = "this broker is full: it keeps 5 pods at most";
        refused(upload(&server, "192.0.2.1", &Pod::named("c")).await, 507, sentence).await;
        // Quotas change while the broker runs.
        server.handle.reload(config("trusted_proxies = [\"127.0.0.1\"]\n[quotas]\npods = 6"));
        taken(&server, &pod).await;
        refused(
            upload(&server, "192.0.2.1", &pod).await,
            507,
            "this broker is full: it keeps 6 pods at most",
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
        let sentence = "this pod would exceed this broker's storage quota of 250000 bytes";
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

/// Somebody who has the owner's manifest spends nothing of the owner's, and is bounded by their own address.
#[tokio::test]
async fn an_unsigned_pod_counts_for_its_address_alone() {
    let toml = "[quotas]\npods_per_owner = 2\nbytes_per_owner = \"100 KB\"\npods_per_address_and_day = 5\n\
        [limits]\nuploads_per_owner = \"1/day burst 2\"";
    for (server, _directory) in servers(toml).await {
        let pod = Pod::named("p").padded(40_000);
        for host in [1, 2] {
            for _ in 0..5 {
                let address = format!("192.0.2.{host}");
                assert_eq!(upload_unsigned(&server, &address, &pod).await.status(), 200);
            }
        }
        let sentence = "your address has uploaded as much as it may in a day; try again later";
        refused(upload_unsigned(&server, "192.0.2.1", &pod).await, 429, sentence).await;
        for _ in 0..2 {
            assert_eq!(
                upload(&server, "192.0.2.9", &pod).await.status(),
                200,
                "the owner has both quotas whole"
            );
        }
        let sentence = "too many uploads of this owner key; try again later";
        refused(upload(&server, "192.0.2.9", &pod).await, 429, sentence).await;
        server.stop().await;
    }
}

/// For each refusal after a pod was verified: it costs neither the address its day nor the owner key its rate.
#[tokio::test]
async fn what_is_not_stored_is_not_charged() {
    let day = "pods_per_address_and_day = 3\nbytes_per_address_and_day = \"300 KiB\"";
    let rate = "[limits]\nuploads_per_owner = \"1/day burst 3\"";
    for (quota, status) in [("pods = 1", 507), ("bytes = \"50 KB\"", 507), ("pods_per_owner = 1", 403)] {
        for (server, _directory) in servers(&format!("[quotas]\n{quota}\n{day}\n{rate}")).await {
            let pod = Pod::named("p").padded(40_000);
            assert_eq!(upload(&server, "192.0.2.1", &pod).await.status(), 200);
            let another = Pod::signed_by(pod.key.clone(), "q").padded(40_000);
            for _ in 0..20 {
                assert_eq!(upload(&server, "192.0.2.1", &another).await.status(), status, "{quota}");
            }
            let roomier = format!("trusted_proxies = [\"127.0.0.1\"]\n[quotas]\n{day}\n{rate}");
            server.handle.reload(config(&roomier));
            for _ in 0..2 {
                assert_eq!(upload(&server, "192.0.2.1", &another).await.status(), 200, "{quota}");
            }
            assert_eq!(upload(&server, "192.0.2.1", &another).await.status(), 429, "{quota}");
            server.stop().await;
        }
    }
}

/// The same for uploads that nobody signed: the address has its day still.
#[tokio::test]
async fn an_unsigned_pod_that_is_not_stored_is_not_charged() {
    let day = "pods_per_address_and_day = 3";
    for (server, _directory) in servers(&format!("[quotas]\npods = 1\n{day}")).await {
        let pod = Pod::named("p");
        assert_eq!(upload_unsigned(&server, "192.0.2.1", &pod).await.status(), 200);
        for _ in 0..20 {
            assert_eq!(upload_unsigned(&server, "192.0.2.1", &pod).await.status(), 507);
        }
        server.handle.reload(config(&format!("trusted_proxies = [\"127.0.0.1\"]\n[quotas]\n{day}")));
        for status in [200, 200, 429] {
            assert_eq!(upload_unsigned(&server, "192.0.2.1", &pod).await.status(), status);
        }
        server.stop().await;
    }
}
