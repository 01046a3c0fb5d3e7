//! Limits of connections: how many there are, and how slow their peers may be.

use std::{
    fs,
    io::Read,
    net::{IpAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use gemmapod_signal::{MemoryRegistry, SignalServer};
use tokio::{
    net::TcpSocket,
    time::{interval, timeout},
};

use crate::support::{
    SOON,
    pod::Pod,
    process::{Broker, command},
    raw::{Answer, Raw, UPGRADE, upload_head},
    server::{TestServer, config},
};

const HEALTH: &str = "GET /health HTTP/1.1\nHost: broker\n\n";
/// A limit that is to be reached.
const SHORT: Duration = Duration::from_millis(300);
/// Long enough for something that should not come to have come.
const A_WHILE: Duration = Duration::from_millis(150);

const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

async fn with_listeners(toml: &str) -> TestServer {
    TestServer::from(SignalServer::builder().config(config(toml)).registry(MemoryRegistry::new(256 << 20)))
        .await
}

/// Whether the broker answers; otherwise it closed the connection.
async fn is_served(raw: &mut Raw) -> bool {
    raw.try_send_bytes(HEALTH.replace('\n', "\r\n").as_bytes()).await.is_ok()
        && raw.try_answer().await.is_some_and(|answer| answer.status == 200)
}

/// A connection of `source` that is served, as soon as there is one.
async fn until_served(source: IpAddr, address: &str) -> Raw {
    let poll = async {
        loop {
            let mut raw = Raw::open_from(source, address).await;
            if is_served(&mut raw).await {
                return raw;
            }
        }
    };
    timeout(SOON, poll).await.expect("a place should have become free")
}

fn here() -> IpAddr {
    "127.0.0.1".parse().unwrap()
}

// How many

#[tokio::test]
async fn one_address_has_its_cap_and_others_have_theirs() {
    let server = TestServer::with("[http]\nmax_connections_per_address = 2").await;
    let mut open = Vec::new();
    for source in [here(), here(), OTHER, OTHER] {
        let mut raw = Raw::open_from(source, &server.address).await;
        assert!(is_served(&mut raw).await, "{source}");
        open.push(raw);
    }
    for source in [here(), OTHER] {
        assert!(!is_served(&mut Raw::open_from(source, &server.address).await).await, "{source}");
    }
    // Sockets count too, for as long as they live.
    open[0].send(UPGRADE).await;
    assert_eq!(open[0].answer().await.status, 101);
    assert!(!is_served(&mut Raw::open_from(here(), &server.address).await).await);
    drop(open.swap_remove(0));
    until_served(here(), &server.address).await;
}

#[tokio::test]
async fn connections_of_a_proxy_count_for_the_client_that_it_names() {
    let server = with_listeners(
        "trusted_proxies = [\"127.0.0.1\"]\nlisten = [{ address = \"127.0.0.1:0\", proxy_protocol = true }]\n\
         [http]\nmax_connections_per_address = 1",
    )
    .await;
    let mut open = Vec::new();
    for (named, served) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 1 443\n", true),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 2 443\n", false),
        ("PROXY TCP4 192.0.2.2 198.51.100.1 1 443\n", true),
        ("PROXY TCP6 2001:db8::1 2001:db8:: 1 443\n", true),
        ("PROXY TCP6 2001:db8::ffff:2 2001:db8:: 1 443\n", false),
        ("PROXY TCP6 2001:db8:0:1::2 2001:db8:: 1 443\n", true),
        ("PROXY TCP4 127.0.0.1 198.51.100.1 1 443\n", true),
        ("PROXY TCP4 127.0.0.1 198.51.100.1 2 443\n", true),
    ] {
        let mut raw = Raw::open(&server.address).await;
        raw.send(named).await;
        assert_eq!(is_served(&mut raw).await, served, "{named}");
        open.push(raw);
    }
    drop(open.swap_remove(0));
    let again = async {
        loop {
            let mut raw = Raw::open(&server.address).await;
            raw.send("PROXY TCP4 192.0.2.1 198.51.100.1 3 443\n").await;
            if is_served(&mut raw).await {
                return;
            }
        }
    };
    timeout(SOON, again).await.expect("the client's place should have become free");
}

