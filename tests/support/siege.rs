//! A broker under attack: its memory is watched, and an honest bystander must be served all the while.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{interval, timeout},
};

use super::{
    SOON,
    pod::Pod,
    process::{Broker, command},
    socket::Socket,
};

/// What the broker's resident memory must stay under.
pub const LIMIT: u64 = 400 << 20;
/// Where the watcher ends the broker, to spare the machine.
const RUIN: u64 = 2 << 30;
/// Attackers come from many addresses; here all, and the bystander, have one, which has half of all connections.
const ONE_ADDRESS: [&str; 3] = [
    "http.max_connections=24000",
    "http.max_connections_per_address=20000",
    "pods.max_uploads_per_address=32",
];
/// How often memory is looked at. The kernel keeps the true peak; this only finds ruin in time.
const SAMPLE: Duration = Duration::from_millis(20);
/// How many looks at memory come before one at open files, which are counted one by one.
const LOOKS: u32 = 10;

/// One attack at a time: they share the machine and the file descriptors of this process.
static TURN: Mutex<()> = Mutex::const_new(());

/// Where the broker listens, without TLS and with it.
const LISTEN: &str = r#"
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "127.0.0.1:0"
tls = true
[tls]
mode = "self-signed"
domains = ["127.0.0.1"]
"#;

pub struct Siege {
    pub broker: Broker,
    /// `host:port` of the listener with TLS.
    pub tls_address: String,
    /// The authority that vouches for it, in PEM.
    pub authority: String,
    name: String,
    start: Instant,
    watcher: Option<JoinHandle<u64>>,
    bystander: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    _data: TempDir,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Default)]
struct Shared {
    attack_over: AtomicBool,
    watch_over: AtomicBool,
    rounds: AtomicU64,
    longest_round_ms: AtomicU64,
    most_files: AtomicU64,
    /// Uploads of the bystander that were told to come back later.
    busy: AtomicU64,
    may_be_busy: AtomicBool,
}

impl Siege {
    /// Starts a broker with a durable registry and `settings`, the watcher, and the bystander.
    pub async fn lay(name: &str, settings: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
        assert!(files >= 12_000, "10,000 sockets need a hard limit of 12,000 open files, there are {files}");
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("signal.toml");
        fs::write(&file, format!("data_dir = {:?}\n{LISTEN}", data.path().join("data"))).unwrap();
        let settings = ONE_ADDRESS.iter().chain(settings).flat_map(|setting| ["--set", setting]);
        let mut broker = Broker::spawn(command().arg("--config").arg(file).args(settings));
        let line = broker.wait_for("listening on https://");
        let tls_address = line.split("https://").nth(1).unwrap().split([' ', '"']).next().unwrap().to_owned();
        let authority = fs::read_to_string(data.path().join("data/tls/ca.pem")).unwrap();
        let shared = Arc::<Shared>::default();
        let watcher = thread::spawn({
            let (pid, shared) = (broker.child.id(), shared.clone());
            move || watch(pid, &shared)
        });
        let bystander = thread::spawn({
            let (address, shared) = (broker.address.clone(), shared.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(be_served(&address, &shared));
            }
        });
        let siege = Self {
            broker,
            tls_address,
            authority,
            name: name.to_owned(),
            start: Instant::now(),
            watcher: Some(watcher),
            bystander: Some(bystander),
            shared,
            _data: data,
            _turn: turn,
        };
        siege.bystander_was_served().await;
        siege
    }

    pub fn address(&self) -> &str {
        &self.broker.address
    }

    /// Returns the broker's resident memory: now, and at its peak.
    pub fn memory(&self) -> [u64; 2] {
        ["VmRSS:", "VmHWM:"].map(|line| memory(self.broker.child.id(), line).unwrap())
    }

    /// Uploads are what is attacked: the bystander's may be told to come back later, and comes back.
    pub fn uploads_may_be_busy(&self) {
        self.shared.may_be_busy.store(true, Ordering::Relaxed);
    }

    /// Waits for a round of the bystander that began after this call.
    pub async fn bystander_was_served(&self) {
        let rounds = || self.shared.rounds.load(Ordering::Relaxed);
        let before = rounds();
        let mut look = interval(SAMPLE);
        while rounds() < before + 2 {
            look.tick().await;
            if self.bystander.as_ref().is_some_and(JoinHandle::is_finished) {
                break;
            }
        }
    }

    /// Waits until the broker has read whatever it is willing to read of what was sent to it.
    pub async fn digested(&self) {
        let port = |address: &str| address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        let ports = [port(self.address()), port(&self.tls_address)];
        let mut looks = Vec::new();
        let mut look = interval(SAMPLE * 5);
        let settle = async {
            loop {
                look.tick().await;
                looks.push(unread(&ports));
                if matches!(*looks, [.., a, b, c] if a == b && b == c) {
                    return;
                }
            }
        };
        timeout(SOON, settle).await.expect("the broker should have read what there was");
    }

