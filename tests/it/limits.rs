//! What comes too often is refused with 429, for the client that sent it and for nobody else.

use futures_util::future::join_all;
use gemmapod_signal::{MemoryRegistry, SignalServer};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, client::IntoClientRequest},
};

use crate::support::{
    SOON, frames,
    pod::Pod,
    raw::{self, Raw},
    server::{TestServer, config},
    signed,
};

/// A broker behind a proxy, so that a test can be any client.
async fn server(limits: &str) -> TestServer {
    let config = config(&format!("trusted_proxies = [\"127.0.0.1\"]\n[limits]\n{limits}"));
    signed::server(SignalServer::builder().registry(MemoryRegistry::new(64 << 20)).config(config)).await
}

/// A request of the client at `address`.
async fn ask(
    server: &TestServer,
    address: &str,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Response {
    let request = server.http.request(method, server.url(path)).header("x-forwarded-for", address);
    let request = match body {
        Some(body) => request.header("content-type", "text/html").body(body),
        None => request,
    };
    request.send().await.unwrap()
}

async fn read(server: &TestServer, address: &str, path: &str) -> u16 {
    ask(server, address, Method::GET, path, None).await.status().as_u16()
}

async fn upload(server: &TestServer, address: &str, pod: &Pod) -> Response {
    ask(server, address, Method::POST, "/pods", Some(pod.html())).await
}

/// The same, signed by the pod's owner.
async fn upload_signed(server: &TestServer, address: &str, pod: &Pod) -> Response {
    let html = pod.html();
    let signature = signed::signature(server, pod, &html);
    let post = server.http.post(server.url("/pods")).header("x-forwarded-for", address).headers(signature);
    post.header("content-type", "text/html").body(html).send().await.unwrap()
}

async fn refused(response: Response, name: &str, quota: u64, sentence: &str) {
    assert_eq!(response.status(), 429);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let wait: u64 = header("retry-after").parse().unwrap();
    assert!(wait >= 1);
    let policy = header("ratelimit-policy");
    assert!(policy.starts_with(&format!("\"{name}\";q={quota}")), "{policy}");
    assert_eq!(header("ratelimit"), format!("\"{name}\";r=0;t={wait}"));
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "error": sentence }));
}

const OF_ADDRESS: &str = "too many requests of this kind from your address; try again later";
const OF_ALL: &str = "this broker gets too many requests of this kind; try again later";

