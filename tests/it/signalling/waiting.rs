//! Offers for a pod id whose host may be on its way back: after a start any, later one that was held a short time ago.

use std::{collections::HashMap, net::Ipv4Addr};

use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::client_async;

use crate::support::{
    frames::{answer, candidate, error, offer, offered, registered},
    server::TestServer,
    socket::Socket,
};

/// Longer than any test runs.
const LONG: &str = "[signal]\noffline_grace = \"1m\"";

#[tokio::test]
async fn an_offer_and_its_candidates_are_delivered_in_order_once_the_host_comes() {
    let server = TestServer::with(LONG).await;
    let mut visitors = Vec::new();
    for number in 0..20 {
        let (mut visitor, session) = (server.connect().await, format!("s{number}"));
        visitor.send(offer("pod", &session, "OFFER")).await;
        for candidate_number in 0..5 {
            visitor.send(candidate(&session, &candidate_number.to_string())).await;
        }
        visitor.nothing().await;
        visitors.push((visitor, session));
    }
    assert_eq!(server.health().await["sessions"], 0);
    let mut origin = server.origin("pod").await;
    // Sessions take turns in the queue; what belongs to one stays in order.
    let mut received = HashMap::<String, Vec<Value>>::new();
    for _ in 0..20 * 6 {
        let frame = origin.receive().await;
        let session = frame["sessionId"].as_str().unwrap().to_owned();
        received.entry(session).or_default().push(frame);
    }
    for (_, session) in &visitors {
        let mut expected = vec![offered(session, "OFFER")];
        expected.extend((0..5).map(|number| candidate(session, &number.to_string())));
        assert_eq!(received[session], expected);
    }
    for (visitor, session) in &mut visitors {
        visitor.send(candidate(session, "later")).await;
        origin.expect(candidate(session, "later")).await;
        origin.send(answer(session, "ANSWER")).await;
        visitor.expect(answer(session, "ANSWER")).await;
    }
    assert_eq!(server.health().await["sessions"], 20);
}

#[tokio::test]
async fn the_host_of_another_pod_gets_nothing() {
    let server = TestServer::with(LONG).await;
    let mut visitor = server.connect().await;
    visitor.send(offer("pod", "s", "OFFER")).await;
    visitor.nothing().await;
    let mut other = server.origin("other").await;
    other.send(answer("s", "HIJACK")).await;
    other.nothing().await;
    visitor.nothing().await;
    let mut origin = server.origin("pod").await;
    origin.expect(offered("s", "OFFER")).await;
}

#[tokio::test]
async fn without_a_host_the_visitor_is_told_after_the_grace() {
    let server = TestServer::with("[signal]\noffline_grace = \"200ms\"").await;
    let mut visitor = server.connect().await;
    visitor.send(offer("pod", "one", "OFFER")).await;
    visitor.send(offer("other", "two", "OFFER")).await;
    visitor.expect(error("one", "origin offline")).await;
    visitor.expect(error("two", "origin offline")).await;
    // What is over is not delivered.
    let mut origin = server.origin("pod").await;
    origin.nothing().await;
    visitor.send(candidate("one", "C")).await;
    visitor.expect(error("one", "origin offline")).await;
}

#[tokio::test]
async fn a_host_that_comes_back_finds_the_offers_of_the_meantime() {
    let server = TestServer::with(LONG).await;
    let mut origin = server.origin("pod").await;
    let mut early = server.visitor(&mut origin, "pod", "early").await;
    drop(origin);
    // Its session is over: the host that comes back knows nothing of it.
    early.expect(error("early", "origin offline")).await;
    early.send(offer("pod", "again", "OFFER")).await;
    early.nothing().await;
    let mut origin = server.origin("pod").await;
    origin.expect(offered("again", "OFFER")).await;
    // And if it goes away once more, its visitors are told at once.
    drop(origin);
    early.expect(error("again", "origin offline")).await;
}

#[tokio::test]
async fn a_second_offer_takes_the_place_of_the_first_and_its_candidates() {
    let server = TestServer::with(LONG).await;
    let mut visitor = server.connect().await;
    visitor.send(offer("pod", "s", "ONE")).await;
    visitor.send(candidate("s", "of one")).await;
    visitor.send(offer("pod", "s", "TWO")).await;
    visitor.send(candidate("s", "of two")).await;
    visitor.send(offer("other", "s", "THREE")).await;
    visitor.expect(error("s", "session belongs to another pod")).await;
    let mut origin = server.origin("pod").await;
    origin.expect(offered("s", "TWO")).await;
    origin.expect(candidate("s", "of two")).await;
    origin.nothing().await;
}

#[tokio::test]
async fn of_two_visitors_with_one_session_id_the_first_keeps_it() {
    let server = TestServer::with(LONG).await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    one.send(offer("pod", "s", "ONE")).await;
    one.nothing().await;
    two.send(offer("pod", "s", "TWO")).await;
    two.nothing().await;
    let mut origin = server.origin("pod").await;
    origin.expect(offered("s", "ONE")).await;
    two.expect(error("s", "session id is taken")).await;
    origin.send(answer("s", "ANSWER")).await;
    one.expect(answer("s", "ANSWER")).await;
    two.nothing().await;
}

