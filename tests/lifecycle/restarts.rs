//! Restarts as systemd does them with a socket unit: the socket stays, and the next process starts when the one before
//! has ended. Meanwhile there is a steady load, and nobody may be refused.
//!
//! `RESTARTS` is how many there are (default 5); `tests/run restarts` does 50 of them.

use std::{
    env,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    load::{Load, ORIGINS},
    support::{
        SOON,
        certs::{Authority, Files},
        process::{Broker, activated},
        tls_client::Client,
    },
};

/// Origins wait for a second before they come back, and then until the next process accepts.
const BACK_WITHIN: Duration = Duration::from_secs(6);

/// Visitors of a pod that nobody serves are told so at once.
const SIGNAL: &str = "[signal]\noffline_grace = \"0s\"\n";

/// Restarts a broker over and over, each time as soon as all origins are back; the last one, and how long each stop and
/// each start took.
fn restart(
    socket: &TcpListener,
    file: &str,
    registrations: &AtomicUsize,
) -> (Broker, Vec<(Duration, Duration)>) {
    let start = || {
        let socket = socket.try_clone().unwrap().into();
        Broker::spawn(activated(vec![socket], "http", "$$").args(["--config", file]))
    };
    let restarts = env::var("RESTARTS").map_or(5, |restarts| restarts.parse().unwrap());
    let all_are_back = |times: usize| {
        let begun = Instant::now();
        while registrations.load(Relaxed) < ORIGINS * times {
            let count = registrations.load(Relaxed);
            assert!(begun.elapsed() < SOON, "after {times} starts there were {count} registrations");
            thread::sleep(Duration::from_millis(5));
        }
    };
    let mut broker = start();
    all_are_back(1);
    let mut took = Vec::new();
    for restart in 1..=restarts {
        // Something is going on at any time.
        thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        assert!(broker.terminate().success());
        let stopped = begun.elapsed();
        broker = start();
        took.push((stopped, begun.elapsed() - stopped));
        all_are_back(restart + 1);
    }
    (broker, took)
}

async fn under_load(tls: Option<(Client, String)>) {
    let begun = Instant::now();
    let dir = TempDir::new().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let (client, toml) = tls.unzip();
    let file = dir.path().join("signal.toml");
    let listen = format!("[[listen]]\naddress = \"systemd:http\"\ntls = {}\n", client.is_some());
    let data = format!("data_dir = {:?}\n", dir.path().join("data"));
    std::fs::write(&file, data + &listen + &toml.unwrap_or_default() + SIGNAL).unwrap();
    let (over, registrations) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let load = Load::new(address, client, over.clone(), registrations.clone());

    let restarts = async {
        let file = file.to_str().unwrap().to_owned();
        let _over = over.drop_guard_ref();
        tokio::task::spawn_blocking(move || restart(&socket, &file, &registrations)).await.unwrap()
    };
    let ((mut broker, took), ()) = tokio::join!(restarts, load.run());

    let failures = load.failures.take();
    assert!(failures.is_empty(), "{} failures: {:#?}", failures.len(), &failures[..failures.len().min(20)]);
    // What was acknowledged is there.
    let slugs = load.slugs.take();
    for slug in &slugs {
        load.head(slug).await.unwrap_or_else(|why| panic!("{slug}: {why}"));
    }
    assert!(broker.terminate().success());

    let mut away = load.away.take();
    away.sort_unstable();
    let longest = |of: fn(&(Duration, Duration)) -> Duration| took.iter().map(of).max().unwrap();
    println!(
        "{} restarts {} TLS in {:.1?}: {} requests, {} uploads, {} new sockets and {} told to come back (503 or 1012); \
         no failure. The longest request took {:.2?}; the longest stop {:.2?}, start {:.2?}; \
         {ORIGINS} origins were away for {:.2?} (median) to {:.2?}",
        took.len(),
        if load.client.is_some() { "with" } else { "without" },
        begun.elapsed(),
        load.requests.get(),
        slugs.len(),
        load.sockets.get(),
        load.told_to_come_back.get(),
        load.longest.get(),
        longest(|took| took.0),
        longest(|took| took.1),
        away[away.len() / 2],
        away.last().unwrap(),
    );
    assert_eq!(away.len(), ORIGINS * took.len());
    assert!(*away.last().unwrap() < BACK_WITHIN);
    assert!(
        load.requests.get() > 10 * took.len() && slugs.len() > took.len() && load.sockets.get() > took.len()
    );
}

#[tokio::test]
async fn restarts_refuse_no_connection() {
    under_load(None).await;
}

#[tokio::test]
async fn restarts_with_tls_refuse_no_connection() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let client = Client::trusting(&authority.pem());
    under_load(Some((client, files.toml(&["pair"])))).await;
}
