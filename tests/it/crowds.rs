//! Many networks that hold all they can, and a newcomer beside them.

use std::net::IpAddr;

use crate::support::{
    raw::{Raw, UPGRADE},
    server::TestServer,
};

const HEALTH: &str = "GET /health HTTP/1.1\nHost: broker\n\n";

fn host(network: u8, host: u8) -> IpAddr {
    [127, 33, network, host].into()
}

/// Asks for a WebSocket. Returns the connection and whether it became one.
async fn upgraded(mut raw: Raw) -> (Raw, bool) {
    raw.send(UPGRADE).await;
    let status = raw.answer().await.status;
    (raw, status == 101)
}

#[tokio::test]
async fn a_newcomer_has_a_socket_beside_addresses_that_hold_all_they_can() {
    let server =
        TestServer::with("[limits]\nexempt = []\nsockets_per_address = 2\n[signal]\nmax_sockets = 32").await;
    let mut held = Vec::new();
    for number in 0..32 {
        let raw = Raw::open_from(host(0, 1 + number / 2), &server.address).await;
        held.push(upgraded(raw).await);
    }
    assert!(held[..24].iter().all(|(_, is_socket)| *is_socket), "a client has as many as the setting says");
    for newcomer in 1..3 {
        let (raw, is_socket) = upgraded(Raw::open_from(host(1, newcomer), &server.address).await).await;
        assert!(is_socket);
        held.push((raw, true));
    }
}

#[tokio::test]
async fn a_newcomer_has_a_socket_beside_sites_that_hold_all_they_can() {
    let server = TestServer::with(
        "listen = [{ address = \"127.0.0.1:0\", proxy_protocol = true }]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [limits]\nexempt = []\nsockets_per_address = 2\n[signal]\nmax_sockets = 32",
    )
    .await;
    let open = async |site: u8, network: u8| {
        let mut raw = Raw::open(&server.address).await;
        raw.send(&format!("PROXY TCP6 2001:db8:{site}:{network}::1 2001:db8:ffff::1 1000 443\n")).await;
        upgraded(raw).await
    };
    let mut held = Vec::new();
    for number in 0..32 {
        held.push(open(1 + number / 8, number % 8 / 2).await);
    }
    assert!(open(99, 1).await.1);
}

#[tokio::test]
async fn a_newcomer_is_answered_beside_addresses_that_hold_silent_connections() {
    for (connections, addresses) in [(32, 16), (4, 2), (4, 4), (4, 9)] {
        let server = TestServer::with(&format!(
            "[http]\nhead_timeout = \"1h\"\nmax_connections = {connections}\nmax_connections_per_address = 2"
        ))
        .await;
        let mut silent = Vec::new();
        for number in 0..2 * addresses {
            silent.push(Raw::open_from(host(0, 1 + number / 2), &server.address).await);
        }
        for newcomer in 1..4 {
            let mut raw = Raw::open_from(host(1, newcomer), &server.address).await;
            raw.send(HEALTH).await;
            // A silent connection makes room when it is two seconds old.
            assert_eq!(raw.answer_at_last().await.status, 200, "{connections} {addresses}");
        }
    }
}

/// Those that are silent are not given up for whoever comes and goes: they may be about to speak.
#[tokio::test]
async fn a_newcomer_is_answered_beside_one_that_opens_connections_again_and_again() {
    let server = TestServer::with(
        "[http]\nhead_timeout = \"1h\"\nmax_connections = 64\nmax_connections_per_address = 16",
    )
    .await;
    let mut begun = Vec::new();
    for number in 0..62 {
        let mut raw = Raw::open_from(host(0, 1 + number), &server.address).await;
        raw.send("GET").await;
        begun.push(raw);
    }
    for newcomer in 1..4 {
        let mut raw = Raw::open_from(host(1, newcomer), &server.address).await;
        for _ in 0..50 {
            drop(Raw::open_from(host(2, 1), &server.address).await);
        }
        raw.send(HEALTH).await;
        assert_eq!(raw.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_newcomer_ends_no_more_silent_connections_than_one() {
    let server = TestServer::with(
        "[http]\nhead_timeout = \"1h\"\nmax_connections = 5\nmax_connections_per_address = 1",
    )
    .await;
    let mut silent = Vec::new();
    for number in 0..5 {
        silent.push(Raw::open_from(host(0, 1 + number), &server.address).await);
    }
    let mut newcomers = Vec::new();
    for newcomer in 1..3 {
        let mut raw = Raw::open_from(host(1, newcomer), &server.address).await;
        raw.send(HEALTH).await;
        // The first one waits until they are old enough.
        assert_eq!(raw.answer().await.status, 200);
        newcomers.push(raw);
    }
    let mut answered = 0;
    for raw in &mut silent {
        if raw.try_send_bytes(HEALTH.replace('\n', "\r\n").as_bytes()).await.is_ok() {
            answered += usize::from(raw.try_answer().await.is_some());
        }
    }
    assert_eq!(answered, 3);
}