#[tokio::test]
async fn the_offers_of_a_visitor_who_leaves_are_dropped() {
    let server = TestServer::with(LONG).await;
    let mut visitor = server.connect().await;
    visitor.send(offer("pod", "s", "OFFER")).await;
    visitor.nothing().await;
    visitor.stream.close(None).await.unwrap();
    visitor.answer_close().await;
    let mut origin = server.origin("pod").await;
    origin.nothing().await;
}

#[tokio::test]
async fn one_socket_has_as_many_sessions_and_candidates_as_with_a_host() {
    let limits = "\n[signal.bounds]\nsessions_per_socket = 3\ncandidates_per_session = 2";
    let server = TestServer::with(&format!("{LONG}{limits}")).await;
    let mut visitor = server.connect().await;
    for number in 0..3 {
        visitor.send(offer("pod", &number.to_string(), "OFFER")).await;
    }
    visitor.send(offer("pod", "3", "OFFER")).await;
    visitor.expect(error("3", "too many sessions")).await;
    for text in ["A", "B", "C"] {
        visitor.send(candidate("0", text)).await;
    }
    visitor.expect(error("0", "too many candidates")).await;
    let mut origin = server.origin("pod").await;
    let mut received = Vec::new();
    for _ in 0..5 {
        received.push(origin.receive().await);
    }
    for frame in [offered("0", "OFFER"), offered("1", "OFFER"), offered("2", "OFFER")] {
        assert!(received.contains(&frame), "{received:?}");
    }
    received.retain(|frame| frame["t"] == "candidate");
    assert_eq!(received, [candidate("0", "A"), candidate("0", "B")]);
}

#[tokio::test]
async fn what_has_no_room_is_told_so_at_once() {
    let server = TestServer::with(LONG).await;
    let mut visitor = server.connect().await;
    let large = "x".repeat(40 << 10);
    visitor.send(offer("pod", "one", &large)).await;
    visitor.send(offer("pod", "two", &large)).await;
    visitor.expect(error("two", "origin offline")).await;
    // Candidates behind the offer count too: with one too many its session ends.
    visitor.send(candidate("one", &large)).await;
    visitor.expect(error("one", "origin offline")).await;
    visitor.send(offer("pod", "three", &large)).await;
    visitor.nothing().await;
    let mut origin = server.origin("pod").await;
    origin.expect(offered("three", &large)).await;
}

#[tokio::test]
async fn offers_for_one_pod_take_half_of_a_queue_at_most() {
    let server = TestServer::with(LONG).await;
    let large = "x".repeat(60 << 10);
    let mut visitors = Vec::new();
    let mut waiting = 0;
    for number in 0..20 {
        let (mut visitor, session) = (server.connect().await, number.to_string());
        visitor.send(offer("pod", &session, &large)).await;
        waiting += usize::from(told(&mut visitor).await != Some(error(&session, "origin offline")));
        visitors.push(visitor);
    }
    // Of 1 MiB.
    assert_eq!(waiting, (512 << 10) / (61 << 10));
    let mut origin = server.connect().await;
    origin.send(crate::support::frames::register("pod")).await;
    origin.expect(registered("pod")).await;
    for _ in 0..waiting {
        assert_eq!(origin.receive().await["sdp"], large);
    }
    origin.nothing().await;
}

#[tokio::test]
async fn the_visitors_of_one_network_share_their_room() {
    let server = TestServer::with(&format!("{LONG}\n[limits]\nexempt = []")).await;
    let large = "x".repeat(60 << 10);
    let mut visitors = Vec::new();
    let mut waiting = [0; 2];
    for (network, waiting) in waiting.iter_mut().enumerate() {
        for number in 0..10 {
            let mut visitor = connect_from(&server, [127, 0, 0, 2 + network as u8].into()).await;
            let pod = format!("pod-{network}-{number}");
            visitor.send(offer(&pod, "s", &large)).await;
            *waiting += usize::from(told(&mut visitor).await != Some(error("s", "origin offline")));
            visitors.push(visitor);
        }
    }
    assert_eq!(waiting, [(512 << 10) / (61 << 10); 2]);
}

/// What a socket was told, if it was told anything.
async fn told(socket: &mut Socket) -> Option<Value> {
    socket.send_text("{").await;
    let told = socket.receive().await;
    if told["message"] == "invalid json" {
        return None;
    }
    assert_eq!(socket.receive().await["message"], "invalid json");
    Some(told)
}

async fn connect_from(server: &TestServer, address: Ipv4Addr) -> Socket<TcpStream> {
    let tcp = TcpSocket::new_v4().unwrap();
    tcp.bind((address, 0).into()).unwrap();
    let stream = tcp.connect(server.address.parse().unwrap()).await.unwrap();
    let (stream, _) = client_async(format!("ws://{}/signal", server.address), stream).await.unwrap();
    Socket { stream }
}
