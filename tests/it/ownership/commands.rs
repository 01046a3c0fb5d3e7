//! `gemmapod-signal token` and `gemmapod-signal pods`, and the recipes for curl in docs/ownership.md.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::proof::{Owner, register};
use crate::support::{
    credential::{UNKNOWN, basic},
    frames,
    process::{Broker, command, ended},
    socket::Socket,
};

struct Home {
    directory: tempfile::TempDir,
    owner: Owner,
    seed: String,
}

impl Home {
    /// A folder with the owner's key file and a signed pod in it.
    fn new() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let owner = Owner::of(&seed);
        let directory = tempfile::tempdir().unwrap();
        let seed = seed.map(|byte| format!("{byte:02x}")).concat();
        let home = Self { directory, owner, seed };
        let key =
            format!("{{\n  \"publicKey\": \"{}\",\n  \"secretKey\": \"{}\"\n}}", home.owner.key(), home.seed);
        fs::write(home.path("owner.key"), key).unwrap();
        home.mode(0o600);
        fs::write(home.path("agent.html"), home.owner.pod("mine").html()).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn mode(&self, mode: u32) {
        fs::set_permissions(self.path("owner.key"), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        ended(command().current_dir(self.directory.path()).args(args))
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap().trim_end().to_owned()
}

/// A broker with its data in the folder.
fn broker(home: &Home) -> Broker {
    Broker::start(&["-d", home.path("data").to_str().unwrap()])
}

/// Signed requests are taken some seconds after the start only.
fn until_taken(mut ask: impl FnMut() -> Output) -> Output {
    loop {
        let output = ask();
        if !text(&output.stderr).contains("before the broker was up") {
            return output;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[test]
fn an_owner_puts_replaces_lists_and_deletes_pods() {
    let home = Home::new();
    let broker = broker(&home);
    let url = broker.url("");
    let pods = |args: &[&str]| {
        let all: Vec<_> =
            ["pods"].iter().chain(args).chain(&["--key", "owner.key", "--broker", &url]).copied().collect();
        home.run(&all)
    };
    let put = until_taken(|| pods(&["put", "agent.html"]));
    assert!(put.status.success(), "{put:?}");
    let slug = text(&put.stdout).rsplit('/').next().unwrap().to_owned();
    let list = pods(&["list"]);
    assert!(text(&list.stdout).contains(&slug) && text(&list.stdout).ends_with("mine"), "{list:?}");
    fs::write(home.path("new.html"), home.owner.pod("newer").html()).unwrap();
    let replaced = pods(&["put", "new.html", "--slug", &slug]);
    assert_eq!(text(&replaced.stdout), text(&put.stdout), "{replaced:?}");
    assert!(text(&pods(&["list"]).stdout).ends_with("newer"));
    let deleted = pods(&["delete", &slug]);
    assert_eq!(text(&deleted.stdout), format!("deleted {slug}"), "{deleted:?}");
    let again = pods(&["delete", &slug]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr)
            .ends_with("refused (404 Not Found): there is no such pod, or this broker does not do that"),
        "{again:?}"
    );
    let none = pods(&["list"]);
    assert_eq!((text(&none.stdout), text(&none.stderr)), ("".into(), "no pods".into()));
}

/// The URL in the line for a `pod.toml`.
fn signal_url(printed: &Output) -> String {
    let toml: toml::Table = text(&printed.stdout).parse().unwrap_or_else(|_| panic!("{printed:?}"));
    toml["signal_url"].as_str().unwrap().to_owned()
}

/// What a host is told that registers `pod_id` with this `signal_url`, as its WebSocket client reads it.
fn told(signal_url: &str, pod_id: &str) -> serde_json::Value {
    let (userinfo, address) = signal_url.strip_prefix("ws://").unwrap().split_once('@').unwrap();
    let (name, secret) = userinfo.split_once(':').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let address = address.strip_suffix("/signal").unwrap();
        let mut socket = Socket::authorized(address, &[&basic(name, secret)]).await;
        socket.send(frames::register(pod_id)).await;
        socket.receive().await
    })
}

#[test]
fn an_owner_adds_lists_and_revokes_credentials_that_outlive_a_restart() {
    let home = Home::new();
    let mut broker = broker(&home);
    let credentials = |broker: &Broker, args: &[&str]| {
        let url = broker.url("");
        let all = [&["credentials"], args, &["--key", "owner.key", "--broker", &url]].concat();
        until_taken(|| home.run(&all))
    };
    let added = credentials(&broker, &["add", "--name", "home"]);
    assert!(text(&added.stderr).contains("Never build a pod from that file"), "{added:?}");
    let anywhere = signal_url(&added);
    let mine = signal_url(&credentials(&broker, &["add", "--pod-id", "mine", "--pod-id", "other"]));
    assert!(anywhere.starts_with("ws://home:") && mine.starts_with("ws://host-"), "{anywhere} {mine}");
    assert_eq!(anywhere.split([':', '@']).nth(2).unwrap().len(), 43, "256 bits");
    assert_eq!(told(&anywhere, "pod"), frames::registered("pod"));
    assert_eq!(told(&mine, "mine"), frames::registered("mine"));
    assert!(told(&mine, "pod")["message"].as_str().unwrap().contains("for other pod ids"));
    let again = credentials(&broker, &["add", "--name", "home"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("there is a credential named home already"), "{again:?}");

    let lines = broker.address.clone();
    assert!(broker.terminate().success());
    let port = lines.rsplit(':').next().unwrap();
    let mut broker = Broker::spawn(command().args([
        "-H",
        "127.0.0.1",
        "-p",
        port,
        "-d",
        home.path("data").to_str().unwrap(),
    ]));
    assert_eq!(told(&anywhere, "pod"), frames::registered("pod"));
    let listed = text(&credentials(&broker, &["list"]).stdout);
    let rows: Vec<Vec<_>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[0][0], &rows[0][2..]), ("home", &["all", "pod", "ids"][..]), "{listed}");
    assert_eq!(&rows[1][2..], ["\"mine\"", "\"other\""], "{listed}");
    // Where there is no broker, the first is as good as all.
    let nowhere =
        ["credentials", "revoke", "home", "garage", "--key", "owner.key", "--broker", "http://127.0.0.1:1"];
    let errors = text(&home.run(&nowhere).stderr);
    assert!(errors.contains("not revoked: home: ") && !errors.contains("garage"), "{errors}");
    assert!(errors.contains("2 of 2 failed"), "{errors}");
    // One that is not there saves none of the others.
    let revoked = credentials(&broker, &["revoke", "never", "home", rows[1][0]]);
    assert_eq!(text(&revoked.stdout), format!("revoked home\nrevoked {}", rows[1][0]), "{revoked:?}");
    let errors = text(&revoked.stderr);
    assert!(errors.contains("not revoked: never: ") && errors.contains("1 of 3 failed"), "{errors}");
    assert_eq!(revoked.status.code(), Some(1));
    for signal_url in [&anywhere, &mine] {
        assert_eq!(told(signal_url, "pod"), frames::refusal(UNKNOWN));
    }
    let none = credentials(&broker, &["revoke", "home"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("there is no credential named "), "{none:?}");
    // No secret is in the log.
    assert!(broker.terminate().success());
    let log = broker.lines().concat();
    assert!(log.contains("credential revoked"), "{log}");
    for signal_url in [&anywhere, &mine] {
        assert!(!log.contains(signal_url.split([':', '@']).nth(2).unwrap()), "{log}");
    }
}

#[test]
fn the_help_says_what_todays_hosts_cannot_do() {
    let home = Home::new();
    for (command, says) in [("token", "sends no ownerToken"), ("credentials", "sends no ownerToken")] {
        let help = text(&home.run(&[command, "--help"]).stdout);
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(says) && help.contains("gemmapod-signal credentials add"), "{help}");
    }
}

#[test]
fn a_token_is_printed() {
    let home = Home::new();
    let args = ["token", "--key", "owner.key", "--pod-id", "pod", "--broker", "https://pods.example.org"];
    let token = home.run(&args);
    assert!(token.status.success(), "{token:?}");
    assert_eq!(text(&token.stdout).split('.').count(), 3);
    let long = home.run(&[&args[..], &["--lifetime", "2h"]].concat());
    assert_eq!(long.status.code(), Some(2));
    assert!(text(&long.stderr).contains("more than an hour"), "{long:?}");
}

/// Returns the URL of a broker that answers with the same page of a list again and again, and how often it did.
fn broker_that_repeats_itself() -> (String, Arc<AtomicUsize>) {
    const PAGE: &str = r#"{"pods":[{"id":"AAAAAAAAAAAA","name":"p","blobSize":1,"createdAt":"","hits":0}],
        "next":"AAAAAAAAAAAA"}"#;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let head = stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            if head.count() == 0 {
                continue;
            }
            let is_last = count.fetch_add(1, Ordering::SeqCst) > 10;
            let page = if is_last { "{\"pods\":[]}" } else { PAGE };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            );
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, asked)
}

