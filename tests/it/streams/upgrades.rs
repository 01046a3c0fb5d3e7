//! Upgrades over HTTP/1.1 whose answer is not taken, and those with a body.

use std::{net::Ipv4Addr, ops::Range, time::Duration};

use futures_util::future::join_all;
use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};

use super::{Scene, TRANSPORTS, Transport};
use crate::support::{
    SOON,
    credential::basic,
    raw::{Raw, UPGRADE},
};

/// Answers before that of the upgrade: with some of these, the buffers below HTTP have room for all of them, and for a part
/// of the next alone.
const COUNTS: Range<usize> = 20..600;

/// Asks `count` times for `/health` and then for a WebSocket, and reads nothing.
async fn ask(scene: &Scene, client: Ipv4Addr, count: usize, field: &str) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind((client, 0).into()).unwrap();
    let mut raw = scene.http1_on(socket).await;
    let protocol = "x".repeat(14_000);
    let upgrade = UPGRADE.replace("\n\n", &format!("\n{field}Sec-WebSocket-Protocol: {protocol}\n\n"));
    raw.send(&("GET /health HTTP/1.1\nHost: broker\n\n".repeat(count) + &upgrade)).await;
    raw
}

/// Returns after how many answers the connection lived on.
async fn live_on(transport: Transport, field: &str) -> Vec<usize> {
    let settings = "[http]\nmax_connections_per_address = 1\n[http.bounds]\nwrite_timeout = \"300ms\"\n\
        [signal]\nping_interval = \"300ms\"\n[signal.bounds]\nfirst_frame_timeout = \"300ms\"";
    let scene = &Scene::with(transport, settings).await;
    let all = COUNTS.step_by(20).zip(1..).map(async |(count, host)| {
        let client = Ipv4Addr::new(127, 0, 1, host);
        let _stalled = ask(scene, client, count, field).await;
        let freed = async {
            while !scene.serves_client(client).await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(SOON, freed).await.is_err().then_some(count)
    });
    join_all(all).await.into_iter().flatten().collect()
}

/// The time-outs of HTTP hold until its client has the answer, whoever it says that it is.
#[tokio::test]
async fn an_upgrade_whose_answer_is_not_taken_ends() {
    let authorization = format!("Authorization: {}\n", basic("home", "secret"));
    for transport in TRANSPORTS {
        for field in ["", &authorization] {
            let live_on = live_on(transport, field).await;
            assert!(live_on.is_empty(), "{transport:?}, {field:?}: after so many answers: {live_on:?}");
        }
    }
}

/// What comes after the head would be frames, and not a body.
#[tokio::test]
async fn an_upgrade_with_a_body_is_refused() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "").await;
        for (fields, body, is_granted) in [
            ("Content-Length: 0\n", "", true),
            ("Content-Length: 5\n", "hello", false),
            ("Content-Length: 5\n", "", false),
            ("Content-Length: 5\nExpect: 100-continue\n", "", false),
            ("Transfer-Encoding: chunked\n", "5\nhello\n0\n\n", false),
            ("Transfer-Encoding: chunked\n", "0\n\n", false),
        ] {
            let at = format!("{transport:?} {fields:?} {body:?}");
            let mut raw = scene.http1().await;
            raw.send(&UPGRADE.replace("\n\n", &format!("\n{fields}\n{body}"))).await;
            let answer = if is_granted { raw.head().await } else { raw.answer().await };
            assert_eq!(answer.status, if is_granted { 101 } else { 400 }, "{at}: {answer:?}");
            if !is_granted {
                let sentence = "an upgrade to websocket has no body: send it without one";
                assert_eq!(answer.json()["error"], sentence, "{at}");
                assert_eq!(answer.header("connection"), Some("close"), "{at}");
            }
        }
    }
}
