//! Text of strangers with line ends and commands to terminals in it: none reaches a log or a terminal as it is.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
    time::SystemTime,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response};
use serde_json::json;

use super::proof::Owner;
use crate::support::{
    credential::basic,
    frames,
    process::{Broker, command, ended},
    raw::ask,
    socket::Socket,
};

/// A line end, a line as the log has them, and what clears a screen, sets its title and turns text around.
const EVIL: &str =
    "x\r\n2026-01-01T00:00:00.000000Z  INFO forged\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{7f}\u{202e}\u{2028}";

/// Returns what is wrong with a line of a log or of a command.
fn wrong(line: &str) -> bool {
    line.contains(|char: char| char.is_control() || matches!(char, '\u{202e}' | '\u{2028}'))
        || line.starts_with("2026-01-01T")
}

/// Sends a signed request until the broker is up for long enough.
async fn signed(broker: &Broker, owner: &Owner, method: Method, path: &str, body: Option<&str>) -> Response {
    let http = reqwest::Client::new();
    loop {
        let headers = owner.signature(&method, &broker.url(""), path, body, SystemTime::now());
        let request = http.request(method.clone(), broker.url(path)).headers(headers);
        let request = request.header("content-type", "text/html").body(body.unwrap_or_default().to_owned());
        let answer = request.send().await.unwrap();
        if answer.status() != 401 {
            return answer;
        }
        let sentence = answer.text().await.unwrap();
        assert!(sentence.contains("before the broker was up"), "{sentence}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stranger_writes_lines_or_commands_into_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut broker = Broker::start(&[
        "-d",
        data.to_str().unwrap(),
        "--set",
        "log.level=trace",
        "--set",
        "signal.bind=uploads",
        "--set",
        "trusted_proxies=127.0.0.1",
    ]);
    let owner = Owner::new();
    let evil = utf8_percent_encode(EVIL, NON_ALPHANUMERIC).to_string();
    let own = format!("/owner/{}", owner.key());
    let add = json!({ "name": EVIL, "secretSha256": "0a".repeat(32), "podIds": [EVIL] }).to_string();
    let right = json!({ "name": "home", "secretSha256": "0a".repeat(32), "podIds": [EVIL] }).to_string();
    for (method, path, body, status) in [
        (Method::PUT, format!("{own}/pod-ids/{evil}"), None, 204),
        (Method::DELETE, format!("{own}/pod-ids/{evil}"), None, 204),
        (Method::DELETE, format!("{own}/credentials/{evil}"), None, 404),
        (Method::POST, format!("{own}/credentials"), Some(&add), 400),
        (Method::POST, format!("{own}/credentials"), Some(&right), 201),
        (Method::DELETE, format!("{own}/credentials/home"), None, 204),
    ] {
        let answer = signed(&broker, &owner, method.clone(), &path, body.map(String::as_str)).await;
        assert_eq!(answer.status(), status, "{method} {path}");
    }
    let mut named = owner.pod(EVIL);
    named.before.insert_str(0, EVIL);
    for html in [owner.reachable(EVIL, "dartc"), named.html(), EVIL.into()] {
        signed(&broker, &owner, Method::POST, "/pods", Some(&html)).await;
    }

    // An id that is owned, one that is held, and one that has two who want it.
    let other = format!("{EVIL} of another");
    let mut host = Socket::connect(&broker.address).await;
    host.register(&other).await;
    for frame in [
        frames::register(EVIL),
        frames::register(&other),
        json!({ "t": "register", "podId": EVIL, "ownerToken": EVIL }),
        json!({ "t": EVIL, EVIL: EVIL }),
        frames::answer(EVIL, EVIL),
    ] {
        let mut socket = Socket::connect(&broker.address).await;
        socket.send(frame).await;
    }
    let mut visitor = Socket::connect(&broker.address).await;
    visitor.send(frames::offer(&other, EVIL, EVIL)).await;
    host.expect(frames::offered(EVIL, EVIL)).await;
    host.send(frames::error(EVIL, EVIL)).await;
    visitor.expect(frames::error(EVIL, EVIL)).await;
    let _guess = Socket::authorized(&broker.address, &[&basic(EVIL, EVIL)]).await;

    // What fields and paths may hold of it at all.
    let odd = "x\u{9b}31m\u{202e}";
    for head in [
        format!("GET /{evil} HTTP/1.1\nHost: x\n\n"),
        format!("GET /{odd} HTTP/1.1\nHost: x\n\n"),
        format!("GET /signal/{evil}?{evil} HTTP/1.1\nHost: x\n\n"),
        format!("GET / HTTP/1.1\nHost: {odd}\n\n"),
        format!("GET http://{odd}/ HTTP/1.1\nHost: x\n\n"),
        format!("{odd} / HTTP/1.1\nHost: x\n\n"),
        format!("GET / HTTP/1.1\nHost: x\nX-Forwarded-For: {odd}\nX-Forwarded-Host: {odd}\n\n"),
        format!("GET / HTTP/1.1\nHost: x\nForwarded: for=\"{odd}\";host=\"{odd}\"\nUser-Agent: {odd}\n\n"),
        format!("PUT {own}/pod-ids/x HTTP/1.1\nHost: x\nOrigin: {odd}\nSignature: {odd}\n\n"),
        format!("PUT {own}/pod-ids/x HTTP/1.1\nHost: x\nSignature-Input: {odd}\nSignature: {odd}\n\n"),
    ] {
        let answer = ask(&broker.address, &head).await;
        assert!(answer.status.is_client_error(), "{head}: {answer:?}");
    }
    broker.terminate();
    let log = broker.lines();
    assert!(log.iter().any(|line| line.contains("pod id claimed by its owner")), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("forged")), "the text is in the log");
    let wrong: Vec<_> = log.iter().filter(|line| wrong(line)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A broker that answers everything with `body`.
fn evil_broker(status: u16, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn no_broker_writes_lines_or_commands_to_the_terminal_of_an_owner() {
    let directory = tempfile::tempdir().unwrap();
    let owner = Owner::of(&[7; 32]);
    let (key, html) = (directory.path().join("owner.key"), directory.path().join("agent.html"));
    let keys = json!({ "publicKey": owner.key(), "secretKey": "07".repeat(32) });
    std::fs::write(&key, keys.to_string()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&html, owner.pod("mine").html()).unwrap();
    let (key, html) = (key.to_str().unwrap(), html.to_str().unwrap());
    let slug = "aaaaaaaaaaaa";
    let commands: [&[&str]; 9] = [
        &["claim", "pod"],
        &["unbind", "pod"],
        &["pods", "list"],
        &["pods", "put", html],
        &["pods", "put", html, "--slug", slug],
        &["pods", "delete", slug],
        &["credentials", "add", "--name", "home"],
        &["credentials", "list"],
        &["credentials", "revoke", "home"],
    ];
    let pod = json!({ "id": EVIL, "name": EVIL, "blobSize": 1, "createdAt": EVIL, "hits": 1, "expires": EVIL,
        "upload": EVIL });
    let credential = json!({ "name": "home", "podIds": [EVIL], "createdAt": EVIL });
    let told = json!({ "id": EVIL, "url": EVIL, "pods": [pod], "credentials": [credential] });
    for (status, body) in [
        (403, json!({ "error": EVIL })),
        (404, json!({ "error": EVIL })),
        (200, told),
        (200, json!({ "pods": [{ "id": EVIL }] })),
        (200, json!(EVIL)),
        (500, json!(EVIL)),
    ] {
        let url = evil_broker(status, body.to_string());
        for args in commands {
            let output = ended(command().args(args).args(["--key", key, "--broker", &url]));
            for text in [&output.stdout, &output.stderr] {
                let text = String::from_utf8(text.clone()).unwrap();
                assert!(!text.split('\n').any(wrong), "{args:?} {status}: {text:?}");
            }
            if status == 403 {
                let said = String::from_utf8(output.stderr).unwrap();
                assert!(said.contains("x\\r\\n2026-01-01"), "{args:?}: {said:?}");
            }
        }
    }
}