#[tokio::test]
async fn reads_of_one_client_are_limited_whatever_they_ask_for() {
    let server = server("reads_per_address = \"1/day burst 5\"").await;
    let slug = server.store(Pod::named("p").html()).await;
    for path in ["/health", "/nothing/there", &format!("/{slug}"), &format!("/{slug}/meta"), "/AAAAAAAAAAAA"]
    {
        assert_ne!(read(&server, "192.0.2.1", path).await, 429, "{path}");
    }
    for path in ["/health", "/nothing/there", &format!("/{slug}")] {
        let answer = ask(&server, "192.0.2.1", Method::GET, path, None).await;
        refused(answer, "reads-per-address", 5, OF_ADDRESS).await;
    }
    assert_eq!(read(&server, "192.0.2.2", "/health").await, 200);
    assert_eq!(read(&server, "::ffff:192.0.2.1", "/health").await, 429);
    // The broker's own host is exempt, and so is what comes by a proxy that names nobody.
    for _ in 0..20 {
        assert_eq!(server.health().await["ok"], true);
    }
    // Other kinds have their own limits.
    assert_eq!(upload(&server, "192.0.2.1", &Pod::named("q")).await.status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn uploads_are_limited_for_an_address_for_a_64_for_an_owner_and_in_all() {
    let server = server(
        "uploads_per_address = \"1/day burst 3\"\nuploads_per_owner = \"1/day burst 4\"\nuploads = \"1/day burst 9\"",
    )
    .await;
    let pod = Pod::named("p");
    for host in 1..=3 {
        assert_eq!(upload_signed(&server, &format!("2001:db8::{host}"), &pod).await.status(), 200);
    }
    let answer = upload_signed(&server, "2001:db8::4", &pod).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*", "a page may read why it was refused");
    refused(answer, "uploads-per-address", 3, OF_ADDRESS).await;
    assert_eq!(upload_signed(&server, "2001:db8:0:1::1", &pod).await.status(), 200);
    let of_owner = "too many uploads of this owner key; try again later";
    refused(upload_signed(&server, "2001:db8:0:1::1", &pod).await, "uploads-per-owner", 4, of_owner).await;
    // A copy of the owner's page is no upload of the owner's.
    assert_eq!(upload(&server, "2001:db8:0:1::1", &pod).await.status(), 200);
    for host in 1..=3 {
        let taken = upload(&server, &format!("192.0.2.{host}"), &Pod::named("other")).await;
        assert_eq!(taken.status(), 200, "{host}");
    }
    refused(upload(&server, "192.0.2.9", &Pod::named("other")).await, "uploads", 9, OF_ALL).await;
    server.stop().await;
}

#[tokio::test]
async fn a_large_upload_that_is_refused_can_read_why() {
    let server = server("uploads_per_address = \"1/day\"").await;
    let pod = Pod::named("p").padded(20 << 20);
    assert_eq!(upload(&server, "192.0.2.1", &Pod::named("q")).await.status(), 200);
    for _ in 0..5 {
        refused(upload(&server, "192.0.2.1", &pod).await, "uploads-per-address", 1, OF_ADDRESS).await;
    }
    server.stop().await;
}

/// More than may be read on at a time, of one client that sends no more.
#[tokio::test]
async fn whoever_is_read_on_all_the_time_keeps_no_other_from_reading_why_it_was_refused() {
    let server = server("uploads_per_address = \"1/day\"").await;
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(upload(&server, address, &Pod::named("q")).await.status(), 200);
    }
    const LENGTH: usize = 20 << 20;
    let begin = async |client: &str| {
        let head = raw::upload_head(LENGTH).replace("\n\n", &format!("\nX-Forwarded-For: {client}\n\n"));
        let mut raw = Raw::open(&server.address).await;
        raw.send(&head).await;
        raw
    };
    let flood = (0..300).map(async |_| {
        let mut raw = begin("192.0.2.1").await;
        assert_eq!(raw.answer().await.status, 429);
        raw
    });
    let _flood = join_all(flood).await;
    for _ in 0..5 {
        let mut raw = begin("192.0.2.2").await;
        // As most clients do: the answer is read once all is sent.
        raw.send_bytes(&vec![b'x'; LENGTH]).await;
        assert_eq!(raw.answer().await.json(), json!({ "error": OF_ADDRESS }));
    }
    server.stop().await;
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn upgrade(server: &TestServer, address: &str) -> Result<Socket, Box<Error>> {
    let mut request = format!("ws://{}/signal", server.address).into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", address.parse().unwrap());
    connect_async(request).await.map(|(socket, _)| socket).map_err(Box::new)
}

fn refused_upgrade(error: Error, name: &str) {
    let Error::Http(response) = error else { panic!("{error}") };
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    let policy = response.headers()["ratelimit-policy"].to_str().unwrap();
    assert!(policy.starts_with(&format!("\"{name}\"")), "{policy}");
}

#[tokio::test]
async fn upgrades_are_refused_before_the_upgrade() {
    let server = server("upgrades_per_address = \"1/day burst 2\"").await;
    for _ in 0..2 {
        upgrade(&server, "192.0.2.1").await.unwrap();
    }
    refused_upgrade(*upgrade(&server, "192.0.2.1").await.unwrap_err(), "upgrades-per-address");
    upgrade(&server, "192.0.2.2").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn open_sockets_of_one_client_are_limited_and_a_closed_one_makes_room() {
    let server = server("sockets_per_address = 2").await;
    let mut one = upgrade(&server, "192.0.2.1").await.unwrap();
    let _two = upgrade(&server, "192.0.2.1").await.unwrap();
    let error = *upgrade(&server, "192.0.2.1").await.unwrap_err();
    let Error::Http(response) = &error else { panic!("{error}") };
    assert_eq!(
        response.headers()["ratelimit-policy"],
        "\"sockets-per-address\";q=2;qu=\"concurrent-requests\""
    );
    refused_upgrade(error, "sockets-per-address");
    let _other = upgrade(&server, "192.0.2.2").await.unwrap();
    one.close(None).await.unwrap();
    let again = async {
        while upgrade(&server, "192.0.2.1").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("the closed socket makes room");
    server.stop().await;
}

#[tokio::test]
async fn registrations_wait_for_their_turn_and_are_refused_where_it_is_far() {
    let server = server("registrations_per_address = \"2/s burst 2\"").await;
    let register = async |address: &str, pod_id: String| {
        let mut socket = crate::support::socket::Socket { stream: upgrade(&server, address).await.unwrap() };
        socket.register(&pod_id).await;
        socket
    };
    let mut origins = Vec::new();
    for n in 0..4 {
        origins.push(register("192.0.2.1", format!("pod-{n}")).await);
    }
    server.until_health("four origins", |health| health["origins"].as_array().unwrap().len() == 4).await;
    server.stop().await;

    let server = self::server("registrations_per_address = \"1/day\"").await;
    let socket =
        || async { crate::support::socket::Socket { stream: upgrade(&server, "192.0.2.1").await.unwrap() } };
    let mut first = socket().await;
    first.register("a").await;
    let mut second = socket().await;
    second.send(frames::register("b")).await;
    second.expect(frames::refusal("too many registrations; try again later")).await;
    assert_eq!(second.closed().await, (1008, "registration refused".into()));
    server.origin("c").await;
    server.stop().await;
}

#[tokio::test]
async fn a_reload_changes_limits_and_keeps_what_was_counted() {
    let server = server("reads_per_address = \"1/day burst 2\"").await;
    for _ in 0..2 {
        assert_eq!(read(&server, "192.0.2.1", "/health").await, 200);
    }
    assert_eq!(read(&server, "192.0.2.1", "/health").await, 429);
    let reload = |limits: &str| {
        let toml = format!("trusted_proxies = [\"127.0.0.1\"]\n[limits]\n{limits}");
        assert!(server.handle.reload(config(&toml)).is_empty());
    };
    reload("reads_per_address = \"1/day burst 2\"\nuploads = \"1/s\"");
    assert_eq!(read(&server, "192.0.2.1", "/health").await, 429);
    reload("reads_per_address = \"off\"");
    assert_eq!(read(&server, "192.0.2.1", "/health").await, 200);
    reload("reads_per_address = \"1/day burst 2\"\nexempt = [\"192.0.2.0/24\"]");
    for _ in 0..5 {
        assert_eq!(read(&server, "192.0.2.1", "/health").await, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn health_tells_of_origins_what_it_may() {
    for (shown, origins) in [("list", json!(["a", "b"])), ("count", json!(2)), ("off", Value::Null)] {
        let server = TestServer::with(&format!("[health]\norigins = \"{shown}\"")).await;
        let _origins = (server.origin("b").await, server.origin("a").await);
        let health = server.health().await;
        assert_eq!(health["origins"], origins);
        assert_eq!(health.get("origins").is_some(), shown != "off");
        assert_eq!(health["ok"], true);
        server.stop().await;
    }
}

/// One of two headers that disagree is the client's own: it is not taken for the proxy, whose host is exempt.
#[tokio::test]
async fn headers_that_disagree_are_no_licence() {
    let server = server("reads_per_address = \"1/day burst 3\"").await;
    for (x_forwarded_for, forwarded) in
        [("192.0.2.1", "for=192.0.2.2"), ("192.0.2.1", "for=\"192.0.2.1"), ("unknown", "")]
    {
        let ask = async || {
            let request = server.http.get(server.url("/health")).header("x-forwarded-for", x_forwarded_for);
            request.header("forwarded", forwarded).send().await.unwrap().status() == 200
        };
        let answers = join_all((0..20).map(|_| ask())).await;
        let passed = answers.into_iter().filter(|passed| *passed).count();
        assert_eq!(passed, if forwarded == "for=192.0.2.2" { 3 } else { 0 }, "{x_forwarded_for} {forwarded}");
    }
    assert_eq!(read(&server, "192.0.2.1", "/health").await, 200);
    assert_eq!(server.health().await["ok"], true);
    server.stop().await;
}

/// An answer is little, and the same for all who ask at a time, however many pod ids there are.
#[tokio::test]
async fn a_long_list_of_origins_is_cut() {
    let server = TestServer::start().await;
    let mut origins = Vec::new();
    for n in 0..560 {
        origins.push(server.origin(&format!("{n:0128}")).await);
    }
    let health = server.http.get(server.url("/health")).send().await.unwrap().text().await.unwrap();
    assert!(health.len() < 65 << 10, "{} bytes", health.len());
    let health: Value = serde_json::from_str(&health).unwrap();
    let (shown, omitted) =
        (health["origins"].as_array().unwrap(), health["originsOmitted"].as_u64().unwrap());
    assert_eq!((shown.len() as u64 + omitted, &shown[1]), (560, &json!(format!("{:0128}", 1))));
    server.stop().await;
}
