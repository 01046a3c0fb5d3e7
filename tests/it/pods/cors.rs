//! Uploads from pages of other origins, as the Fetch standard has browsers make them: the preflight, and what a page
//! may read of the answer.

use reqwest::{
    Client, Method, Response, Version,
    header::{HeaderMap, HeaderName},
};

use crate::support::{pod::Pod, server::TestServer};

const OPEN: &str = "uploads.policy = \"open\"";
const OWNERS: &str = "uploads.policy = \"owners\"\nuploads.owners_file = \"/dev/null\"";
const TOKEN: &str = "uploads.policy = \"token\"\nuploads.tokens_file = \"/dev/null\"";
const CLOSED: &str = "uploads.policy = \"closed\"";

/// A client of each version of HTTP.
pub fn clients() -> [Client; 2] {
    [Client::builder().http1_only(), Client::builder().http2_prior_knowledge()]
        .map(|client| client.build().unwrap())
}

/// The items of a list in header fields, in lower case.
fn items(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter().flat_map(|line| line.to_str().unwrap().split(','));
    lines.map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty()).collect()
}

async fn preflight(server: &TestServer, client: &Client, requested: &[&str]) -> Response {
    let mut preflight = client
        .request(Method::OPTIONS, server.url("/pods"))
        .header("origin", "https://elsewhere.example")
        .header("access-control-request-method", "POST");
    for line in requested {
        preflight = preflight.header("access-control-request-headers", *line);
    }
    preflight.send().await.unwrap()
}

/// Whether a browser goes on after this answer (Fetch, section 4.8, for requests without credentials).
fn allows(answer: &Response, names: &[&str]) -> bool {
    let headers = answer.headers();
    let allowed = items(headers, "access-control-allow-headers");
    let is_allowed = |name: &&str| {
        let wildcard =
            allowed.iter().any(|allowed| allowed == "*") && !name.eq_ignore_ascii_case("authorization");
        wildcard || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    };
    answer.status().is_success()
        && headers["access-control-allow-origin"] == "*"
        && items(headers, "access-control-allow-methods").contains(&"post".to_owned())
        // A name that is no token makes the whole list fail.
        && allowed.iter().all(|name| name.parse::<HeaderName>().is_ok())
        && names.iter().all(is_allowed)
}

#[tokio::test]
async fn a_preflight_allows_what_a_page_is_going_to_send() {
    let names: &[&[&str]] = &[
        &["content-type"],
        &["baggage", "content-type", "sentry-trace"],
        &["authorization", "content-type"],
        &["content-digest", "content-type", "signature", "signature-input"],
        &["traceparent", "tracestate", "x-b3-traceid", "x-request-id"],
        &["X-Upper", "!#$%&'*+-.^_`|~0"],
    ];
    for settings in [OPEN, OWNERS, TOKEN, CLOSED] {
        let server = TestServer::with(settings).await;
        for client in clients() {
            for names in names {
                for joined in [names.join(","), names.join(" , ")] {
                    let answer = preflight(&server, &client, &[&joined]).await;
                    assert!(allows(&answer, names), "{settings} {names:?}: {answer:?}");
                    assert!(
                        items(answer.headers(), "vary").contains(&"access-control-request-headers".into()),
                        "a cache must not give one page's answer to another: {answer:?}"
                    );
                }
                let answer = preflight(&server, &client, names).await;
                assert!(allows(&answer, names), "each in a line of its own: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_preflight_that_asks_for_nothing_is_told_what_an_upload_may_have() {
    let server = TestServer::start().await;
    for client in clients() {
        for requested in [&[][..], &[""], &[" , "]] {
            let answer = preflight(&server, &client, requested).await;
            let names = ["content-type", "authorization", "content-digest", "signature-input", "signature"];
            assert!(allows(&answer, &names), "{requested:?}: {answer:?}");
        }
    }
}

/// What is no list of names, or a very long one, is not repeated.
#[tokio::test]
async fn a_preflight_repeats_no_nonsense() {
    let server = TestServer::start().await;
    let many: Vec<_> = (0..1000).map(|n| format!("x-{n}")).collect();
    for client in clients() {
        for requested in ["a b", "x-a;q=1", "\"x\"", "x-a,(", "ä", &"x".repeat(5000), &many.join(",")] {
            let answer = preflight(&server, &client, &[requested]).await;
            assert!(allows(&answer, &["content-type"]), "{answer:?}");
            let bytes: usize = answer.headers().values().map(|value| value.len()).sum();
            assert!(bytes < 1000, "{answer:?}");
        }
    }
}

const LIMITS: &str = "limits.exempt = []\nlimits.uploads_per_address = \"1/day burst 3\"\n\
    quotas.pods = 1\npods.max_blob = \"1 MiB\"";

/// What tells a page whether and when to come back, and how to be let in.
const TELLING: [&str; 5] =
    ["retry-after", "ratelimit", "ratelimit-policy", "www-authenticate", "accept-signature"];

/// A page may read the answer, and whatever in it says what to do next.
#[track_caller]
fn is_readable(answer: &Response, status: u16) {
    let headers = answer.headers();
    assert_eq!(
        (answer.status().as_u16(), headers.get_all("access-control-allow-origin").iter().count()),
        (status, 1)
    );
    assert_eq!(headers["access-control-allow-origin"], "*");
    let exposed = items(headers, "access-control-expose-headers");
    for name in TELLING.iter().chain(&["accept-encoding"]) {
        assert!(exposed.contains(&(*name).to_owned()), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_page_may_read_why_it_was_refused_and_when_to_come_back() {
    for client in clients() {
        let server = TestServer::with(LIMITS).await;
        let html = Pod::named("pod").html();
        let post = async |content_type: &str| {
            let post = client.post(server.url("/pods")).header("origin", "https://elsewhere.example");
            post.header("content-type", content_type).body(html.clone()).send().await.unwrap()
        };
        is_readable(&post("text/html").await, 200);
        is_readable(&post("image/png").await, 415);
        is_readable(&post("text/html").await, 507);
        let limited = post("text/html").await;
        is_readable(&limited, 429);
        for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
            assert!(limited.headers().contains_key(name), "{name}: {limited:?}");
        }
        assert!(limited.version() == Version::HTTP_11 || limited.version() == Version::HTTP_2);
    }
    for (settings, status) in [(TOKEN, 401), (CLOSED, 403)] {
        let server = TestServer::with(settings).await;
        for client in clients() {
            let post = client.post(server.url("/pods")).header("content-type", "text/html").body("x");
            is_readable(&post.send().await.unwrap(), status);
        }
    }
}
