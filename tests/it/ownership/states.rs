//! The states of pod ids: free, anonymous, owned. Strangers turn none of them against an owner.

use std::time::Duration;

use gemmapod_signal::{Clock, RedbRegistry, SignalServer};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::proof::{BROKER, HOST, Owner, UP, broker, broker_and_clock, later, register};
use crate::support::{
    frames::{self, refusal, registered},
    server::{TestServer, config},
    socket::Socket,
};

const NEEDS_TOKEN: &str =
    "this pod id belongs to an owner key: register with a credential or an ownerToken of that key";
const BEHIND_A_PROXY: &str = "trusted_proxies = [\"127.0.0.1/32\"]";

async fn nobody_holds_any(server: &TestServer) {
    server.until_health("no origin", |health| health["origins"] == json!([])).await;
}

/// What comes of a registration that nobody else is in the way of.
async fn outcome(server: &TestServer, frame: Value) -> String {
    nobody_holds_any(server).await;
    let mut socket = server.connect().await;
    socket.send(frame).await;
    let told = socket.receive().await;
    let told = told["message"].as_str().or(told["t"].as_str()).unwrap().to_owned();
    drop(socket);
    nobody_holds_any(server).await;
    told
}

/// A signed request about a pod id, which a proxy hands over from `client`.
async fn ask(
    server: &TestServer,
    owner: &Owner,
    method: Method,
    pod_id: &str,
    client: &str,
) -> (u16, String) {
    let path = format!("/owner/{}/pod-ids/{pod_id}", owner.key());
    let request = owner.signed(server, method, &path, None, later()).header("x-forwarded-for", client);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Fault 1.1, as it was found: a self-signed pod that names the host's pod id, then a token of that key.
#[tokio::test]
async fn an_upload_and_a_token_of_its_key_take_nothing_from_a_live_host() {
    for bind in ["first-use", "uploads"] {
        let server = broker(&format!("[signal]\nbind = {bind:?}\ntakeover_timeout = \"1h\"")).await;
        let mut host = server.origin("pod").await;
        let attacker = Owner::new();
        let slug = server.store(attacker.reachable("pod", "dartc")).await;
        let html = attacker.reachable("pod", "webrtc");
        let put = attacker.signed(&server, Method::PUT, &format!("/{slug}"), Some(&html), later());
        assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
        let mut thief = server.connect().await;
        thief.send(register("pod", &attacker.token("pod"))).await;
        host.nothing().await;
        thief.expect(refusal("pod id is held")).await;
        assert_eq!(thief.closed().await, (4003, "pod id is held".into()));
        drop(host);
        assert_eq!(outcome(&server, frames::register("pod")).await, "registered");
        // Not while the host is away, either.
        assert_eq!(outcome(&server, register("pod", &attacker.token("pod"))).await, "registered");
        assert_eq!(outcome(&server, frames::register("pod")).await, "registered");
    }
}

#[tokio::test]
async fn the_first_registration_decides() {
    let server = broker("").await;
    let (owner, stranger) = (Owner::new(), Owner::new());
    assert_eq!(outcome(&server, register("owned", &owner.token("owned"))).await, "registered");
    assert_eq!(outcome(&server, frames::register("owned")).await, NEEDS_TOKEN);
    assert!(
        outcome(&server, register("owned", &stranger.token("owned"))).await.contains("another owner key")
    );
    assert_eq!(outcome(&server, frames::register("anonymous")).await, "registered");
    for other in [&owner, &stranger] {
        assert_eq!(outcome(&server, register("anonymous", &other.token("anonymous"))).await, "registered");
    }
    assert_eq!(outcome(&server, frames::register("anonymous")).await, "registered");
}

#[tokio::test]
async fn a_claim_from_the_network_of_the_host_makes_its_pod_id_owned() {
    let server = broker(&format!("{BEHIND_A_PROXY}\n[signal]\ntakeover_timeout = \"1h\"")).await;
    let (owner, stranger) = (Owner::new(), Owner::new());
    let mut host = Socket::forwarded(&server.address, "2001:db8:1::7").await;
    host.register("pod").await;
    let (status, body) = ask(&server, &stranger, Method::PUT, "pod", "2001:db8:2::7").await;
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("only the network of the host"), "{body}");
    let (status, body) = ask(&server, &owner, Method::PUT, "pod", "2001:db8:1::99").await;
    assert_eq!(status, 204, "{body}");
    assert_eq!(ask(&server, &owner, Method::PUT, "pod", "192.0.2.1").await.0, 204, "it is so already");
    let (status, body) = ask(&server, &stranger, Method::PUT, "pod", "2001:db8:1::7").await;
    assert_eq!(status, 403, "{body}");
    // The host stays until one of the owner comes with a proof.
    host.nothing().await;
    let mut proven = server.connect().await;
    proven.send(register("pod", &owner.token("pod"))).await;
    proven.expect(registered("pod")).await;
    assert_eq!(host.closed().await, (4001, "replaced by new origin".into()));
    let (status, _) = ask(&server, &stranger, Method::DELETE, "pod", "192.0.2.1").await;
    assert_eq!(status, 403);
    assert_eq!(ask(&server, &owner, Method::DELETE, "pod", "192.0.2.1").await.0, 204);
    drop(proven);
    assert_eq!(outcome(&server, frames::register("pod")).await, "registered");
}

