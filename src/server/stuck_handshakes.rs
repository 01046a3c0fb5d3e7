//! Handshakes whose signatures take for ever, on a broker whose runtime has one worker.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::{self, Runtime},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore, SignatureAlgorithm, SignatureScheme,
        pki_types::{CertificateDer, pem::PemObject},
        sign::{CertifiedKey, Signer, SigningKey},
    },
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::{ServeError, ServerHandle, SignalServer};
use crate::{Config, authority_pem, tls};

/// Until a broker that answers nothing is taken for stuck.
const SOON: Duration = Duration::from_secs(20);

/// Tells of each signature that it begins, which is done once the other end of `release` is dropped.
#[derive(Debug)]
struct Gate {
    begun: UnboundedSender<()>,
    release: Mutex<mpsc::Receiver<()>>,
}

#[derive(Debug)]
struct StuckKey(Arc<dyn SigningKey>, Arc<Gate>);

#[derive(Debug)]
struct StuckSigner(Box<dyn Signer>, Arc<Gate>);

impl SigningKey for StuckKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.0.choose_scheme(offered)?;
        Some(Box::new(StuckSigner(signer, self.1.clone())))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl Signer for StuckSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let _ = self.1.begun.send(());
        let _ = self.1.release.lock().unwrap().recv();
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

/// A broker whose handshakes are stuck until `release` is dropped.
struct StuckBroker {
    runtime: Option<Runtime>,
    plain: SocketAddr,
    tls: SocketAddr,
    handle: ServerHandle,
    serving: JoinHandle<Result<(), ServeError>>,
    begun: UnboundedReceiver<()>,
    release: mpsc::Sender<()>,
    connector: TlsConnector,
    _directory: TempDir,
}

impl StuckBroker {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::from_toml(&format!(
            "data_dir = {:?}\nregistry = \"memory\"\n[tls]\nmode = \"self-signed\"\ndomains = [\"pods.example\"]\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = true",
            directory.path()
        ))
        .unwrap();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bind = SignalServer::builder().config(config.clone()).bind();
        let server = runtime.spawn(bind).await.unwrap().unwrap();
        let (begun, release, gate) = {
            let ((begun_sender, begun), (release, released)) = (unbounded_channel(), mpsc::channel());
            (begun, release, Arc::new(Gate { begun: begun_sender, release: Mutex::new(released) }))
        };
        let mut certificate = server.app.certificates.first().unwrap();
        let CertifiedKey { cert, key, .. } = &*certificate.key;
        let key = CertifiedKey::new(cert.clone(), Arc::new(StuckKey(key.clone(), gate)));
        certificate.key = Arc::new(key);
        server.app.certificates.show(vec![certificate]);
        let [plain, tls] = server.local_addrs().try_into().unwrap();
        let handle = server.handle();
        let serving = runtime.spawn(server.serve());
        let connector = connector(&authority_pem(&config).unwrap());
        let runtime = Some(runtime);
        Self { runtime, plain, tls, handle, serving, begun, release, connector, _directory: directory }
    }

    /// Begins a handshake from each of 32 addresses, and waits for the first signature.
    async fn begin_handshakes(&mut self) -> Vec<JoinHandle<TlsStream<TcpStream>>> {
        let from = |host: u8| {
            let (connector, broker) = (self.connector.clone(), self.tls);
            tokio::spawn(async move {
                let tcp = connect([127, 0, 2, host].into(), broker).await;
                connector.connect("pods.example".try_into().unwrap(), tcp).await.unwrap()
            })
        };
        let handshakes = (1..=32).map(from).collect();
        soon(self.begun.recv()).await.unwrap();
        handshakes
    }
}

impl Drop for StuckBroker {
    fn drop(&mut self) {
        // The other way to drop a runtime waits, which tasks of another one must not.
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn connector(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

async fn connect(from: IpAddr, broker: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(broker).await.unwrap()
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.expect("the broker is stuck")
}

async fn is_served(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> bool {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: pods.example\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let length = soon(stream.read(&mut answer)).await.unwrap();
    answer[..length].starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn what_is_open_is_served_and_what_is_new_gets_in() {
    let mut broker = StuckBroker::start().await;
    let host = IpAddr::from([127, 0, 0, 1]);
    let mut open = connect(host, broker.plain).await;
    assert!(is_served(&mut open).await);
    let socket = connect(host, broker.plain).await;
    let (mut socket, _) = soon(client_async("ws://pods.example/signal", socket)).await.unwrap();
    let handshakes = broker.begin_handshakes().await;
    for round in 0..32 {
        assert!(is_served(&mut open).await);
        let ping = vec![round];
        soon(socket.send(Message::Ping(ping.clone().into()))).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong(ping.into()));
        assert!(is_served(&mut connect(host, broker.plain).await).await);
    }
    drop(std::mem::replace(&mut broker.release, mpsc::channel().0));
    for handshake in handshakes {
        assert!(is_served(&mut soon(handshake).await.unwrap()).await);
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_them() {
    let mut broker = StuckBroker::start().await;
    let _handshakes = broker.begin_handshakes().await;
    broker.handle.shutdown();
    soon(&mut broker.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broker_is_dropped_among_tasks() {
    let mut broker = StuckBroker::start().await;
    let _handshakes = broker.begin_handshakes().await;
    broker.serving.abort();
    assert!(soon(&mut broker.serving).await.unwrap_err().is_cancelled());
}
