//! Whatever strangers do, they turn no pod id against its owner: the real admission, directory and registry, driven by
//! actors in any order.
//!
//! There is a victim without proofs, whose pod id is anonymous, and one with proofs, who owns its pod id. Both have
//! registered once before anything else happens. The strangers have any number of keys and networks.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};
use tokio::{runtime, time::Instant};

use super::{
    admission::{Registrant, SocketProof},
    audience::ReceivedVia,
    key::OwnerSecret,
    owners::Owners,
    token::{self, TokenRequest},
};
use crate::{
    clock::Clock,
    config::{Config, Live, SignalSettings},
    net::{blocking_limiter::BlockingLimiter, budget::Budget, network::ClientNetwork},
    pods::{MemoryRegistry, RedbRegistry, Registry},
    signal::{
        admission::Admission,
        directory::{
            Directory,
            handled::{Admitted, Handled},
            place::Place,
            takeover::Takeover,
        },
        outbox::{Next, Outbox},
        registration::register,
    },
};

const BROKER: &str = "https://pods.example.org";
/// The pod ids of the victims, and one of nobody's.
const PODS: [&str; 3] = ["anonymous", "owned", "free"];
const OWNER: u8 = 1;
/// Days for which a pod id is remembered at least.
const REMEMBERED: Duration = Duration::from_hours(29 * 24);

/// Days after which an owner may have lost its pod id.
const LAPSES: Duration = Duration::from_hours(364 * 24);

const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than a case runs on top of that.
const ROUND: Duration = Duration::from_hours(1);

/// How many cases are drawn, by default and with `GEMMAPOD_OWNERSHIP_CASES`.
fn cases(default: u32) -> u32 {
    let cases = std::env::var("GEMMAPOD_OWNERSHIP_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

/// How a registration is proved.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Nothing,
    Token,
    TokenOnce,
    BySocket,
    BySocketForPod,
}

#[derive(Clone, Debug)]
enum Step {
    /// The victim without proofs, or with them, connects another host.
    Connect {
        victim: usize,
        shown: Shown,
    },
    /// The victim's hosts end, or fall silent.
    End {
        victim: usize,
    },
    Silent {
        victim: usize,
    },
    /// A stranger registers a pod id.
    Register {
        pod: usize,
        key: u8,
        network: u8,
        shown: Shown,
    },
    Leave {
        stranger: usize,
    },
    Upload {
        pod: usize,
        key: u8,
        network: u8,
    },
    Claim {
        pod: usize,
        key: u8,
        network: u8,
    },
    Release {
        pod: usize,
        key: u8,
    },
    /// All holders that were pinged before had the time to answer.
    EndRounds,
    Restart,
    /// Hours pass.
    Pass(u32),
    /// The date is some days ahead of the right one.
    SetAhead(u32),
}

fn shown() -> impl Strategy<Value = Shown> {
    use Shown::{BySocket, BySocketForPod, Nothing, Token, TokenOnce};
    prop::sample::select(vec![Nothing, Nothing, Token, TokenOnce, BySocket, BySocketForPod])
}

fn step() -> impl Strategy<Value = Step> {
    let (pod, key, network) = (0..PODS.len(), 2..6_u8, 2..8_u8);
    prop_oneof![
        3 => (0..2_usize, shown()).prop_map(|(victim, shown)| Step::Connect { victim, shown }),
        2 => (0..2_usize).prop_map(|victim| Step::End { victim }),
        1 => (0..2_usize).prop_map(|victim| Step::Silent { victim }),
        6 => (pod.clone(), key.clone(), network.clone(), shown())
            .prop_map(|(pod, key, network, shown)| Step::Register { pod, key, network, shown }),
        3 => any::<usize>().prop_map(|stranger| Step::Leave { stranger }),
        2 => (pod.clone(), key.clone(), network.clone())
            .prop_map(|(pod, key, network)| Step::Upload { pod, key, network }),
        3 => (pod.clone(), key.clone(), network).prop_map(|(pod, key, network)| Step::Claim { pod, key, network }),
        1 => (pod, key).prop_map(|(pod, key)| Step::Release { pod, key }),
        3 => Just(Step::EndRounds),
        1 => Just(Step::Restart),
        1 => (0..20 * 24_u32).prop_map(Step::Pass),
        1 => (0..800_u32).prop_map(Step::SetAhead),
    ]
}

/// A socket that registered a pod id.
struct Host {
    pod: &'static str,
    /// Which victim's; `None` for a stranger's.
    victim: Option<usize>,
    answers: bool,
    place: Place,
    outbox: Arc<Outbox>,
    closed: bool,
}

struct World<'a> {
    open: &'a dyn Fn() -> Arc<dyn Registry>,
    live: Live,
    clock: Clock,
    registry: Arc<dyn Registry>,
    directory: Arc<Directory>,
    owners: Arc<Owners>,
    hosts: Vec<Host>,
    takeovers: Vec<Takeover>,
    /// How much later than now it is for the takeovers.
    waited: Duration,
    /// When a host of each victim last held its pod id.
    worked: [Duration; 2],
    /// Whether the owner was away for so long that its pod id may be free.
    lapsed: bool,
    counted: Duration,
    day: u64,
}

