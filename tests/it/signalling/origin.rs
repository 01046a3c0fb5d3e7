//! What an origin sends.

use serde_json::json;

use crate::support::{
    frames::{answer, candidate, error, offer, offered, refusal, register},
    server::TestServer,
};

#[tokio::test]
async fn register_again() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    for again in [register("pod"), register("other"), json!({ "t": "register" }), register(&"x".repeat(200))]
    {
        origin.send(again).await;
        origin.expect(refusal("already initialized")).await;
        origin.nothing().await;
    }
    assert_eq!(server.health().await["origins"], json!(["pod"]));
}

#[tokio::test]
async fn offer_is_refused() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    origin.send(offer("pod", "s", "SDP")).await;
    origin.expect(error("s", "wrong role")).await;
    origin.nothing().await;
}

#[tokio::test]
async fn answer_candidate_and_error_of_a_session_of_its_own() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut one = server.visitor(&mut origin, "pod", "s1").await;
    let mut two = server.visitor(&mut origin, "pod", "s2").await;
    for frame in [answer("s2", "ANSWER"), candidate("s2", "C"), error("s2", "boom"), answer("s2", "AGAIN")] {
        origin.send(frame.clone()).await;
        two.expect(frame).await;
    }
    one.nothing().await;
    origin.nothing().await;
}

#[tokio::test]
async fn answer_candidate_and_error_of_any_other_session() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut other = server.origin("other").await;
    let mut visitor = server.visitor(&mut other, "other", "theirs").await;
    drop(server.visitor(&mut origin, "pod", "gone").await);
    server.until_health("that the visitor left", |health| health["sessions"] == 1).await;
    for session_id in ["theirs", "gone", "never"] {
        for frame in [answer(session_id, "SDP"), candidate(session_id, "C"), error(session_id, "boom")] {
            origin.send(frame).await;
            origin.nothing().await;
        }
    }
    visitor.nothing().await;
    // The session is untouched.
    other.send(answer("theirs", "ANSWER")).await;
    visitor.expect(answer("theirs", "ANSWER")).await;
    visitor.send(offer("other", "theirs", "AGAIN")).await;
    other.expect(offered("theirs", "AGAIN")).await;
}
