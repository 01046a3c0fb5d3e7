//! What the service manager is told (sd_notify(3)), as the socket that it listens on gets it.

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::{
    Configured,
    support::{
        SOON,
        frames::{offer, offered},
        pod::Pod,
        raw::{self, Raw},
        socket::Socket,
    },
};

/// A service manager, as far as its socket goes.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self { socket, dir }
    }

    /// A broker that knows where to tell.
    fn start(&self, toml: &str, environment: &[(&str, &str)]) -> Configured {
        let socket = self.dir.path().join("notify");
        let mut all = vec![("NOTIFY_SOCKET", socket.to_str().unwrap())];
        all.extend(environment);
        Configured::with_environment(toml, &all)
    }

    /// The next datagram.
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.expect("the broker should have told something"),
            }
        };
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next datagram that holds `text`.
    fn wait_for(&self, text: &str) -> String {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            let told = self.next();
            if told.contains(text) {
                return told;
            }
        }
        panic!("the broker never told {text:?}");
    }

    /// Waits for the next feeding of the watchdog.
    fn fed(&self) -> Instant {
        self.wait_for("WATCHDOG=1\n");
        Instant::now()
    }
}

#[tokio::test]
async fn it_is_ready_when_it_listens_and_counts_origins_and_sessions() {
    let manager = Manager::new();
    let running = manager.start("registry = \"memory\"", &[("WATCHDOG_USEC", "100000")]);
    assert_eq!(manager.next(), "READY=1\n");
    let address = &running.broker.address;
    let mut origin = Socket::connect(address).await;
    manager.wait_for("STATUS=origins: 0, sessions: 0\n");
    origin.register("pod").await;
    manager.wait_for("STATUS=origins: 1, sessions: 0\n");
    let mut visitor = Socket::connect(address).await;
    visitor.send(offer("pod", "s", "SDP")).await;
    origin.expect(offered("s", "SDP")).await;
    manager.wait_for("STATUS=origins: 1, sessions: 1\n");
    drop(visitor);
    manager.wait_for("STATUS=origins: 1, sessions: 0\n");
}

#[test]
fn the_watchdog_is_fed_at_half_of_its_time() {
    let manager = Manager::new();
    let _running = manager.start("registry = \"memory\"", &[("WATCHDOG_USEC", "1000000")]);
    let feedings: Vec<_> = (0..5).map(|_| manager.fed()).collect();
    let whole = feedings[4] - feedings[0];
    // Four times half a second, and on a busy machine still within what systemd allows.
    assert!((Duration::from_millis(1800)..Duration::from_secs(4)).contains(&whole), "{whole:?}");
}

#[test]
fn a_watchdog_that_is_none_of_ours_is_not_fed() {
    for environment in [&[][..], &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")]] {
        let manager = Manager::new();
        let _running = manager.start("registry = \"memory\"", environment);
        assert_eq!(manager.next(), "READY=1\n");
        assert_eq!(manager.next(), "STATUS=origins: 0, sessions: 0\n");
        manager.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        manager.socket.recv(&mut [0; 10]).unwrap_err();
    }
}

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
}

/// As `Type=notify-reload` wants it: the time when it began, in one message, then that it is done.
#[test]
fn a_reload_is_told_with_its_time_and_ends_even_if_it_fails() {
    let manager = Manager::new();
    let mut running = manager.start("registry = \"memory\"", &[]);
    for toml in ["registry = \"memory\"", "registry = nonsense"] {
        let before = monotonic_usec();
        running.rewrite(toml);
        running.hang_up();
        let told = manager.wait_for("RELOADING");
        let usec = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n'));
        let usec: i64 = usec.unwrap_or_else(|| panic!("{told:?}")).parse().unwrap();
        assert!((before..=monotonic_usec()).contains(&usec), "{before} {usec}");
        assert_eq!(manager.wait_for("READY"), "READY=1\n");
    }
}

#[tokio::test]
async fn a_stop_is_told_and_the_watchdog_fed_until_the_end() {
    let manager = Manager::new();
    let mut running = manager.start("registry = \"memory\"", &[("WATCHDOG_USEC", "200000")]);
    let mut upload = Raw::open(&running.broker.address).await;
    let html = Pod::named("p").html();
    upload.send(&raw::upload_head(html.len())).await;
    running.broker.signal("TERM");
    manager.wait_for("STOPPING=1\n");
    for _ in 0..3 {
        let told = manager.wait_for("draining; ");
        assert_eq!(told, "WATCHDOG=1\nSTATUS=draining; origins: 0, sessions: 0\n");
    }
    upload.send_bytes(html.as_bytes()).await;
    assert_eq!(upload.answer().await.status, 200);
    assert!(running.broker.child.wait().unwrap().success());
}
