//! SIGHUP: what can change while the broker runs does, what cannot is named, what is broken changes nothing.

use std::{fs, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use crate::{
    Configured,
    support::{
        SOON, bytes,
        certs::{Authority, Files},
        frames::{register, registered},
        pod::Pod,
        process::{Broker, command},
        raw::{self, Answer, Raw},
        socket::Socket,
        tls_client::{Client, first},
    },
};

const MEMORY: &str = "registry = \"memory\"";

async fn upload(address: &str, headers: &str) -> Answer {
    let html = Pod::named("p").padded(10_000).html();
    let head = raw::upload_head(html.len());
    raw::ask(address, &format!("{}{headers}\n{html}", head.strip_suffix('\n').unwrap())).await
}

async fn get(address: &str, path: &str) -> Answer {
    raw::ask(address, &format!("GET {path} HTTP/1.1\nHost: broker\n\n")).await
}

/// Whether an origin may register that proves no owner key.
async fn may_register(address: &str) -> bool {
    let mut socket = Socket::connect(address).await;
    socket.send(register("1234567890")).await;
    socket.receive().await == registered("1234567890")
}

#[tokio::test]
async fn limits_change() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    assert!(may_register(&address).await);
    assert_eq!(upload(&address, "").await.status, 200);
    let mut open = Socket::connect(&address).await;

    running.reload("registry = \"memory\"\n[signal]\nrequire_owner = true\n[pods]\nmax_blob = \"4 KiB\"");
    assert_eq!(upload(&address, "").await.status, 413);
    assert!(!may_register(&address).await);
    open.nothing().await;

    running
        .reload("registry = \"memory\"\n[signal]\nmax_frame = \"20 KiB\"\nmax_unfinished_total = \"20 KiB\"");
    let mut begun = bytes::frame_header(bytes::FIN | bytes::TEXT, 20 << 10);
    begun.extend([b'x'; 19 << 10]);
    let mut unfinished = [bytes::connect(&address).await.unwrap(), bytes::connect(&address).await.unwrap()];
    for stream in &mut unfinished {
        stream.write_all(bytes::UPGRADE.as_bytes()).await.unwrap();
        bytes::Answer::read(stream).await.unwrap();
        stream.write_all(&begun).await.unwrap();
    }
    let [one, two] = &mut unfinished;
    let code = tokio::select! {
        code = bytes::close_code(one) => code,
        code = bytes::close_code(two) => code,
    };
    assert_eq!(code, Some(1013));
    open.nothing().await;

    running.reload("registry = \"memory\"\n[http]\nmax_connections_per_address = 1");
    let mut second = Raw::open(&address).await;
    assert!(second.try_answer().await.is_none(), "there is no place for a second connection");
    open.nothing().await;

    running.reload(MEMORY);
    assert!(may_register(&address).await);
    assert_eq!(upload(&address, "").await.status, 200);
}

#[tokio::test]
async fn headers_change() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    let path = format!("/{}", upload(&address, "").await.json()["id"].as_str().unwrap());
    let csp = async |running: &Configured| {
        let answer = get(&running.broker.address, &path).await;
        answer.header("content-security-policy").unwrap().to_owned()
    };
    assert!(csp(&running).await.contains("wasm-unsafe-eval"));
    running.reload("registry = \"memory\"\n[pods]\ncontent_security_policy = \"default-src 'self'\"");
    assert_eq!(csp(&running).await, "default-src 'self'");
    running.reload(MEMORY);
    assert!(csp(&running).await.contains("wasm-unsafe-eval"));
}

#[tokio::test]
async fn certificates_change_and_open_sockets_stay() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let [one, two] = ["one", "two"].map(|name| {
        let pair = authority.issue(&["pods.example"]);
        files.write(name, &pair);
        pair
    });
    let mut running = Configured::start(&format!("{MEMORY}\n{}", files.toml(&["one"])));
    let address = running.broker.address.clone();
    let client = Client::trusting(&authority.pem());
    let mut origin = client.socket(&address, "pods.example").await;
    assert_eq!(client.shown(&address, "pods.example").await, first(&one.chain));
    running.reload(&format!("{MEMORY}\n{}", files.toml(&["two"])));
    crate::until_shown(&client, &address, &two).await;
    origin.register("pod").await;
}

#[tokio::test]
async fn the_level_of_the_log_changes() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    get(&address, "/health").await;
    let quiet = running.reload("registry = \"memory\"\n[log]\nlevel = \"info,access=debug\"");
    assert!(!quiet.iter().any(|line| line.contains("DEBUG")), "{quiet:?}");
    get(&address, "/health").await;
    running.broker.wait_for("DEBUG request ");
    running.reload(MEMORY);
    get(&address, "/health").await;
    let quiet = running.hang_up();
    assert!(!quiet.iter().any(|line| line.contains("DEBUG")), "{quiet:?}");
}

#[tokio::test]
async fn trusted_proxies_change() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    let url = async || {
        let answer = upload(&address, "X-Forwarded-Host: pods.example\nX-Forwarded-For: 192.0.2.1\n").await;
        answer.json()["url"].as_str().unwrap().rsplit_once('/').unwrap().0.to_owned()
    };
    assert_eq!(url().await, "http://broker");
    running.reload("registry = \"memory\"\ntrusted_proxies = [\"127.0.0.1\"]");
    assert_eq!(url().await, "http://pods.example");
    running.reload(MEMORY);
    assert_eq!(url().await, "http://broker");
}

