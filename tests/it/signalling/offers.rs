//! Strangers cannot slow a host down by making it answer.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::support::{
    SOON,
    frames::{answer, candidate, error, offer, offered, refusal, register},
    server::TestServer,
    socket::Socket,
};

const TOO_MANY: &str = "too many offers from your address; try again later";

/// One frame a second, and two at once after a rest.
const SLOW: &str = "[signal]\nframes_per_second = 1";

/// At its own rate the host would take minutes.
#[tokio::test]
async fn replies_to_offers_do_not_count_against_the_rate_of_the_host() {
    const VISITORS: usize = 40;
    let server = TestServer::with(SLOW).await;
    let mut origin = server.origin("pod").await;
    let mut visitors = Vec::new();
    for n in 0..VISITORS {
        visitors.push(server.visitor(&mut origin, "pod", &n.to_string()).await);
    }
    // Whoever has gone was answered nevertheless.
    drop(visitors.drain(VISITORS / 2..));
    server.until_health("the visitors that are left", |health| health["sessions"] == VISITORS / 2).await;
    let all_are_answered = async {
        for n in (0..VISITORS).rev() {
            origin.send(answer(&n.to_string(), "ANSWER")).await;
            origin.send(candidate(&n.to_string(), "C")).await;
        }
        for (n, visitor) in visitors.iter_mut().enumerate() {
            visitor.expect(answer(&n.to_string(), "ANSWER")).await;
            visitor.expect(candidate(&n.to_string(), "C")).await;
        }
    };
    timeout(SOON, all_are_answered).await.expect("the replies should not be throttled");
}

/// The same for offers that waited for the host.
#[tokio::test]
async fn replies_to_offers_that_waited_do_not_count_either() {
    let server = TestServer::with(&format!("{SLOW}\noffline_grace = \"1m\"")).await;
    let mut visitors = Vec::new();
    for n in 0..20 {
        let mut visitor = server.connect().await;
        visitor.send(offer("pod", &n.to_string(), "OFFER")).await;
        visitor.nothing().await;
        visitors.push(visitor);
    }
    let mut origin = server.origin("pod").await;
    let all_are_answered = async {
        for (n, visitor) in visitors.iter_mut().enumerate() {
            origin.send(answer(&n.to_string(), "ANSWER")).await;
            visitor.expect(answer(&n.to_string(), "ANSWER")).await;
        }
    };
    timeout(SOON, all_are_answered).await.expect("the replies should not be throttled");
}

/// Each makes the host answer a ping.
#[tokio::test]
async fn newcomers_do_not_use_up_the_rate_of_the_host() {
    let server = TestServer::with(SLOW).await;
    let mut origin = server.origin("pod").await;
    let newcomers = async {
        for _ in 0..30 {
            let mut newcomer = server.connect().await;
            newcomer.send(register("pod")).await;
            newcomer.expect(refusal("pod id is held")).await;
        }
    };
    tokio::select! {
        done = timeout(SOON, newcomers) => done.expect("the pongs should not be throttled"),
        frame = origin.receive_text() => panic!("the host was sent {frame}"),
    }
}

/// An offer pays for 32 frames; after them the host has its burst of forty, and the last ten take half a second.
#[tokio::test]
async fn an_offer_pays_for_so_many_replies_only() {
    let server = TestServer::with("[signal]\nframes_per_second = 20").await;
    let mut origin = server.origin("pod").await;
    let _visitor = server.visitor(&mut origin, "pod", "s").await;
    let start = Instant::now();
    for _ in 0..32 + 40 + 10 {
        origin.send_text("{").await;
    }
    for _ in 0..32 + 40 + 10 {
        origin.expect(refusal("invalid json")).await;
    }
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(450), "{taken:?}");
}

#[tokio::test]
async fn offers_over_the_rate_of_an_address_are_not_delivered() {
    let server = TestServer::with(
        "trusted_proxies = [\"127.0.0.1\"]\n[limits]\noffers_per_address = \"1/day burst 3\"\n[signal]",
    )
    .await;
    let mut origin = server.origin("pod").await;
    // Two of one network.
    let mut visitors = [
        Socket::forwarded(&server.address, "2001:db8::1").await,
        Socket::forwarded(&server.address, "2001:db8::2").await,
    ];
    for (visitor, session) in [(0, "a"), (1, "b"), (0, "a")] {
        visitors[visitor].send(offer("pod", session, "OFFER")).await;
        origin.expect(offered(session, "OFFER")).await;
    }
    for (visitor, session) in [(0, "a"), (0, "c"), (1, "d")] {
        visitors[visitor].send(offer("pod", session, "TOO MANY")).await;
        visitors[visitor].expect(error(session, TOO_MANY)).await;
    }
    // What was refused began no session; those that there are go on.
    assert_eq!(server.health().await["sessions"], 2);
    visitors[0].send(candidate("a", "C")).await;
    origin.expect(candidate("a", "C")).await;
    origin.send(answer("b", "ANSWER")).await;
    visitors[1].expect(answer("b", "ANSWER")).await;
    let mut other = Socket::forwarded(&server.address, "2001:db8:0:1::1").await;
    other.send(offer("pod", "c", "OFFER")).await;
    origin.expect(offered("c", "OFFER")).await;
    // Loopback is exempt.
    let _exempt = server.visitor(&mut origin, "pod", "d").await;
}

/// One that offers in a loop does not keep the broker busy.
#[tokio::test]
async fn who_offers_over_the_rate_is_read_more_slowly() {
    let server = TestServer::with(
        "trusted_proxies = [\"127.0.0.1\"]\n[limits]\noffers_per_address = \"1/day\"\n[signal]",
    )
    .await;
    let mut visitor = Socket::forwarded(&server.address, "192.0.2.1").await;
    visitor.send(offer("pod", "s", "OFFER")).await;
    visitor.expect(error("s", "origin offline")).await;
    let start = Instant::now();
    for _ in 0..5 {
        visitor.send(offer("pod", "s", "OFFER")).await;
    }
    for _ in 0..5 {
        visitor.expect(error("s", TOO_MANY)).await;
    }
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(950), "{taken:?}");
}

/// Offers that wait for a host would all be delivered to it.
#[tokio::test]
async fn offers_that_would_wait_for_a_host_count_too() {
    let server = TestServer::with(
        "trusted_proxies = [\"127.0.0.1\"]\n[limits]\noffers_per_address = \"1/day\"\n[signal]\noffline_grace = \"1m\"",
    )
    .await;
    let mut visitor = Socket::forwarded(&server.address, "192.0.2.1").await;
    visitor.send(offer("pod", "a", "OFFER")).await;
    visitor.send(offer("pod", "b", "OFFER")).await;
    visitor.expect(error("b", TOO_MANY)).await;
    let mut origin = server.origin("pod").await;
    origin.expect(offered("a", "OFFER")).await;
    origin.nothing().await;
}
