//! The examples do what they show.

mod support;

#[allow(dead_code, reason = "its main is not what is tried here")]
#[path = "../examples/custom_registry.rs"]
mod custom_registry;
#[path = "../examples/embed.rs"]
mod embed;

use std::fs;

use gemmapod_signal::SignalServer;
use support::{pod::Pod, server::TestServer};

#[test]
fn the_embedding_program_serves_and_stops() {
    embed::main().unwrap();
}

#[tokio::test]
async fn the_registry_of_plain_files_keeps_pods_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let registry = || custom_registry::Directory(directory.path().into());
    let start = async || {
        TestServer::from(SignalServer::builder().config(support::server::config("")).registry(registry()))
            .await
    };
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
