//! A broker in this process that gets certificates from a [`Pebble`].

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use gemmapod_signal::{Clock, Config, MemoryRegistry, ServerHandle, SignalServer, StartError};
use serde_json::Value;
use tokio::{task::JoinHandle, time::sleep};

use crate::{gate::Gate, log, pebble::Pebble, support::SOON, tls::Trust};

pub const DAY: Duration = Duration::from_secs(86_400);

pub struct Broker {
    pub clock: Clock,
    handle: ServerHandle,
    serving: JoinHandle<()>,
    tls_port: u16,
    http_port: u16,
    trust: Trust,
}

/// The settings of a broker that orders from `pebble`, with further lines for `[acme]`.
pub fn settings(pebble: &Pebble, domains: &[&str], acme: &str) -> String {
    settings_by(&pebble.gate, pebble, domains, acme)
}

/// The same, with the directory that is behind `gate`.
pub fn settings_by(gate: &Gate, pebble: &Pebble, domains: &[&str], acme: &str) -> String {
    let (folder, directory) = (pebble.folder.path().display(), gate.url());
    let (http, tls) = (pebble.http_port, pebble.tls_port);
    format!(
        "data_dir = \"{folder}/data\"\nregistry = \"memory\"\ntls.domains = {domains:?}\n\
         [[listen]]\naddress = \"127.0.0.1:{http}\"\n[[listen]]\naddress = \"127.0.0.1:{tls}\"\ntls = true\n\
         [acme]\ndirectory = \"{directory}\"\nroot = \"{folder}/root.pem\"\n{acme}\n"
    )
}

/// The files of the directory's account and certificates whose names end with `end`.
pub fn files(pebble: &Pebble, end: &str) -> Vec<PathBuf> {
    let Ok(accounts) = fs::read_dir(pebble.folder.path().join("data/acme")) else { return Vec::new() };
    let files = accounts.flat_map(|account| fs::read_dir(account.unwrap().path()).unwrap());
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(end));
    files
}

/// The account as it is stored.
pub fn account(pebble: &Pebble) -> Value {
    serde_json::from_str(&fs::read_to_string(&files(pebble, "/account.json")[0]).unwrap()).unwrap()
}

impl Broker {
    pub async fn start(pebble: &Pebble, domains: &[&str]) -> Self {
        Self::with(pebble, domains, "", Clock::default()).await
    }

    pub async fn with(pebble: &Pebble, domains: &[&str], acme: &str, clock: Clock) -> Self {
        log::keep();
        let config = Config::from_toml(&settings(pebble, domains, acme)).unwrap();
        let builder = || {
            let registry = MemoryRegistry::new(1 << 20);
            SignalServer::builder().config(config.clone()).registry(registry).clock(clock.clone())
        };
        let begin = Instant::now();
        let server = loop {
            match builder().bind().await {
                // The broker before this one is just giving its ports back.
                Err(StartError::Bind(_)) if begin.elapsed() < SOON => sleep(Duration::from_millis(10)).await,
                server => break server.unwrap(),
            }
        };
        let handle = server.handle();
        let serving = tokio::spawn(async move { server.serve().await.unwrap() });
        let (tls_port, http_port) = (pebble.tls_port, pebble.http_port);
        Self { clock, handle, serving, tls_port, http_port, trust: pebble.issued_trust().await }
    }

    /// Waits until a certificate for `domain` is shown that the directory vouches for.
    pub async fn certificate(&self, domain: &str) -> Vec<u8> {
        certificate(&self.trust, self.tls_port, domain).await
    }

    /// Waits until another certificate for `domain` is shown than `old`.
    pub async fn renewed(&self, domain: &str, old: &[u8]) -> Vec<u8> {
        let begin = Instant::now();
        loop {
            let certificate = self.certificate(domain).await;
            if certificate != old {
                return certificate;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{domain} was not renewed");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `certificate` is shown for `domain`.
    pub async fn until_shown(&self, domain: &str, certificate: &[u8]) -> Vec<u8> {
        let begin = Instant::now();
        loop {
            let shown = self.certificate(domain).await;
            if shown == certificate || begin.elapsed() > SOON {
                return shown;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The certificate that is shown for `domain` now.
    pub async fn shown(&self, domain: &str) -> Option<Vec<u8>> {
        self.trust.certificate(self.tls_port, domain).await.ok()
    }

    /// Plain HTTP is served, whatever else is.
    pub async fn serves_plainly(&self) {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/health", self.http_port)).await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// Waits for the `count`th failure for `domain`, which must say `words`.
    pub async fn fails(&self, count: usize, domain: &str, words: &str) -> String {
        let line = log::wait_for(count, &[domain, "next try at"]).await;
        assert!(line.contains(words), "{words:?} was to be said: {line}");
        self.serves_plainly().await;
        line
    }

    /// Puts other settings in place, as SIGHUP does. None of ACME's needs a restart.
    pub fn reload(&self, settings: &str) {
        let after_restart = self.handle.reload(Config::from_toml(settings).unwrap());
        assert_eq!(after_restart, Vec::<&str>::new());
    }

    /// SIGHUP without other settings.
    pub fn reload_certificates(&self) {
        self.handle.reload_certificates();
    }

    pub async fn stop(self) {
        self.handle.shutdown();
        self.serving.await.unwrap();
    }
}

/// Waits until a certificate for `domain` is shown that `trust` trusts.
pub async fn certificate(trust: &Trust, port: u16, domain: &str) -> Vec<u8> {
    let begin = Instant::now();
    loop {
        match trust.certificate(port, domain).await {
            Ok(certificate) => return certificate,
            Err(error) if begin.elapsed() > Duration::from_secs(30) => {
                panic!("{domain} has no certificate: {error}\n{}", log::lines(&[domain]).concat())
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
