//! The ninety that behave, and the host whose visitors they are.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    task::JoinHandle,
    time::{interval_at, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    HOST,
    client::{ask, connect, get, post, read_text, upgrade, was},
    support::{bytes::text, frames, pod::Pod, socket::Socket},
};

const HONEST: u8 = 90;
/// How often an honest client does what it does.
const ROUND: Duration = Duration::from_millis(500);

/// How long a request may take before it counts as lost: the machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the honest clients saw of their requests.
#[derive(Default)]
pub struct Seen {
    times: Mutex<Vec<(Kind, Duration)>>,
    pub lost: AtomicU64,
}

/// What an honest client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Download,
    Upgrade,
    Offer,
    Upload,
}

impl Seen {
    async fn one<T>(&self, kind: Kind, asked: impl Future<Output = io::Result<T>>) -> Option<T> {
        let start = Instant::now();
        match timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => {
                self.times.lock().unwrap().push((kind, start.elapsed()));
                Some(answer)
            }
            Ok(Err(error)) => self.lost(&error.to_string()),
            Err(_) => self.lost("there was no answer"),
        }
    }

    fn lost<T>(&self, why: &str) -> Option<T> {
        eprintln!("lost: {why}");
        self.lost.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The figures in words, and the p99.
    pub fn told(&self) -> (String, Duration) {
        let times = self.times.lock().unwrap();
        let of = |kinds: &[Kind]| {
            let mut times: Vec<_> =
                times.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, time)| *time).collect();
            times.sort();
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
            (
                format!("{}: p50 {:?}, p99 {:?}, longest {:?}", times.len(), at(0.5), at(0.99), at(1.0)),
                at(0.99),
            )
        };
        let kinds = [Kind::Download, Kind::Upgrade, Kind::Offer, Kind::Upload];
        let (mut told, p99) = of(&kinds);
        for kind in kinds {
            told += &format!("; {kind:?} {}", of(&[kind]).0);
        }
        (told, p99)
    }
}

/// A host that answers each offer.
pub async fn be_the_host(broker: &str) -> JoinHandle<()> {
    let mut host = Socket::connect(broker).await;
    host.register(HOST).await;
    tokio::spawn(async move {
        while let Some(Ok(message)) = host.stream.next().await {
            let Message::Text(frame) = message else { continue };
            // Candidates of a flood are many, and need no answer.
            if frame.starts_with(r#"{"t":"offer""#) {
                let frame: Value = serde_json::from_str(&frame).unwrap();
                host.send(frames::answer(frame["sessionId"].as_str().unwrap(), "v=0")).await;
            }
        }
    })
}

/// A visitor opens a pod and a socket, and meets the host; now and then an owner uploads.
async fn be_honest(
    address: Ipv4Addr,
    broker: SocketAddr,
    slug: String,
    seen: Arc<Seen>,
    over: Arc<AtomicBool>,
) {
    // Not all at the same moment.
    let number = u32::from(address.octets()[3]);
    let mut rounds = interval_at((Instant::now() + ROUND * number / u32::from(HONEST)).into(), ROUND);
    let mut kept = connect(address, broker).await.unwrap();
    let (read, upload) = (get(&format!("/{slug}")), post(&Pod::named("honest").padded(20_000).html()));
    for round in number.. {
        rounds.tick().await;
        if over.load(Ordering::Relaxed) {
            return;
        }
        seen.one(Kind::Download, async { was(200, ask(&mut kept, &read).await?) }).await;
        let socket = seen.one(Kind::Upgrade, async {
            let mut socket = connect(address, broker).await?;
            was(101, ask(&mut socket, &upgrade()).await?)?;
            Ok(socket)
        });
        if let Some(mut socket) = socket.await {
            let session = format!("{number} {round}");
            let offer =
                json!({ "t": "offer", "podId": HOST, "sessionId": session, "sdp": "v=0\r\n".repeat(400) });
            seen.one(Kind::Offer, async {
                socket.write_all(&text(&offer.to_string())).await?;
                let answer: Value = serde_json::from_slice(&read_text(&mut socket).await?)?;
                match answer == frames::answer(&session, "v=0") {
                    true => Ok(()),
                    false => Err(io::Error::other(answer.to_string())),
                }
            })
            .await;
        }
        if round % 8 == 0 {
            seen.one(Kind::Upload, async { was(200, ask(&mut kept, &upload).await?) }).await;
        }
    }
}

/// What the honest clients see in `seconds`.
pub async fn phase(broker: SocketAddr, slug: &str, seconds: u64) -> Seen {
    let (seen, over) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
    let clients: Vec<_> = (0..HONEST)
        .map(|n| {
            tokio::spawn(be_honest(
                Ipv4Addr::new(127, 0, 1, n + 1),
                broker,
                slug.into(),
                seen.clone(),
                over.clone(),
            ))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    Arc::into_inner(seen).unwrap()
}
