//! Tokens, and the keys that pod ids are bound to.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use gemmapod_signal::{Clock, RedbRegistry, SignalServer};
use reqwest::Method;

use super::proof::{BROKER, Owner, UP, broker, later, register};
use crate::support::{
    frames::{self, refusal, registered},
    server::{TestServer, config},
    socket::Socket,
};

const NEEDS_TOKEN: &str =
    "this pod id belongs to an owner key: register with a credential or an ownerToken of that key";
const OTHER_KEY: &str =
    "this pod id belongs to another owner key than the one of the credential or ownerToken";

/// A registration that must be taken.
pub async fn taken(server: &TestServer, pod_id: &str, token: &str) -> Socket {
    let mut socket = server.connect().await;
    socket.send(register(pod_id, token)).await;
    socket.expect(registered(pod_id)).await;
    socket
}

/// What a registration that must be refused is told.
async fn refused(server: &TestServer, frame: serde_json::Value) -> String {
    let mut socket = server.connect().await;
    socket.send(frame).await;
    let told = socket.receive().await;
    assert_eq!(socket.closed().await, (1008, "registration refused".into()));
    told["message"].as_str().unwrap().into()
}

fn registry(directory: &Path) -> RedbRegistry {
    RedbRegistry::open(directory).unwrap()
}

/// A broker on the registry in `directory`, and the clock that it goes by.
async fn broker_on(directory: &Path) -> (TestServer, Clock) {
    let clock = Clock::default();
    let config = config(&format!("public_url = \"{BROKER}\""));
    let builder = SignalServer::builder().config(config).registry(registry(directory)).clock(clock.clone());
    (TestServer::from(builder).await, clock)
}

#[tokio::test]
async fn the_first_key_binds_and_only_that_key_registers() {
    let server = broker("").await;
    let (owner, stranger) = (Owner::new(), Owner::new());
    drop(taken(&server, "pod", &owner.token("pod")).await);
    assert_eq!(refused(&server, frames::register("pod")).await, NEEDS_TOKEN);
    assert_eq!(refused(&server, register("pod", &stranger.token("pod"))).await, OTHER_KEY);
    let holder = taken(&server, "pod", &owner.token("pod")).await;
    // The same while the pod is held: the holder is not even asked.
    assert_eq!(refused(&server, frames::register("pod")).await, NEEDS_TOKEN);
    assert_eq!(refused(&server, register("pod", &stranger.token("pod"))).await, OTHER_KEY);
    drop(holder);
    server.origin("another pod").await;
}

#[tokio::test]
async fn each_wrong_token_is_told_what_is_wrong() {
    let server = broker("").await;
    let owner = Owner::new();
    let good = owner.token("pod");
    let (head, rest) = good.split_once('.').unwrap();
    let none = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, r#"{"alg":"none"}"#);
    assert_ne!(head, none);
    let skewed = |by: i64| {
        let now = later();
        let by_secs = Duration::from_secs(by.unsigned_abs());
        owner.token_at("pod", BROKER, if by < 0 { now - by_secs } else { now + by_secs })
    };
    for (token, says) in [
        (format!("{none}.{rest}"), "is not signed (alg \"none\")"),
        (owner.token("another pod"), "is for another pod"),
        (
            owner.token_at("pod", "https://other.example.org", later()),
            "is for another broker: expected aud \"https://pods.example.org\"",
        ),
        (owner.token_at("pod", "http://127.0.0.1", later()), "is for another broker"),
        (skewed(-3600), "has expired"),
        (skewed(3600), "is not good yet"),
        (
            format!("{}.{}", good.rsplit_once('.').unwrap().0, owner.token("x").rsplit_once('.').unwrap().1),
            "signature does not fit",
        ),
        ("nonsense".into(), "is not a JWT"),
    ] {
        let told = refused(&server, register("pod", &token)).await;
        assert!(told.starts_with("the owner token") && told.contains(says), "{told}");
    }
    let minute = Duration::from_secs(60);
    for (pod_id, now) in [("slow", later() - minute), ("fast", later() + minute)] {
        drop(taken(&server, pod_id, &owner.token_at(pod_id, BROKER, now)).await);
    }
    let number = serde_json::json!({ "t": "register", "podId": "pod", "ownerToken": 7 });
    assert_eq!(refused(&server, number).await, "expected ownerToken to be a text");
    // None of them bound anything.
    server.origin("pod").await;
}

#[tokio::test]
async fn a_token_is_good_until_it_ends_and_not_after() {
    let clock = Clock::default();
    let config = config(&format!("public_url = \"{BROKER}\""));
    let server = TestServer::from(
        SignalServer::builder()
            .config(config)
            .clock(clock.clone())
            .registry(gemmapod_signal::MemoryRegistry::new(1 << 20)),
    )
    .await;
    let token = Owner::new().token("pod");
    drop(taken(&server, "pod", &token).await);
    clock.pass(Duration::from_mins(11));
    drop(taken(&server, "pod", &token).await);
    clock.pass(Duration::from_mins(1));
    assert!(refused(&server, register("pod", &token)).await.contains("has expired"));
}

