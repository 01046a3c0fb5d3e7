//! What one client may hold on one connection, stream by stream: over HTTP/1.1 and HTTP/2, plain and with TLS.

mod body;
mod closing;
mod half_closed;
mod heads;
mod idle;
mod places;
mod proxies;
mod small_frames;
mod sockets;
mod stalled_uploads;
mod turns;
mod two_brokers;
mod upgrades;
mod uploads;

use std::net::Ipv4Addr;

use gemmapod_signal::{RedbRegistry, SignalServer};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    SOON, certs,
    http2::Http2,
    raw::{Raw, upload_head},
    server::{TestServer, config},
    tls_client::Client,
};

/// How a client gets to HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Plain,
    Tls,
}

const TRANSPORTS: [Transport; 2] = [Transport::Plain, Transport::Tls];

/// A broker with pods on disk, and how to get to it.
struct Scene {
    pub server: TestServer,
    tls: Option<Client>,
    /// Pods and certificates.
    pub directory: TempDir,
}

impl Scene {
    pub async fn with(transport: Transport, toml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = toml.to_owned();
        let tls = (transport == Transport::Tls).then(|| {
            let (authority, files) = (certs::Authority::named("CA"), certs::Files(directory));
            files.write("pair", &authority.issue(&["pods.example"]));
            settings = format!("{settings}\n{}", files.toml(&["pair"]));
            (Client::trusting(&authority.pem()), files)
        });
        let (tls, directory) = match tls {
            Some((client, files)) => (Some(client), files.0),
            None => (None, tempfile::tempdir().unwrap()),
        };
        let registry = RedbRegistry::open(&directory.path().join("data")).unwrap();
        let server = SignalServer::builder().config(config(&settings)).registry(registry);
        Self { server: TestServer::from(server).await, tls, directory }
    }

    pub async fn http1(&self) -> Raw {
        match &self.tls {
            None => Raw::open(&self.server.address).await,
            Some(client) => Raw::on(client.connect(&self.server.address, "pods.example").await.unwrap()),
        }
    }

    /// A connection that `socket` makes.
    pub async fn http1_on(&self, socket: TcpSocket) -> Raw {
        let stream = socket.connect(self.server.addresses[0]).await.unwrap();
        match &self.tls {
            None => Raw::over(stream),
            Some(client) => Raw::on(client.over(stream, "pods.example").await.unwrap()),
        }
    }

    /// Whether the broker has a place for one more connection.
    pub async fn serves(&self) -> bool {
        self.serves_client(Ipv4Addr::LOCALHOST).await
    }

    /// Whether it has one for `client`, which is this host.
    pub async fn serves_client(&self, client: Ipv4Addr) -> bool {
        let request = b"GET /health HTTP/1.1\r\nHost: broker\r\n\r\n";
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((client, 0).into()).unwrap();
        let stream = socket.connect(self.server.addresses[0]).await.unwrap();
        let mut raw = match &self.tls {
            None => Raw::over(stream),
            Some(client) => match client.over(stream, "pods.example").await {
                Ok(stream) => Raw::on(stream),
                Err(_) => return false,
            },
        };
        raw.try_send_bytes(request).await.is_ok() && raw.try_answer().await.is_some()
    }

    /// A client whose window for each response is `window`.
    pub async fn http2(&self, window: u32) -> Http2 {
        let address = &self.server.address;
        match &self.tls {
            None => Http2::on(TcpStream::connect(address).await.unwrap(), window).await,
            Some(client) => {
                let client = client.clone().with_alpn(&["h2"]);
                Http2::on(client.connect(address, "pods.example").await.unwrap(), window).await
            }
        }
    }

    /// Uploads a pod; its slug.
    pub async fn store(&self, html: &str) -> String {
        let mut raw = self.http1().await;
        raw.send(&upload_head(html.len())).await;
        raw.send_bytes(html.as_bytes()).await;
        raw.answer().await.json()["id"].as_str().unwrap().to_owned()
    }

    /// Pods that this process holds open.
    pub fn open_pods(&self) -> usize {
        let blobs = self.directory.path().join("data");
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let paths = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        paths.filter(|path| path.starts_with(&blobs) && is_blob(path)).count()
    }
}

fn is_blob(path: &std::path::Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.len() == 64)
}

/// Waits until `fits`.
async fn until(what: &str, mut fits: impl FnMut() -> bool) {
    let poll = async {
        while !fits() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}
