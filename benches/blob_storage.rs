//! Where blobs should lie: in redb, or in files beside it. Puts, reads, deletes and openings after a kill.
//!
//! Pods of 1.155 MB (A, B), or records of the size that a delta against a known runtime would have (C). Every put is
//! durable before it is acknowledged, and every commit uses quick repair. Layouts take turns, a slice of the pods at
//! a time, so that load from elsewhere meets all of them.
//!
//! ```sh
//! cargo bench --bench blob_storage                                 # 600 pods
//! cargo bench --bench blob_storage -- --pods 10000 --dir /var/tmp  # the file system to measure; not tmpfs
//! ```

use std::{
    env,
    error::Error,
    fs::{self, File},
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use sha2::{Digest, Sha256};

type Res<T> = Result<T, Box<dyn Error + Send + Sync>>;

const BLOB: usize = 1_155_000;
const RECORD: usize = 200;
const CACHE: usize = 32 << 20;
/// With its key and the leaf's header, one chunk fills a redb page of 64 KiB.
const CHUNK: usize = 65_400;
/// Puts that share one commit at most.
const BATCH: usize = 16;
/// Kills of a writing process for each layout.
const KILLS: usize = 3;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const BLOBS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("blobs");

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// One redb value for each blob.
    Whole,
    /// A run of redb values of [`CHUNK`] bytes for each blob.
    Chunks,
    /// The file `blobs/SHA-256`; redb holds the record only.
    File,
}

#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    place: Place,
    blob: usize,
}

const LAYOUTS: [Layout; 5] = [
    Layout { name: "A-whole", place: Place::Whole, blob: BLOB },
    Layout { name: "A-chunk", place: Place::Chunks, blob: BLOB },
    Layout { name: "B-file", place: Place::File, blob: BLOB },
    Layout { name: "C-delta-1k", place: Place::Whole, blob: 1 << 10 },
    Layout { name: "C-delta-4k", place: Place::Whole, blob: 4 << 10 },
];

struct Pod {
    slug: String,
    record: Vec<u8>,
    blob: Vec<u8>,
}

/// Pod number `n`, with random bytes of its own.
fn pod(n: usize, bytes: usize) -> Pod {
    let mut x = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut blob = vec![0; bytes];
    for part in blob.chunks_mut(8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        part.copy_from_slice(&x.to_le_bytes()[..part.len()]);
    }
    Pod { slug: slug(n), record: vec![b'r'; RECORD], blob }
}

/// Twelve characters in an order that has nothing to do with the order of the puts.
fn slug(n: usize) -> String {
    format!("{:012x}", (n as u64 + 7).wrapping_mul(0xd134_2543_de82_ef95) >> 16)
}

fn chunk_key(slug: &str, index: u32) -> Vec<u8> {
    [slug.as_bytes(), &index.to_be_bytes()].concat()
}

struct Store {
    db: Database,
    blobs: PathBuf,
    layout: Layout,
}

impl Store {
    /// Opens or makes a store; whether redb had to repair all of it.
    fn open(dir: &Path, layout: Layout) -> Res<(Self, bool)> {
        let blobs = dir.join("blobs");
        fs::create_dir_all(&blobs)?;
        let repaired = Arc::new(AtomicBool::new(false));
        let flag = repaired.clone();
        let db = Database::builder()
            .set_cache_size(CACHE)
            .set_repair_callback(move |_| flag.store(true, Ordering::Relaxed))
            .create(dir.join("pods.redb"))?;
        Ok((Self { db, blobs, layout }, repaired.load(Ordering::Relaxed)))
    }

    /// The part of a put that runs beside others: makes a file durable, under the name of its content.
    fn stage(&self, pod: &mut Pod) -> Res<()> {
        if self.layout.place == Place::File {
            let name: String = Sha256::digest(&pod.blob).iter().map(|byte| format!("{byte:02x}")).collect();
            let mut file = tempfile::NamedTempFile::new_in(&self.blobs)?;
            file.write_all(&pod.blob)?;
            file.as_file().sync_data()?;
            file.persist(self.blobs.join(&name))?;
            pod.record[..64].copy_from_slice(name.as_bytes());
            pod.blob = Vec::new();
        }
        Ok(())
    }

    fn begin(&self) -> Res<WriteTransaction> {
        let mut txn = self.db.begin_write()?;
        txn.set_quick_repair(true);
        Ok(txn)
    }

    /// Makes staged pods durable in one transaction.
    fn commit(&self, pods: &[Pod]) -> Res<()> {
        if self.layout.place == Place::File {
            File::open(&self.blobs)?.sync_all()?;
        }
        let txn = self.begin()?;
        for pod in pods {
            txn.open_table(RECORDS)?.insert(pod.slug.as_str(), pod.record.as_slice())?;
            match self.layout.place {
                Place::Whole => {
                    let mut blobs = txn.open_table(BLOBS)?;
                    let mut value = blobs.insert_reserve(pod.slug.as_bytes(), pod.blob.len())?;
                    value.as_mut().copy_from_slice(&pod.blob);
                }
                Place::Chunks => {
                    let mut blobs = txn.open_table(BLOBS)?;
                    for (index, chunk) in (0..).zip(pod.blob.chunks(CHUNK)) {
                        blobs.insert(chunk_key(&pod.slug, index).as_slice(), chunk)?;
                    }
                }
                Place::File => {}
            }
        }
        Ok(txn.commit()?)
    }

