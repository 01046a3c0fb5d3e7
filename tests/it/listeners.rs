//! Every kind of listener with real connections, and whom the broker takes for the client.

use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use gemmapod_signal::{MemoryRegistry, SignalServer};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::{
    SOON,
    pod::Pod,
    process::{self, Broker, command},
    raw::{self, Answer, Raw},
    server::{TestServer, config},
};

const HEALTH: &str = "GET /health HTTP/1.1\nHost: broker\n\n";

fn write(dir: &TempDir, toml: &str) -> PathBuf {
    let path = dir.path().join("signal.toml");
    fs::write(&path, format!("registry = \"memory\"\n{toml}")).unwrap();
    path
}

/// A broker with the settings in `toml` that logs each request, and the addresses of its listeners.
fn broker(toml: &str, listeners: usize) -> (Broker, Vec<String>) {
    let dir = TempDir::new().unwrap();
    let mut broker =
        Broker::spawn(command().arg("--config").arg(write(&dir, toml)).env("RUST_LOG", "info,access=debug"));
    let mut addresses = vec![broker.address.clone()];
    for _ in 1..listeners {
        let line = broker.wait_for("listening on ");
        let address = line.split("listening on ").nth(1).unwrap().trim_start_matches("http://");
        addresses.push(address.split(' ').next().unwrap().to_owned());
    }
    (broker, addresses)
}

/// What the broker says when it does not start.
fn complaint(toml: &str) -> String {
    let dir = TempDir::new().unwrap();
    let output = ended(command().arg("--config").arg(write(&dir, toml)));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    stderr.lines().last().unwrap().trim_start_matches("gemmapod-signal: ").to_owned()
}

/// What a broker left that must not start.
fn ended(command: &mut Command) -> Output {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > SOON {
            child.kill().unwrap();
            panic!("the broker should have ended: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

async fn from(source: &str, address: &str) -> Raw {
    Raw::open_from(source.parse().unwrap(), address).await
}

/// The client of the next request that the broker logs.
fn logged(broker: &mut Broker) -> String {
    let line = broker.wait_for("DEBUG request ");
    line.split("client=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn one_listener_takes_both_families_and_an_ipv4_client_is_one() {
    let (mut broker, addresses) = broker("[[listen]]\naddress = \"[::]:0\"", 1);
    for host in ["127.0.0.1", "[::1]"] {
        let answer = raw::ask(&format!("{host}:{}", port(&addresses[0])), HEALTH).await;
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(logged(&mut broker), host.trim_matches(['[', ']']));
    }
}

#[tokio::test]
async fn ipv6_only_leaves_ipv4_alone() {
    let (_broker, addresses) = broker("[[listen]]\naddress = \"[::]:0\"\nipv6_only = true", 1);
    let port = port(&addresses[0]);
    assert_eq!(raw::ask(&format!("[::1]:{port}"), HEALTH).await.status, 200);
    // An address of IPv4 that no other test has.
    TcpStream::connect(("127.99.0.1", port)).unwrap_err();
    TcpListener::bind(("127.99.0.1", port)).expect("the port should be free for IPv4");
}

#[tokio::test]
async fn several_listeners_serve_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let toml = format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"[::1]:0\"\n[[listen]]\naddress = \"unix:{}\"",
        path.display()
    );
    let (_broker, addresses) = broker(&toml, 3);
    for address in &addresses[..2] {
        assert_eq!(raw::ask(address, HEALTH).await.status, 200);
    }
    let mut unix = Raw::unix(&path).await;
    unix.send(HEALTH).await;
    assert_eq!(unix.answer().await.status, 200);
}

#[tokio::test]
async fn http_2_knows_its_host() {
    let server = TestServer::start().await;
    let http = reqwest::Client::builder().http2_prior_knowledge().resolve("broker.test", server.addresses[0]);
    let base = format!("http://broker.test:{}", server.addresses[0].port());
    let request = http.build().unwrap().post(format!("{base}/pods")).header("content-type", "text/html");
    let answer = request.body(Pod::named("p").html()).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["url"], format!("{base}/{}", answer["id"].as_str().unwrap()));
}

// Unix sockets

fn on_unix(path: &Path, more: &str) -> String {
    format!(
        "[[listen]]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"unix:{}\"\n{more}",
        path.display()
    )
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_group_and_goes_at_the_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    for (more, mode) in [("", 0o660), ("mode = \"0600\"", 0o600), ("mode = \"0777\"", 0o777)] {
        let group = if is_root { "\ngroup = \"daemon\"" } else { "" };
        let (mut broker, _) = broker(&on_unix(&path, &format!("{more}{group}")), 2);
        let file = fs::metadata(&path).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, mode, "{more}");
        if is_root {
            assert_eq!(file.gid(), nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw());
        }
        let mut unix = Raw::unix(&path).await;
        unix.send(HEALTH).await;
        assert_eq!(unix.answer().await.status, 200);
        assert_eq!(logged(&mut broker), "unknown");
        assert!(broker.terminate().success());
        assert!(!path.exists(), "the socket is left");
    }
}

