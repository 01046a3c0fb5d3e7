//! Several hosts for one pod id.

use std::{
    future::pending,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use futures_util::{StreamExt, future::join_all};
use gemmapod_signal::{
    Blob, PodIdChange, PodIdChanged, PodIdRecord, PodRecord, Registry, RegistryError, SignalServer, Slug,
    VerifiedPod,
};
use serde_json::json;
use socket2::{SockFilter, SockRef};
use tokio_tungstenite::tungstenite::Message;

use super::proof::{Owner, broker, later, register};
use crate::support::{
    SOON, frames,
    server::{TestServer, config},
    socket::Socket,
};

const HELD: (u16, &str) = (4003, "pod id is held");
const REPLACED: (u16, &str) = (4001, "replaced by new origin");

fn close((code, reason): (u16, &str)) -> (u16, String) {
    (code, reason.into())
}

/// From now on no packet reaches the peer: nothing is acknowledged, no ping arrives, no FIN.
fn drop_packets(socket: &Socket) {
    SockRef::from(socket.stream.get_ref()).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
}

fn let_packets_through(socket: &Socket) {
    SockRef::from(socket.stream.get_ref()).detach_filter().unwrap();
}

/// Reads, and so answers pings, until a frame comes that is none of those; gives the socket back.
async fn answer_pings(mut socket: Socket) -> Socket {
    while let Some(Ok(message)) = socket.stream.next().await {
        if message.is_ping() {
            // The answer is written with the next read or flush.
            futures_util::SinkExt::flush(&mut socket.stream).await.unwrap();
            return socket;
        }
    }
    panic!("the holder should have been pinged");
}

async fn newcomer(server: &TestServer, pod_id: &str) -> Socket {
    let mut socket = server.connect().await;
    socket.send(frames::register(pod_id)).await;
    socket
}

#[tokio::test]
async fn a_live_holder_keeps_its_pod_and_its_sessions() {
    let server = broker("[signal]\ntakeover_timeout = \"1h\"").await;
    let mut holder = server.origin("pod").await;
    let mut visitor = server.visitor(&mut holder, "pod", "s").await;
    let mut newcomer = newcomer(&server, "pod").await;
    let mut holder = answer_pings(holder).await;
    newcomer.expect(frames::refusal("pod id is held")).await;
    assert_eq!(newcomer.closed().await, close(HELD));
    holder.send(frames::answer("s", "ANSWER")).await;
    visitor.expect(frames::answer("s", "ANSWER")).await;
}

/// Any frame is a sign of life, not only the answer to the ping.
#[tokio::test]
async fn a_holder_that_speaks_keeps_its_pod() {
    let server = broker("[signal]\ntakeover_timeout = \"1h\"").await;
    let mut holder = server.origin("pod").await;
    let mut newcomer = newcomer(&server, "pod").await;
    let ping = holder.stream.next().await.unwrap().unwrap();
    assert!(ping.is_ping(), "{ping:?}");
    holder.send_text("{}").await;
    assert_eq!(newcomer.closed().await, close(HELD));
}

/// Without a newcomer the dead holder would stay for about a minute.
#[tokio::test]
async fn a_dead_holder_is_replaced_within_seconds() {
    let server = broker("").await;
    let mut holder = server.origin("pod").await;
    let mut visitor = server.visitor(&mut holder, "pod", "s").await;
    drop_packets(&holder);
    let begun = Instant::now();
    let mut newcomer = newcomer(&server, "pod").await;
    newcomer.expect(frames::registered("pod")).await;
    assert!(begun.elapsed() >= Duration::from_secs(3), "the holder had its three seconds");
    assert!(begun.elapsed() < Duration::from_secs(6));
    visitor.expect(frames::error("s", "origin offline")).await;
    visitor.send(frames::offer("pod", "s", "AGAIN")).await;
    newcomer.expect(frames::offered("s", "AGAIN")).await;
    let_packets_through(&holder);
    assert_eq!(holder.closed().await, close(REPLACED));
}

/// Late is in time until the time is over: then the answer finds another in its place.
#[tokio::test]
async fn a_holder_that_answers_late() {
    let server = broker("[signal]\ntakeover_timeout = \"1h\"").await;
    let holder = server.origin("pod").await;
    drop_packets(&holder);
    let mut first = newcomer(&server, "pod").await;
    // The kernel of the broker sends the ping again and again until it gets through.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let_packets_through(&holder);
    let holder = answer_pings(holder).await;
    assert_eq!(first.closed().await, close(HELD));
    drop(holder);

    let server = broker("[signal]\ntakeover_timeout = \"300ms\"").await;
    let mut holder = server.origin("pod").await;
    drop_packets(&holder);
    let mut second = newcomer(&server, "pod").await;
    second.expect(frames::registered("pod")).await;
    let_packets_through(&holder);
    assert_eq!(holder.closed().await, close(REPLACED));
    second.nothing().await;
}

#[tokio::test]
async fn a_hundred_newcomers_and_a_live_holder() {
    let server = broker("[signal]\ntakeover_timeout = \"1h\"").await;
    let holder = server.origin("pod").await;
    let newcomers = join_all((0..100).map(|_| newcomer(&server, "pod"))).await;
    let serve = tokio::spawn(async move {
        let mut holder = holder;
        while let Some(Ok(message)) = holder.stream.next().await {
            assert!(message.is_ping(), "{message:?}");
            futures_util::SinkExt::flush(&mut holder.stream).await.unwrap();
        }
    });
    let closed = join_all(newcomers.into_iter().map(async |mut newcomer| newcomer.closed().await)).await;
    assert!(closed.iter().all(|closed| *closed == close(HELD)), "{closed:?}");
    assert_eq!(server.health().await["origins"], serde_json::json!(["pod"]));
    assert!(!serve.is_finished());
    serve.abort();
}

#[tokio::test]
async fn a_hundred_newcomers_and_a_dead_holder() {
    let server = broker("[signal]\ntakeover_timeout = \"1s\"").await;
    let holder = server.origin("pod").await;
    drop_packets(&holder);
    let newcomers = join_all((0..100).map(|_| newcomer(&server, "pod"))).await;
    let outcome = async |mut newcomer: Socket| match newcomer.receive().await {
        frame if frame == frames::registered("pod") => true,
        frame => {
            assert_eq!(frame, frames::refusal("pod id is held"));
            assert_eq!(newcomer.closed().await, close(HELD));
            false
        }
    };
    let won = join_all(newcomers.into_iter().map(outcome)).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

#[tokio::test]
async fn whoever_waits_gets_the_pod_of_a_holder_that_leaves() {
    let server = broker("[signal]\ntakeover_timeout = \"1h\"").await;
    let mut holder = server.origin("pod").await;
    let mut first = newcomer(&server, "pod").await;
    assert!(holder.stream.next().await.unwrap().unwrap().is_ping());
    let mut gives_up = newcomer(&server, "pod").await;
    gives_up.stream.close(None).await.unwrap();
    while gives_up.stream.next().await.is_some() {}
    let mut second = newcomer(&server, "pod").await;
    // Its close frame is no sign that it stays.
    holder.stream.close(None).await.unwrap();
    first.expect(frames::registered("pod")).await;
    assert_eq!(second.closed().await, close(HELD));
}

/// Whatever a newcomer sends while it waits is dropped, as a socket that will be an origin sends nothing before.
#[tokio::test]
async fn a_newcomer_that_waits_is_not_heard() {
    let server = broker("[signal]\ntakeover_timeout = \"500ms\"").await;
    let holder = server.origin("pod").await;
    drop_packets(&holder);
    let mut newcomer = newcomer(&server, "pod").await;
    newcomer.send(frames::offer("pod", "s", "OFFER")).await;
    newcomer.send(frames::register("another")).await;
    newcomer.expect(frames::registered("pod")).await;
    newcomer.send(frames::register("another")).await;
    newcomer.expect(frames::refusal("already initialized")).await;
}

/// Two hosts with one proof: the second waits without a word, and serves when the first is gone.
#[tokio::test]
async fn a_host_of_the_same_owner_stands_by() {
    let server = broker("[signal]\ntakeover_timeout = \"1h\"").await;
    let owner = Owner::new();
    let mut holder = server.connect().await;
    holder.send(register("pod", &owner.token("pod"))).await;
    holder.expect(frames::registered("pod")).await;
    let mut second = server.connect().await;
    second.send(register("pod", &owner.token("pod"))).await;
    let mut third = server.connect().await;
    let mut holder = answer_pings(holder).await;
    let mut visitor = server.visitor(&mut holder, "pod", "s").await;
    third.send(register("pod", &owner.token("pod"))).await;
    let holder = answer_pings(holder).await;
    // As of a process that was killed: the system ends its connection.
    drop(holder);
    second.expect(frames::registered("pod")).await;
    visitor.expect(frames::error("s", "origin offline")).await;
    visitor.send(frames::offer("pod", "t", "AGAIN")).await;
    second.expect(frames::offered("t", "AGAIN")).await;
    drop(second);
    third.expect(frames::registered("pod")).await;
}

/// However often the holder has answered before.
#[tokio::test]
async fn a_host_that_stands_by_replaces_a_holder_that_falls_silent() {
    let server = broker("[signal]\ntakeover_timeout = \"500ms\"").await;
    let owner = Owner::new();
    let mut holder = server.connect().await;
    holder.send(register("pod", &owner.token("pod"))).await;
    holder.expect(frames::registered("pod")).await;
    let mut second = server.connect().await;
    second.send(register("pod", &owner.token("pod"))).await;
    for _ in 0..3 {
        holder = answer_pings(holder).await;
    }
    drop_packets(&holder);
    second.expect(frames::registered("pod")).await;
    let_packets_through(&holder);
    assert_eq!(holder.closed().await, close(REPLACED));
}

/// Anybody can make a key: one to which nothing binds the pod id does no more than no key at all, and binds nothing
/// while another holds the pod id.
#[tokio::test]
async fn a_token_of_any_key_does_not_replace_a_holder_that_is_there() {
    let server = broker("[signal]\ntakeover_timeout = \"1h\"").await;
    let (attacker, other) = (Owner::new(), Owner::new());
    let mut holder = server.origin("pod").await;
    let mut newcomer = server.connect().await;
    newcomer.send(register("pod", &attacker.token("pod"))).await;
    let ping = holder.stream.next().await.unwrap().unwrap();
    assert!(ping.is_ping(), "{ping:?}");
    holder.nothing().await;
    assert_eq!(newcomer.closed().await, close(HELD));
    drop(holder);
    server.until_health("no origin", |health| health["origins"] == serde_json::json!([])).await;
    drop(server.origin("pod").await);
    server.until_health("no origin", |health| health["origins"] == serde_json::json!([])).await;
    let mut first = server.connect().await;
    first.send(register("pod", &other.token("pod"))).await;
    first.expect(frames::registered("pod")).await;
}

/// A holder is not pinged more often than newcomers come.
#[tokio::test]
async fn a_holder_is_pinged_for_a_contest_only() {
    let server = broker("").await;
    let mut holder = server.origin("pod").await;
    let quiet = tokio::time::timeout(Duration::from_millis(300), holder.stream.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let _newcomer = newcomer(&server, "pod").await;
    let ping = tokio::time::timeout(SOON, holder.stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(ping, Message::Ping(Default::default()));
}

/// A host that is being sent much, and takes it slowly, is there: its pongs come late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_holder_that_takes_bytes_keeps_its_pod() {
    let server = broker("[signal]\ntakeover_timeout = \"500ms\"").await;
    let mut holder = Socket::slow(&server.address, 100_000).await;
    holder.register("pod").await;
    let mut visitor = server.connect().await;
    visitor.send(frames::offer("pod", "s", &"x".repeat(250_000))).await;
    visitor.send(frames::offer("pod", "s", &"x".repeat(250_000))).await;
    let reads = tokio::spawn(async move {
        for _ in 0..2 {
            assert_eq!(holder.receive().await["t"], "offer");
        }
        holder
    });
    for _ in 0..3 {
        let mut newcomer = newcomer(&server, "pod").await;
        newcomer.expect(frames::refusal("pod id is held")).await;
        assert_eq!(newcomer.closed().await, close(HELD));
    }
    reads.await.unwrap().nothing().await;
}

/// A registry whose disk hangs when a pod id is to be recorded.
struct Hangs;

#[async_trait]
impl Registry for Hangs {
    fn name(&self) -> &str {
        "hangs"
    }

    async fn put_pod(&self, _: VerifiedPod) -> Result<(), RegistryError> {
        pending().await
    }

    async fn get_record(&self, _: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        Ok(None)
    }

    async fn get_blob(&self, _: &Slug) -> Result<Option<Blob>, RegistryError> {
        Ok(None)
    }

    async fn bump_hits(&self, _: &[(Slug, u64)], _: SystemTime) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn delete(&self, _: &Slug) -> Result<bool, RegistryError> {
        Ok(false)
    }

    async fn list(&self, _: Option<&Slug>, _: usize) -> Result<Vec<PodRecord>, RegistryError> {
        Ok(Vec::new())
    }

    async fn pod_id(&self, _: &str) -> Result<Option<PodIdRecord>, RegistryError> {
        Ok(None)
    }

    async fn change_pod_ids(
        &self,
        _: Vec<(String, PodIdChange)>,
    ) -> Result<Vec<PodIdChanged>, RegistryError> {
        pending().await
    }
}

#[tokio::test]
async fn a_holder_whose_registration_waits_for_the_disk_keeps_its_pod() {
    let config = config("[signal]\ntakeover_timeout = \"500ms\"");
    let server = TestServer::from(SignalServer::builder().config(config).registry(Hangs)).await;
    let mut holder = server.connect().await;
    holder.send(frames::register("pod")).await;
    // It is told so once it is on record.
    server.until_health("that it holds the pod id", |health| health["origins"] == json!(["pod"])).await;
    let mut newcomer = newcomer(&server, "pod").await;
    let _holder = answer_pings(holder).await;
    newcomer.expect(frames::refusal("pod id is held")).await;
    assert_eq!(server.health().await["origins"], json!(["pod"]));
}

/// Its owner claims a pod id while a newcomer waits for it, so that the newcomer has no right to it any more.
#[tokio::test]
async fn a_newcomer_that_gets_a_pod_id_which_was_claimed_is_closed() {
    let server = broker("trusted_proxies = [\"127.0.0.1/32\"]\n[signal]\ntakeover_timeout = \"1h\"").await;
    let owner = Owner::new();
    let mut holder = Socket::forwarded(&server.address, "192.0.2.1").await;
    holder.register("pod").await;
    let mut newcomer = Socket::forwarded(&server.address, "198.51.100.1").await;
    newcomer.send(frames::register("pod")).await;
    // What comes after it was handled after it.
    let path = format!("/owner/{}/pod-ids/pod", owner.key());
    let claim = owner.signed(&server, reqwest::Method::PUT, &path, None, later());
    let claimed = claim.header("x-forwarded-for", "192.0.2.1").send().await.unwrap();
    assert_eq!(claimed.status(), 204);
    drop(holder);
    newcomer
        .expect(frames::refusal(
            "this pod id belongs to an owner key: register with a credential or an ownerToken of that key",
        ))
        .await;
    assert_eq!(newcomer.closed().await, (1008, "registration refused".into()));
}
