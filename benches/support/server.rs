//! A server as a process of its own, and what it costs.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{time::clock_getcpuclockid, unistd::Pid};
use tokio::time::sleep;

use super::contender::{Contender, Registry};

/// A running server; dropping it kills it.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a server and waits until it listens. Where another process took its port meanwhile, it is started again: that
    /// process would do the work, and this one seem to do it at no cost.
    pub async fn start(contender: &Contender, settings: &[&str], registry: Registry<'_>) -> Self {
        let mut server = Self::spawn(contender, settings, registry);
        let give_up = Instant::now() + Duration::from_secs(10);
        while !server.listens() {
            assert!(Instant::now() < give_up, "{} does not listen", contender.kind.name());
            if server.child.try_wait().expect("it is a child").is_some() {
                server = Self::spawn(contender, settings, registry);
            }
            sleep(Duration::from_millis(5)).await;
        }
        server
    }

    /// Returns whether the process itself listens at its address.
    fn listens(&self) -> bool {
        let process = format!("/proc/{}", self.child.id());
        let table = fs::read_to_string(format!("{process}/net/tcp")).unwrap_or_default();
        let (Ok(files), port) =
            (fs::read_dir(format!("{process}/fd")), format!(":{:04X}", self.address.port()))
        else {
            return false;
        };
        let links: Vec<_> = files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).collect();
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|row| {
            // The state 0A is that of a socket that listens.
            row.len() > 9
                && row[1].ends_with(&port)
                && row[3] == "0A"
                && links.contains(&format!("socket:[{}]", row[9]).into())
        })
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
        let spent = self.cpu() - before;
        assert!(!spent.is_zero(), "the process at {} did none of the work", self.address);
        spent.as_secs_f64() * 1e6 / times as f64
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
