//! TLS as these tests speak it.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// A certificate chain and its key.
pub struct Identity {
    pub chain_pem: String,
    pub key_pem: String,
}

impl Identity {
    pub fn acceptor(&self) -> TlsAcceptor {
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A client that trusts one root.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    pub fn in_pem(pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        Self(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
    }

    pub async fn connect(&self, port: u16, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(self.0.clone()).connect(name, stream).await
    }

    /// The certificate that is shown for `name`, if it is trusted and fits.
    pub async fn certificate(&self, port: u16, name: &str) -> std::io::Result<Vec<u8>> {
        let stream = self.connect(port, name).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    }

    /// The answer to the request in `bytes`, which must close the connection.
    pub async fn ask(&self, port: u16, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = self.connect(port, "127.0.0.1").await?;
        stream.write_all(bytes).await?;
        let mut answer = Vec::new();
        // Go ends some connections without close_notify.
        match stream.read_to_end(&mut answer).await {
            Err(error) if answer.is_empty() => Err(error),
            _ => Ok(answer),
        }
    }

    pub async fn get(&self, port: u16, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
        String::from_utf8(self.ask(port, request.as_bytes()).await.unwrap()).unwrap()
    }
}

/// A stranger's server at `address`, with a certificate of its own for everything.
pub async fn stranger(address: (&'static str, u16)) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["stranger.example".to_owned()]).unwrap();
    let chain_pem = params.self_signed(&key).unwrap().pem();
    let acceptor = Identity { chain_pem, key_pem: key.serialize_pem() }.acceptor();
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(stream).await });
        }
    });
}
