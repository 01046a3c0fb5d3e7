//! Requests of web pages: a page may bring a signature that was made beforehand, and its requests come from the network of
//! whoever opens it. Browsers say of a request that it is a page's.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use super::proof::{HOST, Owner, broker, later};
use crate::support::{frames, server::TestServer, socket::Socket};

/// What browsers add to requests of pages.
const OF_PAGES: [(&str, &str); 8] = [
    ("origin", "https://pods.example.org"),
    ("origin", "https://evil.example"),
    ("origin", "null"),
    ("origin", ""),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-site", "none"),
    ("sec-fetch-dest", "empty"),
    ("Sec-Fetch-Storage-Access", "none"),
];
const BEHIND_A_PROXY: &str = "trusted_proxies = [\"127.0.0.1/32\"]";

struct Case {
    method: Method,
    path: String,
    body: Option<String>,
}

/// Every request that takes a signature, of an owner who has a pod, a pod id and a credential.
struct Scene {
    server: TestServer,
    owner: Owner,
    slug: String,
    cases: Vec<Case>,
}

impl Scene {
    async fn new() -> Self {
        let server = broker("[limits]\nexempt = [\"127.0.0.0/8\"]").await;
        let owner = Owner::new();
        let slug = owner.upload(&server, &owner.pod("mine").html()).await;
        let own = format!("/owner/{}", owner.key());
        let credential = json!({ "name": "home", "secretSha256": "0a".repeat(32) }).to_string();
        let cases = [
            (Method::PUT, format!("/{slug}"), Some(owner.pod("another").html())),
            (Method::DELETE, format!("/{slug}"), None),
            (Method::GET, format!("{own}/pods"), None),
            (Method::HEAD, format!("{own}/pods"), None),
            (Method::PUT, format!("{own}/pod-ids/pod"), None),
            (Method::DELETE, format!("{own}/pod-ids/pod"), None),
            (Method::POST, format!("{own}/credentials"), Some(credential)),
            (Method::GET, format!("{own}/credentials"), None),
            (Method::HEAD, format!("{own}/credentials"), None),
            (Method::DELETE, format!("{own}/credentials/home"), None),
        ];
        let cases = cases.map(|(method, path, body)| Case { method, path, body }).into();
        Self { server, owner, slug, cases }
    }

    fn signed(&self, case: &Case) -> RequestBuilder {
        let Case { method, path, body } = case;
        self.owner.signed(&self.server, method.clone(), path, body.as_deref(), later())
    }
}

