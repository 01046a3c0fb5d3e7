//! SIGTERM: what runs is finished, sockets are told to come back, and nothing holds the process up.

use std::time::{Duration, Instant};

use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    Configured,
    support::{
        SOON, bytes,
        certs::{Authority, Files},
        frames::offer,
        pod::Pod,
        raw::{self, Raw, upload_head},
        socket::Socket,
        tls_client::Client,
    },
};

const MEMORY: &str = "registry = \"memory\"";
/// How a connection of HTTP/2 begins: its preface, and settings of which none differs.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const RESTART: (u16, &str) = (1012, "service restart");
/// Of a stop that waits for nobody: connections have 300 ms to send what they have begun with.
const QUICK: Duration = Duration::from_millis(800);

impl Configured {
    /// Waits for the end, which must be a good one.
    async fn ended(&mut self) {
        let mut ticks = interval(Duration::from_millis(5));
        let poll = async {
            loop {
                ticks.tick().await;
                if let Some(status) = self.broker.child.try_wait().unwrap() {
                    return status;
                }
            }
        };
        assert!(timeout(SOON * 2, poll).await.expect("the broker should have ended").success());
    }
}

#[tokio::test]
async fn with_a_few_sockets_a_stop_is_quick() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    let mut sockets = Vec::new();
    for number in 0..10 {
        let mut socket = Socket::connect(&address).await;
        socket.register(&format!("pod-{number}")).await;
        sockets.push(socket);
    }
    let begun = Instant::now();
    running.broker.signal("TERM");
    for socket in &mut sockets {
        let (code, reason) = socket.closed().await;
        assert_eq!((code, &*reason), RESTART);
        socket.answer_close().await;
    }
    let told = begun.elapsed();
    running.ended().await;
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    println!("10 sockets: told after {told:?}, ended after {:?}", begun.elapsed());
}

/// Opens so many sockets and stops the broker: when each was told, in order, and when the process had ended.
async fn told(toml: &str, sockets: usize) -> (Vec<Duration>, Duration) {
    let mut running = Configured::start(&format!("{MEMORY}\n{toml}"));
    let mut open = Vec::new();
    for number in 0..sockets {
        let mut socket = Socket::connect(&running.broker.address).await;
        socket.register(&format!("pod-{number}")).await;
        open.push(socket);
    }
    let begun = Instant::now();
    running.broker.signal("TERM");
    let mut closings: JoinSet<_> = open
        .into_iter()
        .map(|mut socket| async move {
            let (code, reason) = socket.closed().await;
            assert_eq!((code, &*reason), RESTART);
            let at = begun.elapsed();
            socket.answer_close().await;
            at
        })
        .collect();
    let mut told = Vec::new();
    while let Some(at) = closings.join_next().await {
        told.push(at.unwrap());
    }
    running.ended().await;
    told.sort_unstable();
    let ended = begun.elapsed();
    println!("{sockets} sockets: told from {:?} to {:?}, ended after {ended:?}", told[0], told[sockets - 1]);
    (told, ended)
}

#[tokio::test]
async fn many_sockets_are_told_one_after_the_other() {
    let (told, ended) = told("", 600).await;
    // 2 ms from one to the next.
    for (number, at) in told.iter().enumerate().step_by(50) {
        let due = Duration::from_millis(2) * number as u32;
        assert!((due..due + QUICK).contains(at), "socket {number} was told after {at:?}");
    }
    assert!(ended < 3 * QUICK, "{ended:?}");
}

#[tokio::test]
async fn sockets_are_told_within_half_of_the_time() {
    let (told, ended) = told("drain_timeout = \"1600ms\"", 600).await;
    assert!(told[599] > Duration::from_millis(700), "{:?}", told[599]);
    assert!(ended < 3 * QUICK, "{ended:?}");
}

#[tokio::test]
async fn peers_that_are_gone_hold_nothing_up() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    // One that says nothing, one that has begun a request, one between two requests, and sockets that do not answer.
    let _silent = Raw::open(&address).await;
    let mut idle = Raw::open(&address).await;
    idle.send("GET /health HTTP/1.1\nHost: broker\n\n").await;
    assert_eq!(idle.answer().await.status, 200);
    // One of HTTP/2 that says nothing more, and answers no PING.
    let mut http2 = Raw::open(&address).await;
    http2.send_bytes(HTTP2).await;
    let mut settings = [0; 9];
    assert_eq!(
        (http2.read(&mut settings).await.unwrap(), settings[3]),
        (9, 4),
        "the broker's settings should come"
    );
    let mut deaf = Vec::new();
    for _ in 0..3 {
        deaf.push(bytes::upgrade(TcpStream::connect(&address).await.unwrap()).await);
    }
    // And an origin that does not read what it is sent.
    let (mut origin, mut visitor) = (Socket::narrow(&address).await, Socket::connect(&address).await);
    origin.register("pod").await;
    // Less than the share of a session, or the visitor would be read no further.
    for _ in 0..14 {
        visitor.send(offer("pod", "s", &"x".repeat(32 << 10))).await;
    }
    visitor.nothing().await;
    let begun = Instant::now();
    running.broker.signal("TERM");
    running.ended().await;
    let took = begun.elapsed();
    // 2 s for who was let in and says nothing, 3 s for the answer that does not come, 1 s for those that do not answer the close.
    assert!(took < Duration::from_millis(7500), "{took:?}");
    println!("with peers that do not answer: {took:?}");
}