    /// Ends it: the bystander was served throughout and still is, memory stayed within the limit, all is normal again.
    pub async fn lift(mut self) {
        let took = self.start.elapsed();
        self.bystander_was_served().await;
        self.shared.attack_over.store(true, Ordering::Relaxed);
        let bystander = self.bystander.take().unwrap();
        if let Err(panic) = tokio::task::spawn_blocking(|| bystander.join()).await.unwrap() {
            eprintln!("{}: the bystander was not served", self.name);
            std::panic::resume_unwind(panic);
        }
        self.back_to_normal().await;
        self.shared.watch_over.store(true, Ordering::Relaxed);
        let peak = self.watcher.take().unwrap().join().unwrap();
        let after = memory(self.broker.child.id(), "VmRSS:").unwrap();
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        println!(
            "{:52} peak {:>4} MB, afterwards {:>4} MB, {:>5} files, {:>5.1} s, {} honest rounds (longest {} ms, {} told to retry)",
            self.name,
            peak >> 20,
            after >> 20,
            load(&self.shared.most_files),
            took.as_secs_f64(),
            load(&self.shared.rounds),
            load(&self.shared.longest_round_ms),
            load(&self.shared.busy),
        );
        assert!(peak < LIMIT, "{}: peak of {} MB", self.name, peak >> 20);
        assert_eq!(self.broker.child.try_wait().unwrap(), None, "the broker should be alive");
    }

    /// No sockets, no sessions, no open files, no work left.
    async fn back_to_normal(&self) {
        let pid = self.broker.child.id();
        let mut look = interval(Duration::from_millis(200));
        look.tick().await;
        let mut state = String::new();
        let normal = async {
            loop {
                let before = cpu_ticks(pid);
                look.tick().await;
                let busy = cpu_ticks(pid) - before;
                let files = open_files(pid);
                let health = reqwest::get(self.broker.url("/health")).await.unwrap();
                let health = health.json::<Value>().await.unwrap();
                let live = (&health["origins"], &health["sessions"]);
                state = format!("{live:?}, {files} open files, {busy} ticks of CPU in 200 ms");
                if live == (&json!([]), &json!(0)) && files < 40 && busy < 5 {
                    return;
                }
            }
        };
        if timeout(SOON, normal).await.is_err() {
            panic!("{}: the broker is not back to normal: {state}", self.name);
        }
    }
}

/// The peak of the broker's resident memory until the watch is over.
fn watch(pid: u32, shared: &Shared) -> u64 {
    let mut peak = 0;
    for look in 0.. {
        let Some(now) = memory(pid, "VmHWM:") else { break };
        peak = now;
        if look % LOOKS == 0 {
            shared.most_files.fetch_max(open_files(pid) as u64, Ordering::Relaxed);
        }
        if peak > RUIN {
            eprintln!("the broker holds {} MB: it is ended", peak >> 20);
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
            break;
        }
        if shared.watch_over.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(SAMPLE);
    }
    peak
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A line of /proc/PID/status, in bytes.
fn memory(pid: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|text| text.strip_prefix(line))?;
    Some(value.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// User and system time, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Bytes that wait unread in the system for sockets of `ports`.
fn unread(ports: &[u16]) -> u64 {
    let ends = ports.iter().map(|port| format!(":{port:04X}")).collect::<Vec<_>>();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| ends.iter().any(|end| row[1].ends_with(end)) && row[3] != "0A")
        .map(|row| u64::from_str_radix(row[4].split(':').nth(1).unwrap(), 16).unwrap())
        .sum()
}

/// Registers, offers, answers, trickles, fetches and uploads until the attack is over.
async fn be_served(address: &str, shared: &Shared) {
    let http = reqwest::Client::builder().timeout(SOON * 3).build().unwrap();
    let pod = Pod::named("bystander").padded(20_000).html();
    let url = format!("http://{address}");
    let mut slug = None;
    while !shared.attack_over.load(Ordering::Relaxed) {
        let start = Instant::now();
        negotiate(address).await;
        if let Some(slug) = &slug {
            let got = http.get(format!("{url}/{slug}")).send().await.unwrap();
            assert_eq!(got.status(), 200);
            assert!(got.text().await.unwrap() == pod, "the pod should come back as it went");
        }
        let request = http.post(format!("{url}/pods")).header("content-type", "text/html").body(pod.clone());
        let stored = request.send().await.unwrap();
        if stored.status() == 503 && shared.may_be_busy.load(Ordering::Relaxed) {
            assert!(stored.headers().contains_key("retry-after"));
            shared.busy.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(stored.status(), 200);
            let answer = stored.json::<Value>().await.unwrap();
            slug = Some(answer["id"].as_str().unwrap().to_owned());
        }
        shared.longest_round_ms.fetch_max(start.elapsed().as_millis() as u64, Ordering::Relaxed);
        shared.rounds.fetch_add(1, Ordering::Relaxed);
    }
}

async fn negotiate(address: &str) {
    let (mut origin, mut visitor) = (Socket::connect(address).await, Socket::connect(address).await);
    origin.send(json!({ "t": "register", "podId": "bystander" })).await;
    assert_eq!(origin.receive().await, json!({ "t": "registered", "podId": "bystander" }));
    let sdp = json!({ "type": "offer", "sdp": "v=0\r\n".repeat(200) });
    visitor.send(json!({ "t": "offer", "podId": "bystander", "sessionId": "s", "sdp": sdp })).await;
    assert_eq!(origin.receive().await, json!({ "t": "offer", "sessionId": "s", "sdp": sdp }));
    origin.send(json!({ "t": "answer", "sessionId": "s", "sdp": sdp })).await;
    assert_eq!(visitor.receive().await, json!({ "t": "answer", "sessionId": "s", "sdp": sdp }));
    for _ in 0..4 {
        let candidate = json!({ "t": "candidate", "sessionId": "s", "candidate": { "candidate": "c" } });
        origin.send(candidate.clone()).await;
        assert_eq!(visitor.receive().await, candidate);
        visitor.send(candidate.clone()).await;
        assert_eq!(origin.receive().await, candidate);
    }
    visitor.stream.close(None).await.unwrap();
    origin.stream.close(None).await.unwrap();
}
