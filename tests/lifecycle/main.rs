//! The life of the process: what it tells its service manager, what a SIGHUP changes, how it ends.

mod drain;
mod load;
mod manager;
mod negotiations;
mod reload;
mod restarts;
#[path = "../support/mod.rs"]
mod support;
mod upgrades;

use std::{fs, path::PathBuf, time::Duration};

use support::{
    SOON, certs,
    process::{Broker, command},
    tls_client,
};
use tempfile::TempDir;
use tokio::time::timeout;

/// A broker with a configuration in a file.
struct Configured {
    broker: Broker,
    file: PathBuf,
    dir: TempDir,
}

impl Configured {
    fn start(toml: &str) -> Self {
        Self::with_environment(toml, &[])
    }

    fn with_environment(toml: &str, environment: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("signal.toml"), whole(toml)).unwrap();
        let broker = Self::spawn(&dir, environment);
        Self { broker, file: dir.path().join("signal.toml"), dir }
    }

    fn spawn(dir: &TempDir, environment: &[(&str, &str)]) -> Broker {
        let mut command = command();
        command.arg("--config").arg(dir.path().join("signal.toml"));
        command.arg("--data-dir").arg(dir.path().join("data"));
        Broker::spawn(command.envs(environment.iter().copied()))
    }

    /// Another broker with the same file and directory, after the first has ended.
    fn start_again(&mut self) {
        self.broker = Self::spawn(&self.dir, &[]);
    }

    /// Puts other settings in the file, and has them read.
    fn reload(&mut self, toml: &str) -> Vec<String> {
        self.rewrite(toml);
        let said = self.hang_up();
        assert!(said.last().unwrap().ends_with("configuration reloaded"), "{said:?}");
        said
    }

    fn rewrite(&self, toml: &str) {
        fs::write(&self.file, whole(toml)).unwrap();
    }

    /// SIGHUP; what the log says up to the end of the reload.
    fn hang_up(&mut self) -> Vec<String> {
        self.broker.signal("HUP");
        self.broker.lines_until("reloaded")
    }
}

/// On a free port of this host.
fn whole(toml: &str) -> String {
    format!("port = 0\nhostname = \"127.0.0.1\"\n{toml}")
}

/// Waits until new connections are shown the certificate of `pair`.
async fn until_shown(client: &tls_client::Client, address: &str, pair: &certs::Pair) {
    let wanted = tls_client::first(&pair.chain);
    let poll = async {
        while client.shown(address, "pods.example").await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, poll).await.expect("the new certificate should have been shown");
}