#[tokio::test]
async fn a_stale_unix_socket_is_replaced_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let (mut first, _) = broker(&on_unix(&path, ""), 2);
    UnixStream::connect(&path).unwrap();

    let taken = format!(
        "cannot listen on unix:{}: another process listens there already, or a file that is no socket has this name",
        path.display()
    );
    assert_eq!(complaint(&on_unix(&path, "")), taken);
    UnixStream::connect(&path).expect("the first broker should still be reached");

    // One that was killed leaves its socket; the next one does not mind.
    first.kill();
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let (mut second, _) = broker(&on_unix(&path, ""), 2);

    // What somebody else put there meanwhile stays.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(second.terminate().success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(complaint(&on_unix(&path, "")), taken);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_unix_socket_whose_queue_is_full_is_alive() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
    let sentence = complaint(&on_unix(&path, ""));
    assert!(sentence.contains("another process listens there already"), "{sentence}");
}

#[test]
fn what_is_wrong_with_a_unix_socket_is_said() {
    let dir = TempDir::new().unwrap();
    let (path, nowhere) = (dir.path().join("socket"), dir.path().join("nowhere/socket"));
    assert_eq!(
        complaint(&on_unix(&path, "group = \"no-such-group\"")),
        format!("cannot listen on unix:{}: there is no group \"no-such-group\" on this host", path.display())
    );
    assert!(!path.exists(), "the socket is left");
    assert_eq!(
        complaint(&on_unix(&nowhere, "")),
        format!("cannot listen on unix:{}: the directory is missing", nowhere.display())
    );
}

// systemd

/// The broker with sockets of systemd and the settings in `toml`.
fn activated(sockets: Vec<OwnedFd>, names: &str, pid: &str, toml: &str, dir: &TempDir) -> Command {
    let mut command = process::activated(sockets, names, pid);
    command.arg("--config").arg(write(dir, toml)).env("RUST_LOG", "info,access=debug");
    command
}

#[tokio::test]
async fn sockets_of_systemd_are_taken_by_their_name() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let toml = "[[listen]]\naddress = \"systemd:http\"\n[[listen]]\naddress = \"systemd:local\"";
    let mut broker =
        Broker::spawn(&mut activated(vec![unix.into(), tcp.into()], "local:http", "$$", toml, &dir));
    assert_eq!(broker.address, address.to_string());
    assert_eq!(raw::ask(&broker.address, HEALTH).await.status, 200);
    let mut unix = Raw::unix(&path).await;
    unix.send(HEALTH).await;
    assert_eq!(unix.answer().await.status, 200);
    assert!(broker.terminate().success());
    assert!(path.exists(), "the socket is systemd's");
}

#[tokio::test]
async fn a_name_may_stand_for_several_sockets() {
    let dir = TempDir::new().unwrap();
    let sockets = ["127.0.0.1:0", "[::1]:0"].map(|address| TcpListener::bind(address).unwrap());
    let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap().to_string());
    let toml = "[[listen]]\naddress = \"systemd:http\"";
    let _broker =
        Broker::spawn(&mut activated(sockets.map(Into::into).into(), "http:http", "$$", toml, &dir));
    for address in addresses {
        assert_eq!(raw::ask(&address, HEALTH).await.status, 200, "{address}");
    }
}

