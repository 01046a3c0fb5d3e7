//! A signed request that was refused, sent again by somebody who read it, once it would be right.

use gemmapod_signal::Digest;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use super::proof::{Owner, broker, later};
use crate::support::server::TestServer;

/// Sends a request, which must be refused with `status`.
async fn refused(request: &RequestBuilder, status: u16) {
    let answer = request.try_clone().unwrap().send().await.unwrap();
    assert_eq!(answer.status(), status, "{answer:?}");
}

/// Sends a request again, which must be refused for that.
async fn again(request: RequestBuilder) {
    let (request, what) = (request.try_clone().unwrap(), format!("{request:?}"));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{what}");
    let sentence = answer.text().await.unwrap();
    assert!(sentence.contains("taken once already") || what.contains("HEAD"), "{sentence}");
}

async fn done(request: RequestBuilder) {
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

/// The signed requests of an owner to a broker.
struct At<'a> {
    server: &'a TestServer,
    owner: &'a Owner,
}

impl At<'_> {
    fn signed(&self, method: Method, path: &str, body: Option<&str>) -> RequestBuilder {
        self.owner.signed(self.server, method, path, body, later())
    }

    fn own(&self, method: Method, rest: &str) -> RequestBuilder {
        self.signed(method, &format!("/owner/{}/{rest}", self.owner.key()), None)
    }

    fn add(&self, name: &str, secret: &str) -> RequestBuilder {
        let body = json!({ "name": name, "secretSha256": Digest::of(secret.as_bytes()) }).to_string();
        self.signed(Method::POST, &format!("/owner/{}/credentials", self.owner.key()), Some(&body))
    }
}

/// The same request with this field in place of what it has.
fn with(request: RequestBuilder, name: &'static str, value: &str) -> RequestBuilder {
    let (client, request) = request.build_split();
    let mut request = request.unwrap();
    request.headers_mut().insert(name, value.parse().unwrap());
    RequestBuilder::from_parts(client, request)
}

#[tokio::test]
async fn of_a_pod() {
    let server = broker("").await;
    let owner = Owner::new();
    let at = At { server: &server, owner: &owner };
    let html = owner.pod("mine").html();
    let post = at.signed(Method::POST, "/pods", Some(&html));
    refused(&with(post.try_clone().unwrap(), "content-type", "application/zip"), 415).await;
    again(post).await;
    let slug = owner.upload(&server, &html).await;
    let path = format!("/{slug}");
    let another = owner.pod("another").html();
    for (name, value, status) in [("content-type", "application/zip", 415), ("if-match", "\"nope\"", 412)] {
        let put = at.signed(Method::PUT, &path, Some(&another));
        refused(&with(put.try_clone().unwrap(), name, value), status).await;
        again(put).await;
    }
    let put = at.signed(Method::PUT, &path, Some(&another));
    refused(&put.try_clone().unwrap().body("x"), 400).await;
    again(put).await;
    let delete = at.signed(Method::DELETE, &path, None);
    refused(&with(delete.try_clone().unwrap(), "if-match", "\"nope\""), 412).await;
    again(delete).await;
    let served = server.http.get(server.url(&path)).send().await.unwrap().text().await.unwrap();
    assert_eq!(served, html);
}

#[tokio::test]
async fn of_a_pod_id() {
    let server = broker("").await;
    let (owner, other) = (Owner::new(), Owner::new());
    let (at, theirs) = (At { server: &server, owner: &owner }, At { server: &server, owner: &other });
    done(theirs.own(Method::PUT, "pod-ids/pod")).await;
    let claim = at.own(Method::PUT, "pod-ids/pod");
    refused(&claim, 403).await;
    done(theirs.own(Method::DELETE, "pod-ids/pod")).await;
    again(claim).await;
    let release = at.own(Method::DELETE, "pod-ids/pod");
    refused(&release, 404).await;
    done(at.own(Method::PUT, "pod-ids/pod")).await;
    again(release).await;
}

#[tokio::test]
async fn of_a_list() {
    let server = broker("").await;
    let owner = Owner::new();
    let at = At { server: &server, owner: &owner };
    let mut lists = Vec::new();
    for method in [Method::GET, Method::HEAD] {
        for of in ["pods", "credentials"] {
            let list = at.own(method.clone(), of);
            done(list.try_clone().unwrap()).await;
            lists.push(list);
        }
    }
    owner.upload(&server, &owner.pod("mine").html()).await;
    done(at.add("home", "secret")).await;
    for list in lists {
        again(list).await;
    }
}

#[tokio::test]
async fn of_a_credential() {
    let server = broker("").await;
    let owner = Owner::new();
    let at = At { server: &server, owner: &owner };
    let revoke = at.own(Method::DELETE, "credentials/home");
    refused(&revoke, 404).await;
    done(at.add("home", "secret")).await;
    again(revoke).await;
    let name_taken = at.add("home", "another");
    refused(&name_taken, 409).await;
    let secret_taken = at.add("garage", "secret");
    refused(&secret_taken, 409).await;
    done(at.own(Method::DELETE, "credentials/home")).await;
    again(name_taken).await;
    again(secret_taken).await;
    let add = at.add("home", "secret");
    refused(&add.try_clone().unwrap().body("{"), 400).await;
    again(add).await;
}

/// Keys that own nothing make ten credentials a day from one address; then the key owns something.
#[tokio::test]
async fn of_a_credential_over_the_limit() {
    let server = broker("[limits]\nexempt = []").await;
    for n in 0..10 {
        let newcomer = Owner::new();
        done(At { server: &server, owner: &newcomer }.add("home", &format!("secret {n}"))).await;
    }
    let owner = Owner::new();
    let at = At { server: &server, owner: &owner };
    let over = at.add("home", "secret");
    refused(&over, 429).await;
    owner.upload(&server, &owner.pod("mine").html()).await;
    again(over).await;
    done(at.add("home", "secret")).await;
}
