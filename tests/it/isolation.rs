//! `pods.isolation`: the headers and hosts that keep pods apart. What browsers make of them is in `tests/clients`.

use reqwest::{Response, header::HeaderMap, redirect::Policy};

use crate::support::{pod::Pod, server::TestServer};

const SANDBOX: &str = "; sandbox allow-scripts allow-forms allow-modals allow-downloads allow-popups allow-popups-to-escape-sandbox";

fn text(headers: &HeaderMap, name: &str) -> String {
    headers[name].to_str().unwrap().to_owned()
}

async fn policy(toml: &str) -> String {
    let server = TestServer::with(toml).await;
    let slug = server.store(Pod::named("p").html()).await;
    let served = server.http.get(server.url(&format!("/{slug}"))).send().await.unwrap();
    let policy = text(served.headers(), "content-security-policy");
    server.stop().await;
    policy
}

#[tokio::test]
async fn a_sandbox_is_the_same_policy_and_one_directive_more() {
    let bare = policy("").await;
    assert!(!bare.contains("sandbox"));
    let sandboxed = policy("[pods]\nisolation = \"sandbox\"").await;
    assert_eq!(sandboxed, format!("{bare}{SANDBOX}"));
    assert!(!sandboxed.contains("allow-same-origin"));
    let own =
        policy("[pods]\nisolation = \"sandbox\"\ncontent_security_policy = \"default-src 'self'\"").await;
    assert_eq!(own, format!("default-src 'self'{SANDBOX}"));
}

/// A broker with a host for each pod, and somebody who asks it by any name.
struct Hosts {
    server: TestServer,
    http: reqwest::Client,
}

