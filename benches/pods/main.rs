//! What pods cost: CPU time for downloads and uploads, latency of uploads, room on disk; and how soon a broker answers.
//!
//! This broker, the reference (`tests/clients/setup` installs it) and, for downloads from memory, a floor of bare
//! hyper take turns in one run; medians and ratios are printed. CPU time is the servers' own.
//!
//! ```sh
//! cargo bench --bench pods
//! cargo bench --bench pods -- --before PATH   # and another build of this broker
//! cargo bench --bench pods -- --dir /var/tmp  # the file system for durable pods; not tmpfs
//! ```

mod client;
mod floor;
#[path = "../../tests/support/pod.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod pod;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use self::{
    client::Client,
    pod::Pod,
    support::{
        compare,
        contender::{Contender, FLOOR, Kind, Registry},
        option,
        server::Server,
        table::{Table, median},
        wanted,
    },
};

/// As large as a pod that the GemmaPod CLI makes.
const POD_BYTES: usize = 1_155_000;
/// Downloads of one round.
const GETS: usize = 100;
/// Uploads of one round.
const POSTS: usize = 24;

#[tokio::main]
async fn main() {
    if env::args().nth(1).as_deref() == Some(FLOOR) {
        return floor::serve(env::args()).await;
    }
    if !wanted() {
        return;
    }
    let scratch = option("--dir").map_or_else(env::temp_dir, PathBuf::from);
    let scratch = tempfile::tempdir_in(scratch).expect("a directory that can be written");
    let contenders = Contender::all();
    let table = Table::new(&contenders);

    let all: Vec<_> = contenders.iter().cloned().map(Some).collect();
    compare(&table, [("GET of a pod from memory", "CPU µs")], 21, &all, async |contender| {
        downloads(contender, Registry::Memory).await
    })
    .await;

    let durable: Vec<_> =
        contenders.into_iter().map(|contender| Some(contender).filter(|it| it.kind != Kind::Floor)).collect();
    let directory = |contender: &Contender| scratch.path().join(contender.kind.name());
    let start = async |contender: &Option<Contender>| match contender {
        Some(it) => Some(Server::start(it, &[], Registry::Durable(&directory(it))).await),
        None => None,
    };
    let servers = join_all(durable.iter().map(start)).await;
    let rows = [("POST of a pod", "CPU µs"), ("POST of a pod, answered after", "ms")];
    compare(&table, rows, 7, &servers, async |server| {
        let uploads = uploads(server, 1);
        [uploads.cpu_micros, uploads.median_ms]
    })
    .await;
    let rows = [("POST of a pod, 8 at once", "CPU µs"), ("the same, wall time", "ms each")];
    compare(&table, rows, 7, &servers, async |server| {
        let uploads = uploads(server, 8);
        [uploads.cpu_micros, uploads.ms_each]
    })
    .await;
    drop(servers);
    let pods = (2 * 7 * POSTS) as f64;
    compare(&table, [("room on disk for each pod", "KB")], 1, &durable, async |contender| {
        [disk_use(&directory(contender)).expect("the registry's directory") as f64 / 1024.0 / pods]
    })
    .await;

    compare(
        &table,
        [("GET of a pod from the durable registry", "CPU µs")],
        21,
        &durable,
        async |contender| downloads(contender, Registry::Durable(&directory(contender))).await,
    )
    .await;

    compare(
        &table,
        [("start of an empty broker to its first answer", "ms")],
        9,
        &durable,
        async |contender| {
            let empty = tempfile::tempdir_in(scratch.path()).expect("a directory that can be written");
            let begun = Instant::now();
            let server = Server::spawn(contender, &[], Registry::Durable(empty.path()));
            while Client::connect(server.address).and_then(|mut client| client.get("health")).is_err() {
                thread::sleep(Duration::from_micros(500));
            }
            [begun.elapsed().as_secs_f64() * 1e3]
        },
    )
    .await;
}

/// The same pod again and again on one connection; CPU for each. In a process of its own, as what a download costs depends
/// on where a process happens to have the pod in memory.
async fn downloads(contender: &Contender, registry: Registry<'_>) -> [f64; 1] {
    let server = Server::start(contender, &[], registry).await;
    let mut client = Client::connect(server.address).expect("the server listens");
    let slug = client.post(&pod("the one that is downloaded")).expect("a pod that is taken");
    let mut get = || assert!(client.get(&slug).expect("the pod") > POD_BYTES);
    get();
    let before = server.cpu();
    (0..GETS).for_each(|_| get());
    [server.cpu_micros(before, GETS)]
}

struct Uploads {
    cpu_micros: f64,
    median_ms: f64,
    /// Wall time of all, divided by their number.
    ms_each: f64,
}

/// Uploads `POSTS` different pods from `clients` connections.
fn uploads(server: &Server, clients: usize) -> Uploads {
    let pods: Vec<_> = (0..POSTS).map(|n| pod(&format!("pod {n}"))).collect();
    let upload = |pods: &[String]| {
        let mut client = Client::connect(server.address).expect("the server listens");
        let upload = |pod: &String| {
            let begun = Instant::now();
            client.post(pod).expect("a pod that is taken");
            begun.elapsed().as_secs_f64() * 1e3
        };
        pods.iter().map(upload).collect::<Vec<_>>()
    };
    let (cpu, begun) = (server.cpu(), Instant::now());
    let mut each: Vec<_> = thread::scope(|scope| {
        let parts = pods.chunks(POSTS / clients).map(|pods| scope.spawn(move || upload(pods)));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
    });
    Uploads {
        cpu_micros: server.cpu_micros(cpu, POSTS),
        median_ms: median(&mut each).expect("there are pods"),
        ms_each: begun.elapsed().as_secs_f64() * 1e3 / POSTS as f64,
    }
}

/// A pod with a key of its own around the same runtime.
fn pod(name: &str) -> String {
    static RUNTIME: OnceLock<String> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        let mut digit = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            char::from(b'0' + (x >> 58) as u8)
        };
        // Random text of six bits a byte packs no better than scripts that were packed already.
        (0..POD_BYTES).map(|_| digit()).collect()
    });
    let mut pod = Pod::named(name);
    pod.after.push_str(runtime);
    pod.html()
}

/// Bytes that are allocated to the files in `directory`.
fn disk_use(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let within = if metadata.is_dir() { disk_use(&entry.path())? } else { 0 };
            Ok(within + metadata.blocks() * 512)
        })
        .sum()
}