/// Somebody who registers a pod id while its host is away holds it, but cannot claim it.
#[tokio::test]
async fn a_stranger_who_holds_the_pod_id_of_another_cannot_claim_it() {
    let server = broker(BEHIND_A_PROXY).await;
    let stranger = Owner::new();
    let mut host = Socket::forwarded(&server.address, "192.0.2.1").await;
    host.register("pod").await;
    drop(host);
    nobody_holds_any(&server).await;
    let (status, body) = ask(&server, &stranger, Method::PUT, "pod", "198.51.100.1").await;
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("no host holds it now"), "{body}");
    let mut squatter = Socket::forwarded(&server.address, "198.51.100.1").await;
    squatter.register("pod").await;
    assert_eq!(ask(&server, &stranger, Method::PUT, "pod", "198.51.100.1").await.0, 409);
    drop(squatter);
    assert_eq!(outcome(&server, frames::register("pod")).await, "registered");
}

/// A neighbour may claim what a host without proof holds, never what a host with the proof of another key does.
#[tokio::test]
async fn a_neighbour_claims_nothing_from_a_host_that_proved_its_key() {
    let server = broker(&format!("{BEHIND_A_PROXY}\n[signal]\ntakeover_timeout = \"1h\"")).await;
    let (owner, neighbour) = (Owner::new(), Owner::new());
    let mut anonymous = Socket::forwarded(&server.address, "192.0.2.1").await;
    anonymous.register("pod").await;
    drop(anonymous);
    nobody_holds_any(&server).await;
    let mut host = Socket::forwarded(&server.address, "192.0.2.1").await;
    host.send(register("pod", &owner.token("pod"))).await;
    host.expect(registered("pod")).await;
    let (status, body) = ask(&server, &neighbour, Method::PUT, "pod", "192.0.2.1").await;
    assert_eq!(status, 409, "{body}");
    assert!(body.contains("a host of another owner key holds this pod id"), "{body}");
    let mut thief = Socket::forwarded(&server.address, "192.0.2.1").await;
    thief.send(register("pod", &neighbour.token("pod"))).await;
    host.nothing().await;
    assert_eq!(ask(&server, &owner, Method::PUT, "pod", "192.0.2.1").await.0, 204);
    host.nothing().await;
}

/// Behind a proxy that is not trusted all clients have one address.
#[tokio::test]
async fn a_network_that_all_may_share_claims_nothing_that_is_in_use() {
    let server = broker("").await;
    let owner = Owner::new();
    let _host = server.origin("pod").await;
    let why = "comes from the broker's own machine or through a proxy";
    let (status, body) = ask(&server, &owner, Method::PUT, "pod", "192.0.2.1").await;
    assert!(status == 409 && body.contains(why), "{body}");
    let path = format!("/owner/{}/pod-ids/pod", owner.key());
    let direct = owner.signed(&server, Method::PUT, &path, None, later()).send().await.unwrap();
    assert_eq!(direct.status(), 409);
    let body = direct.text().await.unwrap();
    assert!(body.contains(why), "{body}");
    assert_eq!(ask(&server, &owner, Method::PUT, "free", "192.0.2.1").await.0, 204);
}

