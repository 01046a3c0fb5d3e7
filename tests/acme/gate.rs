//! What stands between the broker and the directory: passes requests on, counts them, and does harm where told to.

use std::{
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Identity, Trust};

/// What pebble calls its resources, with what follows each name cut off.
pub mod step {
    pub const ACCOUNT: &str = "/sign-me-up";
    pub const DIRECTORY: &str = "/dir";
    pub const NONCE: &str = "/nonce-plz";
    pub const ORDER: &str = "/order-plz";
    pub const AUTHORIZATION: &str = "/authZ/";
    pub const UNDER_WAY: &str = "/my-order/";
    pub const CHALLENGE: &str = "/chalZ/";
    pub const FINALIZE: &str = "/finalize-order/";
    pub const CERTIFICATE: &str = "/certZ/";
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Harm {
    /// The connection is closed without an answer.
    Closed,
    /// Nothing comes back; the directory has not heard of it.
    SwallowedRequest,
    /// Nothing comes back; the directory has done what it was asked to.
    SwallowedAnswer,
    /// The directory looks at the challenge before it answers: what it found is in the answer.
    FoundWanting,
    /// Something else comes back: status, further head lines, body.
    Answered(u16, String, String),
}

impl Harm {
    /// A rate limit (RFC 8555, section 6.6) that ends in two hours.
    pub fn rate_limited() -> Self {
        let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#;
        Self::Answered(429, "Retry-After: 7200\r\n".into(), problem.into())
    }
}

#[derive(Clone)]
pub struct Gate {
    pub port: u16,
    inner: Arc<Inner>,
    behind: Arc<(TlsAcceptor, Trust, u16)>,
}

/// Which requests come to harm.
#[derive(Debug)]
struct Rule {
    /// Their paths begin so.
    begin: String,
    harm: Harm,
    /// So many of them are passed on first.
    spared: usize,
    /// So many come to harm after that.
    harmed: usize,
}

/// A request that came in.
struct Seen {
    path: String,
    /// What it asked for, signed.
    payload: String,
    /// The head of the answer that pebble gave to it.
    head: String,
}

#[derive(Default)]
struct Inner {
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    /// What the directory object says beside what pebble says.
    extra: Mutex<Value>,
    swallowed: Notify,
}

impl Gate {
    pub async fn open(identity: &Identity, trust: Trust, pebble: u16) -> Self {
        Self::before(Arc::new((identity.acceptor(), trust, pebble))).await
    }

    /// Another way to the same pebble, which is another directory to those that come by it.
    pub async fn another(&self) -> Self {
        Self::before(self.behind.clone()).await
    }

    async fn before(behind: Arc<(TlsAcceptor, Trust, u16)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gate = Self { port, inner: Arc::default(), behind };
        let (behind, inner) = (gate.behind.clone(), gate.inner.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (behind, inner) = (behind.clone(), inner.clone());
                tokio::spawn(async move {
                    let (acceptor, trust, pebble) = &*behind;
                    let mut stream = acceptor.accept(stream).await?;
                    let request = read_request(&mut stream).await?;
                    if let Some(answer) = inner.answer(&request, trust, *pebble).await? {
                        stream.write_all(&answer).await?;
                    }
                    stream.shutdown().await
                });
            }
        });
        gate
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// From now on requests to paths that begin with `path` come to harm.
    pub fn harm(&self, path: &str, harm: Harm) {
        self.add(path, harm, 0, usize::MAX);
    }

    /// The same after one of them was passed on.
    pub fn harm_after_one(&self, path: &str, harm: Harm) {
        self.add(path, harm, 1, usize::MAX);
    }

    /// The next request to a path that begins with `path` comes to harm.
    pub fn harm_once(&self, path: &str, harm: Harm) {
        self.add(path, harm, 0, 1);
    }

    fn add(&self, path: &str, harm: Harm, spared: usize, harmed: usize) {
        self.inner.rules.lock().unwrap().push(Rule { begin: path.into(), harm, spared, harmed });
    }

    /// From now on nothing comes to harm.
    pub fn heal(&self) {
        self.inner.rules.lock().unwrap().clear();
    }

