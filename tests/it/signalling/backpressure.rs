//! The sender pays: who sends more than its peer takes is slowed down or refused, and nobody who reads is closed for
//! what others send.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{
    SOON,
    frames::{answer, error, offer, offered, refusal},
    server::TestServer,
    socket::Socket,
};

/// Nearly the largest frame that a client may send.
const LARGE: usize = 250_000;
const DROPPED: &str = "the peer reads too slowly: this frame was dropped";

/// Answers all offers but those of sessions whose name begins with `flood`, until it is aborted; fails if it is closed.
fn host<S>(mut origin: Socket<S>) -> JoinHandle<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    tokio::spawn(async move {
        loop {
            let message = origin.stream.next().await.expect("the host was closed").expect("it was cut off");
            let Message::Text(frame) = message else {
                assert!(!message.is_close(), "the host was closed: {message:?}");
                continue;
            };
            let frame: Value = serde_json::from_str(&frame).unwrap();
            let session = frame["sessionId"].as_str().unwrap();
            if frame["t"] == "offer" && !session.starts_with("flood") {
                origin.send(answer(session, "ANSWER")).await;
            }
        }
    })
}

/// A visitor that sends as much as it can, until it is aborted.
fn flood(mut visitor: Socket, session: &str, bytes: usize) -> JoinHandle<()> {
    let frame = offer("pod", session, &"x".repeat(bytes)).to_string();
    tokio::spawn(async move {
        while visitor.stream.send(Message::text(&*frame)).await.is_ok() {}
        panic!("the visitor was closed");
    })
}

fn json_of(message: Option<Result<Message, Error>>) -> Value {
    serde_json::from_str(&message.unwrap().unwrap().into_text().unwrap()).unwrap()
}

/// Visitors that come one after the other while others flood, and are answered.
async fn honest_visitors_are_answered(server: &TestServer) {
    for n in 0..10 {
        let session = format!("honest {n}");
        let mut visitor = server.connect().await;
        visitor.send(offer("pod", &session, &"o".repeat(5000))).await;
        let answered = timeout(3 * SOON, visitor.stream.next()).await.expect("it should be answered");
        assert_eq!(json_of(answered), answer(&session, "ANSWER"));
    }
}

