//! A TLS client that trusts one authority.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use tokio_tungstenite::client_async;

use crate::support::{SOON, socket::Socket};

#[derive(Clone)]
pub struct Client(pub ClientConfig);

impl Client {
    pub fn trusting(authority: &str) -> Self {
        let provider = Arc::new(ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Self(config.with_root_certificates(roots(authority)).with_no_client_auth())
    }

    pub fn with_alpn(mut self, protocols: &[&str]) -> Self {
        self.0.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    pub async fn connect(&self, address: &str, name: &str) -> io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(address).await?, name).await
    }

    /// The same on a connection that is there.
    pub async fn over(&self, tcp: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let handshake = TlsConnector::from(Arc::new(self.0.clone())).connect(name, tcp);
        timeout(SOON, handshake).await.expect("the handshake should have been done")
    }

    /// The certificate that a connection to `name` is shown.
    pub async fn shown(&self, address: &str, name: &str) -> CertificateDer<'static> {
        let stream = self.connect(address, name).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// A socket at `/signal`.
    pub async fn socket(&self, address: &str, name: &str) -> Socket<TlsStream<TcpStream>> {
        let stream = self.connect(address, name).await.unwrap();
        let (stream, _) = client_async(format!("wss://{name}/signal"), stream).await.unwrap();
        Socket { stream }
    }
}

pub fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

/// The head of the answer to a GET over HTTP/1.1, after which the connection is closed.
pub async fn get(stream: &mut TlsStream<TcpStream>, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer should have come").unwrap();
    String::from_utf8(answer).unwrap()
}

/// The first certificate in PEM text.
pub fn first(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
