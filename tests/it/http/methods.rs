//! Methods: `HEAD` on every route, and limits for every method on every route.

use std::net::Ipv4Addr;

use futures_util::future::join_all;

use super::client::{Ask, VERSIONS, Version, head};
use crate::support::{pod::Pod, server::TestServer};

/// Paths of every route, of nothing, and of pods that are not there.
fn routes(slug: &str) -> Vec<String> {
    let (pod, meta) = (format!("/{slug}"), format!("/{slug}/meta"));
    let owner = ["pods", "credentials", "credentials/name", "pod-ids/pod"];
    let owner = owner.map(|rest| format!("/owner/{}/{rest}", "a".repeat(64)));
    let challenge = "/.well-known/acme-challenge/token".to_owned();
    let others = ["/", "/health", "/pods", "/signal", "/nothing/here", "/AAAAAAAAAAAA", "/AAAAAAAAAAAA/meta"];
    [pod, meta, challenge].into_iter().chain(owner).chain(others.map(Into::into)).collect()
}

#[tokio::test]
async fn head_is_get_without_a_body_on_every_route() {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("pod").html()).await;
    for path in routes(&slug) {
        for version in VERSIONS {
            let ask = async |method| Ask::new(method, &path).over(version, &server.address).await;
            let (first, get, second) = (ask("HEAD").await, ask("GET").await, ask("HEAD").await);
            assert_eq!(first.body, "", "{path} {version:?}");
            assert_eq!(head(&first), head(&get), "{path} {version:?}");
            assert_eq!(head(&second), head(&get), "{path} {version:?}");
            assert_eq!(
                get.header("content-length"),
                Some(&*get.body.len().to_string()),
                "{path} {version:?}"
            );
        }
    }
    let health = Ask::new("HEAD", "/health").over(Version::One, &server.address).await;
    assert_eq!(health.status, 200);
    server.stop().await;
}

/// The listener for all routes, and the one that leads from http to https.
const LISTENERS: &str = "trusted_proxies = [\"127.0.0.1\"]\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
    [[listen]]\naddress = \"127.0.0.1:0\"\npurpose = \"redirect\"\n";

#[tokio::test]
async fn no_method_on_any_path_escapes_the_limits() {
    let once = "reads_per_address = \"1/day\"\nuploads_per_address = \"1/day\"\nupgrades_per_address = \"1/day\"\n\
        uploads = \"off\"\nreads = \"off\"\nupgrades = \"off\"";
    let server = TestServer::with(&format!("{LISTENERS}[limits]\n{once}")).await;
    let slug = server.store(Pod::named("pod").html()).await;
    let mut paths = routes(&slug);
    let odd =
        ["//", "/health/", "/health?x", "/%68ealth", "/%73ignal", "/pod%73", "/.well-known/acme-challenge/"];
    paths.extend(odd.map(Into::into));
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE"];
    let pairs = paths.iter().flat_map(|path| methods.map(|method| (method, &**path)));
    let pairs: Vec<_> = pairs.chain([("OPTIONS", "*")]).collect();
    // Each pair is a client of its own.
    let mut clients = (0..).map(|n| Ipv4Addr::from_bits(0xc633_6400 + n).to_string());
    let mut asking = Vec::new();
    for address in &server.addresses {
        for version in VERSIONS {
            for &(method, path) in &pairs {
                // HTTP/2 has no way to ask for `*` with this client.
                if version == Version::Two && path == "*" {
                    continue;
                }
                let (client, address) = (clients.next().unwrap(), address.to_string());
                asking.push(async move {
                    let ask = Ask::new(method, path).field("x-forwarded-for", &client);
                    let first = ask.over(version, &address).await.status;
                    let second = ask.over(version, &address).await.status;
                    (first == 429 || second != 429)
                        .then(|| format!("{method} {path} {version:?} {first} {second}"))
                });
            }
        }
    }
    let mut escaped = Vec::new();
    while !asking.is_empty() {
        let some = asking.split_off(asking.len().saturating_sub(100));
        escaped.extend(join_all(some).await.into_iter().flatten());
    }
    assert!(escaped.is_empty(), "{escaped:#?}");
    server.stop().await;
}

#[tokio::test]
async fn options_counts_as_a_read() {
    let server = TestServer::with(
        "trusted_proxies = [\"127.0.0.1\"]\n[limits]\nreads_per_address = \"1/day burst 2\"",
    )
    .await;
    let ask = async |method, path| {
        let ask = Ask::new(method, path).field("x-forwarded-for", "192.0.2.1");
        ask.over(Version::One, &server.address).await
    };
    assert_eq!(ask("OPTIONS", "/pods").await.status, 204);
    assert_eq!(ask("GET", "/health").await.status, 200);
    let refused = ask("OPTIONS", "/pods").await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("ratelimit-policy").unwrap().starts_with("\"reads-per-address\""), "{refused:?}");
    server.stop().await;
}