#[tokio::test]
async fn a_token_that_is_good_once_is_taken_once() {
    let server = broker("").await;
    let owner = Owner::new();
    let token = owner.token_once("pod", later());
    drop(taken(&server, "pod", &token).await);
    let told = refused(&server, register("pod", &token)).await;
    assert!(told.contains("taken once already"), "{told}");
    taken(&server, "pod", &owner.token_once("pod", later())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_outlives_a_restart_and_a_token_that_was_taken_once_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let owner = Owner::new();
    let (server, clock) = broker_on(directory.path()).await;
    clock.pass(UP);
    let once = owner.token_once("pod", later());
    drop(taken(&server, "pod", &once).await);
    server.stop().await;

    let (server, clock) = broker_on(directory.path()).await;
    // The time goes on across the restart.
    clock.set_ahead(UP + Duration::from_secs(1));
    assert_eq!(refused(&server, frames::register("pod")).await, NEEDS_TOKEN);
    taken(&server, "pod", &owner.token("pod")).await;
    server.stop().await;

    let clock = Clock::default();
    clock.set_ahead(UP + Duration::from_secs(1));
    let config = config(&format!("public_url = \"{BROKER}\""));
    let registry = registry(directory.path());
    let builder = SignalServer::builder().config(config).registry(registry).clock(clock.clone());
    let server = TestServer::from(builder).await;
    let told = refused(&server, register("pod", &once)).await;
    assert!(told.contains("before the broker was up"), "{told}");
    clock.pass(Duration::from_secs(11));
    let told = refused(&server, register("pod", &once)).await;
    assert!(told.contains("before the broker was up"), "{told}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_comes_back_with_a_restored_backup() {
    let (directory, restored) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let owner = Owner::new();
    let (server, _) = broker_on(directory.path()).await;
    drop(taken(&server, "pod", &owner.token("pod")).await);
    server.stop().await;
    fs::copy(directory.path().join("registry.redb"), restored.path().join("registry.redb")).unwrap();
    // After the backup another one was bound, which the restored registry does not know.
    let (server, _) = broker_on(directory.path()).await;
    drop(taken(&server, "later", &owner.token("later")).await);
    server.stop().await;

    let (server, _) = broker_on(restored.path()).await;
    assert_eq!(refused(&server, frames::register("pod")).await, NEEDS_TOKEN);
    assert_eq!(refused(&server, register("pod", &Owner::new().token("pod"))).await, OTHER_KEY);
    drop(taken(&server, "pod", &owner.token("pod")).await);
    drop(server.origin("later").await);
    server.stop().await;
}

/// Anybody can upload a pod that names any pod id.
#[tokio::test]
async fn an_upload_says_nothing_about_a_pod_id() {
    for (by, bind) in [("dartc", "first-use"), ("webrtc", "first-use"), ("dartc", "uploads")] {
        let server = broker(&format!("[signal]\nbind = {bind:?}")).await;
        let (owner, uploader) = (Owner::new(), Owner::new());
        server.store(uploader.reachable("pod", by)).await;
        drop(taken(&server, "pod", &owner.token("pod")).await);
        assert_eq!(refused(&server, register("pod", &uploader.token("pod"))).await, OTHER_KEY);
    }
}

/// What `PUT` brings is signed, body and all.
#[tokio::test]
async fn a_signed_upload_binds_a_free_pod_id_where_uploads_bind() {
    let server = broker("[signal]\nbind = \"uploads\"").await;
    let owner = Owner::new();
    let slug = server.store(owner.pod("mine").html()).await;
    let put = async |pod_id: &str| {
        let html = owner.reachable(pod_id, "dartc");
        let put = owner.signed(&server, Method::PUT, &format!("/{slug}"), Some(&html), later());
        assert_eq!(put.send().await.unwrap().status(), 200);
    };
    drop(server.origin("used").await);
    let held = server.origin("held").await;
    for pod_id in ["used", "held", "free"] {
        put(pod_id).await;
    }
    drop(server.origin("used").await);
    drop(held);
    owner.upload(&server, &owner.reachable("posted", "dartc")).await;
    assert_eq!(refused(&server, frames::register("posted")).await, NEEDS_TOKEN);
    assert_eq!(refused(&server, frames::register("free")).await, NEEDS_TOKEN);
    taken(&server, "free", &owner.token("free")).await;
}

#[tokio::test]
async fn a_broker_can_ask_every_origin_for_a_token() {
    for bind in ["first-use", "off"] {
        let server = broker(&format!("[signal]\nrequire_owner = true\nbind = \"{bind}\"")).await;
        let told = refused(&server, frames::register("pod")).await;
        assert_eq!(told, "this broker asks every origin for a credential or an ownerToken");
        assert!(refused(&server, register("pod", "x")).await.contains("not a JWT"));
        drop(taken(&server, "pod", &Owner::new().token("pod")).await);
    }
}

#[tokio::test]
async fn without_binding_a_token_is_passed_over() {
    let server = broker("[signal]\nbind = \"off\"\ntakeover_timeout = \"1h\"").await;
    let mut holder = taken(&server, "pod", "anything").await;
    let mut newcomer = server.connect().await;
    newcomer.send(register("pod", &Owner::new().token("pod"))).await;
    holder.nothing().await;
    newcomer.expect(refusal("pod id is held")).await;
    drop((holder, newcomer));
    server.until_health("no origin", |health| health["origins"] == serde_json::json!([])).await;
    server.origin("pod").await;
}

/// Without `public_url`, a token is for the address that the host reached, by whatever name it called it.
#[tokio::test]
async fn without_a_public_url_a_token_is_for_the_address_that_was_reached() {
    let server = TestServer::start().await;
    let owner = Owner::new();
    let port = server.addresses[0].port();
    for audience in [format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}/")] {
        drop(taken(&server, "pod", &owner.token_at("pod", &audience, SystemTime::now())).await);
    }
    for audience in [BROKER.into(), format!("https://127.0.0.1:{port}"), "http://127.0.0.1:1".into()] {
        let token = owner.token_at("pod", &audience, SystemTime::now());
        assert!(refused(&server, register("pod", &token)).await.contains("for another broker"), "{audience}");
    }
}