    fn put(&self, mut pod: Pod) -> Res<()> {
        self.stage(&mut pod)?;
        self.commit(&[pod])
    }

    fn get(&self, slug: &str) -> Res<Vec<u8>> {
        let txn = self.db.begin_read()?;
        let record = txn.open_table(RECORDS)?.get_owned(slug)?.ok_or("no record")?;
        let mut blob = Vec::with_capacity(self.layout.blob);
        match self.layout.place {
            Place::Whole => {
                let value = txn.open_table(BLOBS)?.get_owned(slug.as_bytes())?.ok_or("no blob")?;
                blob.extend_from_slice(value.value());
            }
            Place::Chunks => {
                let (from, to) = (chunk_key(slug, 0), chunk_key(slug, u32::MAX));
                for entry in txn.open_table(BLOBS)?.range(from.as_slice()..to.as_slice())? {
                    blob.extend_from_slice(entry?.1.value());
                }
            }
            Place::File => {
                File::open(self.blobs.join(str::from_utf8(&record.value()[..64])?))?
                    .read_to_end(&mut blob)?;
            }
        }
        Ok(blob)
    }

    fn delete(&self, slug: &str) -> Res<()> {
        let txn = self.begin()?;
        let record = txn.open_table(RECORDS)?.remove(slug)?.ok_or("no record")?.value().to_vec();
        match self.layout.place {
            Place::Whole => drop(txn.open_table(BLOBS)?.remove(slug.as_bytes())?),
            Place::Chunks => {
                let (from, to) = (chunk_key(slug, 0), chunk_key(slug, u32::MAX));
                txn.open_table(BLOBS)?.retain_in(from.as_slice()..to.as_slice(), |_, _| false)?;
            }
            Place::File => {}
        }
        txn.commit()?;
        if self.layout.place == Place::File {
            fs::remove_file(self.blobs.join(str::from_utf8(&record[..64])?))?;
        }
        Ok(())
    }
}

/// Puts pods `from..to` from several clients at once; one thread commits what waits. The milliseconds of each.
fn put_slice(store: &Store, from: usize, to: usize, clients: usize) -> Vec<f64> {
    let (next, took) = (AtomicUsize::new(from), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let (jobs, queue) = mpsc::channel::<(Pod, mpsc::Sender<()>)>();
        scope.spawn(move || {
            while let Ok(first) = queue.recv() {
                let batch = std::iter::once(first).chain(queue.try_iter().take(BATCH - 1));
                let (pods, done): (Vec<_>, Vec<_>) = batch.unzip();
                store.commit(&pods).expect("a commit");
                done.into_iter().for_each(|done| done.send(()).expect("a client waits"));
            }
        });
        for _ in 0..clients {
            let (jobs, next, took) = (jobs.clone(), &next, &took);
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= to {
                        return;
                    }
                    let mut pod = pod(n, store.layout.blob);
                    let begun = Instant::now();
                    store.stage(&mut pod).expect("a file");
                    let (done, answer) = mpsc::channel();
                    jobs.send((pod, done)).expect("the committer waits");
                    answer.recv().expect("an answer");
                    took.lock().expect("no panic").push(milliseconds(begun));
                }
            });
        }
        drop(jobs);
    });
    took.into_inner().expect("no panic")
}

fn bench_puts(dir: &Path, pods: usize) -> Res<()> {
    for clients in [8, 1] {
        println!("\nput, {clients} at once       median ms    puts/s  written KB each  on disk KB each");
        let dirs = LAYOUTS.map(|layout| dir.join(format!("{}-{clients}", layout.name)));
        let stores: Vec<_> =
            LAYOUTS.iter().zip(&dirs).map(|(it, dir)| Ok(Store::open(dir, *it)?.0)).collect::<Res<_>>()?;
        let mut figures = vec![(Vec::new(), 0.0, 0); LAYOUTS.len()];
        let slice = pods.div_ceil(10);
        for from in (0..pods).step_by(slice) {
            for (store, (each, ms, written)) in stores.iter().zip(&mut figures) {
                let (begun, before) = (Instant::now(), proc("io", "write_bytes:"));
                each.extend(put_slice(store, from, (from + slice).min(pods), clients));
                *ms += milliseconds(begun);
                *written += proc("io", "write_bytes:") - before;
            }
        }
        for ((store, dir), (each, ms, written)) in stores.iter().zip(&dirs).zip(&mut figures) {
            println!(
                "{:<20} {:>12.2} {:>9.0} {:>16.1} {:>16.1}",
                store.layout.name,
                median(each),
                pods as f64 / *ms * 1e3,
                *written as f64 / pods as f64 / 1e3,
                disk_use(dir)? as f64 / pods as f64 / 1e3,
            );
        }
    }
    Ok(())
}

