//! What an owner does with pods of their own.

use std::time::{Duration, SystemTime};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::proof::{BROKER, HOST, Owner, broker, later};
use crate::support::{raw::Raw, server::TestServer};

async fn get(server: &TestServer, path: &str) -> (StatusCode, String) {
    let answer = server.http.get(server.url(path)).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn an_owner_deletes_a_pod() {
    let server = broker("").await;
    let owner = Owner::new();
    let slug = server.store(owner.pod("mine").html()).await;
    let deleted =
        owner.signed(&server, Method::DELETE, &format!("/{slug}"), None, later()).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(get(&server, &format!("/{slug}")).await.0, StatusCode::NOT_FOUND);
    let again =
        owner.signed(&server, Method::DELETE, &format!("/{slug}"), None, later()).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_owner_puts_another_version_under_the_same_slug() {
    let server = broker("").await;
    let owner = Owner::new();
    let slug = server.store(owner.pod("old").html()).await;
    let path = format!("/{slug}");
    let (_, before) = get(&server, &format!("{path}/meta")).await;
    let (old, new) = (get(&server, &path).await.1, owner.pod("new").padded(10).html());
    let etag = async || {
        let head = server.http.head(server.url(&path)).send().await.unwrap();
        head.headers()["etag"].to_str().unwrap().to_owned()
    };
    let etag_before = etag().await;
    let answer = owner.signed(&server, Method::PUT, &path, Some(&new), later()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["id"], slug);
    assert_eq!(answer["url"], format!("https://pods.example.org/{slug}"));
    assert_eq!(answer["ownerPubkey"], owner.key());
    assert_eq!(answer["blobSize"], new.len());
    assert_ne!(old, new);
    assert_eq!(get(&server, &path).await, (StatusCode::OK, new));
    assert_ne!(etag().await, etag_before);
    let read = |meta: &str| serde_json::from_str::<Value>(meta).unwrap();
    let (before, after) = (read(&before), read(&get(&server, &format!("{path}/meta")).await.1));
    assert_eq!((&after["name"], &after["createdAt"]), (&"new".into(), &before["createdAt"]));
    assert_eq!(after["hits"], 2);
    assert!(after["updatedAt"].is_string() && before["updatedAt"].is_null());
}

#[tokio::test]
async fn a_version_of_another_owner_is_not_put() {
    let server = broker("").await;
    let (owner, other) = (Owner::new(), Owner::new());
    let slug = server.store(owner.pod("mine").html()).await;
    let path = format!("/{slug}");
    let theirs = other.pod("theirs").html();
    let answer = owner.signed(&server, Method::PUT, &path, Some(&theirs), later()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(answer.text().await.unwrap().contains("signed by another owner key"));
    let missing = owner.signed(&server, Method::PUT, "/aaaaaaaaaaaa", Some(&theirs), later());
    assert_eq!(missing.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let no_pod = owner.signed(&server, Method::PUT, &path, Some("no pod"), later()).send().await.unwrap();
    assert_eq!(no_pod.status(), StatusCode::BAD_REQUEST);
    assert_eq!(get(&server, &path).await.1, owner.pod("mine").html());
}

#[tokio::test]
async fn an_owner_lists_their_own_pods() {
    let server = broker("").await;
    let (owner, other) = (Owner::new(), Owner::new());
    let mut mine = Vec::new();
    for n in 0..3 {
        mine.push(server.store(owner.pod(&format!("pod {n}")).html()).await);
        server.store(other.pod("theirs").html()).await;
    }
    mine.sort();
    let path = format!("/owner/{}/pods", owner.key());
    let list = async |path: &str| {
        let answer = owner.signed(&server, Method::GET, path, None, later()).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        (status, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    let slugs = |body: &Value| -> Vec<String> {
        let pods = body["pods"].as_array().unwrap().iter();
        pods.map(|pod| pod["id"].as_str().unwrap().to_owned()).collect()
    };
    let (status, body) = list(&path).await;
    assert_eq!((status, slugs(&body)), (StatusCode::OK, mine.clone()));
    assert_eq!(body["pods"][0]["ownerPubkey"], owner.key());
    assert_eq!(body["pods"][0]["upload"], "unsigned");
    assert!(body["next"].is_null());
    assert_eq!(slugs(&list(&format!("{path}?after={}", mine[0])).await.1), mine[1..]);
    assert_eq!(list(&format!("{path}?after=x")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(list(&format!("/owner/{}/pods", other.key())).await.0, StatusCode::FORBIDDEN);
    assert_eq!(list("/owner/x/pods").await.0, StatusCode::NOT_FOUND);
    let unsigned = server.http.get(server.url(&path)).header("host", HOST).send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    assert!(unsigned.headers()["accept-signature"].to_str().unwrap().contains("@target-uri"));
}

#[tokio::test]
async fn a_list_that_is_longer_than_a_page_is_read_page_by_page() {
    let server = broker("[signal]").await;
    let owner = Owner::new();
    let html = owner.pod("one of many").html();
    for _ in 0..503 {
        server.store(html.clone()).await;
    }
    let path = format!("/owner/{}/pods", owner.key());
    let (mut query, mut pages, mut slugs) = (String::new(), 0, Vec::new());
    loop {
        let answer = owner.signed(&server, Method::GET, &format!("{path}{query}"), None, later());
        let page = answer.send().await.unwrap().text().await.unwrap();
        assert!(page.len() < 66 << 10, "{} bytes", page.len());
        let page: Value = serde_json::from_str(&page).unwrap();
        let pods = page["pods"].as_array().unwrap();
        pages += 1;
        slugs.extend(pods.iter().map(|pod| pod["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => query = format!("?after={next}"),
            None => break,
        }
    }
    assert!(slugs.is_sorted_by(|a, b| a < b));
    assert!((2..10).contains(&pages) && slugs.len() == 503, "{} pods on {pages} pages", slugs.len());
}

#[tokio::test]
async fn a_pod_with_an_end_is_served_until_then() {
    let clock = gemmapod_signal::Clock::default();
    let config = crate::support::server::config("[uploads]\nlifetime = \"1h\"");
    let registry = gemmapod_signal::MemoryRegistry::new(1 << 20);
    let builder =
        gemmapod_signal::SignalServer::builder().config(config).registry(registry).clock(clock.clone());
    let server = TestServer::from(builder).await;
    let slug = server.store(Owner::new().pod("brief").html()).await;
    let (_, meta) = get(&server, &format!("/{slug}/meta")).await;
    let meta: Value = serde_json::from_str(&meta).unwrap();
    let time = |field: &str| humantime::parse_rfc3339(meta[field].as_str().unwrap()).unwrap();
    assert_eq!(time("expires").duration_since(time("createdAt")).unwrap(), Duration::from_hours(1));
    assert!(time("expires") > SystemTime::now());
    clock.pass(Duration::from_mins(59));
    for path in [format!("/{slug}"), format!("/{slug}/meta")] {
        assert_eq!(get(&server, &path).await.0, StatusCode::OK, "{path}");
    }
    clock.pass(Duration::from_mins(2));
    for path in [format!("/{slug}"), format!("/{slug}/meta")] {
        assert_eq!(get(&server, &path).await, (StatusCode::NOT_FOUND, "404 Not Found".into()), "{path}");
    }
}

#[tokio::test]
async fn health_tells_of_origins_what_it_is_set_to_tell() {
    for (setting, told) in [("list", "[\"pod\"]"), ("count", "1"), ("off", "null")] {
        let server = broker(&format!("[health]\norigins = \"{setting}\"")).await;
        let _origin = server.origin("pod").await;
        let health = server.health().await;
        assert_eq!(health["origins"].to_string(), told);
        assert_eq!(health.as_object().unwrap().contains_key("origins"), setting != "off");
    }
}

/// The tags of a pod: as it is, and in gzip.
async fn tags(server: &TestServer, path: &str) -> [String; 2] {
    let head = server.http.head(server.url(path)).send().await.unwrap();
    let etag = head.headers()["etag"].to_str().unwrap().to_owned();
    let gzip = format!("{}-gzip\"", etag.trim_end_matches('"'));
    [etag, gzip]
}

#[tokio::test]
async fn a_change_is_made_only_if_its_conditions_are_true() {
    let server = broker("").await;
    let (owner, stranger) = (Owner::new(), Owner::new());
    let old = owner.pod("old").html();
    let new = owner.pod("new").html();
    for method in [Method::PUT, Method::DELETE] {
        let body = (method == Method::PUT).then_some(&*new);
        let done = if method == Method::PUT { StatusCode::OK } else { StatusCode::NO_CONTENT };
        let rows = |[etag, gzip]: [String; 2]| {
            let no = StatusCode::PRECONDITION_FAILED;
            [
                (vec![("if-match", etag.clone())], done),
                (vec![("if-match", gzip.clone())], done),
                (vec![("if-match", "*".into())], done),
                (vec![("if-match", format!("\"a\", {etag}"))], done),
                (vec![("if-match", "\"a\"".into())], no),
                (vec![("if-match", format!("W/{etag}"))], no),
                (vec![("if-match", etag.trim_matches('"').into())], no),
                (vec![("if-none-match", "*".into())], no),
                (vec![("if-none-match", etag.clone())], no),
                (vec![("if-none-match", gzip)], no),
                (vec![("if-none-match", format!("\"a\", W/{etag}"))], no),
                (vec![("if-none-match", "\"a\"".into())], done),
                (vec![("if-match", etag.clone()), ("if-none-match", "*".into())], no),
                (vec![("if-match", "\"a\"".into()), ("if-none-match", "\"a\"".into())], no),
                (vec![("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT".into())], done),
            ]
        };
        for row in 0..15 {
            let slug = server.store(old.clone()).await;
            let path = format!("/{slug}");
            let (fields, status) = rows(tags(&server, &path).await)[row].clone();
            let with = |request: reqwest::RequestBuilder| {
                fields.iter().fold(request, |request, (name, value)| request.header(*name, value))
            };
            // Without the condition, these would be refused: so it counts for nothing.
            let theirs = with(stranger.signed(&server, method.clone(), &path, body, later()));
            assert_eq!(theirs.send().await.unwrap().status(), StatusCode::FORBIDDEN, "{method} {fields:?}");
            let missing = with(owner.signed(&server, method.clone(), "/aaaaaaaaaaaa", body, later()));
            assert_eq!(missing.send().await.unwrap().status(), StatusCode::NOT_FOUND, "{method} {fields:?}");
            let unsigned = with(server.http.request(method.clone(), server.url(&path)).header("host", HOST));
            assert_eq!(
                unsigned.send().await.unwrap().status(),
                StatusCode::UNAUTHORIZED,
                "{method} {fields:?}"
            );

            let request = with(owner.signed(&server, method.clone(), &path, body, later()));
            let again = request.try_clone().unwrap();
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status, "{method} {fields:?}");
            if status == StatusCode::PRECONDITION_FAILED {
                assert!(answer.text().await.unwrap().contains("If-Match"), "{method} {fields:?}");
                assert_eq!(get(&server, &path).await, (StatusCode::OK, old.clone()), "{method} {fields:?}");
                // Nobody can repeat it without its condition.
                let repeated = again.send().await.unwrap();
                assert_eq!(repeated.status(), StatusCode::UNAUTHORIZED, "{method} {fields:?}");
            }
        }
    }
}

/// The version that is replaced is compared, not the one that was there when the upload began.
#[tokio::test]
async fn a_version_that_came_during_the_upload_is_not_replaced() {
    let server = broker("").await;
    let owner = Owner::new();
    let path = format!("/{}", server.store(owner.pod("old").html()).await);
    let (first, second) = (owner.pod("first").html(), owner.pod("second").html());
    let [etag, _] = tags(&server, &path).await;
    let headers = owner.signature(&Method::PUT, BROKER, &path, Some(&first), later());
    let mut head = format!("PUT {path} HTTP/1.1\nHost: {HOST}\nContent-Type: text/html\nIf-Match: {etag}\n");
    for (name, value) in &headers {
        head += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let mut slow = Raw::open(&server.address).await;
    slow.send(&format!("{head}Content-Length: {}\nExpect: 100-continue\n\n", first.len())).await;
    // It is asked for the body once its conditions were checked.
    assert_eq!(slow.status().await, StatusCode::CONTINUE);
    let put = owner.signed(&server, Method::PUT, &path, Some(&second), later()).header("if-match", &etag);
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    slow.send_bytes(first.as_bytes()).await;
    assert_eq!(slow.answer().await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(get(&server, &path).await, (StatusCode::OK, second));
}

#[tokio::test]
async fn the_head_of_a_list_is_that_of_the_list() {
    let server = broker("").await;
    let owner = Owner::new();
    server.store(owner.pod("mine").html()).await;
    let path = format!("/owner/{}/pods", owner.key());
    let ask = async |method| owner.signed(&server, method, &path, None, later()).send().await.unwrap();
    let (list, head) = (ask(Method::GET).await, ask(Method::HEAD).await);
    assert_eq!((list.status(), head.status()), (StatusCode::OK, StatusCode::OK));
    for name in ["content-length", "content-type", "cache-control"] {
        assert_eq!(head.headers()[name], list.headers()[name], "{name}");
    }
    assert_eq!(head.text().await.unwrap(), "");
}

#[tokio::test]
async fn a_pod_that_has_expired_is_not_replaced_but_can_be_deleted() {
    let clock = gemmapod_signal::Clock::default();
    let config =
        crate::support::server::config(&format!("public_url = \"{BROKER}\"\n[uploads]\nlifetime = \"1h\""));
    let registry = gemmapod_signal::MemoryRegistry::new(64 << 20);
    let builder =
        gemmapod_signal::SignalServer::builder().config(config).registry(registry).clock(clock.clone());
    let (server, owner) = (TestServer::from(builder).await, Owner::new());
    let path = format!("/{}", server.store(owner.pod("old").html()).await);
    clock.pass(Duration::from_secs(3599));
    let now = || SystemTime::now() + Duration::from_secs(3599);
    let new = owner.pod("new").html();
    let answer = owner.signed(&server, Method::PUT, &path, Some(&new), now()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let newer = owner.pod("newer").html();
    // One that is in the midst of its body by then is late, too.
    let mut slow = Raw::open(&server.address).await;
    let mut head =
        format!("PUT {path} HTTP/1.1\nHost: {HOST}\nContent-Type: text/html\nExpect: 100-continue\n");
    for (name, value) in &owner.signature(&Method::PUT, BROKER, &path, Some(&newer), now()) {
        head += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    slow.send(&format!("{head}Content-Length: {}\n\n", newer.len())).await;
    assert_eq!(slow.status().await, StatusCode::CONTINUE);
    clock.pass(Duration::from_secs(1));
    slow.send_bytes(newer.as_bytes()).await;
    assert_eq!(slow.status().await, StatusCode::NOT_FOUND);
    let answer = owner.signed(&server, Method::PUT, &path, Some(&newer), now()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&server, &path).await.0, StatusCode::NOT_FOUND);
    let answer = owner.signed(&server, Method::DELETE, &path, None, now()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
}
