//! A broker in this process, on a free port.

use std::net::SocketAddr;

use gemmapod_signal::{Builder, Config, MemoryRegistry, ServeError, ServerHandle, SignalServer};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{bounds, frames, socket::Socket};

/// A running broker.
pub struct TestServer {
    /// `host:port` of the first listener.
    pub address: String,
    /// Of every TCP listener.
    pub addresses: Vec<SocketAddr>,
    pub http: reqwest::Client,
    pub handle: ServerHandle,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    /// With a registry in memory and the default settings.
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With the settings in `toml`. Unless they say otherwise, no offer waits for an origin: after a start all would.
    pub async fn with(toml: &str) -> Self {
        let config = config(&without_offline_grace(toml));
        let registry = MemoryRegistry::new(config.pods.memory_limit.as_u64());
        Self::from(SignalServer::builder().config(config).registry(registry)).await
    }

    pub async fn from(builder: Builder) -> Self {
        let server = builder.bind().await.unwrap();
        let addresses = server.local_addrs();
        let address = addresses[0].to_string();
        let handle = server.handle();
        Self {
            address,
            addresses,
            http: reqwest::Client::new(),
            handle,
            serving: tokio::spawn(server.serve()),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn connect(&self) -> Socket {
        Socket::connect(&self.address).await
    }

    /// A socket that holds `pod_id`.
    pub async fn origin(&self, pod_id: &str) -> Socket {
        let mut socket = self.connect().await;
        socket.register(pod_id).await;
        socket
    }

    /// A socket that has begun the session `session_id` with `origin`, which holds `pod_id` and has seen the offer.
    pub async fn visitor(&self, origin: &mut Socket, pod_id: &str, session_id: &str) -> Socket {
        let mut socket = self.connect().await;
        socket.send(frames::offer(pod_id, session_id, "OFFER")).await;
        origin.expect(frames::offered(session_id, "OFFER")).await;
        socket
    }

    pub async fn health(&self) -> Value {
        self.http.get(self.url("/health")).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until `/health` looks as it should.
    pub async fn until_health(&self, what: &str, fits: impl Fn(&Value) -> bool) {
        let poll = async {
            while !fits(&self.health().await) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::SOON, poll)
            .await
            .unwrap_or_else(|_| panic!("/health never showed {what}"));
    }

    pub async fn upload(&self, html: impl Into<reqwest::Body>) -> reqwest::Response {
        self.http.post(self.url("/pods")).header("content-type", "text/html").body(html).send().await.unwrap()
    }

    /// Uploads a pod that must be taken; its slug.
    pub async fn store(&self, html: String) -> String {
        let answer = self.upload(html).await;
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// The first compressed answer with the pod at `url`, whose plain text is `html`.
    pub async fn compressed(&self, url: &str, html: &str) -> reqwest::Response {
        let asking = async {
            loop {
                let request = self.http.get(url).header("accept-encoding", "gzip, deflate, br, zstd");
                let answer = request.send().await.unwrap();
                if answer.headers().contains_key("content-encoding") {
                    return answer;
                }
                assert_eq!(answer.text().await.unwrap(), html);
            }
        };
        tokio::time::timeout(super::SOON, asking).await.expect("a compressed answer should have come")
    }

    /// Stops the broker and waits until it has drained.
    pub async fn stop(self) {
        self.handle.shutdown();
        self.serving.await.unwrap().unwrap();
    }
}

fn without_offline_grace(toml: &str) -> String {
    let setting = "offline_grace = \"0s\"";
    match toml.split_once("[signal]") {
        _ if toml.contains("offline_grace") => toml.into(),
        Some((before, after)) => format!("{before}[signal]\n{setting}{after}"),
        None => format!("{toml}\n[signal]\n{setting}"),
    }
}

/// The settings in `toml` on a free port of this host. What stands in `[SECTION.bounds]` is no setting: no file can say it.
pub fn config(toml: &str) -> Config {
    let (settings, bounds) = bounds::split(toml);
    let here = "port = 0\nhostname = \"127.0.0.1\"\n";
    let config = Config::from_toml(&format!("{here}{settings}"));
    let mut config = config.unwrap_or_else(|errors| panic!("{errors:?}"));
    bounds.iter().for_each(|(bound, value)| bounds::set(&mut config, bound, value));
    config
}
