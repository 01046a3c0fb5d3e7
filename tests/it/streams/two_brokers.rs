//! Two brokers in one process share nothing: what one is exhausted of, the other has.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::{pod::Pod, raw::Raw, server::TestServer};

/// An upload of a kind that is not taken, of whose body some has been sent.
async fn refused(server: &TestServer) -> Raw {
    let mut raw = Raw::open(&server.address).await;
    raw.send("POST /pods HTTP/1.1\nHost: broker\nContent-Type: application/zip\nContent-Length: 50000\n\nx")
        .await;
    assert_eq!(raw.answer().await.status, 415);
    raw
}

/// Whether the rest of a refused body is read, so that the connection can go on.
async fn goes_on(mut raw: Raw) -> bool {
    let rest = vec![b'x'; 49_999];
    if raw.try_send_bytes(&rest).await.is_err() {
        return false;
    }
    raw.try_send_bytes(b"GET /health HTTP/1.1\r\nHost: broker\r\n\r\n").await.is_ok()
        && raw.try_answer().await.is_some_and(|answer| answer.status == 200)
}

#[tokio::test]
async fn a_broker_that_is_exhausted_takes_nothing_from_another() {
    let (one, other) = (TestServer::start().await, TestServer::start().await);
    let mut held = Vec::new();
    // More than are read on at a time: the last ones are closed.
    while held.len() < 300 {
        held.push(refused(&one).await);
    }
    assert!(!goes_on(held.pop().unwrap()).await, "the first broker should be exhausted");
    assert!(goes_on(refused(&other).await).await, "the second one should not");
    assert_eq!(other.upload(Pod::named("pod").html()).await.status(), 200);
    drop(held);
    sleep(Duration::ZERO).await;
}
