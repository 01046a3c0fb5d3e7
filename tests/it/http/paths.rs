//! Paths that are spelt with percent-encoded characters.

use reqwest::StatusCode;

use super::client::{Ask, VERSIONS, Version};
use crate::support::{
    pod::Pod,
    raw::{Raw, UPGRADE},
    server::TestServer,
};

/// Every spelling of `path` in which one character is percent-encoded, and the one in which all are.
fn spellings(path: &str) -> Vec<String> {
    let encode = |character: char, upper: bool| match (character, upper) {
        ('/', _) => "/".to_owned(),
        (_, false) => format!("%{:02x}", u32::from(character)),
        (_, true) => format!("%{:02X}", u32::from(character)),
    };
    let one = path.char_indices().filter(|(_, character)| *character != '/').map(|(at, character)| {
        format!("{}{}{}", &path[..at], encode(character, at % 2 == 0), &path[at + 1..])
    });
    one.chain([path.chars().map(|character| encode(character, false)).collect()]).collect()
}

#[tokio::test]
async fn an_encoded_unreserved_character_is_that_character() {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("pod").html()).await;
    let paths = [
        ("GET", "/health".to_owned(), 200),
        ("GET", format!("/{slug}"), 200),
        ("HEAD", format!("/{slug}"), 200),
        ("GET", format!("/{slug}/meta"), 200),
        ("GET", format!("/owner/{}/pods", "0a".repeat(32)), 401),
        ("GET", format!("/owner/{}/credentials", "0a".repeat(32)), 401),
        ("DELETE", format!("/owner/{}/credentials/host", "0a".repeat(32)), 401),
        ("PUT", format!("/owner/{}/pod-ids/pod", "0a".repeat(32)), 401),
        ("DELETE", format!("/{slug}"), 401),
        ("PUT", format!("/{slug}"), 401),
        ("OPTIONS", "/pods".to_owned(), 204),
        ("POST", "/pods".to_owned(), 415),
        ("GET", "/signal".to_owned(), 426),
    ];
    for (method, path, status) in &paths {
        for version in VERSIONS {
            for spelling in spellings(path) {
                let answer = Ask::new(method, &spelling).over(version, &server.address).await;
                assert_eq!(answer.status, *status, "{method} {spelling} {version:?}");
            }
        }
    }
    for spelling in spellings("/signal") {
        let mut raw = Raw::open(&server.address).await;
        raw.send(&UPGRADE.replace("/signal", &spelling)).await;
        assert_eq!(raw.status().await, StatusCode::SWITCHING_PROTOCOLS, "{spelling}");
    }
    server.stop().await;
}

#[tokio::test]
async fn nothing_else_is_another_spelling() {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("pod").html()).await;
    let paths = [
        "/%2fhealth",
        "/%2Fhealth",
        "//health",
        "/health/",
        "/health%2f",
        "/./health",
        "/%2e/health",
        "/%2e%2e/health",
        "/x/../health",
        "/x/%2E%2e/health",
        "/health%00",
        "/%00health",
        "/health%20",
        "/%20health",
        "/health%ff",
        "/%c3%28",
        "/%",
        "/health%",
        "/health%6",
        "/%2568ealth",
        "/HEALTH",
        "/health%3fx",
        "/health%23x",
        "/health;",
    ];
    let of_pod = [
        "/%2fSLUG",
        "//SLUG",
        "/SLUG/",
        "/SLUG%2f",
        "/SLUG%2fmeta",
        "/SLUG%2Fmeta",
        "/SLUG//meta",
        "/SLUG/meta/",
        "/SLUG/%2e",
        "/SLUG/.",
        "/./SLUG",
        "/x/../SLUG",
        "/SLUG%00",
        "/SLUG%ff",
        "/SLUG%c0%af",
        "/SLUG%",
    ];
    let paths =
        paths.map(ToOwned::to_owned).into_iter().chain(of_pod.map(|path| path.replace("SLUG", &slug)));
    for path in paths {
        let answer = Ask::new("GET", &path).over(Version::One, &server.address).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::NOT_FOUND, "404 Not Found"), "{path}");
        let answer = Ask::new("GET", &path).over(Version::Two, &server.address).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path} over HTTP/2");
    }
    server.stop().await;
}
