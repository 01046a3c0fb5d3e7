//! Strangers who use up what uploads there may be in total keep no owner from what is theirs.

use gemmapod_signal::Digest;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::proof::{Owner, broker, later};
use crate::support::{
    frames,
    pod::Pod,
    raw::{self, Raw},
    server::TestServer,
    socket::Socket,
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

/// What is limited for an address and in total.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Read,
    Upload,
    Upgrade,
    Registration,
    /// A credential of a new key.
    Credential,
    /// The same, with a secret that is in use.
    UsedSecret,
    /// A pod id for a new key.
    PodId,
    /// The same, of a pod id that another owns.
    OwnedPodId,
}

/// Asks once for the client at an address; whether it had what it asked for.
async fn is_served(server: &TestServer, ask: Ask, n: usize, client: &str) -> bool {
    let owner = Owner::new();
    let signed = |method, path: &str, body| owner.signed(server, method, path, body, later());
    let (credentials, new, _) = credential(&owner, "home");
    let request = match ask {
        Ask::Read => server.http.get(server.url("/health")),
        Ask::Upload => {
            let post = server.http.post(server.url("/pods")).header("content-type", "text/html");
            post.body(Pod::named("pod").html())
        }
        Ask::Upgrade => {
            let mut raw = Raw::open(&server.address).await;
            raw.send(&raw::UPGRADE.replace("\n\n", &format!("\nX-Forwarded-For: {client}\n\n"))).await;
            return raw.status().await == StatusCode::SWITCHING_PROTOCOLS;
        }
        Ask::Registration => {
            let mut socket = Socket::forwarded(&server.address, client).await;
            let pod_id = format!("{client}-{n}");
            socket.send(frames::register(&pod_id)).await;
            return socket.receive().await == frames::registered(&pod_id);
        }
        Ask::Credential => signed(Method::POST, &credentials, Some(&new)),
        Ask::UsedSecret => {
            let new = json!({ "name": "home", "secretSha256": Digest::of(client.as_bytes()) }).to_string();
            signed(Method::POST, &credentials, Some(&new))
        }
        Ask::PodId => signed(Method::PUT, &pod_id(&owner, &format!("{client}-{n}")), None),
        Ask::OwnedPodId => signed(Method::PUT, &pod_id(&owner, &format!("of-{client}")), None),
    };
    request.header("x-forwarded-for", client).send().await.unwrap().status().is_success()
}

/// Whatever a client asks for after it was refused: the total has room for one more than the client may have.
#[tokio::test]
async fn what_is_refused_to_one_client_takes_nothing_from_others() {
    for (ask, limit, own) in [
        (Ask::Read, "reads", 3),
        (Ask::Upload, "uploads", 3),
        (Ask::Upgrade, "upgrades", 3),
        (Ask::Registration, "registrations", 3),
        (Ask::Credential, "uploads", 10),
        (Ask::UsedSecret, "uploads", 1),
        (Ask::PodId, "uploads", 64),
        (Ask::OwnedPodId, "uploads", 1),
    ] {
        let is_of_change = matches!(ask, Ask::Credential | Ask::UsedSecret | Ask::PodId | Ask::OwnedPodId);
        let of_address = if is_of_change { "off".into() } else { format!("1/day burst {own}") };
        let server = broker(&format!(
            "trusted_proxies = [\"127.0.0.1\"]\n[limits]\n{limit} = \"1/day burst {}\"\n{limit}_per_address = \"{of_address}\"",
            own + 1
        ))
        .await;
        let mut served = 0;
        for n in 0..own + 5 {
            served += usize::from(is_served(&server, ask, n, "192.0.2.1").await);
        }
        assert_eq!(served, own, "{ask:?}");
        assert!(is_served(&server, ask, 0, "192.0.2.2").await, "{ask:?}");
        assert!(!is_served(&server, ask, 1, "192.0.2.3").await, "{ask:?}: no more than the total");
        server.stop().await;
    }
}