impl Hosts {
    async fn start(toml: &str) -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        let server = format!(
            "trusted_proxies = [\"127.0.0.1\"]\n[pods]\nisolation = \"subdomain\"\ndomain = \"pods.test\"\n{toml}"
        );
        Self { server: TestServer::with(&server).await, http }
    }

    async fn get(&self, host: &str, path: &str) -> Response {
        self.http.get(self.server.url(path)).header("host", host).send().await.unwrap()
    }

    async fn hits(&self, slug: &str) -> u64 {
        let meta = self.get("pods.test", &format!("/{slug}/meta")).await;
        meta.json::<serde_json::Value>().await.unwrap()["hits"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn each_pod_has_a_host_of_its_own_and_the_apex_leads_there() {
    let hosts = Hosts::start("").await;
    let pods = [Pod::named("a").html(), Pod::named("b").html()];
    let slugs = [hosts.server.store(pods[0].clone()).await, hosts.server.store(pods[1].clone()).await];
    let mut names = Vec::new();
    for (slug, pod) in slugs.iter().zip(&pods) {
        let moved = hosts.get("pods.test:8080", &format!("/{slug}")).await;
        assert_eq!(moved.status(), 307);
        let location = text(moved.headers(), "location");
        let host = location.strip_prefix("http://").and_then(|rest| rest.strip_suffix(":8080/")).unwrap();
        assert!(host.strip_suffix(".pods.test").is_some_and(|label| label.len() == 15), "{host}");
        assert_eq!(hosts.hits(slug).await, 0, "the way there is no hit");
        let spellings = [
            host.to_owned(),
            host.to_uppercase(),
            format!("{host}:8080"),
            format!("{host}."),
            format!("{}.:8080", host.to_uppercase()),
        ];
        for name in spellings {
            let served = hosts.get(&name, "/").await;
            assert_eq!(served.status(), 200, "{name}");
            assert_eq!(text(served.headers(), "origin-agent-cluster"), "?1");
            assert_eq!(served.text().await.unwrap(), *pod);
        }
        assert_eq!(hosts.hits(slug).await, 5);
        names.push(host.to_owned());
    }
    assert_ne!(names[0], names[1]);
    // A pod's host serves that pod alone: whatever else shared its origin could be read from there.
    let others = [
        format!("/{}", slugs[1]),
        format!("/{}/meta", slugs[0]),
        "/health".into(),
        "/pods".into(),
        "/signal".into(),
    ];
    for path in &others {
        assert_eq!(hosts.get(&names[0], path).await.status(), 404, "{path}");
    }
    let post = hosts.http.post(hosts.server.url("/pods")).header("host", &names[0]);
    assert_eq!(
        post.header("content-type", "text/html").body(pods[0].clone()).send().await.unwrap().status(),
        404
    );
    for nobody in ["aaaaaaaaaaaaaaa.pods.test", "a.pods.test", "a.pods.test.", "x.aaaaaaaaaaaaaaa.pods.test"]
    {
        assert_eq!(hosts.get(nobody, "/").await.status(), 404, "{nobody}");
    }
    for invalid in [".pods.test", &format!("{}..", names[0])] {
        assert_eq!(hosts.get(invalid, "/").await.status(), 400, "{invalid}");
    }
    for apex in [
        "pods.test",
        "pods.test.",
        "PODS.TEST",
        "notpods.test",
        "localhost",
        "aaaaaaaaaaaaaaa.pods.test.evil.test",
    ] {
        assert_eq!(hosts.get(apex, "/health").await.status(), 200, "{apex}");
        let moved = hosts.get(apex, &format!("/{}", slugs[0])).await;
        assert_eq!(text(moved.headers(), "location"), format!("http://{}/", names[0]), "{apex}");
    }
    assert_eq!(hosts.get("pods.test", "/AAAAAAAAAAAA").await.status(), 404);
    hosts.server.stop().await;
}

#[tokio::test]
async fn the_way_to_a_pods_host_keeps_the_query() {
    let hosts = Hosts::start("").await;
    let slug = hosts.server.store(Pod::named("a").html()).await;
    for query in ["?ref=mail", "?", "?a=b&c=%20d?e", "?x=//evil.test/", "?next=%0d%0aset-cookie:a"] {
        let moved = hosts.get("pods.test", &format!("/{slug}{query}")).await;
        assert_eq!(moved.status(), 307);
        let location = text(moved.headers(), "location");
        assert!(location.ends_with(&format!(".pods.test/{query}")), "{query}: {location}");
        let host = location.strip_prefix("http://").unwrap().split('/').next().unwrap();
        assert_eq!(hosts.get(host, &format!("/{query}")).await.status(), 200, "{query}");
    }
    hosts.server.stop().await;
}

#[tokio::test]
async fn http2_names_a_pods_host_in_its_authority() {
    let hosts = Hosts::start("").await;
    let slug = hosts.server.store(Pod::named("a").html()).await;
    let moved = hosts.get("pods.test", &format!("/{slug}")).await;
    let location = text(moved.headers(), "location");
    let host = location.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    let stream = tokio::net::TcpStream::connect(&hosts.server.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (authority, status) in [
        (host.clone(), 200),
        (host.to_uppercase(), 200),
        (format!("{host}."), 200),
        (format!("{host}:8080"), 200),
        (format!("{}.:8080", host.to_uppercase()), 200),
        (format!("x.{host}"), 404),
    ] {
        let request = http::Request::get(format!("http://{authority}/")).version(http::Version::HTTP_2);
        let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{authority}");
    }
    hosts.server.stop().await;
}

#[tokio::test]
async fn scheme_and_port_are_those_that_the_client_sees() {
    let hosts = Hosts::start("").await;
    let slug = hosts.server.store(Pod::named("a").html()).await;
    let request = hosts.http.get(hosts.server.url(&format!("/{slug}"))).header("host", "127.0.0.1:8080");
    let forwarded = request.header("x-forwarded-for", "192.0.2.1").header("x-forwarded-proto", "https");
    let moved = forwarded.header("x-forwarded-host", "pods.test").send().await.unwrap();
    let location = text(moved.headers(), "location");
    assert!(location.starts_with("https://") && location.ends_with(".pods.test/"), "{location}");
    // Over TLS the policy stays as it is; without it the broker's own socket is let through.
    let host = location["https://".len()..].trim_end_matches('/').to_owned();
    let plain = hosts.get(&format!("{host}:8080"), "/").await;
    assert!(
        text(plain.headers(), "content-security-policy")
            .contains("connect-src 'self' ws://pods.test:8080 wss:")
    );
    let tls =
        hosts.http.get(hosts.server.url("/")).header("host", &host).header("x-forwarded-proto", "https");
    let tls = tls.header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert!(text(tls.headers(), "content-security-policy").contains("connect-src 'self' wss:"));
    hosts.server.stop().await;
}
