//! Brokers that restart with a wrong clock: what was accepted before is not accepted again, and owners are told why.

use std::{path::Path, time::Duration};

use gemmapod_signal::{Clock, Digest, RedbRegistry, SignalServer};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use super::proof::{BROKER, HOST, Owner, UP, later, register};
use crate::support::{
    process::{command, ended},
    server::{TestServer, config},
    socket::Socket,
};

const HOUR: Duration = Duration::from_hours(1);
/// How far the clock is set back.
const BACK: Duration = Duration::from_secs(300);

/// A broker whose clock is ahead of the one of this machine.
async fn start(directory: &Path, ahead: Duration) -> (TestServer, Clock) {
    let clock = Clock::default();
    clock.set_ahead(ahead);
    let config = config(&format!("public_url = \"{BROKER}\""));
    let registry = RedbRegistry::open(directory).unwrap();
    let builder = SignalServer::builder().config(config).registry(registry).clock(clock.clone());
    (TestServer::from(builder).await, clock)
}

/// A signed request that can be sent more than once, to any broker.
struct Signed {
    method: Method,
    path: String,
    body: Option<(&'static str, String)>,
    headers: reqwest::header::HeaderMap,
}

impl Signed {
    fn new(
        owner: &Owner,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
        ahead: Duration,
    ) -> Self {
        let text = body.as_ref().map(|(_, body)| body.as_str());
        let headers = owner.signature(&method, BROKER, path, text, later() + ahead);
        Self { method, path: path.into(), body, headers }
    }

    fn claim(owner: &Owner, pod_id: &str, ahead: Duration) -> Self {
        Self::new(owner, Method::PUT, &format!("/owner/{}/pod-ids/{pod_id}", owner.key()), None, ahead)
    }

    fn to(&self, server: &TestServer) -> RequestBuilder {
        let request = server.http.request(self.method.clone(), server.url(&self.path));
        let request = request.headers(self.headers.clone()).header("host", HOST);
        match &self.body {
            Some((kind, body)) => request.header("content-type", *kind).body(body.clone()),
            None => request,
        }
    }

    async fn done(&self, server: &TestServer) {
        let answer = self.to(server).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Sends the request, which must be refused as not signed; the sentence.
    async fn refused(&self, server: &TestServer) -> String {
        let answer = self.to(server).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{} {}", self.method, self.path);
        answer.json::<serde_json::Value>().await.unwrap()["error"].as_str().unwrap().into()
    }
}

/// Registers a pod id with a token; the frame that comes of it.
async fn registered(server: &TestServer, token: &str) -> serde_json::Value {
    let mut socket = Socket::connect(&server.address).await;
    socket.send(register("pod", token)).await;
    socket.receive().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_again_by_a_broker_whose_clock_is_behind_after_a_restart() {
    let (directory, owner) = (tempfile::tempdir().unwrap(), Owner::new());
    let (server, clock) = start(directory.path(), HOUR).await;
    let slug = server.store(owner.pod("old").html()).await;
    let new = owner.pod("new").html();
    let credentials = format!("/owner/{}/credentials", owner.key());
    let credential = json!({ "name": "host", "secretSha256": Digest::of(b"secret") }).to_string();
    let signed = |method, path: &str, body| Signed::new(&owner, method, path, body, HOUR);
    let requests = [
        signed(Method::PUT, &format!("/{slug}"), Some(("text/html", new))),
        signed(Method::POST, &credentials, Some(("application/json", credential))),
        signed(Method::DELETE, &format!("{credentials}/host"), None),
        Signed::claim(&owner, "pod", HOUR),
        signed(Method::DELETE, &format!("/owner/{}/pod-ids/pod", owner.key()), None),
        signed(Method::GET, &format!("/owner/{}/pods", owner.key()), None),
        signed(Method::DELETE, &format!("/{slug}"), None),
    ];
    let token = owner.token_once("pod", later() + HOUR);
    clock.pass(UP);
    for request in &requests {
        request.done(&server).await;
    }
    assert_eq!(registered(&server, &token).await["t"], "registered");
    server.stop().await;

    // The second of them knows nothing but what the first has left of it.
    for _ in 0..2 {
        let (server, clock) = start(directory.path(), HOUR + UP - BACK).await;
        let fresh = Signed::claim(&owner, "pod", HOUR);
        let told = fresh.refused(&server).await;
        assert!(told.contains("this broker's clock shows") && told.contains("set the clock"), "{told}");
        let told = registered(&server, &owner.token_once("pod", later() + HOUR)).await;
        assert!(told["message"].as_str().unwrap().contains("this broker's clock shows"), "{told}");
        // The wrong clock comes to the time at which they were accepted.
        clock.pass(BACK);
        for request in &requests {
            request.refused(&server).await;
        }
        let told = registered(&server, &token).await;
        assert!(told["message"].as_str().unwrap().contains("owner token is refused"), "{told}");
        server.stop().await;
    }

    let (server, clock) = start(directory.path(), HOUR + UP - BACK).await;
    clock.set_ahead(HOUR + UP);
    clock.pass(UP);
    Signed::claim(&owner, "pod", HOUR + UP).done(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_a_year_ahead_locks_owners_out_until_the_operator_resets_it() {
    let (directory, owner) = (tempfile::tempdir().unwrap(), Owner::new());
    let year = Duration::from_hours(365 * 24);
    let (server, clock) = start(directory.path(), year).await;
    clock.pass(UP);
    Signed::claim(&owner, "pod", year).done(&server).await;
    server.stop().await;

    let (server, clock) = start(directory.path(), Duration::ZERO).await;
    clock.pass(UP);
    let told = Signed::claim(&owner, "pod", Duration::ZERO).refused(&server).await;
    assert!(told.contains("`gemmapod-signal reset-clock`"), "{told}");
    server.stop().await;

    let reset = || {
        let done = ended(command().args(["reset-clock", "-d"]).arg(directory.path()));
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    assert!(reset().contains("can be accepted a second time"));
    assert!(reset().contains("nothing to reset"));
    let (server, clock) = start(directory.path(), Duration::ZERO).await;
    clock.pass(UP);
    Signed::claim(&owner, "pod", Duration::ZERO).done(&server).await;
    server.stop().await;
}