    /// Waits until a request was swallowed.
    pub async fn swallowed(&self) {
        tokio::time::timeout(crate::support::SOON, self.inner.swallowed.notified())
            .await
            .expect("a request should have been swallowed");
    }

    /// How many requests to paths that begin with `path` pebble has answered with success.
    pub fn count(&self, path: &str) -> usize {
        self.answers(path).len()
    }

    /// The heads of pebble's answers of success to requests to paths that begin with `path`.
    pub fn answers(&self, path: &str) -> Vec<String> {
        let seen = self.inner.seen.lock().unwrap();
        let good =
            seen.iter().filter(|seen| seen.path.starts_with(path) && seen.head.starts_with("HTTP/1.1 20"));
        good.map(|seen| seen.head.clone()).collect()
    }

    /// Requests to paths that begin with `path`, answered or not.
    pub fn requests(&self, path: &str) -> usize {
        self.payloads(path).len()
    }

    /// What the requests to paths that begin with `path` asked for.
    pub fn payloads(&self, path: &str) -> Vec<String> {
        let seen = self.inner.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.path.starts_with(path)).map(|seen| seen.payload.clone()).collect()
    }

    /// Adds to the directory object where certificates' renewal information is.
    pub fn offer_renewal_info(&self) {
        *self.inner.extra.lock().unwrap() =
            json!({ "renewalInfo": format!("https://127.0.0.1:{}/renewal-info", self.port) });
    }
}

impl Inner {
    async fn answer(&self, request: &[u8], trust: &Trust, pebble: u16) -> io::Result<Option<Vec<u8>>> {
        let head = String::from_utf8_lossy(request);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let payload = payload(&head);
        let harm = self.harm_to(&path);
        let note = |head: &str| {
            let (path, payload, head) = (path.clone(), payload.clone(), head.into());
            self.seen.lock().unwrap().push(Seen { path, payload, head });
        };
        match &harm {
            None | Some(Harm::SwallowedAnswer | Harm::FoundWanting) => {}
            Some(harm) => {
                note("");
                return match harm {
                    Harm::Answered(status, lines, body) => Ok(Some(answer(*status, lines, body))),
                    Harm::SwallowedRequest => self.swallow().await,
                    _ => Ok(None),
                };
            }
        }
        let mut bytes = trust.ask(pebble, &closing(&head)).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        note(head);
        match harm {
            Some(Harm::FoundWanting) => {
                let mut challenge: Value = serde_json::from_str(body)?;
                challenge["status"] = "invalid".into();
                challenge["error"] =
                    json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": "not our answer" });
                return Ok(Some(answer(200, "Content-Type: application/json\r\n", &challenge.to_string())));
            }
            Some(_) => return self.swallow().await,
            None => {}
        }
        let extra = self.extra.lock().unwrap().clone();
        if path == "/dir" && !extra.is_null() {
            let mut directory: Value = serde_json::from_str(body)?;
            directory.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            bytes = answer(200, "Content-Type: application/json\r\n", &directory.to_string());
        }
        Ok(Some(bytes))
    }

    /// What happens to the next request to `path`.
    fn harm_to(&self, path: &str) -> Option<Harm> {
        let mut rules = self.rules.lock().unwrap();
        for rule in rules.iter_mut().filter(|rule| path.starts_with(&rule.begin)) {
            if rule.spared > 0 {
                rule.spared -= 1;
            } else if rule.harmed > 0 {
                rule.harmed -= 1;
                return Some(rule.harm.clone());
            }
        }
        None
    }

    async fn swallow(&self) -> io::Result<Option<Vec<u8>>> {
        self.swallowed.notify_one();
        std::future::pending().await
    }
}

fn answer(status: u16, lines: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

/// What a signed request asks for; nothing where it only asks to be shown something.
fn payload(request: &str) -> String {
    let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let signed: Value = serde_json::from_str(body).unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap_or_default());
    String::from_utf8(payload.unwrap_or_default()).unwrap_or_default()
}

/// The request, such that the connection ends with its answer.
fn closing(request: &str) -> Vec<u8> {
    request.replacen("\r\n", "\r\nConnection: close\r\n", 1).into_bytes()
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).await?;
    request.extend(body);
    Ok(request)
}