#[tokio::test]
async fn what_holds_only_after_a_restart_is_named() {
    let mut running = Configured::start("");
    let address = running.broker.address.clone();
    let toml = "registry = \"memory\"\npublic_url = \"https://pods.example\"\n\
                listen = [{ address = \"127.0.0.1:0\" }]\n[log]\nformat = \"json\"\n\
                [pods]\nmemory_limit = \"64 MiB\"\n[http]\nmax_connections = 7\n[signal]\nrequire_owner = true";
    running.reload(toml);
    let warning = running.broker.wait_for("WARN");
    let named = "these settings changed, but take effect only after a restart: \
                 listen, registry, log.format, pods.memory_limit, http.max_connections";
    assert!(warning.ends_with(named), "{warning}");
    // The others hold, and nothing broke.
    assert_eq!(get(&address, "/health").await.json()["registry"], "redb");
    assert!(!may_register(&address).await);
    let url = upload(&address, "").await.json()["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://pods.example/"), "{url}");
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why() {
    let mut running = Configured::start(MEMORY);
    let address = running.broker.address.clone();
    let file = running.file.display().to_string();
    for (toml, problem) in [
        (
            "[signal]\nrequire_owner = true\nmax_frame = \"big\"",
            "5:13: signal.max_frame: expected a size such as \"256 KiB\" or a number of bytes, found \"big\"",
        ),
        ("[signal]\nrequire_owner = true\nmax_fame = 1", "5:1: unknown key"),
        ("[signal]\nrequire_owner = true\n= 7", "5:1: "),
        ("[signal]\nrequire_owner = true\n[tls]\nmode = \"files\"", "tls.certificates"),
    ] {
        running.rewrite(toml);
        let said = running.hang_up();
        let line = said.last().unwrap();
        let place = format!("ERROR the configuration was not reloaded: {file}:");
        assert!(line.contains(&place) && line.contains(problem), "{line}");
        assert!(may_register(&address).await, "{toml}");
    }
    fs::remove_file(&running.file).unwrap();
    let said = running.hang_up();
    let line = said.last().unwrap();
    let sentence =
        format!("the configuration was not reloaded: cannot read the configuration {file}: No such file");
    assert!(line.contains(&sentence), "{line}");
    assert!(may_register(&address).await);
    // And when it is mended, all is well.
    running.reload("registry = \"memory\"\n[signal]\nrequire_owner = true");
    assert!(!may_register(&address).await);
}

#[tokio::test]
async fn without_a_file_a_reload_is_harmless() {
    let mut broker = Broker::start(&["-r", "memory", "--set", "signal.max_sockets=12"]);
    let mut origin = Socket::connect(&broker.address).await;
    broker.signal("HUP");
    let said = broker.lines_until("configuration reloaded");
    assert!(!said.iter().any(|line| line.contains("WARN")), "{said:?}");
    origin.register("123456789012").await;
    assert!(broker.terminate().success());
}

/// A broker that serves TLS does so until its end, whatever the file says meanwhile.
#[tokio::test]
async fn certificates_and_their_directory_stay_until_the_restart() {
    let others = [
        ("tls.mode = \"off\"", "tls.mode, tls.domains"),
        ("tls.mode = \"self-signed\"\ntls.domains = [\"pods.example\"]", "data_dir"),
        ("", "tls.mode, tls.domains"),
        ("tls.domains = [\"pods.example\"]", "tls.mode"),
        (
            "tls.domains = [\"other.example\"]\nlisten = [{ address = \"127.0.0.1:0\", tls = true }]",
            "listen, tls.mode, tls.domains",
        ),
    ];
    for (tls, named) in others {
        let dir = tempfile::TempDir::new().unwrap();
        let (file, data, other) =
            (dir.path().join("signal.toml"), dir.path().join("data"), dir.path().join("other"));
        let write = |data: &std::path::Path, tls: &str| {
            let toml = format!("port = 0\nhostname = \"127.0.0.1\"\ndata_dir = {data:?}\n{MEMORY}\n{tls}\n");
            fs::write(&file, toml).unwrap();
        };
        let running = "tls.mode = \"self-signed\"\ntls.domains = [\"pods.example\"]";
        write(&data, running);
        let mut broker = Broker::spawn(command().arg("--config").arg(&file));
        let (address, ca) = (broker.address.clone(), data.join("tls/ca.pem"));
        let authority = fs::read_to_string(&ca).unwrap();
        let client = Client::trusting(&authority);
        let shown = client.shown(&address, "pods.example").await;
        let mut origin = client.socket(&address, "pods.example").await;
        write(if named == "data_dir" { &other } else { &data }, tls);
        for _ in 0..2 {
            broker.signal("HUP");
            let warning = broker.wait_for("take effect only after a restart: ");
            assert!(warning.ends_with(&format!(": {named}")), "{tls}: {warning}");
        }
        // The source of certificates has seen the reloads once it has seen this one.
        write(&data, "tls.mode = \"self-signed\"\ntls.domains = [\"pods.example\", \"more.pods.example\"]");
        broker.signal("HUP");
        let is_served = async {
            while client.connect(&address, "more.pods.example").await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, is_served).await.expect("the new certificate should have been shown");
        // Another client: this one would resume its session, which remembers the old certificate.
        assert_ne!(Client::trusting(&authority).shown(&address, "pods.example").await, shown);
        assert_eq!(fs::read_to_string(&ca).unwrap(), authority, "{tls}");
        assert!(!other.exists(), "{tls}");
        origin.register("pod").await;
    }
}