#[test]
fn a_list_that_does_not_end_is_given_up() {
    let (url, asked) = broker_that_repeats_itself();
    let list = Home::new().run(&["pods", "list", "--key", "owner.key", "--broker", &url]);
    assert_eq!((list.status.code(), asked.load(Ordering::SeqCst)), (Some(1), 2), "{list:?}");
    assert!(text(&list.stderr).contains("gave a list of pods that does not end"), "{list:?}");
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let home = Home::new();
    home.mode(0o644);
    for args in [
        &["token", "--key", "owner.key", "--pod-id", "pod", "--broker", "https://x"][..],
        &["pods", "list", "--key", "owner.key", "--broker", "http://127.0.0.1:1"],
    ] {
        let refused = home.run(args);
        assert_eq!(refused.status.code(), Some(2));
        let says =
            "gemmapod-signal: others may use the key file owner.key (mode 0644); run: chmod 600 owner.key";
        assert_eq!(text(&refused.stderr), says);
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let home = Home::new();
    let problem = |args: &[&str]| {
        let output = home.run(args);
        (output.status.code().unwrap(), text(&output.stderr).replace("gemmapod-signal: ", ""))
    };
    assert_eq!(problem(&["pods", "list", "--key", "owner.key"]), (2, "--broker URL is missing".into()));
    assert_eq!(problem(&["pods", "list", "--broker", "https://x"]), (2, "--key FILE is missing".into()));
    let (code, says) = problem(&["pods", "list", "--key", "owner.key", "--broker", "pods.example.org"]);
    assert!(code == 2 && says.contains("is not the URL of a broker"), "{says}");
    let (code, says) = problem(&["pods", "list", "--key", "owner.key", "--broker", "http://127.0.0.1:1"]);
    assert!(code == 1 && says.contains("gave no answer"), "{says}");
    let broker = Broker::start(&["-r", "memory"]);
    let over_tls = broker.url("").replace("http:", "https:");
    let (code, says) = problem(&["pods", "list", "--key", "owner.key", "--broker", &over_tls]);
    assert!(code == 1 && says.ends_with("use http:// in place of https://"), "{says}");
    let (code, says) =
        problem(&["pods", "put", "none.html", "--key", "owner.key", "--broker", "http://127.0.0.1:1"]);
    assert!(code == 2 && says.starts_with("cannot read none.html"), "{says}");
}

#[test]
fn an_operator_unbinds_a_pod_id_whose_owner_has_lost_the_key() {
    let home = Home::new();
    let mut broker = broker(&home);
    let token = home.run(&["token", "--key", "owner.key", "--pod-id", "pod", "--broker", &broker.url("")]);
    let registered = |broker: &Broker, frame: serde_json::Value| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut socket = Socket::connect(&broker.address).await;
            socket.send(frame).await;
            socket.receive().await["t"] == "registered"
        })
    };
    assert!(registered(&broker, register("pod", &text(&token.stdout))));
    assert!(!registered(&broker, frames::register("pod")));
    let unbind = |pod_id: &str| home.run(&["unbind", pod_id, "-d", "data"]);
    let in_use = unbind("pod");
    assert_eq!(in_use.status.code(), Some(1));
    assert!(
        text(&in_use.stderr).contains("in use by a running broker; stop it and its sockets first"),
        "{in_use:?}"
    );
    assert!(broker.terminate().success());
    assert_eq!(text(&unbind("pod").stdout), "the pod id \"pod\" is free");
    let again = unbind("pod");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is free already"), "{again:?}");
    let broker = self::broker(&home);
    assert!(registered(&broker, frames::register("pod")));
}