async fn outcome(request: RequestBuilder) -> (StatusCode, String) {
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn no_owner_request_is_taken_from_a_page() {
    let scene = Scene::new().await;
    for case in &scene.cases {
        let at = format!("{} {}", case.method, case.path);
        for (name, value) in OF_PAGES {
            let (status, body) = outcome(scene.signed(case).header(name, value)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{at} {name}: {value}");
            assert!(body.contains("a web page made this request") || case.method == Method::HEAD, "{body}");
        }
    }
    let pod = scene.server.http.get(scene.server.url(&format!("/{}", scene.slug)));
    let (status, html) = outcome(pod.header("origin", "https://evil.example")).await;
    assert_eq!((status, html), (StatusCode::OK, scene.owner.pod("mine").html()));
    // Without these fields each is taken, in an order in which each can be. Node's `fetch` has one of its own.
    let (deleted, others) = scene.cases.iter().partition::<Vec<_>, _>(|case| case.method == Method::DELETE);
    for case in others.into_iter().chain(deleted) {
        let (status, body) = outcome(scene.signed(case).header("sec-fetch-mode", "cors")).await;
        assert!(status.is_success(), "{} {}: {status} {body}", case.method, case.path);
    }
}

/// Pages of other origins ask first.
#[tokio::test]
async fn no_preflight_of_an_owner_request_is_granted() {
    let scene = Scene::new().await;
    for case in &scene.cases {
        let preflight = scene.server.http.request(Method::OPTIONS, scene.server.url(&case.path));
        let preflight = preflight
            .header("host", HOST)
            .header("origin", "https://evil.example")
            .header("access-control-request-method", case.method.as_str())
            .header("access-control-request-headers", "signature,signature-input");
        let answer = preflight.send().await.unwrap();
        assert!(answer.status().is_client_error(), "{} {answer:?}", case.method);
        let allowed = answer.headers().keys().find(|name| name.as_str().starts_with("access-control-allow"));
        assert_eq!(allowed, None, "{} {answer:?}", case.method);
    }
}

/// A name that its owner points at this broker makes the broker's answers readable to the pages of that name.
#[tokio::test]
async fn an_owner_request_for_another_host_is_refused() {
    let scene = Scene::new().await;
    let port = scene.server.addresses[0].port();
    let elsewhere = [
        "evil.example".to_owned(),
        "pods.example.org.evil.example".into(),
        "evil.pods.example.org".into(),
        "127.0.0.1".into(),
        format!("127.0.0.1:{port}"),
        "[::1]".into(),
    ];
    for case in &scene.cases {
        for host in &elsewhere {
            let mut request = scene.signed(case).build().unwrap();
            request.headers_mut().insert("host", host.parse().unwrap());
            request.headers_mut().insert("x-forwarded-host", HOST.parse().unwrap());
            let answer = scene.server.http.execute(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{} {host}", case.method);
            let body = answer.text().await.unwrap();
            assert!(body.contains("https://pods.example.org") || case.method == Method::HEAD, "{body}");
        }
    }
    let list = scene.cases.iter().find(|case| case.method == Method::GET).unwrap();
    for host in
        [HOST, "Pods.Example.ORG", "pods.example.org.", "pods.example.org:443", "pods.example.org:8443"]
    {
        let mut request = scene.signed(list).build().unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(scene.server.http.execute(request).await.unwrap().status(), StatusCode::OK, "{host}");
    }
}

/// The host that a trusted proxy was asked for counts, whatever it asks the broker for.
#[tokio::test]
async fn a_trusted_proxy_tells_the_host_of_an_owner_request() {
    let server = broker(BEHIND_A_PROXY).await;
    let owner = Owner::new();
    for (host, forwarded, status) in [
        ("localhost", Some(HOST), StatusCode::OK),
        ("localhost", None, StatusCode::MISDIRECTED_REQUEST),
        (HOST, Some("evil.example"), StatusCode::MISDIRECTED_REQUEST),
    ] {
        let path = format!("/owner/{}/pods", owner.key());
        let mut request = owner.signed(&server, Method::GET, &path, None, later()).build().unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        if let Some(forwarded) = forwarded {
            request.headers_mut().insert("x-forwarded-host", forwarded.parse().unwrap());
        }
        assert_eq!(server.http.execute(request).await.unwrap().status(), status, "{host} {forwarded:?}");
    }
}

/// A page in the browser of a host's owner, with a claim that somebody else signed.
#[tokio::test]
async fn a_page_opened_in_the_network_of_a_host_does_not_claim_its_pod_id() {
    let server = broker(BEHIND_A_PROXY).await;
    let mut host = Socket::forwarded(&server.address, "192.0.2.1").await;
    host.register("pod").await;
    let claim = |owner: &Owner| {
        let path = format!("/owner/{}/pod-ids/pod", owner.key());
        owner.signed(&server, Method::PUT, &path, None, later()).header("x-forwarded-for", "192.0.2.1")
    };
    let (owner, stranger) = (Owner::new(), Owner::new());
    for (name, value) in OF_PAGES {
        let (status, _) = outcome(claim(&stranger).header(name, value)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    assert_eq!(outcome(claim(&owner)).await.0, StatusCode::NO_CONTENT);
    host.nothing().await;
    drop(host);
    let mut again = server.connect().await;
    again.send(frames::register("pod")).await;
    assert_eq!(again.receive().await["t"], "error", "it belongs to the owner now");
}

/// Uploads are not an owner's alone, and pages make them.
#[tokio::test]
async fn a_page_uploads_with_and_without_a_signature() {
    let server = broker("").await;
    let owner = Owner::new();
    let html = owner.pod("mine").html();
    for is_signed in [false, true] {
        let post = match is_signed {
            true => owner.signed(&server, Method::POST, "/pods", Some(&html), later()),
            false => {
                server.http.post(server.url("/pods")).header("content-type", "text/html").body(html.clone())
            }
        };
        let post = post.header("origin", "https://elsewhere.example").header("sec-fetch-site", "cross-site");
        let answer = post.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "signed: {is_signed}");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    }
}
