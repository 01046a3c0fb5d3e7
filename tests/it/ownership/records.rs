//! Registrations and claims of one pod id at the same time: who has no right to it in the end holds nothing.

use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt, future::join_all};
use gemmapod_signal::{
    Blob, Clock, MemoryRegistry, PodIdChange, PodIdChanged, PodIdRecord, PodRecord, Registry, RegistryError,
    SignalServer, Slug, VerifiedPod,
};
use reqwest::Method;
use serde_json::json;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use super::proof::{BROKER, Owner, UP, later, register};
use crate::support::{
    frames::{self, refusal, registered},
    server::{TestServer, config},
    socket::Socket,
};

const NEEDS_PROOF: &str =
    "this pod id belongs to an owner key: register with a credential or an ownerToken of that key";
const SETTINGS: &str = "trusted_proxies = [\"127.0.0.1/32\"]\n[limits]\nregistrations = \"off\"";
const OWNERS: &str = "192.0.2.1";
const STRANGERS: &str = "198.51.100.1";

/// What changes pod ids, one change after the other.
#[derive(Default)]
struct Disk {
    turn: Mutex<()>,
    /// How many changes were begun.
    begun: watch::Sender<usize>,
    /// The pod ids that they are about.
    pod_ids: std::sync::Mutex<Vec<String>>,
    is_broken: AtomicBool,
}

impl Disk {
    /// Has changes wait for as long as what is returned lives.
    async fn stuck(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Returns how many changes were begun.
    fn begun(&self) -> usize {
        *self.begun.borrow()
    }

    async fn until_begun(&self, changes: usize) {
        self.begun.subscribe().wait_for(|begun| *begun == changes).await.unwrap();
    }

    async fn until_begun_for(&self, pod_id: &str) {
        let is_begun = |_: &usize| self.pod_ids.lock().unwrap().iter().any(|begun| begun == pod_id);
        self.begun.subscribe().wait_for(is_begun).await.unwrap();
    }
}

struct OnDisk {
    memory: MemoryRegistry,
    disk: Arc<Disk>,
}

#[async_trait]
impl Registry for OnDisk {
    fn name(&self) -> &str {
        "on disk"
    }

    async fn put_pod(&self, pod: VerifiedPod) -> Result<(), RegistryError> {
        self.memory.put_pod(pod).await
    }

    async fn get_record(&self, slug: &Slug) -> Result<Option<PodRecord>, RegistryError> {
        self.memory.get_record(slug).await
    }

    async fn get_blob(&self, slug: &Slug) -> Result<Option<Blob>, RegistryError> {
        self.memory.get_blob(slug).await
    }

    async fn bump_hits(&self, hits: &[(Slug, u64)], at: SystemTime) -> Result<(), RegistryError> {
        self.memory.bump_hits(hits, at).await
    }

    async fn delete(&self, slug: &Slug) -> Result<bool, RegistryError> {
        self.memory.delete(slug).await
    }

    async fn list(&self, after: Option<&Slug>, limit: usize) -> Result<Vec<PodRecord>, RegistryError> {
        self.memory.list(after, limit).await
    }

    async fn pod_id(&self, pod_id: &str) -> Result<Option<PodIdRecord>, RegistryError> {
        self.memory.pod_id(pod_id).await
    }

    async fn change_pod_ids(
        &self,
        changes: Vec<(String, PodIdChange)>,
    ) -> Result<Vec<PodIdChanged>, RegistryError> {
        self.disk.pod_ids.lock().unwrap().extend(changes.iter().map(|(pod_id, _)| pod_id.clone()));
        self.disk.begun.send_modify(|begun| *begun += 1);
        let _turn = self.disk.turn.lock().await;
        self.memory.change_pod_ids(changes).await
    }

