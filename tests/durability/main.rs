//! SIGKILL at random moments under uploads: what was acknowledged is there, what was not is not half there.
//!
//! A kill does not lose what the kernel already has, so whether files and directories are synced is not seen here:
//! that is what the faults in `src/pods/redb/faults.rs` are for, as far as the database goes.
//!
//! `DURABILITY_ROUNDS` sets the number of kills, `DURABILITY_SEED` repeats the dice of an earlier run.

mod mint;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeSet, HashMap},
    env, fs,
    path::Path,
    process::Stdio,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use gemmapod_signal::{Digest, RedbRegistry, Registry};
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep};

use mint::{Dice, Mint, Recipe};
use support::process::{Broker, command};

const ROUNDS: u64 = 200;
const UPLOADERS: u64 = 8;
/// After so many rounds everything is checked, and a new data directory is begun.
const ROUNDS_PER_DIRECTORY: u64 = 20;
/// How many pods of earlier rounds are fetched after each kill.
const SAMPLE: usize = 8;
/// The bound on opening, from the start of the process to the first connection that it takes.
const OPENING: Duration = Duration::from_secs(2);

/// A pod whose upload was answered with 200.
#[derive(Clone)]
struct Acknowledged {
    slug: String,
    recipe: Recipe,
}

struct Run {
    mint: Arc<Mint>,
    http: reqwest::Client,
    dice: Dice,
    acknowledged: Vec<Acknowledged>,
    /// How many of them are of rounds before the last.
    earlier: usize,
    openings: Vec<Duration>,
    fetched: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_lose_nothing_and_leave_nothing_half() {
    let number = |name| env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let rounds = number("DURABILITY_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("DURABILITY_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    println!("DURABILITY_SEED={seed}");
    let mut run = Run {
        mint: Arc::new(Mint::new()),
        http: reqwest::Client::new(),
        dice: Dice(seed),
        acknowledged: Vec::new(),
        earlier: 0,
        openings: Vec::new(),
        fetched: 0,
    };
    let (start, mut done, mut acknowledged, mut unacknowledged, mut early) = (Instant::now(), 0, 0, 0, 0);
    while done < rounds {
        let directory = tempfile::tempdir().unwrap();
        run.acknowledged.clear();
        run.earlier = 0;
        for _ in 0..ROUNDS_PER_DIRECTORY.min(rounds - done) {
            early += run.kill_first_start().await;
            while run.dice.roll(3) == 0 {
                early += 1;
                run.kill_on_the_way_up(directory.path()).await;
            }
            run.round(directory.path()).await;
            done += 1;
        }
        acknowledged += run.acknowledged.len();
        unacknowledged += run.check_all(directory.path()).await;
    }
    let longest = run.openings.iter().max().unwrap();
    println!(
        "{done} kills under uploads and {early} on the way up in {:.0?}: {acknowledged} pods acknowledged, all there; \
         {unacknowledged} more were there whole; {} fetched after a kill; the longest of {} openings took {longest:.0?}",
        start.elapsed(),
        run.fetched,
        run.openings.len(),
    );
    assert!(acknowledged as u64 >= done, "so few uploads show nothing");
}

impl Run {
    /// Kills the start that makes the directory, a few times; the next start finds nothing in its way.
    async fn kill_first_start(&mut self) -> u64 {
        let directory = tempfile::tempdir().unwrap();
        let kills = 1 + self.dice.roll(3);
        for _ in 0..kills {
            self.kill_on_the_way_up(directory.path()).await;
        }
        let registry = RedbRegistry::open(directory.path()).unwrap();
        let names = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name());
        assert_eq!(
            names.collect::<BTreeSet<_>>(),
            ["blobs", "registry.redb", "reserve"].map(Into::into).into()
        );
        registry.close().await.unwrap();
        kills
    }

    /// Starts a broker and kills it before anyone can know that it listens.
    async fn kill_on_the_way_up(&mut self, directory: &Path) {
        let mut command = command();
        command.args(["-H", "127.0.0.1", "-p", "0", "-d"]).arg(directory).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        sleep(Duration::from_micros(self.dice.roll(20_000))).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Opens what the last kill left, checks it, uploads, and kills.
    async fn round(&mut self, directory: &Path) {
        let start = Instant::now();
        let mut broker = Broker::start(&["-d", directory.to_str().unwrap()]);
        let opening = start.elapsed();
        assert!(opening < OPENING, "it took {opening:?} to open");
        self.openings.push(opening);
        self.check_some(&broker, directory).await;

        let address = Arc::new(broker.url(""));
        let mut uploaders = JoinSet::new();
        for _ in 0..UPLOADERS {
            let dice = Dice(self.dice.roll(u64::MAX));
            uploaders.spawn(upload_until_killed(self.http.clone(), address.clone(), self.mint.clone(), dice));
        }
        let moment = Duration::from_millis(5 + self.dice.roll(400));
        sleep(moment).await;
        broker.kill();
        for acknowledged in uploaders.join_all().await {
            self.acknowledged.extend(acknowledged);
        }
    }

    /// All pods of the last round, and a sample of those before it.
    async fn check_some(&mut self, broker: &Broker, directory: &Path) {
        let (names, temporary) = blobs(directory);
        assert_eq!(temporary, 0, "temporary files are left after the opening");
        let mut checks = self.acknowledged[self.earlier..].to_vec();
        for _ in 0..SAMPLE.min(self.earlier) {
            checks.push(self.acknowledged[self.dice.roll(self.earlier as u64) as usize].clone());
        }
        self.earlier = self.acknowledged.len();
        for pod in checks {
            let html = self.mint.html(pod.recipe);
            let digest = Digest::of(html.as_bytes()).to_string();
            assert!(names.contains(&digest), "the blob of {} is not on disk", pod.slug);
            let meta = self.get(broker, &format!("/{}/meta", pod.slug)).await;
            let meta: Value = serde_json::from_slice(&meta).unwrap();
            let signed = &self.mint.pods[pod.recipe.pod].0;
            assert_eq!(meta["id"], pod.slug);
            assert_eq!(meta["name"], format!("pod {}", pod.recipe.pod));
            assert_eq!(meta["ownerPubkey"], signed.owner());
            assert_eq!(meta["manifestSize"], signed.signed_manifest().len());
            assert_eq!(meta["blobSize"], html.len());
            let blob = self.get(broker, &format!("/{}", pod.slug)).await;
            assert!(blob == html.as_bytes(), "the bytes of {} are not what was uploaded", pod.slug);
            self.fetched += 1;
        }
    }

    async fn get(&self, broker: &Broker, path: &str) -> Vec<u8> {
        let answer = self.http.get(broker.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.bytes().await.unwrap().into()
    }

    /// Opens the directory after the last kill and goes through everything in it. Gives the number of pods that
    /// nobody was told of: they are whole.
    async fn check_all(&mut self, directory: &Path) -> usize {
        let start = Instant::now();
        let registry = RedbRegistry::open(directory).unwrap();
        assert!(start.elapsed() < OPENING);
        let mut expected: HashMap<_, _> =
            self.acknowledged.iter().map(|pod| (pod.slug.clone(), pod.recipe)).collect();
        let (mut referenced, mut unacknowledged) = (BTreeSet::new(), 0);
        let mut page = registry.list(None, 100).await.unwrap();
        while let Some(last) = page.last() {
            let last = last.slug;
            for record in page {
                let blob = registry.get_blob(&record.slug).await.unwrap();
                let blob = blob.unwrap_or_else(|| panic!("{} has a record and no blob", record.slug));
                let blob = blob.read().await.unwrap();
                assert_eq!(blob.len() as u64, record.blob_size);
                assert_eq!(Digest::of(&blob), record.digest, "{} is not whole", record.slug);
                referenced.insert(record.digest.to_string());
                match expected.remove(record.slug.as_str()) {
                    Some(recipe) => {
                        assert!(blob == self.mint.html(recipe).as_bytes(), "{} is another's", record.slug)
                    }
                    None => unacknowledged += 1,
                }
            }
            page = registry.list(Some(&last), 100).await.unwrap();
        }
        assert!(expected.is_empty(), "acknowledged and lost: {:?}", expected.keys());
        assert_eq!(blobs(directory), (referenced, 0), "the files are not those of the records");
        registry.close().await.unwrap();
        unacknowledged
    }
}

/// Uploads pods one after another until the broker is gone; those that were acknowledged.
async fn upload_until_killed(
    http: reqwest::Client,
    address: Arc<String>,
    mint: Arc<Mint>,
    mut dice: Dice,
) -> Vec<Acknowledged> {
    let mut acknowledged: Vec<Acknowledged> = Vec::new();
    loop {
        let recipe = mint.recipe(&mut dice, acknowledged.last().map(|pod| pod.recipe));
        let upload = http.post(format!("{address}/pods")).header("content-type", "text/html");
        let Ok(answer) = upload.body(mint.html(recipe)).send().await else { return acknowledged };
        assert_eq!(answer.status(), 200);
        // The status is the acknowledgement, but without the body nobody knows the slug.
        let Ok(body) = answer.json::<Value>().await else { return acknowledged };
        let slug = body["id"].as_str().unwrap().to_owned();
        // Downloads put hits into the same transactions.
        if dice.roll(4) == 0 && http.get(format!("{address}/{slug}")).send().await.is_err() {
            acknowledged.push(Acknowledged { slug, recipe });
            return acknowledged;
        }
        acknowledged.push(Acknowledged { slug, recipe });
    }
}

/// The blobs in a data directory, and how many temporary files are among them.
fn blobs(directory: &Path) -> (BTreeSet<String>, usize) {
    let (mut names, mut temporary) = (BTreeSet::new(), 0);
    for file in fs::read_dir(directory.join("blobs")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        if Digest::from_str(&name).is_ok() {
            names.insert(name);
        } else {
            temporary += 1;
        }
    }
    (names, temporary)
}