#[tokio::test]
async fn connections_of_a_trusted_proxy_are_not_counted() {
    let server =
        TestServer::with("trusted_proxies = [\"127.0.0.1\"]\n[http]\nmax_connections_per_address = 1").await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::open(&server.address).await;
        assert!(is_served(&mut raw).await);
        open.push(raw);
    }
}

/// Where one address may have more connections than there may be, it has half of them.
#[tokio::test]
async fn one_address_never_has_all_connections() {
    let server = TestServer::with("[http]\nmax_connections = 4").await;
    let open = |host| Raw::open_from([127, 0, 0, host].into(), &server.address);
    let mut served = [open(1).await, open(1).await];
    for raw in &mut served {
        assert!(is_served(raw).await);
    }
    for _ in 0..4 {
        assert!(!is_served(&mut open(1).await).await);
    }
    assert!(is_served(&mut open(2).await).await);
}

#[tokio::test]
async fn a_connection_too_many_waits_and_is_then_served() {
    let server = TestServer::with("[http]\nmax_connections = 2").await;
    let open = |host| Raw::open_from([127, 0, 0, host].into(), &server.address);
    let mut served = [open(1).await, open(2).await];
    for raw in &mut served {
        assert!(is_served(raw).await);
    }
    let mut waiting = [open(3).await, open(4).await];
    for raw in &mut waiting {
        raw.send(HEALTH).await;
    }
    assert!(timeout(A_WHILE, waiting[0].answer()).await.is_err(), "it should wait");
    drop(served);
    for raw in &mut waiting {
        assert_eq!(raw.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_listener_to_which_nobody_comes_takes_no_room() {
    let server = with_listeners(
        "listen = [{ address = \"127.0.0.1:0\" }, { address = \"127.0.0.1:0\" }, { address = \"127.0.0.1:0\" }]\n\
         [http]\nmax_connections = 1",
    )
    .await;
    // Of several clients: the connection of the last one need not have ended yet.
    for host in [1, 2] {
        for (address, network) in server.addresses.iter().zip(0..) {
            let client = [127, 0, network, host].into();
            assert!(is_served(&mut Raw::open_from(client, &address.to_string()).await).await);
        }
    }
}

// How slow

/// How long the broker bears a connection that gets `first`, then `dribble` every 20 ms, and what it answers.
async fn borne(raw: &mut Raw, first: &str, dribble: &[u8]) -> (Duration, Option<Answer>) {
    let start = Instant::now();
    raw.send(first).await;
    raw.dribble(dribble).await;
    (start.elapsed(), raw.try_answer().await)
}

#[track_caller]
fn assert_about(took: Duration, limit: Duration) {
    assert!((limit..limit + Duration::from_secs(3)).contains(&took), "it took {took:?}, not {limit:?}");
}

#[tokio::test]
async fn a_request_whose_head_comes_too_slowly_is_cut_off() {
    let server = TestServer::with("[http]\nhead_timeout = \"300ms\"\nidle_timeout = \"1h\"").await;
    for (first, dribble) in [
        ("", &b""[..]),
        ("G", b""),
        ("GET /health HTTP/1.1\nHost: broker\n", b""),
        ("GET /health HTTP/1.1\nHost: broker\nX: ", b"x"),
        ("PRI * HTTP/2.0\n", b""),
    ] {
        let mut raw = Raw::open(&server.address).await;
        let (took, answer) = borne(&mut raw, first, dribble).await;
        assert_about(took, SHORT);
        assert!(answer.is_none(), "{answer:?}");
    }
    // The same for a second request; and a head that comes in parts, but in time, is served.
    let mut raw = Raw::open(&server.address).await;
    raw.send("GET /health HTTP/1.1\nHo").await;
    raw.send("st: broker\n\n").await;
    assert_eq!(raw.answer().await.status, 200);
    let (took, _) = borne(&mut raw, "GET /health HTTP/1.1\nX: ", b"x").await;
    assert!(took < SHORT + Duration::from_secs(3), "it took {took:?}");
}

#[tokio::test]
async fn a_proxy_header_that_does_not_come_is_not_waited_for() {
    let server = with_listeners(
        "trusted_proxies = [\"127.0.0.1\"]\nlisten = [{ address = \"127.0.0.1:0\", proxy_protocol = true }]\n\
         [http]\nhead_timeout = \"1h\"\nidle_timeout = \"1h\"\n[http.bounds]\nhandshake_timeout = \"300ms\"",
    )
    .await;
    for first in ["", "P", "PROXY TCP4 192.0.2.1 "] {
        let mut raw = Raw::open(&server.address).await;
        assert_about(borne(&mut raw, first, b"").await.0, SHORT);
    }
    let mut raw = Raw::open(&server.address).await;
    raw.send("PROXY UNKNOWN\n").await;
    assert!(timeout(SHORT + A_WHILE, raw.stir()).await.is_err(), "only the header has this time");
    assert!(is_served(&mut raw).await);
}

#[tokio::test]
async fn a_connection_that_idles_is_closed_and_a_socket_is_not() {
    let server = TestServer::with("[http]\nhead_timeout = \"1h\"\nidle_timeout = \"300ms\"").await;
    let mut raw = Raw::open(&server.address).await;
    for _ in 0..3 {
        assert!(is_served(&mut raw).await);
        // Less than the limit each time, more than it together.
        assert!(timeout(A_WHILE, raw.stir()).await.is_err());
    }
    assert!(is_served(&mut raw).await);
    assert_about(borne(&mut raw, "", b"").await.0, SHORT);

    let mut origin = server.origin("p").await;
    assert!(timeout(SHORT + A_WHILE, origin.receive_text()).await.is_err(), "nothing should have come");
    origin.nothing().await;
}

/// A connection that asked for `path`, and whose system takes hardly anything that it does not read.
async fn slow_reader(server: &TestServer, path: &str) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut raw = Raw::over(socket.connect(server.addresses[0]).await.unwrap());
    raw.send(&format!("GET {path} HTTP/1.1\nHost: broker\n\n")).await;
    raw
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_given_up_and_one_that_is_taken_slowly_is_not() {
    const SIZE: usize = 12 << 20;
    let server = TestServer::with(
        "[http]\nidle_timeout = \"1h\"\nmax_connections_per_address = 2\n[http.bounds]\nwrite_timeout = \"300ms\"",
    )
    .await;
    let slug = server.store(Pod::named("p").padded(SIZE).html()).await;
    let path = format!("/{slug}");

    // A few bytes every now and then, for much longer than the limit; then the rest.
    let mut slow = slow_reader(&server, &path).await;
    let (mut taken, mut buffer) = (0, vec![0; 1 << 16]);
    let mut ticks = interval(Duration::from_millis(5));
    for _ in 0..200 {
        ticks.tick().await;
        let read = slow.read(&mut buffer).await.unwrap();
        assert!(read > 0, "cut off after {taken} bytes");
        taken += read;
    }
    assert!(taken < SIZE / 2, "{taken} bytes are not slow");
    while let Ok(Ok(read @ 1..)) = timeout(A_WHILE, slow.read(&mut buffer)).await {
        taken += read;
    }
    assert!(taken > SIZE, "{taken} bytes");
    drop(slow);

    drop(until_served(here(), &server.address).await);
    let mut stalled = [slow_reader(&server, &path).await, slow_reader(&server, &path).await];
    for raw in &mut stalled {
        raw.stir().await;
    }
    let start = Instant::now();
    until_served(here(), &server.address).await;
    assert_about(start.elapsed(), SHORT - A_WHILE);
}

// Uploads

const UPLOADS: &str =
    "[pods]\nupload_wait = \"300ms\"\n[pods.bounds]\nmin_upload_rate = 10000\nupload_grace = \"300ms\"";

#[tokio::test]
async fn a_slow_but_honest_upload_survives() {
    let server = TestServer::with(UPLOADS).await;
    let html = Pod::named("p").padded(20_000).html();
    let mut raw = Raw::open(&server.address).await;
    let start = Instant::now();
    raw.send(&upload_head(html.len())).await;
    let mut ticks = interval(Duration::from_millis(20));
    // 20,000 bytes a second, twice what it takes.
    for part in html.as_bytes().chunks(400) {
        ticks.tick().await;
        raw.send_bytes(part).await;
    }
    assert_eq!(raw.answer().await.status, 200);
    assert!(start.elapsed() > 3 * SHORT, "{:?} is not slow", start.elapsed());
}

#[tokio::test]
async fn an_upload_that_dribbles_or_stands_still_is_answered_with_408() {
    let server = TestServer::with(UPLOADS).await;
    for (first, dribble, limit) in [
        (0, &b""[..], SHORT),
        (0, b"x", SHORT),
        // Half the rate: the grace is used up in twice its time.
        (0, &[b'x'; 100], 2 * SHORT),
        // What came at once would pay for ten seconds, but buys no more than the grace.
        (100_000, b"", SHORT),
        (100_000, b"x", SHORT),
    ] {
        let mut raw = Raw::open(&server.address).await;
        let head = upload_head(1 << 20) + &"x".repeat(first);
        let (took, answer) = borne(&mut raw, &head, dribble).await;
        assert_about(took, limit - A_WHILE / 3);
        let answer = answer.expect("the client should learn why");
        assert_eq!(answer.status, 408, "{first} {dribble:?}");
        assert_eq!(answer.json()["error"], "the body came slower than 10000 bytes a second");
        assert!(took < limit + Duration::from_secs(1), "{first} {dribble:?} took {took:?}");
    }
}

#[tokio::test]
async fn slow_uploads_of_one_address_hold_up_no_other() {
    let server = TestServer::with(
        "[pods]\nmax_uploads = 4\nmax_uploads_per_address = 2\nupload_wait = \"300ms\"\n\
         [pods.bounds]\nupload_grace = \"1h\"",
    )
    .await;
    let mut slow = Vec::new();
    for _ in 0..6 {
        let mut raw = Raw::open(&server.address).await;
        raw.send(&upload_head(1000)).await;
        slow.push(raw);
    }
    let html = Pod::named("p").html();
    let upload = format!("{}{html}", upload_head(html.len()));
    let mut other = Raw::open_from(OTHER, &server.address).await;
    other.send(&upload).await;
    assert_eq!(other.answer().await.status, 200);
    let mut same = Raw::open(&server.address).await;
    same.send(&upload).await;
    let answer = same.answer().await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    drop(slow);
    let poll = async {
        loop {
            same.send(&upload).await;
            if same.answer().await.status == 200 {
                return;
            }
        }
    };
    timeout(SOON, poll).await.expect("the places should have become free");
}

// No file descriptor left

fn cpu_time(broker: &Broker) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", broker.child.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // User and system time in ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

#[tokio::test]
async fn without_file_descriptors_accepting_pauses_and_goes_on() {
    let mut limited = Command::new("/bin/sh");
    limited.env_clear().args(["-c", "ulimit -n 24; exec \"$0\" \"$@\""]);
    let mut broker = Broker::spawn(limited.arg(command().get_program()).args([
        "-H",
        "127.0.0.1",
        "-p",
        "0",
        "-r",
        "memory",
        // One whose connections are not counted can have all.
        "--set",
        "trusted_proxies=127.0.0.1",
    ]));
    let crowd: Vec<_> = (0..200).map(|_| TcpStream::connect(&broker.address).unwrap()).collect();
    broker.wait_for("accepting connections pauses: Too many open files");
    let before = cpu_time(&broker);
    // Not to wait for something, but to measure.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let busy = cpu_time(&broker) - before;
    assert!(busy <= Duration::from_millis(100), "{busy:?} of 2 s");
    let mut last = &crowd[199];
    last.set_nonblocking(true).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it should wait");
    drop(crowd);
    assert!(is_served(&mut Raw::open(&broker.address).await).await);
    broker.signal("TERM");
    let pauses = broker.lines().iter().filter(|line| line.contains("accepting connections pauses")).count();
    assert_eq!(pauses, 0, "once in ten seconds is enough");
}
