//! A hundred clients, ten of which ask for as much as they can: the other ninety lose no request.
//!
//! The clients are addresses of 127.0.0.0/8. The attackers are a process of low priority, because elsewhere they would
//! have machines of their own. `ATTACK_SECONDS=30 cargo test --release --test attackers -- --nocapture` measures what the
//! ninety see with and without the attack; no time is asserted.

mod support;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{SOON, pod::Pod, process::Broker};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{interval, interval_at, timeout},
};

const HONEST: u8 = 90;
const ATTACKERS: u8 = 10;
/// Connections that each attacker keeps busy.
const CONNECTIONS: usize = 8;
/// How often an honest client does what it does.
const ROUND: Duration = Duration::from_millis(500);

/// A connection of the client at `address`.
async fn connect(address: Ipv4Addr, broker: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((address, 0)))?;
    let stream = socket.connect(broker).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads the whole answer; its status.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<u16> {
    stream.write_all(request).await?;
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0_usize);
    let mut left = (end + length).saturating_sub(head.len());
    let mut rest = vec![0; left.min(64 * 1024)];
    while left > 0 {
        let most = left.min(rest.len());
        left -= match stream.read(&mut rest[..most]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => read,
        };
    }
    Ok(text[9..12].parse().unwrap())
}

fn was(expected: u16, status: u16) -> std::io::Result<()> {
    if status == expected { Ok(()) } else { Err(std::io::Error::other(format!("answered with {status}"))) }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: broker\r\n\r\n").into_bytes()
}

fn post(html: &str) -> Vec<u8> {
    let head = format!(
        "POST /pods HTTP/1.1\r\nhost: broker\r\ncontent-type: text/html\r\ncontent-length: {}",
        html.len()
    );
    format!("{head}\r\n\r\n{html}").into_bytes()
}

fn upgrade() -> Vec<u8> {
    "GET /signal HTTP/1.1\r\nhost: broker\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .into()
}

/// What the honest clients saw of one kind of request.
#[derive(Default)]
struct Seen {
    times: std::sync::Mutex<Vec<Duration>>,
    lost: AtomicU64,
}

