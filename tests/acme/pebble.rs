//! pebble and its DNS, as processes of their own, behind a [`Gate`].

use std::{
    env, fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    gate::Gate,
    support::skipped,
    tls::{Identity, Trust},
};

/// A running directory, its root, and the broker's ports that it looks at.
pub struct Pebble {
    pub gate: Gate,
    /// Where broker and pebble have their files.
    pub folder: TempDir,
    /// The root that vouches for the directory's own TLS.
    pub trust: Trust,
    pub http_port: u16,
    pub tls_port: u16,
    dns_management: u16,
    management: u16,
    _processes: [Process; 2],
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of this host that is free, outside the range that the system itself hands out.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 20_000 + (std::process::id() % 100) as u16 * 100;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn installed(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}

impl Pebble {
    /// Nothing where pebble is not installed.
    pub async fn start(env: &[(&str, &str)]) -> Option<Self> {
        Self::valid_for(Duration::from_secs(90 * 86_400), env).await
    }

    /// A pebble whose own TLS certificate is valid for `lifetime`.
    pub async fn valid_for(lifetime: Duration, env: &[(&str, &str)]) -> Option<Self> {
        if !installed("pebble") || !installed("pebble-challtestsrv") {
            skipped("pebble is not installed (tests/acme/setup)");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let (root, identity) = identity(lifetime);
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let [listen, management, dns, dns_management, http_port, tls_port] = [(); 6].map(|()| free_port());
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": file("chain.pem", &identity.chain_pem),
            "privateKey": file("key.pem", &identity.key_pem),
            "httpPort": http_port,
            "tlsPort": tls_port,
        });
        if let Some((_, binding)) = env.iter().find(|(name, _)| *name == "BINDING") {
            config["externalAccountBindingRequired"] = true.into();
            config["externalAccountMACKeys"] = json!({ "kid-1": binding });
        }
        file("root.pem", &root);
        let config = file("pebble.json", &json!({ "pebble": config }).to_string());
        let spawn = |command: &mut Command| {
            Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        };
        let names = spawn(Command::new("pebble-challtestsrv").args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv6",
            "",
            "-dns01",
            &format!("127.0.0.1:{dns}"),
            "-management",
            &format!("127.0.0.1:{dns_management}"),
        ]));
        let directory = spawn(
            Command::new("pebble")
                .args(["-config", &config, "-dnsserver", &format!("127.0.0.1:{dns}")])
                .envs([
                    ("PEBBLE_VA_NOSLEEP", "1"),
                    ("PEBBLE_WFE_NONCEREJECT", "0"),
                    ("PEBBLE_AUTHZREUSE", "0"),
                ])
                .envs(env.iter().copied()),
        );
        for port in [listen, management, dns_management] {
            until_listening(port).await;
        }
        let trust = Trust::in_pem(&root);
        let gate = Gate::open(&identity, trust.clone(), listen).await;
        let _processes = [names, directory];
        Some(Self { gate, folder, trust, http_port, tls_port, dns_management, management, _processes })
    }

    /// What trusts the certificates that it issues.
    pub async fn issued_trust(&self) -> Trust {
        let answer = self.trust.get(self.management, "/roots/0").await;
        Trust::in_pem(answer.split_once("\r\n\r\n").unwrap().1)
    }

    /// Lets DNS say that `domain` is at `address`.
    pub async fn point(&self, domain: &str, address: &str) {
        let body = json!({ "host": format!("{domain}."), "addresses": [address] });
        for action in ["clear-a", "add-a"] {
            let url = format!("http://127.0.0.1:{}/{action}", self.dns_management);
            let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
}

async fn until_listening(port: u16) {
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing listens on port {port}");
}

/// A root, and a server at 127.0.0.1 that it vouches for.
fn identity(lifetime: Duration) -> (String, Identity) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_key = KeyPair::generate().unwrap();
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let mut server = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    server.not_before = OffsetDateTime::now_utc() - Duration::from_secs(3600);
    server.not_after = OffsetDateTime::now_utc() + lifetime;
    let key = KeyPair::generate().unwrap();
    let chain = server.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    (root_pem, Identity { chain_pem: chain.pem(), key_pem: key.serialize_pem() })
}