async fn nobody_was_closed(server: &TestServer, tasks: Vec<JoinHandle<()>>) {
    assert_eq!(server.health().await["origins"], json!(["pod"]));
    for task in tasks {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "a host or a visitor was closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_visitor_floods_a_slow_host() {
    let server = TestServer::start().await;
    let mut origin = Socket::slow(&server.address, 2_000_000).await;
    origin.register("pod").await;
    let flooder = server.connect().await;
    let tasks = vec![host(origin), flood(flooder, "flood", LARGE)];
    honest_visitors_are_answered(&server).await;
    nobody_was_closed(&server, tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_visitors_flood_one_host() {
    let server = TestServer::start().await;
    let mut tasks = vec![host(server.origin("pod").await)];
    for n in 0..50 {
        tasks.push(flood(server.connect().await, &format!("flood {n}"), LARGE / 5));
    }
    honest_visitors_are_answered(&server).await;
    nobody_was_closed(&server, tasks).await;
}

/// All that a visitor sends arrives, in order, however slowly the host takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_that_is_slowed_down_loses_nothing() {
    const FRAMES: usize = 40;
    let server = TestServer::start().await;
    let mut origin = Socket::narrow(&server.address).await;
    origin.register("pod").await;
    let mut visitor = server.connect().await;
    let padding = "x".repeat(LARGE);
    let send = async {
        for n in 0..FRAMES {
            visitor.send(offer("pod", "s", &format!("{n} {padding}"))).await;
        }
    };
    let receive = async {
        for n in 0..FRAMES {
            let frame = origin.receive().await;
            assert!(frame["sdp"].as_str().unwrap().starts_with(&format!("{n} ")));
        }
    };
    tokio::join!(send, receive);
    visitor.nothing().await;
    origin.nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_floods_one_slow_visitor() {
    let server = TestServer::start().await;
    let mut origin = server.origin("pod").await;
    let mut slow = Socket::slow(&server.address, 2_000_000).await;
    slow.send(offer("pod", "slow", "OFFER")).await;
    origin.expect(offered("slow", "OFFER")).await;
    let mut other = server.visitor(&mut origin, "pod", "other").await;
    for n in 0..40 {
        origin.send(answer("slow", &"x".repeat(LARGE))).await;
        origin.send(answer("other", &n.to_string())).await;
        other.expect(answer("other", &n.to_string())).await;
    }
    let mut arrived = 40;
    origin.send_text("{").await;
    loop {
        match origin.receive().await {
            told if told == error("slow", DROPPED) => arrived -= 1,
            told => break assert_eq!(told, refusal("invalid json")),
        }
    }
    assert!((1..40).contains(&arrived), "{arrived} of 40 frames were not refused");
    for _ in 0..arrived {
        assert_eq!(slow.receive().await["t"], "answer");
    }
    origin.send(answer("slow", "LAST")).await;
    slow.expect(answer("slow", "LAST")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_spend_the_common_budget() {
    let limits = "[signal]\nmax_queue_total = \"1 MiB\"\nframes_per_second = 100000";
    let server = TestServer::with(limits).await;
    let mut hoarder = server.origin("hoard").await;
    let mut hoarders = Vec::new();
    for n in 0..20 {
        let mut visitor = Socket::narrow(&server.address).await;
        visitor.send(offer("hoard", &n.to_string(), "OFFER")).await;
        hoarder.expect(offered(&n.to_string(), "OFFER")).await;
        hoarders.push(visitor);
    }
    // Frames of all sizes, until nothing fits any more.
    for size in [100_000, 20_000, 5_000, 1_000] {
        for n in 0..20 {
            let mut refused = false;
            while !refused {
                hoarder.send(answer(&n.to_string(), &"x".repeat(size))).await;
                hoarder.send_text("{").await;
                while let told = hoarder.receive().await
                    && told != refusal("invalid json")
                {
                    assert_eq!(told, error(&n.to_string(), DROPPED));
                    refused = true;
                }
            }
        }
    }
    let tasks = vec![host(server.origin("pod").await)];
    honest_visitors_are_answered(&server).await;
    let mut health = server.health().await["origins"].as_array().unwrap().clone();
    health.sort_by_key(ToString::to_string);
    assert_eq!(health, ["hoard", "pod"]);
    for task in tasks {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "a host was closed");
    }
}

/// A client that reads late is told all that it is to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_that_a_client_causes_wait_for_it() {
    const FRAMES: usize = 50_000;
    let server = TestServer::with("[signal]\nframes_per_second = 1000000").await;
    let (mut write, mut read) = Socket::narrow(&server.address).await.stream.split();
    let send = async {
        for _ in 0..FRAMES {
            write.feed("{".into()).await.unwrap();
        }
        write.flush().await.unwrap();
    };
    let receive = async {
        for _ in 0..FRAMES {
            assert_eq!(json_of(read.next().await), refusal("invalid json"));
        }
    };
    timeout(6 * SOON, async { tokio::join!(send, receive) }).await.expect("all should have been told");
}

/// Frames wait for a host that takes nothing; until then the visitor's pings are answered, and its end is noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_that_waits_is_not_deaf() {
    let server = TestServer::with("[signal]\nmax_frame = \"48 KiB\"\nmax_queue = \"64 KiB\"").await;
    let mut origin = Socket::narrow(&server.address).await;
    origin.register("pod").await;
    let mut visitor = server.connect().await;
    let mut sent = 0;
    loop {
        visitor.send(offer("pod", "s", &"x".repeat(1000))).await;
        visitor.send_text("{").await;
        sent += 1;
        match timeout(Duration::from_millis(500), visitor.stream.next()).await {
            Ok(told) => assert_eq!(json_of(told), refusal("invalid json")),
            Err(_) => break,
        }
        assert!(sent < 2000, "the broker takes any number of frames for a host that takes nothing");
    }
    visitor.send_message(Message::Ping("still there?".into())).await;
    let pong = timeout(SOON, visitor.stream.next()).await.expect("a pong should have come");
    assert_eq!(pong.unwrap().unwrap(), Message::Pong("still there?".into()));
    drop(visitor);
    server.until_health("that the visitor left", |health| health["sessions"] == 0).await;
    assert_eq!(server.health().await["origins"], json!(["pod"]));
    // What the host had room for arrives; what waited went with its sender.
    for _ in 1..sent {
        assert_eq!(origin.receive().await["t"], "offer");
    }
    origin.nothing().await;
}

const IMPATIENT: &str = "[signal]\nmax_frame = \"48 KiB\"\nmax_queue = \"64 KiB\"\nping_interval = \"500ms\"";

/// The connection ends, and a close frame says why, if it is still taken in time.
async fn was_too_slow(socket: &mut Socket) {
    let end = async {
        while let Some(Ok(message)) = socket.stream.next().await {
            if let Message::Close(Some(close)) = message {
                assert_eq!((close.code.into(), &*close.reason), (1013, "too many unread frames"));
            }
        }
    };
    timeout(SOON, end).await.expect("the connection should have ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_takes_nothing_of_what_waits_for_it() {
    let server = TestServer::with(IMPATIENT).await;
    let mut origin = Socket::narrow(&server.address).await;
    origin.register("pod").await;
    let mut visitor = server.connect().await;
    let mut told: Vec<Value> = Vec::new();
    while told.is_empty() || told == [error("s", DROPPED)] {
        visitor.send(offer("pod", "s", &"x".repeat(32 << 10))).await;
        while let Ok(frame) = timeout(Duration::from_millis(1), visitor.stream.next()).await {
            told = match frame.unwrap().unwrap() {
                Message::Text(frame) => vec![serde_json::from_str(&frame).unwrap()],
                _ => told,
            };
        }
    }
    assert_eq!(told, [error("s", "origin offline")]);
    assert_eq!(server.health().await["origins"], json!([]));
    was_too_slow(&mut origin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_takes_nothing_of_what_waits_for_it() {
    let server = TestServer::with(IMPATIENT).await;
    let mut origin = server.origin("pod").await;
    let mut visitor = Socket::narrow(&server.address).await;
    visitor.send(offer("pod", "s", "OFFER")).await;
    origin.expect(offered("s", "OFFER")).await;
    loop {
        origin.send(answer("s", &"x".repeat(32 << 10))).await;
        origin.send_text("{").await;
        let told = origin.receive().await;
        if told == error("s", DROPPED) {
            origin.expect(refusal("invalid json")).await;
            break;
        }
    }
    // It goes on reading, so that it is there.
    let end = server.until_health("that the visitor left", |health| health["sessions"] == 0);
    tokio::select! {
        () = end => {}
        frame = origin.receive() => panic!("{frame}"),
    }
    was_too_slow(&mut visitor).await;
    origin.nothing().await;
}

/// A host that takes little at a time, but something, stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_little_at_a_time_stays() {
    let server = TestServer::with("[signal]\nping_interval = \"1s\"").await;
    let mut origin = Socket::slow(&server.address, 200_000).await;
    origin.register("pod").await;
    let mut visitor = server.connect().await;
    // 5 s on this line: five times what one that takes nothing has. Each frame takes a sixth of a second, so that the
    // visitor never waits for long either.
    const FRAMES: usize = 30;
    for _ in 0..FRAMES {
        visitor.send(offer("pod", "s", &"x".repeat(4 * LARGE / FRAMES))).await;
    }
    let receive = async {
        for _ in 0..FRAMES {
            assert_eq!(origin.receive().await["t"], "offer");
        }
        origin.nothing().await;
    };
    let disturbed = async {
        loop {
            match visitor.stream.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => break other,
            }
        }
    };
    tokio::select! {
        () = receive => {}
        // It answers pings meanwhile.
        frame = disturbed => panic!("{frame:?}"),
    }
    visitor.nothing().await;
}