#[tokio::test]
async fn a_claim_is_signed_by_the_key_in_its_path() {
    let server = broker("").await;
    let (owner, stranger) = (Owner::new(), Owner::new());
    let path = format!("/owner/{}/pod-ids/pod", owner.key());
    let theirs = stranger.signed(&server, Method::PUT, &path, None, later()).send().await.unwrap();
    assert_eq!(theirs.status(), StatusCode::FORBIDDEN);
    let unsigned = server.http.put(server.url(&path)).header("host", HOST).send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    let claim = owner.signed(&server, Method::PUT, &path, None, later());
    let replay = claim.try_clone().unwrap();
    assert_eq!(claim.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(replay.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let off = broker("[signal]\nbind = \"off\"").await;
    let claim = owner.signed(&off, Method::PUT, &path, None, later()).send().await.unwrap();
    assert_eq!(claim.status(), StatusCode::FORBIDDEN);
    assert!(claim.text().await.unwrap().contains("signal.bind"));
}

/// Thirty days without a use free an anonymous pod id, a year an owned one. One that is held is used, and a clock that
/// jumps ahead is no time that passed.
#[tokio::test]
async fn pod_ids_that_nobody_uses_are_free_again() {
    const DAY: Duration = Duration::from_hours(24);
    let (server, clock) = broker_and_clock("").await;
    let owner = Owner::new();
    assert_eq!(outcome(&server, frames::register("away")).await, "registered");
    let claimed = async |pod_id: &str| ask(&server, &owner, Method::PUT, pod_id, "192.0.2.1").await.0;
    assert_eq!(claimed("mine").await, 204);
    let mut held = server.origin("held").await;
    clock.set_ahead(400 * DAY);
    clock.pass(29 * DAY);
    clock.set_ahead(Duration::ZERO);
    let sign = |pod_id: &str| {
        let path = format!("/owner/{}/pod-ids/{pod_id}", owner.key());
        owner.signed(&server, Method::PUT, &path, None, later() + 29 * DAY)
    };
    assert_eq!(sign("away").send().await.unwrap().status(), 409);
    clock.pass(2 * DAY);
    held.nothing().await;
    let claim = async |pod_id: &str, day: u32| {
        let path = format!("/owner/{}/pod-ids/{pod_id}", owner.key());
        let claim = owner.signed(&server, Method::PUT, &path, None, later() + day * DAY);
        claim.send().await.unwrap().status().as_u16()
    };
    let freed = async {
        while claim("away", 31).await != 204 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::SOON, freed).await.expect("the pod id should be free");
    assert_eq!(claim("held", 31).await, 409);
    drop(held);
    nobody_holds_any(&server).await;
    assert_eq!(claim("held", 31).await, 409, "it was used until now");
    assert_eq!(outcome(&server, frames::register("mine")).await, NEEDS_TOKEN);
}

/// A flood of names from one network does not keep others from being remembered.
#[tokio::test]
async fn one_network_adds_a_few_names_a_day() {
    let server = broker(&format!("{BEHIND_A_PROXY}\n[limits]\nregistrations = \"off\"")).await;
    let owner = Owner::new();
    // With the first name its key owns something, and counts with the owners of its network.
    let mut last = (0, String::new());
    for n in 0..66 {
        last = ask(&server, &owner, Method::PUT, &format!("flood-{n}"), "192.0.2.1").await;
        assert!(last.0 == 204 || n == 65, "{n}: {last:?}");
    }
    assert_eq!(last.0, 429, "{last:?}");
    // It registers as ever, and is not remembered.
    let mut socket = Socket::forwarded(&server.address, "192.0.2.1").await;
    socket.send(register("unrecorded", &owner.token("unrecorded"))).await;
    socket.expect(registered("unrecorded")).await;
    drop(socket);
    assert_eq!(outcome(&server, frames::register("unrecorded")).await, "registered");
    let mut other = Socket::forwarded(&server.address, "192.0.2.2").await;
    other.send(register("other", &owner.token("other"))).await;
    other.expect(registered("other")).await;
    drop(other);
    assert_eq!(outcome(&server, frames::register("other")).await, NEEDS_TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (owner, stranger) = (Owner::new(), Owner::new());
    let start = async || {
        let clock = Clock::default();
        let config = config(&format!("public_url = \"{BROKER}\""));
        let registry = RedbRegistry::open(directory.path()).unwrap();
        let builder = SignalServer::builder().config(config).registry(registry).clock(clock.clone());
        let server = TestServer::from(builder).await;
        clock.pass(UP);
        server
    };
    let server = start().await;
    drop(server.origin("anonymous").await);
    assert_eq!(outcome(&server, register("owned", &owner.token("owned"))).await, "registered");
    server.stop().await;
    let server = start().await;
    assert_eq!(outcome(&server, register("anonymous", &stranger.token("anonymous"))).await, "registered");
    assert_eq!(outcome(&server, frames::register("anonymous")).await, "registered");
    assert_eq!(outcome(&server, frames::register("owned")).await, NEEDS_TOKEN);
    server.stop().await;
}