    async fn keep_acceptance_time(&self, time: SystemTime) -> Result<(), RegistryError> {
        match self.disk.is_broken.load(Ordering::Relaxed) {
            true => Err(RegistryError::failed("the disk is broken")),
            false => self.memory.keep_acceptance_time(time).await,
        }
    }
}

async fn broker(settings: &str) -> (Arc<TestServer>, Arc<Disk>) {
    let (clock, disk) = (Clock::default(), Arc::<Disk>::default());
    let config = config(&format!("public_url = \"{BROKER}\"\n{SETTINGS}\n{settings}"));
    let registry = OnDisk { memory: MemoryRegistry::new(64 << 20), disk: disk.clone() };
    let builder = SignalServer::builder().config(config).registry(registry).clock(clock.clone());
    let server = TestServer::from(builder).await;
    clock.pass(UP);
    (Arc::new(server), disk)
}

/// A claim from the owner's network; its status.
fn claim(server: &Arc<TestServer>, owner: &Owner) -> JoinHandle<u16> {
    let path = format!("/owner/{}/pod-ids/bank", owner.key());
    let claim = owner.signed(server, Method::PUT, &path, None, later()).header("x-forwarded-for", OWNERS);
    tokio::spawn(async move { claim.send().await.unwrap().status().as_u16() })
}

/// From now on registrations from the strangers' network stay without a record.
async fn use_up_new_records(server: &TestServer) {
    join_all((0..64).map(async |n| {
        Socket::forwarded(&server.address, STRANGERS).await.register(&format!("flood-{n}")).await;
    }))
    .await;
    server.until_health("no origin", |health| health["origins"] == json!([])).await;
}

#[tokio::test]
async fn who_registers_a_pod_id_while_it_is_claimed_is_told_nothing_and_gets_no_offers() {
    let (server, disk) = broker("").await;
    let owner = Owner::new();
    let stuck = disk.stuck().await;
    let claim = claim(&server, &owner);
    disk.until_begun(1).await;
    let mut stranger = Socket::forwarded(&server.address, STRANGERS).await;
    stranger.send(frames::register("bank")).await;
    disk.until_begun(2).await;
    let mut visitor = server.connect().await;
    visitor.send(frames::offer("bank", "s", "OFFER")).await;
    visitor.nothing().await;
    drop(stuck);
    assert_eq!(claim.await.unwrap(), 204);
    stranger.expect(refusal(NEEDS_PROOF)).await;
    stranger.expect_close(1008).await;
    let mut host = server.connect().await;
    host.send(register("bank", &owner.token("bank"))).await;
    host.expect(registered("bank")).await;
    host.expect(frames::offered("s", "OFFER")).await;
    host.send(frames::answer("s", "ANSWER")).await;
    visitor.expect(frames::answer("s", "ANSWER")).await;
}

/// A network that has used up its room for new pod ids registers further ones without a record: a claim that is made at the
/// same time takes such a pod id from it, however slowly the stranger reads what others queued for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_without_a_record_keeps_no_pod_id_that_is_claimed() {
    let (server, disk) = broker("").await;
    let owner = Owner::new();
    use_up_new_records(&server).await;
    let begun = disk.begun();
    let stuck = disk.stuck().await;
    let claim = claim(&server, &owner);
    disk.until_begun(begun + 1).await;
    let mut stranger = Socket::forwarded(&server.address, STRANGERS).await;
    stranger.register("bank").await;
    let accomplices = join_all((0..8).map(async |n: u8| {
        let mut accomplice = Socket::forwarded(&server.address, STRANGERS).await;
        accomplice.send(frames::offer("bank", &n.to_string(), &"x".repeat(250_000))).await;
        accomplice
    }))
    .await;
    let mut visitor = server.connect().await;
    visitor.send(frames::offer("bank", "s", "OFFER")).await;
    // What comes after it was handled after it.
    visitor.nothing().await;
    drop(stuck);
    assert_eq!(claim.await.unwrap(), 204);
    assert_eq!(server.health().await["origins"], json!([]));
    visitor.expect(frames::error("s", "origin offline")).await;
    stranger.send(frames::answer("s", "EVIL")).await;
    stranger.send(frames::answer("0", "EVIL")).await;
    assert_eq!(stranger.closed().await, (1008, "registration refused".into()));
    visitor.nothing().await;
    drop(accomplices);
}

#[tokio::test]
async fn a_host_with_the_proof_registers_while_its_pod_id_is_claimed() {
    let (server, disk) = broker("").await;
    let owner = Owner::new();
    let stuck = disk.stuck().await;
    let claim = claim(&server, &owner);
    disk.until_begun(1).await;
    let mut host = Socket::forwarded(&server.address, STRANGERS).await;
    host.send(register("bank", &owner.token("bank"))).await;
    disk.until_begun(2).await;
    drop(stuck);
    assert_eq!(claim.await.unwrap(), 204);
    host.expect(registered("bank")).await;
    host.nothing().await;
}

