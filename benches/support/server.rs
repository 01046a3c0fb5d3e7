//! A server as a process of its own, and what it costs.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{time::clock_getcpuclockid, unistd::Pid};
use tokio::{net::TcpStream, time::sleep};

use super::contender::{Contender, Registry};

/// A running server; dropping it kills it.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    pub async fn start(contender: &Contender, settings: &[&str], registry: Registry<'_>) -> Self {
        let server = Self::spawn(contender, settings, registry);
        let give_up = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(server.address).await.is_err() {
            assert!(Instant::now() < give_up, "{} does not listen", contender.kind.name());
            sleep(Duration::from_millis(5)).await;
        }
        server
    }

    /// Starts a server and does not wait.
    pub fn spawn(contender: &Contender, settings: &[&str], registry: Registry<'_>) -> Self {
        let address = free_address();
        let mut command = contender.command(address.port(), settings, registry);
        // What it logs costs it the formatting and the system call.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { address, child }
    }

    /// CPU time so far, of all its threads, in user space and in the kernel.
    pub fn cpu(&self) -> Duration {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id() as i32)).expect("the server lives");
        clock.now().expect("the server lives").into()
    }

    /// CPU time since `before`, in microseconds for each of `times`.
    pub fn cpu_micros(&self, before: Duration, times: usize) -> f64 {
        (self.cpu() - before).as_secs_f64() * 1e6 / times as f64
    }

    /// Its part of the memory that it holds, in KB.
    pub fn pss(&self) -> f64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).expect("Linux");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line Pss");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reference refuses port 0.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound")
}
