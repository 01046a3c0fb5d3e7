//! The real binary as a process of its own.

use std::{
    io::{BufRead, BufReader},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use super::SOON;

/// A running broker process; dropping it kills it.
pub struct Broker {
    pub child: Child,
    /// `host:port`.
    pub address: String,
    /// What the log said up to there.
    pub before_listening: Vec<String>,
    log: Receiver<String>,
}

impl Broker {
    /// Starts the binary on a free port with `args` and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(command().args(["-H", "127.0.0.1", "-p", "0"]).args(args))
    }

    /// Starts what `command` says and waits until it listens.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (lines, log) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut broker = Self { child, address: String::new(), before_listening: Vec::new(), log };
        broker.before_listening = broker.lines_until("listening on http");
        let line = broker.before_listening.last().unwrap();
        let address = line.split("://").nth(1).unwrap();
        broker.address = address.split([' ', '"']).next().unwrap().to_owned();
        broker
    }

    /// The next line of the log that holds `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(SOON).unwrap_or_else(|_| panic!("the log never said {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// All further lines of the log, up to the end of the process.
    pub fn lines(&mut self) -> Vec<String> {
        self.log.iter().collect()
    }

    /// All further lines of the log up to the one that holds `text`.
    pub fn lines_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(text)) {
            lines.push(self.wait_for(""));
        }
        lines
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `command` left when it ended, which it must do by itself.
pub fn ended(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > SOON {
            child.kill().unwrap();
            panic!("{command:?} did not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// The binary with an environment that sets nothing.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmapod-signal"));
    command.env_clear();
    command
}

/// The binary with `sockets` handed over as systemd does it (at most two), under `names`; `$$` is its own id.
pub fn activated(sockets: Vec<OwnedFd>, names: &str, pid: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    let script = format!(
        "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID={pid} LISTEN_FDS={} LISTEN_FDNAMES={names} exec \"$0\" \"$@\"",
        sockets.len()
    );
    shell.env_clear().arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_gemmapod-signal"));
    let mut sockets = sockets.into_iter();
    shell.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
    shell.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
    shell
}