#[tokio::test]
async fn with_tls_peers_that_are_gone_hold_nothing_up_either() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let mut running = Configured::start(&format!("{MEMORY}\n{}", files.toml(&["pair"])));
    let address = running.broker.address.clone();
    let client = Client::trusting(&authority.pem());
    // One that has not begun its handshake, one that is in the midst of it, and two that said nothing after it.
    let _unborn = Raw::open(&address).await;
    let mut half = Raw::open(&address).await;
    half.send_bytes(b"\x16\x03\x01\x02\x00\x01\x00").await;
    let _silent = client.connect(&address, "pods.example").await.unwrap();
    let _silent_h2 = client.clone().with_alpn(&["h2"]).connect(&address, "pods.example").await.unwrap();
    let mut socket = client.socket(&address, "pods.example").await;
    socket.register("pod").await;
    let begun = Instant::now();
    running.broker.signal("TERM");
    assert_eq!(socket.closed().await.0, RESTART.0);
    socket.answer_close().await;
    running.ended().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(4500), "{took:?}");
    println!("with TLS: {took:?}");
}

#[tokio::test]
async fn a_slow_upload_is_finished_and_kept() {
    let mut running = Configured::start("");
    let html = Pod::named("p").padded(400_000).html();
    let mut upload = Raw::open(&running.broker.address).await;
    upload.send(&upload_head(html.len())).await;
    let (before, after) = html.as_bytes().split_at(html.len() / 4);
    upload.send_bytes(before).await;
    let begun = Instant::now();
    running.broker.signal("TERM");
    running.broker.wait_for("stopping");
    let refused = async {
        while TcpStream::connect(&running.broker.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, refused).await.expect("nobody should get in any more");
    let mut ticks = interval(Duration::from_millis(50));
    for part in after.chunks(after.len() / 40) {
        ticks.tick().await;
        upload.send_bytes(part).await;
    }
    let took = begun.elapsed();
    let answer = upload.answer().await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, Some("close")));
    assert!(took > Duration::from_secs(2), "{took:?} is not slow");
    running.ended().await;
    println!("an upload took {took:?} after SIGTERM, the process ended after {:?}", begun.elapsed());

    running.start_again();
    let path = format!("/{}", answer.json()["id"].as_str().unwrap());
    let pod = raw::ask(&running.broker.address, &format!("GET {path} HTTP/1.1\nHost: broker\n\n")).await;
    assert!(pod.body == html, "the pod should come back as it went");
}

#[tokio::test]
async fn a_slow_download_is_finished() {
    const SIZE: usize = 8 << 20;
    for registry in ["", MEMORY] {
        let mut running = Configured::start(registry);
        let address = running.broker.address.clone();
        let html = Pod::named("p").padded(SIZE).html();
        let stored = raw::ask(&address, &format!("{}{html}", upload_head(html.len()))).await;
        let path = format!("/{}", stored.json()["id"].as_str().unwrap());

        let narrow = TcpSocket::new_v4().unwrap();
        narrow.set_recv_buffer_size(4096).unwrap();
        let mut slow = Raw::over(narrow.connect(address.parse().unwrap()).await.unwrap());
        slow.send(&format!("GET {path} HTTP/1.1\nHost: broker\n\n")).await;
        slow.stir().await;
        let begun = Instant::now();
        running.broker.signal("TERM");
        running.broker.wait_for("stopping");
        let (mut got, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        // Slowly for longer than anything else in a stop takes, then the rest at once.
        let mut ticks = interval(Duration::from_millis(5));
        while begun.elapsed() < Duration::from_secs(2) {
            ticks.tick().await;
            let read = slow.read(&mut buffer[..1024]).await.unwrap();
            assert!(read > 0, "cut off after {} bytes", got.len());
            got.extend_from_slice(&buffer[..read]);
        }
        assert!(got.len() < SIZE / 2, "{} bytes are not slow", got.len());
        while let Ok(read @ 1..) = timeout(SOON, slow.read(&mut buffer)).await.unwrap() {
            got.extend_from_slice(&buffer[..read]);
        }
        assert!(got.ends_with(&html.as_bytes()[1000..]), "{} bytes came", got.len());
        running.ended().await;
        println!("a download was done, and the process had ended, {:?} after SIGTERM", begun.elapsed());
    }
}

#[tokio::test]
async fn what_takes_longer_than_it_may_is_cut_off() {
    let mut running = Configured::start("drain_timeout = \"700ms\"");
    let mut upload = Raw::open(&running.broker.address).await;
    upload.send(&upload_head(1000)).await;
    let begun = Instant::now();
    running.broker.signal("TERM");
    running.ended().await;
    let took = begun.elapsed();
    assert!((Duration::from_millis(700)..Duration::from_millis(1700)).contains(&took), "{took:?}");
    assert!(upload.try_answer().await.is_none());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let mut running = Configured::start("registry = \"memory\"\ndrain_timeout = \"1h\"");
        let mut upload = Raw::open(&running.broker.address).await;
        upload.send(&upload_head(1000)).await;
        running.broker.signal(first);
        running.broker.wait_for("stopping");
        // A reload in between ends nothing.
        running.hang_up();
        assert_eq!(running.broker.child.try_wait().unwrap(), None);
        let begun = Instant::now();
        running.broker.signal(second);
        let status = running.broker.child.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(status.code(), Some(1));
    }
}

/// Connections that the broker has not accepted yet when it is told to stop are connections for their clients.
#[tokio::test]
async fn who_waits_in_the_queue_is_answered() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    // It sleeps, so that the system answers for it.
    running.broker.signal("STOP");
    let mut crowd = Vec::new();
    for _ in 0..500 {
        let mut raw = Raw::over(TcpStream::connect(&address).await.unwrap());
        raw.send("GET /health HTTP/1.1\nHost: broker\n\n").await;
        crowd.push(raw);
    }
    running.broker.signal("TERM");
    running.broker.signal("CONT");
    for raw in &mut crowd {
        assert_eq!(raw.answer().await.status, 200);
    }
    running.ended().await;
}
