//! Negotiations that a stop or a restart comes in the midst of.

use std::{collections::HashSet, net::TcpListener};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::{
    Configured,
    support::{
        bytes,
        frames::{answer, candidate, error, offer, offered, refusal},
        process::{Broker, activated},
        socket::Socket,
    },
};

const MEMORY: &str = "registry = \"memory\"";
const RESTARTING: &str = "the broker is restarting; try again in a few seconds";

impl Configured {
    async fn origin(&self, pod_id: &str) -> Socket {
        let mut origin = Socket::connect(&self.broker.address).await;
        origin.register(pod_id).await;
        origin
    }

    async fn visitor(&self, origin: &mut Socket, pod_id: &str, session_id: &str) -> Socket {
        let mut visitor = Socket::connect(&self.broker.address).await;
        visitor.send(offer(pod_id, session_id, "OFFER")).await;
        origin.expect(offered(session_id, "OFFER")).await;
        visitor
    }

    fn stop(&mut self) {
        self.broker.signal("TERM");
        self.broker.wait_for("stopping");
    }
}

async fn expect_restart(socket: &mut Socket) {
    assert_eq!(socket.closed().await, (1012, "service restart".into()));
}

#[tokio::test]
async fn what_is_under_way_is_finished() {
    let mut running = Configured::start(MEMORY);
    let (mut origin, mut bystander) = (running.origin("pod").await, running.origin("other").await);
    let mut visitor = running.visitor(&mut origin, "pod", "s").await;
    running.stop();
    // Who has nothing under way is closed meanwhile.
    expect_restart(&mut bystander).await;
    origin.send(answer("s", "ANSWER")).await;
    visitor.expect(answer("s", "ANSWER")).await;
    for text in ["one", "two"] {
        visitor.send(candidate("s", text)).await;
        origin.expect(candidate("s", text)).await;
        origin.send(candidate("s", text)).await;
        visitor.expect(candidate("s", text)).await;
    }
    // Nothing comes any more, so that it is over: without an error, as nothing went wrong.
    visitor.expect_close(1012).await;
    origin.expect_close(1012).await;
}

#[tokio::test]
async fn whom_nobody_answers_is_told_before_its_socket_is_closed() {
    let mut running = Configured::start(&format!("{MEMORY}\ndrain_timeout = \"2s\""));
    let mut origin = running.origin("pod").await;
    let mut visitor = running.visitor(&mut origin, "pod", "one").await;
    visitor.send(offer("pod", "two", "OFFER")).await;
    origin.expect(offered("two", "OFFER")).await;
    origin.send(answer("one", "ANSWER")).await;
    visitor.expect(answer("one", "ANSWER")).await;
    let mut new = Socket::connect(&running.broker.address).await;
    running.stop();
    visitor.expect(error("two", RESTARTING)).await;
    visitor.expect_close(1012).await;
    new.expect(refusal(RESTARTING)).await;
    new.expect_close(1012).await;
    origin.expect_close(1012).await;
}

#[tokio::test]
async fn an_offer_that_waits_for_its_host_is_refused() {
    let mut running = Configured::start(MEMORY);
    let mut visitor = Socket::connect(&running.broker.address).await;
    visitor.send(offer("pod", "s", "OFFER")).await;
    visitor.nothing().await;
    running.stop();
    visitor.expect(error("s", RESTARTING)).await;
    visitor.expect_close(1012).await;
}

#[tokio::test]
async fn who_was_let_in_before_the_stop_still_finds_the_host() {
    let mut running = Configured::start(MEMORY);
    let mut origin = running.origin("pod").await;
    let mut early = running.visitor(&mut origin, "pod", "early").await;
    let address = running.broker.address.clone();
    let (begun, rest) = bytes::UPGRADE.split_at(20);
    let mut late = TcpStream::connect(&address).await.unwrap();
    late.write_all(begun.as_bytes()).await.unwrap();
    running.stop();
    late.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(bytes::Answer::read_head(&mut late).await.unwrap().status, 101);
    let mut late = Socket { stream: WebSocketStream::from_raw_socket(late, Role::Client, None).await };
    late.send(offer("pod", "late", "OFFER")).await;
    late.send(offer("nobody", "s", "OFFER")).await;
    late.expect(error("s", RESTARTING)).await;
    origin.expect(offered("late", "OFFER")).await;
    for (visitor, session) in [(&mut early, "early"), (&mut late, "late")] {
        origin.send(answer(session, "ANSWER")).await;
        visitor.expect(answer(session, "ANSWER")).await;
    }
}

/// Browsers on a busy machine use a connection seconds after they opened it.
#[tokio::test]
async fn who_uses_a_connection_late_is_served_while_others_negotiate() {
    let mut running = Configured::start(MEMORY);
    let (mut origin, mut bystander) = (running.origin("pod").await, running.origin("other").await);
    let mut early = running.visitor(&mut origin, "pod", "early").await;
    let late = TcpStream::connect(&running.broker.address).await.unwrap();
    running.stop();
    // Sockets are closed when silent connections have had their time.
    expect_restart(&mut bystander).await;
    let late = bytes::upgrade(late).await;
    let mut late = Socket { stream: WebSocketStream::from_raw_socket(late, Role::Client, None).await };
    late.send(offer("pod", "late", "OFFER")).await;
    origin.expect(offered("late", "OFFER")).await;
    for (visitor, session) in [(&mut early, "early"), (&mut late, "late")] {
        origin.send(answer(session, "ANSWER")).await;
        visitor.expect(answer(session, "ANSWER")).await;
    }
}

/// As with a socket unit of systemd: visitors come while no broker runs, and the host only after the next one started.
#[tokio::test]
async fn visitors_who_come_in_the_midst_of_a_restart_reach_the_host() {
    let dir = TempDir::new().unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listening.local_addr().unwrap().to_string();
    let file = dir.path().join("signal.toml");
    std::fs::write(&file, format!("{MEMORY}\n[[listen]]\naddress = \"systemd:http\"\n")).unwrap();
    let start = move || {
        let socket = listening.try_clone().unwrap().into();
        Broker::spawn(activated(vec![socket], "http", "$$").arg("--config").arg(&file))
    };
    let mut broker = start();
    let mut origin = Socket::connect(&address).await;
    origin.register("pod").await;
    broker.signal("TERM");
    expect_restart(&mut origin).await;
    origin.answer_close().await;
    assert!(broker.child.wait().unwrap().success());

    let visits: Vec<_> = (0..20)
        .map(|number| {
            let (address, session) = (address.clone(), format!("s{number}"));
            tokio::spawn(async move {
                let mut visitor = Socket::connect(&address).await;
                visitor.send(offer("pod", &session, "OFFER")).await;
                visitor.send(candidate(&session, "C")).await;
                visitor.nothing().await;
                (session, visitor)
            })
        })
        .collect();
    let _broker = tokio::task::spawn_blocking(start).await.unwrap();
    let visitors: Vec<_> = join_all(visits).await.into_iter().map(Result::unwrap).collect();
    let mut origin = Socket::connect(&address).await;
    origin.register("pod").await;
    let mut offers = HashSet::new();
    for _ in 0..2 * visitors.len() {
        let frame = origin.receive().await;
        let session = frame["sessionId"].as_str().unwrap().to_owned();
        if frame["t"] == "candidate" {
            assert!(offers.contains(&session), "a candidate before its offer: {frame}");
            origin.send(answer(&session, &session)).await;
        } else {
            offers.insert(session);
        }
    }
    for (session, mut visitor) in visitors {
        visitor.expect(answer(&session, &session)).await;
    }
}