impl Seen {
    async fn one(&self, asked: impl Future<Output = std::io::Result<()>>) {
        let start = Instant::now();
        match timeout(SOON, asked).await {
            Ok(Ok(())) => self.times.lock().unwrap().push(start.elapsed()),
            other => {
                eprintln!("lost: {other:?}");
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn told(&self) -> (String, Duration) {
        let mut times = self.times.lock().unwrap().clone();
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        let told =
            format!("{} requests, p50 {:?}, p99 {:?}, longest {:?}", times.len(), at(0.5), at(0.99), at(1.0));
        (told, at(0.99))
    }
}

/// A visitor opens a pod and a socket; now and then an owner uploads.
async fn be_honest(
    address: Ipv4Addr,
    broker: SocketAddr,
    slug: String,
    seen: Arc<Seen>,
    over: Arc<AtomicBool>,
) {
    // Not all at the same moment.
    let number = u32::from(address.octets()[3]);
    let mut rounds = interval_at((Instant::now() + ROUND * number / u32::from(HONEST)).into(), ROUND);
    let mut kept = connect(address, broker).await.unwrap();
    let (read, upload) = (get(&format!("/{slug}")), post(&Pod::named("honest").padded(20_000).html()));
    for round in number.. {
        rounds.tick().await;
        if over.load(Ordering::Relaxed) {
            return;
        }
        seen.one(async { was(200, ask(&mut kept, &read).await?) }).await;
        seen.one(async { was(101, ask(&mut connect(address, broker).await?, &upgrade()).await?) }).await;
        if round % 8 == 0 {
            seen.one(async { was(200, ask(&mut kept, &upload).await?) }).await;
        }
    }
}

/// What the honest clients see in `seconds`.
async fn phase(broker: SocketAddr, slug: &str, seconds: u64) -> Seen {
    let (seen, over) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
    let clients: Vec<_> = (0..HONEST)
        .map(|n| {
            tokio::spawn(be_honest(
                Ipv4Addr::new(127, 0, 1, n + 1),
                broker,
                slug.into(),
                seen.clone(),
                over.clone(),
            ))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    Arc::into_inner(seen).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_honest_lose_nothing() {
    let seconds = env::var("ATTACK_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let size = env::var("ATTACK_POD_BYTES").map_or(20_000, |bytes| bytes.parse().unwrap());
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let data = tempfile::tempdir().unwrap();
    // Loopback is exempt by default, and these clients are not to be.
    let mut args = vec!["--data-dir", data.path().to_str().unwrap(), "--set", "limits.exempt="];
    if env::var_os("ATTACK_SECONDS").is_none() {
        // The defaults, but for bursts that are used up in a short test on a slow machine.
        args.extend(["--set", "limits.reads_per_address=20/s burst 100"]);
        args.extend(["--set", "limits.upgrades_per_address=20/s burst 100"]);
    }
    let broker = Broker::start(&args);
    let address: SocketAddr = broker.address.parse().unwrap();
    let http = reqwest::Client::new();
    let pod = http.post(broker.url("/pods")).header("content-type", "text/html");
    let answer =
        pod.body(Pod::named("p").padded(size).html()).send().await.unwrap().json::<Value>().await.unwrap();
    let slug = answer["id"].as_str().unwrap();

    let (calm, calm_p99) = {
        let seen = phase(address, slug, seconds).await;
        assert_eq!(seen.lost.into_inner(), 0, "lost without any attack");
        let seen = Seen { times: seen.times, ..Seen::default() };
        seen.told()
    };
    println!("without an attack: {calm}");

    let mut attack = Command::new("nice")
        .args(["-n", "19"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "be_the_attackers", "--ignored", "--nocapture"])
        .envs([("ATTACKED", &*broker.address), ("ATTACKED_SLUG", slug)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = phase(address, slug, seconds).await;
    let _ = attack.kill();
    let attacked = attack.wait_with_output().unwrap();
    let lost = seen.lost.load(Ordering::Relaxed);
    let (told, p99) = seen.told();
    println!(
        "under attack:      {told}, {lost} lost; p99 is {:.2} times that",
        p99.as_secs_f64() / calm_p99.as_secs_f64()
    );
    let attacked = String::from_utf8_lossy(&attacked.stdout).into_owned();
    let attacked: Value =
        attacked.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    println!("the attackers:     {attacked} (their last second)");
    assert!(attacked["refused"].as_u64() > Some(0), "the attackers should be refused");
    assert_eq!(lost, 0, "honest clients lost requests");
}

/// The other process: asks for whatever there is, from ten addresses, as fast as it is answered, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test above"]
async fn be_the_attackers() {
    let Ok(broker) = env::var("ATTACKED") else { return };
    let broker: SocketAddr = broker.parse().unwrap();
    let slug = env::var("ATTACKED_SLUG").unwrap();
    let requests =
        Arc::new([get(&format!("/{slug}")), get("/health"), upgrade(), post("<html>no pod</html>")]);
    let (passed, refused, broken) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    for n in 0..ATTACKERS as usize * CONNECTIONS {
        let address = Ipv4Addr::new(127, 0, 2, (n % ATTACKERS as usize) as u8 + 1);
        let (requests, passed, refused, broken) =
            (requests.clone(), passed.clone(), refused.clone(), broken.clone());
        tokio::spawn(async move {
            let mut stream = None;
            for at in n / ATTACKERS as usize.. {
                let request = &requests[at % requests.len()];
                let connection = match &mut stream {
                    Some(connection) => connection,
                    None => match connect(address, broker).await {
                        Ok(connection) => stream.insert(connection),
                        Err(_) => continue,
                    },
                };
                match ask(connection, request).await {
                    Ok(429) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    Ok(status) => {
                        passed.fetch_add(1, Ordering::Relaxed);
                        if status == 101 {
                            stream = None;
                        }
                    }
                    Err(_) => {
                        broken.fetch_add(1, Ordering::Relaxed);
                        stream = None;
                    }
                }
            }
        });
    }
    let mut seconds = interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        seconds.tick().await;
        let count = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        println!(
            "{}",
            json!({ "let through": count(&passed), "refused": count(&refused), "broken": count(&broken) })
        );
    }
}
