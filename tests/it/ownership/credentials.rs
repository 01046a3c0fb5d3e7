//! Credentials of hosts: `Authorization: Basic` at `/signal`, and how owners add, list and revoke them.

use std::{sync::Arc, time::SystemTime};

use gemmapod_signal::{
    Blob, Digest, MemoryRegistry, PodRecord, Registry, RegistryError, SignalServer, Slug, VerifiedPod,
    async_trait,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::proof::{BROKER, HOST, Owner, UP, broker, later, register};
use crate::support::{
    credential::{UNKNOWN, basic, closed},
    frames,
    server::{TestServer, config},
    socket::Socket,
};

const REVOKED: &str = "the credential of this host was revoked by its owner";
/// Loopback is a client like any other.
const NOBODY_EXEMPT: &str = "[limits]\nexempt = []";

impl Owner {
    fn credentials(&self) -> String {
        format!("/owner/{}/credentials", self.key())
    }

    async fn ask(
        &self,
        server: &TestServer,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> (StatusCode, Value) {
        let answer = self.signed(server, method, path, body, later()).send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    async fn try_add(&self, server: &TestServer, name: &str, secret: &str) -> (StatusCode, Value) {
        let body = json!({ "name": name, "secretSha256": Digest::of(secret.as_bytes()) }).to_string();
        self.ask(server, Method::POST, &self.credentials(), Some(&body)).await
    }

    async fn add(&self, server: &TestServer, name: &str, secret: &str) {
        let (status, told) = self.try_add(server, name, secret).await;
        assert_eq!((status, &told["name"]), (StatusCode::CREATED, &name.into()), "{told}");
    }

    async fn revoke(&self, server: &TestServer, name: &str) -> StatusCode {
        self.ask(server, Method::DELETE, &format!("{}/{name}", self.credentials()), None).await.0
    }
}

async fn host(server: &TestServer, name: &str, secret: &str) -> Socket {
    Socket::authorized(&server.address, &[&basic(name, secret)]).await
}

/// The socket must be told `sentence` and closed.
async fn refused(mut socket: Socket, sentence: &str) {
    socket.expect(frames::refusal(sentence)).await;
    assert_eq!(socket.closed().await, closed(), "{sentence}");
    socket.answer_close().await;
}

fn sentence(told: &Value) -> &str {
    told["error"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_host_comes_with_a_credential_until_it_is_revoked() {
    let server = broker("").await;
    let owner = Owner::new();
    refused(host(&server, "home", "secret").await, UNKNOWN).await;
    owner.add(&server, "home", "secret").await;
    let [mut first, mut second] =
        [host(&server, "home", "secret").await, host(&server, "home", "secret").await];
    first.register("first").await;
    second.register("second").await;
    owner.add(&server, "garage", "another").await;
    let mut other = host(&server, "garage", "another").await;
    other.register("third").await;
    assert_eq!(owner.revoke(&server, "home").await, StatusCode::NO_CONTENT);
    for socket in [first, second] {
        refused(socket, REVOKED).await;
    }
    refused(host(&server, "home", "secret").await, UNKNOWN).await;
    server.until_health("the pod ids free", |health| health["origins"] == json!(["third"])).await;
    other.nothing().await;
    assert_eq!(owner.revoke(&server, "home").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_revocation_closes_sockets_that_have_registered_nothing_yet() {
    let server = broker("").await;
    let owner = Owner::new();
    owner.add(&server, "home", "secret").await;
    let mut socket = host(&server, "home", "secret").await;
    socket.nothing().await;
    assert_eq!(owner.revoke(&server, "home").await, StatusCode::NO_CONTENT);
    refused(socket, REVOKED).await;
}

#[tokio::test]
async fn a_wrong_credential_is_told_so_after_the_upgrade_and_registers_nothing() {
    const MALFORMED: &str = "the Authorization header is malformed: expected one, with the base64 of NAME:SECRET after \
                             Basic, as clients make it of wss://NAME:SECRET@host/signal";
    let server = broker("").await;
    let owner = Owner::new();
    owner.add(&server, "home", "secret").await;
    let right = basic("home", "secret");
    for (authorization, told) in [
        (&[&*basic("home", "Secret")][..], UNKNOWN),
        (&[&basic("home", "")], UNKNOWN),
        (&[&basic("home", &Digest::of(b"secret").to_string())], UNKNOWN),
        (&[&basic("garage", "secret")], UNKNOWN),
        (&[&basic("", "secret")], UNKNOWN),
        (&["Basic"], MALFORMED),
        (&["Basic aG9tZQ=="], MALFORMED),
        (&["Basic !"], MALFORMED),
        (&[&right, &right], MALFORMED),
    ] {
        let mut socket = Socket::authorized(&server.address, authorization).await;
        socket.send(frames::register("pod")).await;
        refused(socket, told).await;
    }
    assert_eq!(server.health().await["origins"], json!([]));
    // What is no Basic credential is nobody's business here.
    for authorization in [&["Bearer secret"][..], &[""], &["Bearer secret", &right]] {
        let mut socket = Socket::authorized(&server.address, authorization).await;
        socket.register("pod").await;
        drop(socket);
        server.until_health("the pod id free", |health| health["origins"] == json!([])).await;
    }
}

#[tokio::test]
async fn guessing_costs_and_a_right_credential_is_never_refused_for_it() {
    let server = broker(NOBODY_EXEMPT).await;
    let owner = Owner::new();
    owner.add(&server, "home", "secret").await;
    for guess in 0..10 {
        refused(host(&server, "home", &guess.to_string()).await, UNKNOWN).await;
    }
    // From here on each is held back for a while.
    let too_many = "too many wrong credentials from your address; try again later";
    refused(host(&server, "home", "11").await, too_many).await;
    host(&server, "home", "secret").await.register("pod").await;
}

#[tokio::test]
async fn a_credential_is_a_proof_of_its_owner_for_the_life_of_the_socket() {
    let server = broker("").await;
    let (owner, other) = (Owner::new(), Owner::new());
    owner.add(&server, "home", "secret").await;
    other.add(&server, "home", "theirs").await;
    let mut home = host(&server, "home", "secret").await;
    home.register("pod").await;
    drop(home);
    server.until_health("the pod id free", |health| health["origins"] == json!([])).await;
    // The pod id is the owner's now, whoever comes while the host is away.
    for (mut newcomer, frame) in [
        (server.connect().await, frames::register("pod")),
        (server.connect().await, register("pod", &other.token("pod"))),
        (host(&server, "home", "theirs").await, frames::register("pod")),
    ] {
        newcomer.send(frame).await;
        let told = newcomer.receive().await;
        assert!(told["message"].as_str().is_some_and(|told| told.contains("belongs to")), "{told}");
        assert_eq!(newcomer.closed().await, (1008, "registration refused".into()));
    }
    host(&server, "home", "secret").await.register("pod").await;
}

#[tokio::test]
async fn a_credential_is_what_a_broker_asks_for_that_wants_proofs() {
    let server = broker("[signal]\nrequire_owner = true").await;
    let owner = Owner::new();
    owner.add(&server, "home", "secret").await;
    host(&server, "home", "secret").await.register("pod").await;
}

#[tokio::test]
async fn a_credential_for_some_pod_ids_registers_no_other() {
    let server = broker("").await;
    let owner = Owner::new();
    let body = json!({ "name": "home", "secretSha256": Digest::of(b"secret"), "podIds": ["one", "two"] })
        .to_string();
    let (status, _) = owner.ask(&server, Method::POST, &owner.credentials(), Some(&body)).await;
    assert_eq!(status, StatusCode::CREATED);
    for pod_id in ["one", "two"] {
        host(&server, "home", "secret").await.register(pod_id).await;
    }
    for frame in [frames::register("three"), register("three", &owner.token("three"))] {
        let mut socket = host(&server, "home", "secret").await;
        socket.send(frame).await;
        socket
            .expect(frames::refusal("the credential of this host is for other pod ids than this one"))
            .await;
        assert_eq!(socket.closed().await, (1008, "registration refused".into()));
    }
}

#[tokio::test]
async fn credentials_are_listed_to_their_owner_without_their_secrets() {
    let server = broker("").await;
    let (owner, other) = (Owner::new(), Owner::new());
    owner.upload(&server, &owner.pod("mine").html()).await;
    let path = owner.credentials();
    assert_eq!(owner.ask(&server, Method::GET, &path, None).await.1, json!({ "credentials": [] }));
    owner.add(&server, "home", "secret").await;
    let body =
        json!({ "name": "attic", "secretSha256": Digest::of(b"b"), "podIds": ["one", "two"] }).to_string();
    assert_eq!(owner.ask(&server, Method::POST, &path, Some(&body)).await.0, StatusCode::CREATED);
    let (status, listed) = owner.ask(&server, Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK);
    let [attic, home] = [0, 1].map(|at| &listed["credentials"][at]);
    assert_eq!((&attic["name"], &attic["podIds"]), (&"attic".into(), &json!(["one", "two"])));
    assert_eq!((&home["name"], &home["podIds"]), (&"home".into(), &Value::Null));
    assert!(home["createdAt"].as_str().unwrap().ends_with('Z'), "{listed}");
    assert_eq!(home.as_object().unwrap().len(), 2);
    assert_eq!(
        other.ask(&server, Method::GET, &other.credentials(), None).await.1,
        json!({ "credentials": [] })
    );
}

#[tokio::test]
async fn only_the_owner_adds_lists_and_revokes_and_each_request_counts_once() {
    let server = broker("").await;
    let (owner, other) = (Owner::new(), Owner::new());
    owner.add(&server, "home", "secret").await;
    let body = json!({ "name": "theirs", "secretSha256": Digest::of(b"x") }).to_string();
    let (list, one) = (owner.credentials(), format!("{}/home", owner.credentials()));
    let requests =
        [(Method::POST, &list, Some(&*body)), (Method::GET, &list, None), (Method::DELETE, &one, None)];
    for (method, path, body) in requests {
        let (status, told) = other.ask(&server, method.clone(), path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method}");
        assert_eq!(sentence(&told), "sign with the owner key in the path: nobody else can do this for it");
        let unsigned = server
            .http
            .request(method.clone(), server.url(path))
            .header("host", HOST)
            .body(body.unwrap_or("").to_owned());
        assert_eq!(unsigned.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{method}");
    }
    let signed = owner.signed(&server, Method::POST, &list, Some(&body), later()).build().unwrap();
    let mut changed = signed.try_clone().unwrap();
    *changed.body_mut() = Some(body.replace("theirs", "others").into());
    let [changed, first, again] = [changed, signed.try_clone().unwrap(), signed];
    let status = async |request| server.http.execute(request).await.unwrap().status();
    assert_eq!(status(changed).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(first).await, StatusCode::UNAUTHORIZED, "the signature is used up");
    assert_eq!(status(again).await, StatusCode::UNAUTHORIZED);
    let revoke = owner.signed(&server, Method::DELETE, &one, None, later()).build().unwrap();
    let again = revoke.try_clone().unwrap();
    assert_eq!(status(revoke).await, StatusCode::NO_CONTENT);
    owner.add(&server, "home", "new secret").await;
    assert_eq!(
        status(again).await,
        StatusCode::UNAUTHORIZED,
        "a revocation again, of the next one of this name"
    );
}

#[tokio::test]
async fn what_is_no_credential_is_refused_with_a_sentence() {
    let server = broker("").await;
    let owner = Owner::new();
    let secret = Digest::of(b"x");
    for (body, says) in [
        (json!({}), "missing field `name`"),
        (json!(["home", secret]), "no object"),
        (json!({ "name": "home" }), "missing field `secretSha256`"),
        (json!({ "name": "a:b", "secretSha256": secret }), "1 to 32 characters out of A-Z"),
        (json!({ "name": "home", "secretSha256": "abc" }), "expected 64 hex digits"),
        (json!({ "name": "home", "secretSha256": secret, "secret": "x" }), "unknown field `secret`"),
        (json!({ "name": "home", "secretSha256": secret, "podIds": [] }), "1 to 16 of 1 to 256 bytes"),
    ] {
        let (status, told) =
            owner.ask(&server, Method::POST, &owner.credentials(), Some(&body.to_string())).await;
        let told = sentence(&told);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(told.starts_with("expected JSON such as {\"name\"") && told.contains(says), "{told}");
    }
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(20_000));
    let (status, _) = owner.ask(&server, Method::POST, &owner.credentials(), Some(&large)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    for path in [format!("{}/a:b", owner.credentials()), format!("{}/none", owner.credentials())] {
        assert_eq!(owner.ask(&server, Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/owner/abc/credentials".to_owned(), format!("{}x", owner.credentials())] {
        let (status, _) = owner.ask(&server, Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_key_that_owns_nothing_has_two_and_an_owner_sixteen() {
    let server = broker("").await;
    let (newcomer, owner) = (Owner::new(), Owner::new());
    owner.upload(&server, &owner.pod("mine").html()).await;
    for (who, most, says) in
        [(&newcomer, 2, "upload a signed pod of this key first"), (&owner, 16, "revoke one first")]
    {
        for number in 0..most {
            who.add(&server, &format!("host-{number}"), &format!("{} {number}", who.key())).await;
        }
        let (status, told) = who.try_add(&server, "more", &format!("{} more", who.key())).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(sentence(&told).contains(says), "{told}");
        assert_eq!(who.revoke(&server, "host-0").await, StatusCode::NO_CONTENT);
        who.add(&server, "more", &format!("{} more", who.key())).await;
    }
    // A pod id of its own makes an owner of it.
    host(&server, "host-1", &format!("{} 1", newcomer.key())).await.register("mine").await;
    newcomer.add(&server, "third", "third").await;
    let (status, told) = newcomer.try_add(&server, "more", "x").await;
    assert_eq!(
        (status, sentence(&told).contains("named more already")),
        (StatusCode::CONFLICT, true),
        "{told}"
    );
}

#[tokio::test]
async fn an_address_makes_few_credentials_for_keys_that_own_nothing() {
    let server = broker(&format!("{NOBODY_EXEMPT}\nuploads_per_address = \"off\"")).await;
    let owner = Owner::new();
    owner.upload(&server, &owner.pod("mine").html()).await;
    for number in 0..10 {
        Owner::new().add(&server, "home", &number.to_string()).await;
    }
    let answer = Owner::new().try_add(&server, "home", "11").await;
    assert_eq!(answer.0, StatusCode::TOO_MANY_REQUESTS, "{}", answer.1);
    assert!(sentence(&answer.1).contains("keys that own nothing here"), "{}", answer.1);
    owner.add(&server, "home", "an owner's").await;
    // Nor any number for keys that own something.
    for number in 0..89 {
        owner.revoke(&server, "home").await;
        owner.add(&server, "home", &format!("an owner's {number}")).await;
    }
    owner.revoke(&server, "home").await;
    let answer = owner.try_add(&server, "home", "one more").await;
    assert_eq!(answer.0, StatusCode::TOO_MANY_REQUESTS, "{}", answer.1);
}

#[tokio::test]
async fn a_new_version_with_a_credential_in_its_signal_url_is_refused() {
    let server = broker("").await;
    let owner = Owner::new();
    let slug = owner.upload(&server, &owner.pod("mine").html()).await;
    let text = |text: &str| ciborium::Value::Text(text.into());
    let at = vec![(text("signal_url"), text("wss://home:secret@pods.example.org/signal"))];
    let transport = ciborium::Value::Map(vec![(text("dartc"), ciborium::Value::Map(at))]);
    let html = owner.pod("mine").with("transport", Some(transport)).html();
    let (status, told) = owner.ask(&server, Method::PUT, &format!("/{slug}"), Some(&html)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(sentence(&told).contains("signal_url holds a name and a secret"), "{told}");
}

/// A registry of somebody's own that keeps pods and nothing else.
struct PodsOnly(MemoryRegistry);

#[async_trait]
impl Registry for PodsOnly {
    fn name(&self) -> &str {
        "pods only"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        self.0.put_pod(pod).await
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        self.0.get_record(slug).await
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        self.0.get_blob(slug).await
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)], at: SystemTime) -> Result<(), RegistryError> {
        self.0.bump_hits(hits, at).await
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        self.0.delete(slug).await
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        self.0.list(after, limit).await
    }
}

#[tokio::test]
async fn a_registry_without_credentials_says_so() {
    let clock = gemmapod_signal::Clock::default();
    let config = config(&format!("public_url = \"{BROKER}\""));
    let registry = PodsOnly(MemoryRegistry::new(1 << 20));
    let server =
        TestServer::from(SignalServer::builder().config(config).registry(registry).clock(clock.clone()))
            .await;
    clock.pass(UP);
    let (status, told) = Owner::new().try_add(&server, "home", "secret").await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(sentence(&told), "this broker's registry cannot keep credentials");
    let told = "this broker's registry cannot keep credentials: remove NAME:SECRET@ from the signal_url";
    refused(host(&server, "home", "secret").await, told).await;
}

/// The registry is asked while sockets wait: none of them is let in before it answers.
#[tokio::test]
async fn sockets_that_open_during_a_revocation_are_closed_or_refused() {
    let server = Arc::new(broker("").await);
    let owner = Owner::new();
    for round in 0..20 {
        let secret = round.to_string();
        owner.add(&server, "home", &secret).await;
        let sockets: Vec<_> = (0..8)
            .map(|_| {
                let (server, secret) = (server.clone(), secret.clone());
                tokio::spawn(async move {
                    let mut socket = host(&server, "home", &secret).await;
                    let told = socket.receive().await["message"].as_str().unwrap().to_owned();
                    assert!([REVOKED, UNKNOWN].contains(&&*told), "{told}");
                    assert_eq!(socket.closed().await, closed());
                })
            })
            .collect();
        assert_eq!(owner.revoke(&server, "home").await, StatusCode::NO_CONTENT);
        for socket in sockets {
            socket.await.unwrap();
        }
    }
}