#[tokio::test]
async fn a_stranger_without_a_record_keeps_no_pod_id_that_an_upload_binds() {
    let (server, disk) = broker("[signal]\nbind = \"uploads\"").await;
    let owner = Owner::new();
    use_up_new_records(&server).await;
    let begun = disk.begun();
    let stuck = disk.stuck().await;
    let upload = tokio::spawn({
        let (server, html) = (server.clone(), owner.reachable("bank", "dartc"));
        async move { owner.upload(&server, &html).await }
    });
    disk.until_begun(begun + 1).await;
    let mut stranger = Socket::forwarded(&server.address, STRANGERS).await;
    stranger.register("bank").await;
    drop(stuck);
    upload.await.unwrap();
    stranger.expect(refusal(NEEDS_PROOF)).await;
    stranger.expect_close(1008).await;
}

/// A registration with a proof is written while another origin has come in the place of its own.
#[tokio::test]
async fn a_stranger_without_a_record_keeps_no_pod_id_that_a_registration_makes_owned() {
    let (server, disk) = broker("").await;
    let owner = Owner::new();
    use_up_new_records(&server).await;
    let begun = disk.begun();
    let stuck = disk.stuck().await;
    let mut host = Socket::forwarded(&server.address, OWNERS).await;
    host.send(register("bank", &owner.token("bank"))).await;
    disk.until_begun(begun + 1).await;
    drop(host);
    server.until_health("no origin", |health| health["origins"] == json!([])).await;
    let mut stranger = Socket::forwarded(&server.address, STRANGERS).await;
    stranger.register("bank").await;
    drop(stuck);
    stranger.expect(refusal(NEEDS_PROOF)).await;
    stranger.expect_close(1008).await;
}

/// While its registration is recorded, no more than 16 frames of the holder are read: its pong comes behind them.
#[tokio::test]
async fn a_holder_that_is_read_no_further_is_not_silent() {
    let (server, disk) = broker("[signal]\ntakeover_timeout = \"100ms\"").await;
    let stuck = disk.stuck().await;
    let mut holder = server.connect().await;
    // In one piece, so that all of it was read before anybody asks for the holder.
    let behind = iter::repeat_n("{}".into(), 16);
    for frame in iter::once(frames::register("bank").to_string()).chain(behind) {
        holder.stream.feed(Message::text(frame)).await.unwrap();
    }
    holder.stream.flush().await.unwrap();
    disk.until_begun(1).await;
    let mut newcomer = server.connect().await;
    newcomer.send(frames::register("bank")).await;
    let early = timeout(Duration::from_millis(500), newcomer.receive()).await;
    assert!(early.is_err(), "{early:?} came while the holder was read no further");
    drop(stuck);
    tokio::join!(holder.expect(registered("bank")), newcomer.expect(refusal("pod id is held")));
    holder.nothing().await;
}

/// However many hosts come from one network, those of another wait for a few of them, and so do uploads.
#[tokio::test]
async fn the_registrations_of_one_network_wait_for_one_another() {
    let (server, disk) = broker("").await;
    let stuck = disk.stuck().await;
    let flood = join_all((0..40).map(async |n| {
        let mut stranger = Socket::forwarded(&server.address, STRANGERS).await;
        stranger.send(frames::register(&format!("flood-{n}"))).await;
        // The pong comes after the frame was handled.
        stranger.send_message(Message::Ping(Vec::new().into())).await;
        assert!(matches!(stranger.stream.next().await, Some(Ok(Message::Pong(_)))));
        stranger
    }))
    .await;
    let mut host = Socket::forwarded(&server.address, OWNERS).await;
    host.send(frames::register("shop")).await;
    disk.until_begun_for("shop").await;
    let begun = disk.begun();
    assert!((2..=5).contains(&begun), "{begun} registrations stand in line");
    drop(stuck);
    host.expect(registered("shop")).await;
    for (n, mut stranger) in flood.into_iter().enumerate() {
        stranger.expect(registered(&format!("flood-{n}"))).await;
    }
}

/// After a restart nobody would know that they were accepted.
#[tokio::test]
async fn nothing_is_accepted_that_a_later_broker_would_accept_again() {
    let (server, disk) = broker("").await;
    let owner = Owner::new();
    disk.is_broken.store(true, Ordering::Relaxed);
    assert_eq!(claim(&server, &owner).await.unwrap(), 500);
    let mut host = Socket::forwarded(&server.address, OWNERS).await;
    host.send(register("bank", &owner.token_once("bank", later()))).await;
    host.expect(refusal("this broker could not reach its registry")).await;
    disk.is_broken.store(false, Ordering::Relaxed);
    let mut host = Socket::forwarded(&server.address, OWNERS).await;
    host.send(register("bank", &owner.token_once("bank", later()))).await;
    host.expect(registered("bank")).await;
    assert_eq!(claim(&server, &owner).await.unwrap(), 204);
}