fn network(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

fn secret(number: u8) -> OwnerSecret {
    OwnerSecret::from_bytes(&[number; 32])
}

fn lookups() -> Arc<BlockingLimiter> {
    BlockingLimiter::new(4, 128)
}

impl<'a> World<'a> {
    async fn new(bind: &str, open: &'a dyn Fn() -> Arc<dyn Registry>) -> Self {
        let config = format!("public_url = {BROKER:?}\n[signal]\nbind = {bind:?}");
        let live = Live::new(Config::from_toml(&config).unwrap());
        let (clock, registry) = (Clock::default(), open());
        let directory = Directory::new(SignalSettings::default());
        let owners = Owners::new(registry.clone(), lookups(), live.clone(), clock.clone(), directory.clone());
        let mut world = Self {
            open,
            live,
            counted: clock.running(),
            clock,
            registry,
            directory,
            owners,
            hosts: Vec::new(),
            takeovers: Vec::new(),
            waited: Duration::ZERO,
            worked: [Duration::ZERO; 2],
            lapsed: false,
            day: 0,
        };
        world.connect(0, Shown::Nothing).await;
        world.connect(1, Shown::BySocket).await;
        world
    }

    /// Registers a pod id at a new socket.
    async fn register(&mut self, pod: &'static str, victim: Option<usize>, key: u8, from: u8, shown: Shown) {
        let secret = secret(key);
        let once = matches!(shown, Shown::TokenOnce).then(super::client::nonce);
        let request = TokenRequest { pod_id: pod, audience: BROKER, lifetime: Duration::from_mins(5), once };
        let token = match shown {
            Shown::Token | Shown::TokenOnce => token::issue(&secret, &request, self.clock.now()).ok(),
            _ => None,
        };
        let pod_ids = match shown {
            Shown::BySocket => Some(None),
            Shown::BySocketForPod => Some(Some([pod.to_owned()].into())),
            _ => None,
        };
        let proof = pod_ids.map(|pod_ids| SocketProof { key: secret.owner_key(), pod_ids });
        let received_via = ReceivedVia { tls: true, local: None };
        let admission: Arc<dyn Admission> =
            self.owners.at(Registrant { received_via, network: ClientNetwork::of(network(from)), proof });
        let outbox = Arc::new(Outbox::new(1 << 20, Budget::new(1 << 20).of(None)));
        let place = self.directory.join(outbox.clone(), Some(network(from)));
        let frame = json!({ "t": "register", "podId": pod, "ownerToken": token });
        let frame = match token {
            Some(_) => frame,
            None => json!({ "t": "register", "podId": pod }),
        };
        let Handled::Registers(registration) = place.handle(frame.to_string().as_bytes(), &*admission) else {
            panic!("it can be carried out");
        };
        if let Admitted::TakesOver(takeover) = register(&place, &*admission, registration).await {
            self.takeovers.push(takeover);
        }
        self.hosts.push(Host { pod, victim, answers: true, place, outbox, closed: false });
    }

    async fn connect(&mut self, victim: usize, shown: Shown) {
        let shown = match (victim, shown) {
            (0, _) => Shown::Nothing,
            // For a while after a start those are not taken; and an owner does not forget its proof.
            (_, Shown::TokenOnce | Shown::Nothing) => Shown::Token,
            (_, shown) => shown,
        };
        let number = OWNER + victim as u8;
        self.register(PODS[victim], Some(victim), OWNER, number, shown).await;
    }

    /// Whether this host holds its pod id, as it was told.
    fn holds(&self, host: &Host) -> bool {
        !host.closed && self.directory.holder(host.pod).is_some_and(|holder| holder.socket == host.place.id())
    }

    /// Hosts that are there answer, closed sockets end, and what newcomers got is recorded.
    async fn settle(&mut self) {
        for host in &mut self.hosts {
            let mut cx = Context::from_waker(Waker::noop());
            loop {
                match host.outbox.poll_next(&mut cx) {
                    Poll::Ready(Ok(Next::Ping)) if host.answers && host.outbox.take_asked() => {
                        host.place.is_there();
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => {
                        host.closed = true;
                        break;
                    }
                    Poll::Pending => break,
                }
            }
        }
        self.hosts.retain(|host| !host.closed);
        self.owners.record_held(self.directory.take_promoted()).await;
        for host in &self.hosts {
            if let (Some(victim), true) = (host.victim, self.holds(host)) {
                self.worked[victim] = self.clock.running();
            }
        }
    }

    /// Which hosts of victims hold their pod ids and answer.
    fn live_victims(&self) -> Vec<u64> {
        let holding = self.hosts.iter().filter(|host| host.victim.is_some() && host.answers);
        holding.filter(|host| self.holds(host)).map(|host| host.place.id()).collect()
    }

    async fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.live_victims();
        let mut may_end = false;
        match *step {
            Step::Connect { victim, shown } => {
                self.connect(victim, shown).await;
                self.owner_is_served(victim)?;
            }
            Step::End { victim } => {
                may_end = true;
                self.hosts.retain(|host| host.victim != Some(victim));
            }
            Step::Silent { victim } => {
                may_end = true;
                let hosts = self.hosts.iter_mut().filter(|host| host.victim == Some(victim));
                hosts.for_each(|host| host.answers = false);
            }
            Step::Register { pod, key, network, shown } => {
                self.register(PODS[pod], None, key, network, shown).await;
            }
            Step::Leave { stranger } => {
                let strangers: Vec<_> =
                    (0..self.hosts.len()).filter(|at| self.hosts[*at].victim.is_none()).collect();
                if !strangers.is_empty() {
                    self.hosts.remove(strangers[stranger % strangers.len()]);
                }
            }
            Step::Upload { pod, key, network: from } => {
                self.owners
                    .uploaded_signed(PODS[pod], secret(key).owner_key(), ClientNetwork::of(network(from)))
                    .await;
            }
            Step::Claim { pod, key, network: from } => {
                let claimed = self
                    .owners
                    .claim(PODS[pod], secret(key).owner_key(), ClientNetwork::of(network(from)))
                    .await;
                prop_assert!(claimed.is_err() || !self.is_remembered(pod), "{:?}", step);
            }
            Step::Release { pod, key } => {
                let released = self.owners.release(PODS[pod], secret(key).owner_key(), None).await;
                prop_assert!(released.is_err() || !self.is_remembered(pod), "{:?}", step);
            }
            Step::EndRounds => {
                self.waited += ROUND;
                let now = Instant::now() + self.waited;
                self.takeovers.retain(|takeover| takeover.check_holder(now, TAKEOVER_TIMEOUT).is_some());
            }
            Step::Restart => {
                may_end = true;
                self.restart().await;
            }
            Step::Pass(hours) => {
                self.clock.pass(Duration::from_hours(hours.into()));
                self.lapsed |= self.clock.running() - self.worked[1] > LAPSES;
                let ran = self.clock.running() - self.counted;
                self.counted += ran;
                self.day = self.owners.round(ran, self.day).await.unwrap();
            }
            Step::SetAhead(days) => self.clock.set_ahead(Duration::from_hours(u64::from(days) * 24)),
        }
        self.settle().await;
        let after = self.live_victims();
        prop_assert!(may_end || before.iter().all(|host| after.contains(host)), "displaced by {:?}", step);
        Ok(())
    }

    /// Whether a pod id is a victim's that worked within the last weeks.
    fn is_remembered(&self, pod: usize) -> bool {
        self.worked.get(pod).is_some_and(|worked| self.clock.running() - *worked < REMEMBERED)
    }

    /// A host with the owner's proof has the owned pod id at once, or another of the owner's has it.
    fn owner_is_served(&self, victim: usize) -> Result<(), TestCaseError> {
        if victim == 1 && !self.lapsed {
            let holder = self.directory.holder(PODS[1]).map(|holder| holder.socket);
            let is_ours = |host: &Host| host.victim == Some(1) && Some(host.place.id()) == holder;
            prop_assert!(self.hosts.iter().any(is_ours), "the owner does not get its pod id");
        }
        Ok(())
    }

    async fn restart(&mut self) {
        self.hosts.clear();
        self.takeovers.clear();
        self.registry.close().await.unwrap();
        self.registry = (self.open)();
        self.directory = Directory::new(SignalSettings::default());
        let (live, clock) = (self.live.clone(), self.clock.clone());
        self.owners = Owners::new(self.registry.clone(), lookups(), live, clock, self.directory.clone());
    }

    /// Once the strangers have gone, each victim that worked within the last weeks is registered again.
    async fn nobody_is_locked_out(&mut self) -> Result<(), TestCaseError> {
        self.hosts.clear();
        for (victim, pod) in PODS.into_iter().enumerate().take(2) {
            if !self.is_remembered(victim) {
                continue;
            }
            self.connect(victim, Shown::Token).await;
            let host = self.hosts.last().expect("it has just come");
            let told = host.outbox.try_next().unwrap_or_default();
            prop_assert!(self.holds(host), "{} is locked out: {}", pod, told);
            let told: Value = serde_json::from_str(&told).unwrap();
            prop_assert_eq!(&told["t"], "registered");
        }
        Ok(())
    }
}

fn check(bind: &str, steps: &[Step], open: &dyn Fn() -> Arc<dyn Registry>) -> Result<(), TestCaseError> {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(bind, open).await;
        world.settle().await;
        for step in steps {
            world.run(step).await?;
        }
        world.nobody_is_locked_out().await
    })
}

fn bind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["first-use", "uploads"])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn strangers_turn_no_pod_id_against_its_owner(bind in bind(), steps in vec(step(), 1..60)) {
        let registry: Arc<dyn Registry> = Arc::new(MemoryRegistry::new(1 << 20));
        check(bind, &steps, &|| registry.clone())?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(300) / 20,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn strangers_turn_no_pod_id_on_disk_against_its_owner(bind in bind(), steps in vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        check(bind, &steps, &|| Arc::new(RedbRegistry::open(directory.path()).unwrap()))?;
    }
}