#[test]
fn an_owner_claims_a_pod_id_and_gives_it_up() {
    let home = Home::new();
    let broker = broker(&home);
    let url = broker.url("");
    let ask = |command: &str, pod_id: &str| {
        until_taken(|| home.run(&[command, pod_id, "--key", "owner.key", "--broker", &url]))
    };
    let strange = "a pod/id?of %2f ü";
    for pod_id in ["pod", strange] {
        let claimed = ask("claim", pod_id);
        assert!(claimed.status.success(), "{claimed:?}");
        assert_eq!(text(&claimed.stdout), format!("the pod id {pod_id:?} belongs to {}", home.owner.key()));
        let released = ask("unbind", pod_id);
        assert_eq!(text(&released.stdout), format!("the pod id {pod_id:?} is free"), "{released:?}");
        let again = ask("unbind", pod_id);
        assert_eq!(again.status.code(), Some(1));
        assert!(text(&again.stderr).ends_with("this pod id does not belong to any owner key"), "{again:?}");
    }
}

#[test]
fn unbind_makes_no_data_directory() {
    let home = Home::new();
    let mistyped = home.run(&["unbind", "pod", "-d", "dta"]);
    assert_eq!(mistyped.status.code(), Some(2));
    assert!(text(&mistyped.stderr).contains("there is no registry in dta; name"), "{mistyped:?}");
    assert!(!home.path("dta").exists());
    let half = home.run(&["unbind", "pod", "--broker", "http://127.0.0.1:1"]);
    assert_eq!(text(&half.stderr), "gemmapod-signal: --key FILE is missing");
}

