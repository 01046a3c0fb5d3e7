//! Whose uploads are taken.

use std::fs;

use reqwest::{Method, StatusCode};

use super::proof::{Owner, broker, later};
use crate::support::server::TestServer;

async fn upload(server: &TestServer, html: String, token: Option<&str>) -> (StatusCode, String) {
    let mut request = server.http.post(server.url("/pods")).header("content-type", "text/html").body(html);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn of_certain_owners_who_are_listed_in_a_file_that_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("owners");
    let (alice, bob) = (Owner::new(), Owner::new());
    fs::write(&file, "# nobody yet\n").unwrap();
    let settings =
        format!("[uploads]\npolicy = \"owners\"\nowners = [\"{}\"]\nowners_file = {file:?}", alice.key());
    let server = broker(&settings).await;
    let upload = async |owner: &Owner| {
        let html = owner.pod("pod").html();
        let post = owner.signed(&server, Method::POST, "/pods", Some(&html), later()).send().await.unwrap();
        (post.status(), post.text().await.unwrap())
    };
    assert_eq!(upload(&alice).await.0, StatusCode::OK);
    let (status, body) = upload(&bob).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("takes pods of certain owners only"), "{body}");
    fs::write(&file, bob.key()).unwrap();
    assert_eq!(upload(&bob).await.0, StatusCode::OK);
    fs::write(&file, "Bob").unwrap();
    let (status, body) = upload(&bob).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!body.contains("owners"), "the path is no client's business: {body}");
}

#[tokio::test]
async fn with_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    fs::write(&file, format!("alice {}", gemmapod_signal::Digest::of(b"secret"))).unwrap();
    let server = broker(&format!("[uploads]\npolicy = \"token\"\ntokens_file = {file:?}")).await;
    let owner = Owner::new();
    let (status, body) = upload(&server, owner.pod("a").html(), None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(body.contains("Authorization: Bearer TOKEN"), "{body}");
    let (status, body) = upload(&server, owner.pod("a").html(), Some("guess")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(body.contains("not known"), "{body}");
    let (status, body) = upload(&server, owner.pod("a").html(), Some("secret")).await;
    assert_eq!(status, StatusCode::OK);
    // With a signature, too; but a signature is no token.
    let html = owner.pod("c").html();
    let post = |html: &String| owner.signed(&server, Method::POST, "/pods", Some(html), later());
    let both = post(&html).bearer_auth("secret").send().await.unwrap();
    assert_eq!(both.status(), StatusCode::OK);
    let signed_slug = both.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let meta = server.http.get(server.url(&format!("/{signed_slug}/meta"))).send().await.unwrap();
    assert_eq!(meta.headers()["x-pod-upload"], "signed");
    let no_token = post(&html).send().await.unwrap();
    assert_eq!(no_token.status(), StatusCode::UNAUTHORIZED);
    // The owner of a pod that is there proves it with the key.
    let slug = serde_json::from_str::<serde_json::Value>(&body).unwrap()["id"].as_str().unwrap().to_owned();
    let new = owner.pod("b").html();
    let put =
        owner.signed(&server, Method::PUT, &format!("/{slug}"), Some(&new), later()).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::OK);
    let preflight = server.http.request(Method::OPTIONS, server.url("/pods")).send().await.unwrap();
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("authorization"), "{allowed}");
}

#[tokio::test]
async fn of_nobody() {
    let server = broker("[uploads]\npolicy = \"closed\"").await;
    let (status, body) = upload(&server, Owner::new().pod("a").html(), None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("takes no uploads"), "{body}");
}