fn bench_deletes(dir: &Path, pods: usize) -> Res<()> {
    println!("\ndelete half           median ms  before MB   after MB  put anew MB");
    for layout in LAYOUTS {
        let dir = dir.join(format!("{}-1", layout.name));
        let (store, _) = Store::open(&dir, layout)?;
        let megabytes = || disk_use(&dir).map(|bytes| bytes as f64 / 1e6);
        let (before, mut each) = (megabytes()?, Vec::new());
        for n in (0..pods).step_by(2) {
            let begun = Instant::now();
            store.delete(&slug(n))?;
            each.push(milliseconds(begun));
        }
        let after = megabytes()?;
        for n in (0..pods).step_by(2) {
            store.put(pod(n, layout.blob))?;
        }
        println!(
            "{:<20} {:>10.2} {before:>10.1} {after:>10.1} {:>12.1}",
            layout.name,
            median(&mut each),
            megabytes()?
        );
    }
    Ok(())
}

/// Each layout is read in a process of its own, so that its memory is its own.
fn bench_reads(dir: &Path, pods: usize) -> Res<()> {
    println!("\nget, warm             median ms   peak RSS MB");
    for layout in LAYOUTS {
        print!("{:<20} {}", layout.name, child("read", layout, dir, pods).text()?);
    }
    Ok(())
}

fn bench_kills(dir: &Path, pods: usize) -> Res<()> {
    println!("\nopen after a kill while writing, median ms   full repair");
    for layout in LAYOUTS {
        let (mut took, mut repaired) = (Vec::new(), false);
        for round in 0..KILLS {
            let mut writer =
                child("write", layout, dir, pods * (2 + round)).stdout(Stdio::piped()).spawn()?;
            BufReader::new(writer.stdout.take().ok_or("no pipe")?).read_line(&mut String::new())?;
            thread::sleep(Duration::from_millis(150));
            writer.kill()?;
            writer.wait()?;
            let opened = child("open", layout, dir, 0).text()?;
            let (ms, full) = opened.trim().split_once(' ').ok_or("no answer")?;
            took.push(ms.parse()?);
            repaired |= full == "true";
        }
        println!("{:<20} {:>23.2}   {repaired}", layout.name, median(&mut took));
    }
    Ok(())
}

/// This program again, for one task in a process of its own.
fn child(task: &str, layout: Layout, dir: &Path, number: usize) -> Command {
    let mut command = Command::new(env::current_exe().expect("a program has a path"));
    command.args([task, layout.name]).arg(dir.join(format!("{}-1", layout.name))).arg(number.to_string());
    command
}

trait Text {
    fn text(&mut self) -> Res<String>;
}

impl Text for Command {
    fn text(&mut self) -> Res<String> {
        let output = self.output()?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(format!("{self:?}: {}", output.status).into())
        }
    }
}

fn run_child(task: &str, layout: Layout, dir: &Path, number: usize) -> Res<()> {
    let begun = Instant::now();
    let (store, repaired) = Store::open(dir, layout)?;
    match task {
        "read" => {
            let mut each = Vec::new();
            for n in (0..2 * number).map(|n| (n * 7919) % number) {
                let begun = Instant::now();
                assert_eq!(black_box(store.get(&slug(n))?).len(), layout.blob);
                each.push(milliseconds(begun));
            }
            let peak = proc("status", "VmHWM:") as f64 / 1e3;
            println!("{:>10.3} {peak:>13.1}", median(&mut each[number..]));
        }
        "write" => {
            for n in number.. {
                store.put(pod(n, layout.blob))?;
                if n == number + 5 {
                    println!("writing");
                }
            }
        }
        _ => {
            store.get(&slug(0))?;
            println!("{:.3} {repaired}", milliseconds(begun));
        }
    }
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Bytes that are allocated to the files under `dir`.
fn disk_use(dir: &Path) -> Res<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
        bytes += metadata.blocks() * 512 + if metadata.is_dir() { disk_use(&path)? } else { 0 };
    }
    Ok(bytes)
}

/// A number that the kernel tells about this process.
fn proc(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the line is there");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

fn main() -> Res<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    if let [task, name, dir, number] = &args[..]
        && let Some(layout) = LAYOUTS.into_iter().find(|layout| layout.name == name)
    {
        return run_child(task, layout, Path::new(dir), number.parse()?);
    }
    // `cargo test --all-targets` does not say --bench, and must not write gigabytes.
    if !args.iter().any(|arg| arg == "--bench") {
        println!("nothing is measured without --bench");
        return Ok(());
    }
    let option = |name| args.iter().skip_while(|arg| *arg != name).nth(1);
    let pods = option("--pods").map_or(Ok(600), |pods| pods.parse())?;
    let scratch = tempfile::tempdir_in(option("--dir").map_or_else(env::temp_dir, PathBuf::from))?;
    bench_puts(scratch.path(), pods)?;
    bench_reads(scratch.path(), pods)?;
    bench_deletes(scratch.path(), pods)?;
    bench_kills(scratch.path(), pods)
}
