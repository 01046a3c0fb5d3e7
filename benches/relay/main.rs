//! What signalling costs: CPU time for messages, sessions and registrations, memory for idle origins.
//!
//! This broker, the reference (`tests/clients/setup` installs it) and a floor, which is the same work on bare
//! tokio-tungstenite, take turns in one run; medians and ratios are printed. Only the servers' own CPU time
//! counts, so that load from elsewhere blurs the figures, but does not spoil them.
//!
//! ```sh
//! cargo bench --bench relay
//! cargo bench --bench relay -- --before PATH   # and another build of this broker
//! cargo bench --bench relay -- --only message  # one row: message, session or idle
//! ```

mod client;
mod floor;
#[path = "../support/mod.rs"]
mod support;

use std::{net::Ipv4Addr, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use tokio::time::sleep;

use self::{
    client::{Origin, Socket, candidate, filler, is_offer, new_session, session_of},
    support::{
        compare,
        contender::{Contender, FLOOR, Registry},
        option,
        server::Server,
        table::Table,
        wanted,
    },
};

/// Visitors whose messages bounce at the same time.
const VISITORS: usize = 8;
/// How often the message of each visitor goes to the origin and back, in one round.
const BOUNCES: usize = 600;
/// Sessions of one round, and how many of them run at the same time.
const SESSIONS: usize = 300;
const SESSIONS_AT_ONCE: usize = 4;
/// Candidates that each side of a session sends.
const CANDIDATES: usize = 8;
/// Idle origins, and how many of them come at the same time.
const ORIGINS: usize = 10_000;
const ORIGINS_AT_ONCE: usize = 32;

/// The broker's limits that a bench would meet.
const SETTINGS: &[&str] = &["signal.frames_per_second=1000000"];
/// After so many candidates, a visitor offers again: a broker takes a few hundred for one offer.
const CANDIDATES_OF_AN_OFFER: usize = 200;

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some(FLOOR) {
        return floor::serve(std::env::args()).await;
    }
    if !wanted() {
        return;
    }
    let files = rlimit::increase_nofile_limit(u64::MAX).expect("Linux");
    assert!(files > ORIGINS as u64 + 1000, "the limit of open files is too low: {files}");
    let only = option("--only");
    let is_wanted = |row: &str| only.as_deref().is_none_or(|only| only == row);

    let contenders = Contender::all();
    let table = Table::new(&contenders);
    if is_wanted("message") {
        let servers = start(&contenders).await;
        compare(&table, [("relayed message of 1 KB", "CPU µs")], 21, &servers, messages).await;
    }
    if is_wanted("session") {
        let servers = start(&contenders).await;
        compare(&table, [("whole session on a socket of its own", "CPU µs")], 31, &servers, sessions).await;
    }
    if is_wanted("idle") {
        let rows = [("accept and register", "CPU µs"), ("idle origin, 10,000 of them", "PSS KB")];
        let contenders: Vec<_> = contenders.into_iter().map(Some).collect();
        compare(&table, rows, 3, &contenders, idle).await;
    }
}

async fn start(contenders: &[Contender]) -> Vec<Option<Server>> {
    let start = async |contender| Some(Server::start(contender, SETTINGS, Registry::Memory).await);
    join_all(contenders.iter().map(start)).await
}

/// One origin returns to each of several visitors what it sends; CPU for each message.
async fn messages(server: &Server) -> [f64; 1] {
    let _origin = Origin::register(server, |frame| match session_of(frame) {
        Some(session) if is_offer(frame) => vec![candidate(session, 100)],
        _ => vec![frame.to_owned()],
    })
    .await;
    let mut visitors = Vec::new();
    for _ in 0..VISITORS {
        let (mut socket, session) = (Socket::connect(server).await, new_session());
        socket.offer(&session).await;
        socket.receive().await;
        visitors.push((socket, session));
    }
    let before = server.cpu();
    let bouncing = visitors.iter_mut().map(async |(socket, session)| {
        let message = candidate(session, 950);
        for bounce in 1..=BOUNCES {
            socket.send(&message).await;
            socket.receive().await;
            if bounce % CANDIDATES_OF_AN_OFFER == 0 {
                socket.offer(session).await;
                socket.receive().await;
            }
        }
    });
    join_all(bouncing).await;
    [server.cpu_micros(before, 2 * VISITORS * (BOUNCES + BOUNCES / CANDIDATES_OF_AN_OFFER))]
}

/// A visitor connects, offers, is answered, both send their candidates, the visitor closes; CPU for each session.
async fn sessions(server: &Server) -> [f64; 1] {
    let _origin = Origin::register(server, |frame| match session_of(frame) {
        Some(session) if is_offer(frame) => {
            let answer = format!(r#"{{"t":"answer","sessionId":"{session}","sdp":"{}"}}"#, filler(900));
            std::iter::once(answer).chain((0..CANDIDATES).map(|_| candidate(session, 130))).collect()
        }
        _ => Vec::new(),
    })
    .await;
    let before = server.cpu();
    let all = (0..SESSIONS).map(|_| session(server));
    stream::iter(all).buffer_unordered(SESSIONS_AT_ONCE).collect::<Vec<()>>().await;
    [server.cpu_micros(before, SESSIONS)]
}

async fn session(server: &Server) {
    let (mut socket, session) = (Socket::connect(server).await, new_session());
    socket.offer(&session).await;
    for _ in 0..CANDIDATES {
        socket.send(&candidate(&session, 130)).await;
    }
    for _ in 0..=CANDIDATES {
        socket.receive().await;
    }
    socket.close().await;
}

/// Many origins register and then say nothing; CPU for each, and KB for each.
async fn idle(contender: &Contender) -> [f64; 2] {
    let server = Server::start(contender, SETTINGS, Registry::Memory).await;
    sleep(Duration::from_secs(1)).await;
    let (cpu, pss) = (server.cpu(), server.pss());
    let origins = (0..ORIGINS).map(async |n| {
        // The fewer connections are free, the fewer one address may have.
        let client = Ipv4Addr::new(127, 0, 0, 1 + (n % 128) as u8);
        let mut socket = Socket::connect_from(client, &server).await;
        socket.register(&format!("pod-{n}")).await;
        socket
    });
    let origins: Vec<_> = stream::iter(origins).buffer_unordered(ORIGINS_AT_ONCE).collect().await;
    let micros = server.cpu_micros(cpu, ORIGINS);
    sleep(Duration::from_secs(1)).await;
    let kilobytes = (server.pss() - pss) / ORIGINS as f64;
    drop(origins);
    [micros, kilobytes]
}
