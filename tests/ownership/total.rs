//! Strangers who use up what uploads there may be in total keep no owner from what is theirs.

use gemmapod_signal::Digest;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    proof::{Owner, broker, later},
    support::{pod::Pod, server::TestServer},
};

/// The status of a signed request, and the limit that refused it.
async fn ask(
    server: &TestServer,
    owner: &Owner,
    method: Method,
    path: &str,
    body: Option<&str>,
) -> (u16, Option<String>) {
    let answer = owner.signed(server, method, path, body, later()).send().await.unwrap();
    let policy = answer.headers().get("ratelimit-policy").map(|policy| policy.to_str().unwrap());
    let limit = policy.and_then(|policy| Some(policy.strip_prefix('"')?.split_once('"')?.0.to_owned()));
    (answer.status().as_u16(), limit)
}

/// What is asked for to add a credential, and the path of the one that is added.
fn credential(owner: &Owner, name: &str) -> (String, String, String) {
    let body = json!({ "name": name, "secretSha256": Digest::of(owner.key().as_bytes()) }).to_string();
    let path = format!("/owner/{}/credentials", owner.key());
    let added = format!("{path}/{name}");
    (path, body, added)
}

fn pod_id(owner: &Owner, pod_id: &str) -> String {
    format!("/owner/{}/pod-ids/{pod_id}", owner.key())
}

/// Uploads until there were too many in total.
async fn use_up_uploads(server: &TestServer) {
    loop {
        let answer = server.upload(Pod::named("flood").html()).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers()["ratelimit-policy"].to_str().unwrap().starts_with("\"uploads\""));
            return;
        }
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn a_used_up_total_keeps_no_owner_from_what_is_theirs() {
    let server = broker("[limits]\nexempt = []\nuploads = \"1/day burst 6\"").await;
    // One owner of a signed pod, one whose pod is a page that anybody may have uploaded, one who has but a credential.
    let [signed, unsigned, of_credential] = [(); 3].map(|()| Owner::new());
    let mine = format!("/{}", signed.upload(&server, &signed.pod("mine").html()).await);
    let copied = format!("/{}", server.store(unsigned.pod("copied").html()).await);
    let (path, body, added) = credential(&of_credential, "home");
    assert_eq!(ask(&server, &of_credential, Method::POST, &path, Some(&body)).await.0, 201);
    use_up_uploads(&server).await;

    let version = signed.pod("another").html();
    let (credentials, new, home) = credential(&signed, "home");
    let pod = pod_id(&signed, "pod");
    for (owner, method, path, body, status) in [
        (&signed, Method::PUT, &mine, Some(&version), 200),
        (&signed, Method::POST, &credentials, Some(&new), 201),
        (&signed, Method::DELETE, &home, None, 204),
        (&signed, Method::PUT, &pod, None, 204),
        (&signed, Method::DELETE, &pod, None, 204),
        (&signed, Method::DELETE, &mine, None, 204),
        (&unsigned, Method::DELETE, &copied, None, 204),
        (&of_credential, Method::DELETE, &added, None, 204),
    ] {
        let answer = ask(&server, owner, method.clone(), path, body.map(String::as_str)).await;
        assert_eq!(answer, (status, None), "{method} {path}");
    }

    // What a key adds that owns nothing is an upload like any other.
    let newcomer = Owner::new();
    let (credentials, new, _) = credential(&newcomer, "home");
    let pod = pod_id(&newcomer, "pod");
    for (method, path, body) in [(Method::POST, &credentials, Some(&new)), (Method::PUT, &pod, None)] {
        let answer = ask(&server, &newcomer, method.clone(), path, body.map(String::as_str)).await;
        assert_eq!(answer, (429, Some("uploads".into())), "{method} {path}");
    }
}

#[tokio::test]
async fn an_address_has_its_limit_of_what_owners_ask_for() {
    let server = broker("[limits]\nexempt = []\nuploads_per_address = \"1/day burst 2\"").await;
    let owner = Owner::new();
    let mine = format!("/{}", owner.upload(&server, &owner.pod("mine").html()).await);
    let version = owner.pod("another").html();
    assert_eq!(ask(&server, &owner, Method::PUT, &mine, Some(&version)).await.0, 200);
    let (credentials, new, home) = credential(&owner, "home");
    let pod = pod_id(&owner, "pod");
    for (method, path, body) in [
        (Method::PUT, &mine, Some(&version)),
        (Method::DELETE, &mine, None),
        (Method::POST, &credentials, Some(&new)),
        (Method::DELETE, &home, None),
        (Method::PUT, &pod, None),
        (Method::DELETE, &pod, None),
    ] {
        let answer = ask(&server, &owner, method.clone(), path, body.map(String::as_str)).await;
        assert_eq!(answer, (429, Some("uploads-per-address".into())), "{method} {path}");
    }
}