#[tokio::test]
async fn a_socket_that_no_listener_names_is_told_of() {
    let dir = TempDir::new().unwrap();
    let sockets = ["127.0.0.1:0"; 2].map(|address| TcpListener::bind(address).unwrap().into());
    let toml = "[[listen]]\naddress = \"systemd:http\"";
    let mut activated = activated(sockets.into(), "http:spare", "$$", toml, &dir);
    let mut child = activated.stderr(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let told = lines.map_while(Result::ok).take_while(|line| !line.contains("listening on")).any(|line| {
        line.contains(
            "systemd handed over sockets that no [[listen]] names: spare; their clients get no answer",
        )
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told);
}

#[test]
fn what_is_wrong_with_a_socket_of_systemd_is_said() {
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let missing = |have: &str| {
        format!(
            "systemd handed over no socket of this name (it handed over: {have}); \
             set FileDescriptorName=http in the socket unit"
        )
    };
    let no_listener = "what systemd handed over is no stream socket that listens; \
                       the socket unit needs ListenStream= and Accept=no";
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap().into();
    let unconnected = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap().into();
    let file = fs::File::open("/dev/null").unwrap().into();
    let dir = TempDir::new().unwrap();
    for (sockets, names, pid, sentence) in [
        (vec![], "", "$$", missing("none")),
        (vec![tcp()], "https", "$$", missing("https")),
        (vec![tcp(), tcp()], "https:metrics", "$$", missing("https, metrics")),
        (vec![tcp(), tcp()], ":", "$$", missing("unknown, unknown")),
        (vec![tcp(), tcp()], "https", "$$", missing("https, unknown")),
        (vec![tcp()], "http", "1", missing("none")),
        (vec![udp], "http", "$$", no_listener.into()),
        (vec![unconnected], "http", "$$", no_listener.into()),
        (vec![file], "http", "$$", no_listener.into()),
    ] {
        let output =
            ended(&mut activated(sockets, names, pid, "[[listen]]\naddress = \"systemd:http\"", &dir));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            stderr.trim_end(),
            format!("gemmapod-signal: cannot listen on systemd:http: {sentence}"),
            "{names}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

// The way to https

fn location(answer: &Answer) -> &str {
    answer.header("location").unwrap()
}

/// A redirect listener beside a public one, and its address.
async fn redirecting(toml: &str) -> (TestServer, String) {
    let listen = "[[listen]]\naddress = \"127.0.0.1:0\"\n[[listen]]\naddress = \"127.0.0.1:0\"\npurpose = \"redirect\"";
    let config = config(&format!("{toml}\n{listen}"));
    let builder = SignalServer::builder().config(config).registry(MemoryRegistry::new(1 << 20));
    let server = TestServer::from(builder).await;
    let address = server.addresses[1].to_string();
    (server, address)
}

#[tokio::test]
async fn the_way_to_https_keeps_method_host_path_and_query() {
    let (_server, address) = redirecting("").await;
    for (request, to) in [
        ("GET / HTTP/1.1\nHost: pods.example.org\n\n", "https://pods.example.org/"),
        ("GET /health?a=b&c HTTP/1.1\nHost: pods.example.org\n\n", "https://pods.example.org/health?a=b&c"),
        ("GET /signal HTTP/1.1\nHost: pods.example.org:8080\n\n", "https://pods.example.org/signal"),
        (
            "GET //other.example/%2e HTTP/1.1\nHost: pods.example.org\n\n",
            "https://pods.example.org//other.example/%2e",
        ),
        ("GET /x HTTP/1.1\nHost: [2001:db8::1]:80\n\n", "https://[2001:db8::1]/x"),
        ("GET http://pods.example.org/x HTTP/1.1\nHost: other\n\n", "https://pods.example.org/x"),
        (
            "POST /pods HTTP/1.1\nHost: pods.example.org\nContent-Length: 0\n\n",
            "https://pods.example.org/pods",
        ),
        ("OPTIONS * HTTP/1.1\nHost: pods.example.org\n\n", "https://pods.example.org/"),
        ("DELETE /x HTTP/1.1\nHost: pods.example.org\n\n", "https://pods.example.org/x"),
        ("GET /x HTTP/1.1\nHost: pods.example.org\nX-Forwarded-Host: evil\n\n", "https://pods.example.org/x"),
    ] {
        let answer = raw::ask(&address, request).await;
        assert_eq!((answer.status.as_u16(), location(&answer)), (308, to), "{request}");
        assert_eq!(answer.body, "");
    }
    for request in
        ["GET / HTTP/1.0\n\n", "GET / HTTP/1.1\nHost: a b\n\n", "GET / HTTP/1.1\nHost: user@evil\n\n"]
    {
        let answer = raw::ask(&address, request).await;
        assert_eq!(answer.status, 400, "{request}");
        assert!(answer.header("location").is_none());
    }
    let challenge = "GET /.well-known/acme-challenge/token HTTP/1.1\nHost: pods.example.org\n\n";
    assert_eq!(raw::ask(&address, challenge).await.status, 404, "what nobody asked for has no answer");
    assert_eq!(raw::ask(&address, "GET /.well-known/x HTTP/1.1\nHost: h\n\n").await.status, 308);
}

#[tokio::test]
async fn the_way_to_https_knows_the_port_and_the_proxy() {
    for (toml, to) in [
        ("", "https://broker/x"),
        ("public_url = \"https://pods.example.org\"", "https://broker/x"),
        ("public_url = \"https://pods.example.org:8443\"", "https://broker:8443/x"),
        ("public_url = \"http://pods.example.org:81\"", "https://broker/x"),
        ("trusted_proxies = [\"127.0.0.1\"]", "https://seen.example/x"),
    ] {
        let (_server, address) = redirecting(toml).await;
        let request = "GET /x HTTP/1.1\nHost: broker\nX-Forwarded-Host: seen.example:80\n\n";
        assert_eq!(location(&raw::ask(&address, request).await), to, "{toml}");
    }
}

// Proxies

/// One row of the table in docs/proxies.md.
struct Row {
    /// Which listener: plain, with PROXY headers, or Unix.
    to: usize,
    from: &'static str,
    proxy_header: &'static [u8],
    headers: &'static str,
    client: &'static str,
    url: &'static str,
}

const PLAIN: usize = 0;
const PROXY: usize = 1;
const UNIX: usize = 2;
/// Of 192.0.2.1, and one that its sender speaks for itself.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\x30\x39\x01\xbb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
const V2_UNSPECIFIED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00";
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n";
const V1_TRUSTED: &[u8] = b"PROXY TCP4 10.1.1.1 198.51.100.1 12345 443\r\n";
const V1_IPV6: &[u8] = b"PROXY TCP6 2001:db8::5 2001:db8::1 12345 443\r\n";
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

const TRUSTED: &str = "127.0.0.1";
const OTHER: &str = "127.0.0.2";
/// Whom the headers of a trusted proxy do not name.
const NOBODY: &str = "::";
const X_FORWARDED: &str =
    "X-Forwarded-For: 203.0.113.6, 192.0.2.7\nX-Forwarded-Proto: https\nX-Forwarded-Host: pods.example.org\n";
const FORWARDED: &str = "Forwarded: for=192.0.2.7;proto=https;host=pods.example.org\n";

#[tokio::test]
async fn the_client_is_right_in_every_combination() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("socket");
    let toml = format!(
        "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"unix\"]\n[[listen]]\naddress = \"0.0.0.0:0\"\n\
         [[listen]]\naddress = \"0.0.0.0:0\"\nproxy_protocol = true\n[[listen]]\naddress = \"unix:{}\"",
        path.display()
    );
    let (mut broker, addresses) = broker(&toml, 3);
    let seen = ("https://pods.example.org", "http://broker");
    for (number, Row { to, from, proxy_header, headers, client, url }) in [
        Row { to: PLAIN, from: OTHER, proxy_header: b"", headers: "", client: OTHER, url: seen.1 },
        Row { to: PLAIN, from: OTHER, proxy_header: b"", headers: X_FORWARDED, client: OTHER, url: seen.1 },
        Row { to: PLAIN, from: OTHER, proxy_header: b"", headers: FORWARDED, client: OTHER, url: seen.1 },
        Row { to: PLAIN, from: TRUSTED, proxy_header: b"", headers: "", client: TRUSTED, url: seen.1 },
        Row {
            to: PLAIN,
            from: TRUSTED,
            proxy_header: b"",
            headers: X_FORWARDED,
            client: "192.0.2.7",
            url: seen.0,
        },
        Row {
            to: PLAIN,
            from: TRUSTED,
            proxy_header: b"",
            headers: FORWARDED,
            client: "192.0.2.7",
            url: seen.0,
        },
        Row {
            to: PLAIN,
            from: TRUSTED,
            proxy_header: b"",
            headers: "X-Forwarded-For: 192.0.2.7, 10.1.1.1\n",
            client: "192.0.2.7",
            url: seen.1,
        },
        Row {
            to: PLAIN,
            from: TRUSTED,
            proxy_header: b"",
            headers: "X-Forwarded-For: 10.1.1.2, 10.1.1.1\n",
            client: "10.1.1.2",
            url: seen.1,
        },
        Row {
            to: PLAIN,
            from: TRUSTED,
            proxy_header: b"",
            headers: "X-Forwarded-For: 192.0.2.7, unknown, 10.1.1.1\n",
            client: "10.1.1.1",
            url: seen.1,
        },
        Row {
            to: PLAIN,
            from: TRUSTED,
            proxy_header: b"",
            headers: "X-Forwarded-For: 192.0.2.7, unknown\n",
            client: NOBODY,
            url: seen.1,
        },
        Row {
            to: PLAIN,
            from: TRUSTED,
            proxy_header: b"",
            headers: "X-Forwarded-For: 192.0.2.8\nForwarded: for=192.0.2.7;host=evil\n",
            client: NOBODY,
            url: seen.1,
        },
        Row { to: UNIX, from: "", proxy_header: b"", headers: "", client: "unknown", url: seen.1 },
        Row { to: UNIX, from: "", proxy_header: b"", headers: X_FORWARDED, client: "192.0.2.7", url: seen.0 },
        Row { to: PROXY, from: TRUSTED, proxy_header: V1, headers: "", client: "192.0.2.1", url: seen.1 },
        Row {
            to: PROXY,
            from: TRUSTED,
            proxy_header: V1_IPV6,
            headers: "",
            client: "2001:db8::5",
            url: seen.1,
        },
        Row { to: PROXY, from: TRUSTED, proxy_header: V2, headers: "", client: "192.0.2.1", url: seen.1 },
        Row {
            to: PROXY,
            from: TRUSTED,
            proxy_header: V1,
            headers: X_FORWARDED,
            client: "192.0.2.1",
            url: seen.1,
        },
        Row {
            to: PROXY,
            from: TRUSTED,
            proxy_header: V2,
            headers: FORWARDED,
            client: "192.0.2.1",
            url: seen.1,
        },
        Row {
            to: PROXY,
            from: TRUSTED,
            proxy_header: V1_TRUSTED,
            headers: X_FORWARDED,
            client: "192.0.2.7",
            url: seen.0,
        },
        Row {
            to: PROXY,
            from: TRUSTED,
            proxy_header: V1_UNKNOWN,
            headers: X_FORWARDED,
            client: "unknown",
            url: seen.1,
        },
        Row {
            to: PROXY,
            from: TRUSTED,
            proxy_header: V2_UNSPECIFIED,
            headers: X_FORWARDED,
            client: "unknown",
            url: seen.1,
        },
        Row { to: PROXY, from: TRUSTED, proxy_header: V2_LOCAL, headers: "", client: TRUSTED, url: seen.1 },
        Row {
            to: PROXY,
            from: TRUSTED,
            proxy_header: V2_LOCAL,
            headers: X_FORWARDED,
            client: "192.0.2.7",
            url: seen.0,
        },
        Row { to: PROXY, from: OTHER, proxy_header: b"", headers: X_FORWARDED, client: OTHER, url: seen.1 },
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = match to {
            UNIX => Raw::unix(&path).await,
            listener => local(from, port(&addresses[listener])).await,
        };
        let html = Pod::named("p").html();
        raw.send_bytes(proxy_header).await;
        raw.send(&format!(
            "POST /pods HTTP/1.1\nHost: broker\nContent-Type: text/html\nContent-Length: {}\n{headers}\n",
            html.len()
        ))
        .await;
        raw.send_bytes(html.as_bytes()).await;
        let answer = raw.answer().await.json();
        let id = answer["id"].as_str().unwrap();
        assert_eq!(answer["url"], format!("{url}/{id}"), "row {number}: {headers}");
        assert_eq!(logged(&mut broker), client, "row {number}: {headers}");
    }

    // Headers that are not believed, or that are not there where they must be, are no HTTP and no licence.
    for (to, from, bytes) in [
        (PROXY, OTHER, V1),
        (PROXY, OTHER, V2),
        (PLAIN, TRUSTED, V1),
        (PLAIN, TRUSTED, V2),
        (PROXY, TRUSTED, b""),
        (PROXY, TRUSTED, b"PROXY TCP4 x\r\n"),
    ] {
        let mut raw = local(from, port(&addresses[to])).await;
        raw.send_bytes(&[bytes, b"GET /health HTTP/1.1\r\nHost: broker\r\n\r\n"].concat()).await;
        let answer = raw.try_answer().await;
        assert!(
            answer.as_ref().is_none_or(|answer| answer.status == 400),
            "{bytes:?} from {from}: {answer:?}"
        );
    }
}

async fn local(source: &str, port: u16) -> Raw {
    from(source, &format!("127.0.0.1:{port}")).await
}

/// A proxy that looks whether the broker is there says nothing of a client, and its addresses mean nothing.
#[tokio::test]
async fn a_proxy_that_speaks_for_itself_may_name_any_family() {
    let listen = "[[listen]]\naddress = \"0.0.0.0:0\"\nproxy_protocol = true";
    let (mut broker, addresses) = broker(&format!("trusted_proxies = [\"127.0.0.1\"]\n{listen}"), 1);
    for (family, length) in [(0x00, 0), (0x11, 0), (0x11, 12), (0x13, 7), (0x41, 36), (0xff, u16::MAX)] {
        let mut raw = local(TRUSTED, port(&addresses[0])).await;
        let header = [&V2_LOCAL[..12], &[0x20, family], &length.to_be_bytes()[..]].concat();
        raw.send_bytes(&[header, vec![1; length.into()]].concat()).await;
        raw.send(HEALTH).await;
        assert_eq!(raw.answer().await.status, 200, "family {family:#x}, length {length}");
        assert_eq!(logged(&mut broker), TRUSTED, "family {family:#x}, length {length}");
    }
}

/// IPv4 clients are IPv4 clients, and so are the networks that name them as IPv6 does.
#[tokio::test]
async fn an_ipv4_mapped_network_is_the_ipv4_network() {
    for trusted in ["::ffff:127.0.0.0/126", "::ffff:127.0.0.1", "::ffff:7f00:0/104", "::ffff:0:0/96"] {
        let toml = format!(
            "trusted_proxies = [\"{trusted}\"]\n[limits]\nreads_per_address = \"1/day\"\n\
             exempt = [\"::ffff:192.0.2.0/120\"]\n[[listen]]\naddress = \"[::]:0\""
        );
        let (mut broker, addresses) = broker(&toml, 1);
        for (client, limited) in [("192.0.2.7", false), ("198.51.100.1", true)] {
            for second in [false, true] {
                let mut raw = local(TRUSTED, port(&addresses[0])).await;
                raw.send(&format!("GET /health HTTP/1.1\nHost: broker\nX-Forwarded-For: {client}\n\n")).await;
                let status = raw.answer().await.status;
                assert_eq!(status == 429, limited && second, "{client} behind {trusted}: {status}");
                assert_eq!(logged(&mut broker), client, "behind {trusted}");
            }
        }
    }
}

#[tokio::test]
async fn at_level_info_no_line_names_a_client() {
    let mut broker = Broker::start(&["-r", "memory"]);
    let slow = from(OTHER, &broker.address).await;
    drop(slow);
    let mut raw = from(OTHER, &broker.address).await;
    let html = Pod::named("p").html();
    raw.send(&format!(
        "POST /pods HTTP/1.1\nHost: broker\nContent-Type: text/html\nContent-Length: {}\n\n{html}",
        html.len()
    ))
    .await;
    assert_eq!(raw.answer().await.status, 200);
    raw.send("GARBAGE\n\n").await;
    raw.try_answer().await;
    broker.signal("TERM");
    let lines = broker.lines();
    assert!(lines.iter().any(|line| line.contains("pod uploaded")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(OTHER) || line.contains(" request ")), "{lines:?}");
}
