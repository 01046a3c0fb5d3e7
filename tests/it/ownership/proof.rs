//! Owners, their tokens and their signed requests.

use std::time::{Duration, SystemTime};

use ed25519_dalek::SigningKey;
use gemmapod_signal::{
    SignalServer,
    owner::{
        client::nonce,
        components::Parts,
        key::OwnerSecret,
        signature,
        token::{self, TokenRequest},
    },
};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

use crate::support::{
    pod::Pod,
    server::{TestServer, config},
};

/// The broker as the world knows it.
pub const BROKER: &str = "https://pods.example.org";
/// The host in [`BROKER`].
pub const HOST: &str = "pods.example.org";

/// Somebody with an owner key.
pub struct Owner {
    pub secret: OwnerSecret,
    key: SigningKey,
}

impl Owner {
    pub fn new() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        Self::of(&seed)
    }

    pub fn of(seed: &[u8; 32]) -> Self {
        let seed = *seed;
        Self { secret: OwnerSecret::from_bytes(&seed), key: SigningKey::from_bytes(&seed) }
    }

    pub fn key(&self) -> String {
        self.secret.owner_key().to_string()
    }

    /// A token for `pod_id`, made now.
    pub fn token(&self, pod_id: &str) -> String {
        self.token_at(pod_id, BROKER, SystemTime::now())
    }

    pub fn token_at(&self, pod_id: &str, audience: &str, now: SystemTime) -> String {
        let request = TokenRequest { pod_id, audience, lifetime: Duration::from_mins(10), once: None };
        token::issue(&self.secret, &request, now).unwrap()
    }

    pub fn token_once(&self, pod_id: &str, now: SystemTime) -> String {
        let lifetime = Duration::from_mins(10);
        let request = TokenRequest { pod_id, audience: BROKER, lifetime, once: Some(nonce()) };
        token::issue(&self.secret, &request, now).unwrap()
    }

    /// A pod of this owner.
    pub fn pod(&self, name: &str) -> Pod {
        Pod::signed_by(self.key.clone(), name)
    }

    /// A pod whose manifest names a pod id, under `dartc` as in today's manifests or `webrtc` as in older ones.
    pub fn reachable(&self, pod_id: &str, by: &str) -> String {
        let text = |text: &str| ciborium::Value::Text(text.into());
        let at =
            vec![(text("signal_url"), text("wss://pods.example.org/signal")), (text("pod_id"), text(pod_id))];
        let transport = ciborium::Value::Map(vec![(text(by), ciborium::Value::Map(at))]);
        self.pod("reachable").with("transport", Some(transport)).html()
    }

    /// A request to the broker, signed as its own command signs.
    pub fn signed(
        &self,
        server: &TestServer,
        method: Method,
        path: &str,
        body: Option<&str>,
        now: SystemTime,
    ) -> RequestBuilder {
        let headers = self.signature(&method, BROKER, path, body, now);
        let request = server.http.request(method, server.url(path)).headers(headers);
        let request = request.header("host", HOST);
        match body {
            Some(body) => request.header("content-type", "text/html").body(body.to_owned()),
            None => request,
        }
    }

    /// Uploads a pod that must be taken, signed; its slug.
    pub async fn upload(&self, server: &TestServer, html: &str) -> String {
        let answer = self.signed(server, Method::POST, "/pods", Some(html), later()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub fn signature(
        &self,
        method: &Method,
        origin: &str,
        path_and_query: &str,
        body: Option<&str>,
        now: SystemTime,
    ) -> HeaderMap {
        let headers = HeaderMap::new();
        let parts = Parts { method, origin, path_and_query, headers: &headers };
        signature::sign(&self.secret, &parts, body.map(str::as_bytes), &nonce(), now).into_iter().collect()
    }
}

/// Long enough after a broker's start: one-time tokens are taken after 90 seconds, signed requests after ten.
pub const UP: Duration = Duration::from_secs(100);

/// When what is signed in a test was signed.
pub fn later() -> SystemTime {
    SystemTime::now() + UP
}

/// A broker that the world knows as [`BROKER`], with the settings in `toml`, some time after its start.
pub async fn broker(toml: &str) -> TestServer {
    broker_and_clock(toml).await.0
}

/// The same with the clock that it goes by.
pub async fn broker_and_clock(toml: &str) -> (TestServer, gemmapod_signal::Clock) {
    broker_with(toml, gemmapod_signal::MemoryRegistry::new(64 << 20)).await
}

/// The same with this registry.
pub async fn broker_with(
    toml: &str,
    registry: gemmapod_signal::MemoryRegistry,
) -> (TestServer, gemmapod_signal::Clock) {
    let clock = gemmapod_signal::Clock::default();
    let config = config(&format!("public_url = \"{BROKER}\"\n{toml}"));
    let builder = SignalServer::builder().config(config).registry(registry).clock(clock.clone());
    let server = TestServer::from(builder).await;
    clock.pass(UP);
    (server, clock)
}

/// A registration with a token.
pub fn register(pod_id: &str, token: &str) -> Value {
    json!({ "t": "register", "podId": pod_id, "ownerToken": token })
}