fn install(package: &str) {
    let apt = |args: &[&str]| {
        let done = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").output();
        assert!(done.is_ok_and(|done| done.status.success()), "apt-get {args:?} failed: {package} is needed");
    };
    apt(&["-qq", "update"]);
    apt(&["-qq", "install", "-y", "--no-install-recommends", package]);
}

/// The recipes in docs/ownership.md, as they stand there.
#[test]
fn the_recipes_for_curl_work() {
    for tool in ["curl", "openssl"] {
        if Command::new(tool).arg("version").output().is_err() {
            install(tool);
        }
    }
    let home = Home::new();
    let broker = broker(&home);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ownership.md")).unwrap();
    let recipes: Vec<_> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(recipes.len(), 6);
    // The command is this build's own.
    let command = format!("gemmapod-signal() {{ {:?} \"$@\"; }}\n", env!("CARGO_BIN_EXE_gemmapod-signal"));
    let script = command + &recipes.concat();
    let run = || {
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(home.directory.path())
            .env("BROKER", broker.url(""))
            .output()
            .unwrap()
    };
    let output = until_taken(|| {
        let mut output = run();
        output.stderr.extend_from_slice(&output.stdout.clone());
        output
    });
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let is_token = |line: &str| line.split('.').count() == 3 && !line.contains(' ');
    assert!(said.lines().any(is_token), "a token: {said}");
    let credentials: Vec<_> = said.lines().filter(|line| line.starts_with("signal_url = \"ws://")).collect();
    assert!(credentials[0].contains("://home:") && credentials[1].contains("://garage:"), "{said}");
    assert!(said.contains("revoked home\nrevoked garage"), "{said}");
    assert!(said.contains("\"blobSize\":") && said.contains("\"pods\":[{"), "{said}");
    let statuses: Vec<_> = said.lines().filter(|line| line.len() == 3).collect();
    assert_eq!(statuses, ["200", "200", "200", "204"], "{said}");
    assert!(home.path("upload-tokens").is_file());
}
