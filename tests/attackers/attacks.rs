//! The other process: what the attackers do until it is killed.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::interval,
};

use crate::{
    HOST,
    client::{ask, connect, get, post, upgrade},
    support::{
        bytes::text,
        http2::{self, Http2},
    },
};

const ATTACKERS: u8 = 10;
/// Connections that each attacker keeps busy.
const CONNECTIONS: u8 = 8;
/// Candidates after each offer of a flood, by connection: a session may send 256 of them. With few, a host has more offers
/// to answer.
const CANDIDATES: [usize; 4] = [250, 30, 0, 0];
/// Addresses from which streams are stalled.
const STALLERS: u8 = 20;
/// Streams of each of their connections.
const STREAMS: u8 = 32;
/// Uploads among them.
const UPLOADS: u8 = STREAMS / 4;

/// What the attackers did in the last second.
#[derive(Clone, Default)]
struct Counts {
    passed: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    broken: Arc<AtomicU64>,
}

impl Counts {
    fn count(&self, status: u16) {
        let counter = if status == 429 { &self.refused } else { &self.passed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn broke(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    async fn tell(self) {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.tick().await;
        loop {
            seconds.tick().await;
            let count = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
            println!(
                "{}",
                json!({
                    "let through": count(&self.passed), "refused": count(&self.refused), "broken": count(&self.broken)
                })
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests of main.rs"]
async fn be_the_attackers() {
    let Ok(broker) = env::var("ATTACKED") else { return };
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let broker: SocketAddr = broker.parse().unwrap();
    let path = format!("/{}", env::var("ATTACKED_SLUG").unwrap());
    let counts = Counts::default();
    let each = |network: u8, attackers: u8| {
        let addresses = (1..=attackers).map(move |n| Ipv4Addr::new(127, 0, network, n));
        addresses.flat_map(|address| (0..CONNECTIONS).map(move |n| (address, n)))
    };
    match &*env::var("ATTACK").unwrap() {
        "requests" => each(2, ATTACKERS).for_each(|(address, n)| {
            tokio::spawn(ask_without_end(address, broker, path.clone(), n.into(), counts.clone()));
        }),
        "floods" => each(2, ATTACKERS).for_each(|(address, n)| {
            tokio::spawn(flood_the_host(address, broker, n, counts.clone()));
        }),
        "stalls" => each(3, STALLERS).for_each(|(address, _)| {
            tokio::spawn(stall_streams(address, broker, path.clone(), counts.clone()));
        }),
        other => panic!("there is no attack {other:?}"),
    }
    counts.tell().await;
}

/// Asks for whatever there is, as fast as it is answered.
async fn ask_without_end(address: Ipv4Addr, broker: SocketAddr, path: String, first: usize, counts: Counts) {
    let requests = [get(&path), get("/health"), upgrade(), post("<html>no pod</html>")];
    let mut stream = None;
    for at in first.. {
        let request = &requests[at % requests.len()];
        let connection = match &mut stream {
            Some(connection) => connection,
            None => match connect(address, broker).await {
                Ok(connection) => stream.insert(connection),
                Err(_) => continue,
            },
        };
        match ask(connection, request).await {
            Ok(status) => {
                counts.count(status);
                if status == 101 {
                    stream = None;
                }
            }
            Err(_) => {
                counts.broke();
                stream = None;
            }
        }
    }
}

/// Offers to the host and candidates for it, as fast as they are taken; what comes back is counted.
async fn flood_the_host(address: Ipv4Addr, broker: SocketAddr, n: u8, counts: Counts) {
    let session = format!("{address} {n}");
    let offer = json!({ "t": "offer", "podId": HOST, "sessionId": session, "sdp": "v=0\r\n".repeat(400) });
    let candidate =
        json!({ "t": "candidate", "sessionId": session, "candidate": { "candidate": "c".repeat(200) } });
    let candidates = CANDIDATES[usize::from(n) % CANDIDATES.len()];
    let frames = [text(&offer.to_string()), text(&candidate.to_string()).repeat(candidates)].concat();
    loop {
        let Ok(mut stream) = connect(address, broker).await else { continue };
        match ask(&mut stream, &upgrade()).await {
            Ok(101) => {}
            Ok(status) => {
                counts.count(status);
                continue;
            }
            Err(_) => {
                counts.broke();
                continue;
            }
        }
        let (mut read, mut write) = stream.into_split();
        let write = async {
            while write.write_all(&frames).await.is_ok() {
                counts.passed.fetch_add(candidates as u64 + 1, Ordering::Relaxed);
            }
        };
        let read = async {
            let mut ignored = vec![0; 64 << 10];
            while read.read(&mut ignored).await.is_ok_and(|length| length > 0) {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            }
        };
        tokio::select! {
            () = write => {}
            () = read => {}
        }
        counts.broke();
    }
}

/// Downloads with a window of nothing, and uploads of which nothing comes: each again as soon as it is cut off.
async fn stall_streams(address: Ipv4Addr, broker: SocketAddr, path: String, counts: Counts) {
    loop {
        let Ok(stream) = connect(address, broker).await else { continue };
        let client = Http2::quiet(stream, 0).await;
        let streams = (0..STREAMS).map(|n| {
            let (sender, path, counts) = (client.sender.clone(), path.clone(), counts.clone());
            tokio::spawn(stall(sender, (n >= UPLOADS).then_some(path), counts))
        });
        for stream in streams.collect::<Vec<_>>() {
            let _ = stream.await;
        }
        counts.broke();
    }
}

/// Keeps one stream stalled, for as long as its connection lasts: a download of `path`, or else an upload.
async fn stall(
    mut sender: SendRequest<Bytes>,
    path: Option<String>,
    counts: Counts,
) -> Result<(), h2::Error> {
    loop {
        sender = sender.ready().await?;
        let (answer, _upload) = match &path {
            Some(path) => sender.send_request(http2::request(Method::GET, path).body(()).unwrap(), true)?,
            None => {
                let upload = http2::request(Method::POST, "/pods").header("content-type", "text/html");
                sender.send_request(upload.header("content-length", "1000").body(()).unwrap(), false)?
            }
        };
        let Ok(answer) = answer.await else { continue };
        counts.count(answer.status().as_u16());
        // Nothing of the body comes, as there is no window for it; its end does, if the broker resets the stream.
        let _ = answer.into_body().data().await;
    }
}
