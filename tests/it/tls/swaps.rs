//! Certificates change all the time while many clients come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_rustls::{
    client::TlsStream,
    rustls::{HandshakeKind, client::Resumption},
};

use super::reload::until_shown;
use crate::support::{
    SOON,
    certs::{Authority, Files},
    server::TestServer,
    tls_client::Client,
};

const SWAPS: usize = 300;
const CLIENTS: usize = 50;
const EACH: Duration = Duration::from_millis(10);
/// Requests on one connection before the next one is made.
const REQUESTS: usize = 10;

/// What the clients did.
#[derive(Default)]
struct Tally {
    requests: AtomicUsize,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    slowest: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_swaps_under_load() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let pairs = [0, 1].map(|_| authority.issue(&["pods.example"]));
    files.write("pair", &pairs[0]);
    let server = TestServer::with(&files.toml(&["pair"])).await;
    let client = Client::trusting(&authority.pem());
    // A resumed session shows no certificate, so who looks for the new one resumes none.
    let mut onlooker = Client::trusting(&authority.pem());
    onlooker.0.resumption = Resumption::disabled();
    let (done, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        // Every other one begins each connection anew.
        let client = if number % 2 == 0 { client.clone() } else { onlooker.clone() };
        let (address, done, tally) = (server.address.clone(), done.clone(), tally.clone());
        clients.spawn(async move {
            // One socket that stays, one request every 10 ms, one handshake for every tenth of them.
            let mut socket = client.socket(&address, "pods.example").await;
            socket.register(&format!("pod-{number}")).await;
            let mut each = interval(EACH);
            while !done.load(Relaxed) {
                let mut stream = client.connect(&address, "pods.example").await.unwrap();
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                tally.handshakes.fetch_add(1, Relaxed);
                tally.resumed.fetch_add(resumed.into(), Relaxed);
                for _ in 0..REQUESTS {
                    each.tick().await;
                    let begun = Instant::now();
                    ask(&mut stream).await;
                    tally.requests.fetch_add(1, Relaxed);
                    tally.slowest.fetch_max(begun.elapsed().as_millis() as usize, Relaxed);
                }
                socket.nothing().await;
            }
            socket
        });
    }
    let begun = Instant::now();
    for swap in 1..=SWAPS {
        let new = &pairs[swap % 2];
        files.write("pair", new);
        server.handle.reload_certificates();
        until_shown(&onlooker, &server.address, "pods.example", new).await;
    }
    let took = begun.elapsed();
    done.store(true, Relaxed);
    // A panic in a client is a handshake, a request or a socket that failed.
    let mut sockets = clients.join_all().await;
    for socket in &mut sockets {
        socket.nothing().await;
    }
    assert_eq!(sockets.len(), CLIENTS);
    let Tally { requests, handshakes, resumed, slowest } = &*tally;
    let [requests, handshakes, resumed] = [requests, handshakes, resumed].map(|count| count.load(Relaxed));
    assert!(resumed > 0 && resumed < handshakes, "{resumed} of {handshakes} sessions were resumed");
    println!(
        "{SWAPS} swaps in {took:.1?}; {requests} requests ({:.0} a second, the slowest in {} ms), \
         {handshakes} handshakes, {resumed} of them resumed",
        requests as f64 / took.as_secs_f64(),
        slowest.load(Relaxed)
    );
}

/// One request on a connection that stays open.
async fn ask(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: pods.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let whole = async {
        while !is_whole(&answer) {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the connection ended");
        }
    };
    timeout(SOON, whole).await.expect("an answer should have come");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    body.len() == length.parse::<usize>().unwrap()
}
