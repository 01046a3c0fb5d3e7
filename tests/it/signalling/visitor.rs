//! What a visitor sends.

use serde_json::json;

use crate::support::{
    frames::{answer, candidate, error, offer, offered, refusal, register},
    server::TestServer,
};

#[tokio::test]
async fn register_is_refused() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for pod_id in ["pod", "other", ""] {
        visitor.send(register(pod_id)).await;
        visitor.expect(refusal("already initialized")).await;
    }
    // Neither the registration nor the session suffered.
    visitor.send(offer("pod", "s", "AGAIN")).await;
    origin.expect(offered("s", "AGAIN")).await;
}

#[tokio::test]
async fn answer_is_refused() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    visitor.send(answer("s", "SDP")).await;
    visitor.expect(error("s", "wrong role")).await;
    origin.nothing().await;
}

#[tokio::test]
async fn offer_with_a_new_session_id() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut other = server.origin("other").await;
    let mut visitor = server.connect().await;
    visitor.send(offer("pod", "s1", "ONE")).await;
    origin.expect(offered("s1", "ONE")).await;
    visitor.send(offer("pod", "s2", "TWO")).await;
    origin.expect(offered("s2", "TWO")).await;
    visitor.send(offer("other", "s3", "THREE")).await;
    other.expect(offered("s3", "THREE")).await;
    visitor.nothing().await;
    assert_eq!(server.health().await["sessions"], 3);
}

/// The id is a visitor's own word for one negotiation with one origin.
#[tokio::test]
async fn offer_with_a_session_id_that_is_in_use_with_another_origin() {
    let server = TestServer::start().await;
    let (mut one, mut two) = (server.origin("one").await, server.origin("two").await);
    let mut visitor_of_one = server.visitor(&mut one, "one", "s").await;
    let mut visitor_of_two = server.visitor(&mut two, "two", "s").await;
    two.send(answer("s", "TWO")).await;
    visitor_of_two.expect(answer("s", "TWO")).await;
    one.send(answer("s", "ONE")).await;
    visitor_of_one.expect(answer("s", "ONE")).await;
}

#[tokio::test]
async fn offer_with_a_session_id_of_its_own() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    visitor.send(offer("pod", "s", "AGAIN")).await;
    origin.expect(offered("s", "AGAIN")).await;
    // The pod of the first offer is meant where none is named.
    visitor.send(json!({ "t": "offer", "sessionId": "s", "sdp": "THIRD" })).await;
    origin.expect(offered("s", "THIRD")).await;
    assert_eq!(server.health().await["sessions"], 1);
}

#[tokio::test]
async fn offer_with_a_session_id_of_its_own_for_another_pod() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut other = server.origin("other").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    visitor.send(offer("other", "s", "SDP")).await;
    visitor.expect(error("s", "session belongs to another pod")).await;
    other.nothing().await;
    origin.send(answer("s", "ANSWER")).await;
    visitor.expect(answer("s", "ANSWER")).await;
}

#[tokio::test]
async fn offer_with_a_session_id_that_another_visitor_of_this_origin_holds() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut first = server.visitor(&mut origin, "pod", "s").await;
    let mut second = server.connect().await;
    second.send(offer("pod", "s", "SECOND")).await;
    second.expect(error("s", "session id is taken")).await;
    second.send(candidate("s", "FORGED")).await;
    second.expect(error("s", "origin offline")).await;
    origin.nothing().await;

    origin.send(answer("s", "ANSWER")).await;
    first.expect(answer("s", "ANSWER")).await;
    drop(second);
    server.until_health("the first session alone", |health| health["sessions"] == 1).await;
    first.send(candidate("s", "C")).await;
    origin.expect(candidate("s", "C")).await;

    // Once it is free, the id is anybody's.
    drop(first);
    server.until_health("no session", |health| health["sessions"] == 0).await;
    server.visitor(&mut origin, "pod", "s").await;
}

#[tokio::test]
async fn offer_while_it_holds_sessions_per_socket_others() {
    let server = TestServer::with("[signal.bounds]\nsessions_per_socket = 2").await;
    let mut origin = server.origin("pod").await;
    let short_lived = server.origin("short-lived").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s1").await;
    visitor.send(offer("short-lived", "s2", "SDP")).await;
    visitor.send(offer("pod", "s3", "SDP")).await;
    visitor.expect(error("s3", "too many sessions")).await;
    visitor.send(offer("pod", "s1", "AGAIN")).await;
    origin.expect(offered("s1", "AGAIN")).await;

    drop(short_lived);
    visitor.expect(error("s2", "origin offline")).await;
    visitor.send(offer("pod", "s3", "NOW")).await;
    origin.expect(offered("s3", "NOW")).await;
}

#[tokio::test]
async fn offer_without_a_pod_id_on_the_first_offer() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.connect().await;
    for _ in 0..2 {
        visitor.send(json!({ "t": "offer", "sessionId": "s", "sdp": "SDP" })).await;
        visitor.expect(error("s", "podId required")).await;
    }
    visitor.send(offer("pod", "s", "SDP")).await;
    origin.expect(offered("s", "SDP")).await;
}

#[tokio::test]
async fn offer_for_a_pod_id_that_no_origin_holds() {
    let server = TestServer::start().await;
    let mut visitor = server.connect().await;
    visitor.send(offer("pod", "s", "EARLY")).await;
    visitor.expect(error("s", "origin offline")).await;
    assert_eq!(server.health().await["sessions"], 0);
    let mut origin = server.origin("pod").await;
    visitor.send(offer("pod", "s", "NOW")).await;
    origin.expect(offered("s", "NOW")).await;
}

#[tokio::test]
async fn candidate_and_error_of_a_session_of_its_own() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for frame in [candidate("s", "C1"), error("s", "bang"), candidate("s", "C2")] {
        visitor.send(frame.clone()).await;
        origin.expect(frame).await;
    }
    visitor.nothing().await;
}

#[tokio::test]
async fn candidate_of_any_other_session() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let _first = server.visitor(&mut origin, "pod", "theirs").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for session_id in ["theirs", "never"] {
        let mut frame = candidate(session_id, "C");
        frame["podId"] = "pod".into();
        visitor.send(frame).await;
        visitor.expect(error(session_id, "origin offline")).await;
    }
    origin.nothing().await;
}

#[tokio::test]
async fn error_of_any_other_session() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let _first = server.visitor(&mut origin, "pod", "theirs").await;
    let mut visitor = server.visitor(&mut origin, "pod", "s").await;
    for frame in [error("theirs", "bang"), error("never", "bang"), refusal("bang")] {
        visitor.send(frame).await;
        visitor.nothing().await;
    }
    origin.nothing().await;
}
