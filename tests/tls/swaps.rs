//! Certificates change all the time while many clients come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::interval};

use crate::{
    certs::{Authority, Files},
    client::{Client, get},
    reload::until_shown,
    support::server::TestServer,
};

const SWAPS: usize = 300;
const CLIENTS: usize = 50;
const EACH: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_swaps_under_load() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let pairs = [0, 1].map(|_| authority.issue(&["pods.example"]));
    files.write("pair", &pairs[0]);
    let server = TestServer::with(&files.toml(&["pair"])).await;
    let client = Client::trusting(&authority.pem());
    let (done, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (client, address) = (client.clone(), server.address.clone());
        let (done, requests) = (done.clone(), requests.clone());
        clients.spawn(async move {
            // One socket that stays, and one handshake with one request every 10 ms.
            let mut socket = client.socket(&address, "pods.example").await;
            socket.register(&format!("pod-{number}")).await;
            let mut each = interval(EACH);
            while !done.load(Relaxed) {
                each.tick().await;
                let mut stream = client.connect(&address, "pods.example").await.unwrap();
                let answer = get(&mut stream, "pods.example", "/health").await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                requests.fetch_add(1, Relaxed);
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
        until_shown(&client, &server.address, "pods.example", new).await;
    }
    let took = begun.elapsed();
    done.store(true, Relaxed);
    // A panic in a client is a handshake, a request or a socket that failed.
    let mut sockets = clients.join_all().await;
    for socket in &mut sockets {
        socket.nothing().await;
    }
    assert_eq!(sockets.len(), CLIENTS);
    println!("{SWAPS} swaps in {took:.1?}, {} requests, each with its handshake", requests.load(Relaxed));
}
