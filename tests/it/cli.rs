//! The binary as an operator meets it: flags, environment, files, exit codes and the sentences that go with them.

use std::{fs, net::TcpListener, path::Path, process::Output};

use tempfile::TempDir;

use crate::support::process::{Broker, command};

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    command().args(args).envs(env.iter().copied()).output().unwrap()
}

/// Exit code and standard error, without the name of the program.
fn complaint(args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let output = run(args, env);
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), stderr.replace("gemmapod-signal: ", "").trim_end().to_owned())
}

fn file(dir: &TempDir, text: &str) -> String {
    let path = dir.path().join("signal.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_teaches_and_version_tells() {
    let help = String::from_utf8(run(&["--help"], &[]).stdout).unwrap();
    for word in
        ["--port", "--hostname", "--registry", "--data-dir", "--config", "check-config", "Exit codes", "PORT"]
    {
        assert!(help.contains(word), "--help does not mention {word}:\n{help}");
    }
    for flag in ["-v", "--version"] {
        let output = run(&[flag], &[]);
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().trim(),
            concat!("gemmapod-signal ", env!("CARGO_PKG_VERSION"))
        );
    }
}

#[test]
fn a_wrong_flag_or_variable_ends_with_2_and_a_sentence() {
    for (args, env, sentence) in [
        (
            &["--port", "http"][..],
            &[][..],
            "flag --port: port: expected a port from 0 to 65535, found \"http\"",
        ),
        (&["-p", "65536"], &[], "flag --port: port: expected a port from 0 to 65535, found \"65536\""),
        (
            &["--registry", "sqlite"],
            &[],
            "flag --registry: registry: this broker keeps pods in redb, not in SQLite: use \"redb\" (it is the default)",
        ),
        (
            &["-r", "s3"],
            &[],
            "flag --registry: registry: expected \"redb\" (on disk) or \"memory\" (lost at the end), found \"s3\"",
        ),
        (
            &[],
            &[("PORT", "x")],
            "environment variable PORT: port: expected a port from 0 to 65535, found \"x\"",
        ),
        (
            &[],
            &[("GEMMAPOD_SIGNAL_SIGNAL_MAX_FRAME", "big")],
            "environment variable GEMMAPOD_SIGNAL_SIGNAL_MAX_FRAME: signal.max_frame: \
             expected a size such as \"256 KiB\" or a number of bytes, found \"big\"",
        ),
        (
            &["--set", "signal.max_fame=1"],
            &[],
            "flag --set: unknown key \"signal.max_fame\"; did you mean \"signal.max_frame\"?",
        ),
        (&["--set", "signal.max_frame"], &[], "flag --set: expected KEY=VALUE, found \"signal.max_frame\""),
        (
            &["--config", "/nowhere/signal.toml"],
            &[],
            "cannot read the configuration /nowhere/signal.toml: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(complaint(args, env), (2, sentence.to_owned()), "{args:?} {env:?}");
    }
    let (code, usage) = complaint(&["--prot", "1"], &[]);
    assert_eq!(code, 2);
    assert!(usage.contains("unexpected argument '--prot'") && usage.contains("'--port'"), "{usage}");
}

#[test]
fn check_config_names_the_key_the_line_and_the_column() {
    let dir = TempDir::new().unwrap();
    for (toml, complaints) in [
        ("port = 8081\n", &[][..]),
        ("prot = 8081\n", &["1:1: unknown key \"prot\"; did you mean \"port\"?"][..]),
        ("port = 70000\n", &["1:8: port: expected a port from 0 to 65535, found \"70000\""]),
        ("port = \"80 80\"\n", &["1:8: port: expected a port from 0 to 65535, found \"80 80\""]),
        ("port = [80]\n", &["1:8: port: expected a port from 0 to 65535, found a list"]),
        ("[signl]\nmax_frame = 1\n", &["1:2: unknown key \"signl\"; did you mean \"signal\"?"]),
        ("max_frame = 1\n", &["1:1: unknown key \"max_frame\"; did you mean \"signal.max_frame\"?"]),
        // What is no setting is no key either.
        (
            "[signal.bounds]\nfirst_frame_timeout = \"1s\"\n",
            &["1:9: unknown key \"signal.bounds\"; did you mean \"signal.bind\"?"],
        ),
        ("signal = 1\n", &["1:10: signal: expected a table, written as [signal]"]),
        (
            "\n[signal]\n  ping_interval = 30\n",
            &["3:19: signal.ping_interval: expected a time such as \"30s\", \"5m\" or \"500ms\", found 30"],
        ),
        (
            "[signal]\nping_interval = \"2 weeks\"\n",
            &["2:17: signal.ping_interval: expected a time from \"1ms\" to \"1day\", found \"2 weeks\""],
        ),
        (
            "[signal]\nmax_queue = \"1 KiB\"\n",
            &[
                "2:13: signal.max_queue must be at least signal.max_frame and 1 KiB, or the largest frame could never be sent",
            ],
        ),
        (
            "[signal]\nmax_sockets = 0\n",
            &["2:15: signal.max_sockets: expected a whole number from 1 to 1000000000, found \"0\""],
        ),
        (
            "[pods]\ncontent_security_policy = \"\"\n",
            &[
                "2:27: pods.content_security_policy: expected the text of one HTTP header, not empty and without a line break, found \"\"",
            ],
        ),
        (
            "[pods]\npermissions_policy = \"a\\nb\"\n",
            &[
                "2:22: pods.permissions_policy: expected the text of one HTTP header, not empty and without a line break, found \"a\\nb\"",
            ],
        ),
        (
            "public_url = \"https://pods.example.org/x\"\n",
            &[
                "1:14: public_url: expected a URL of scheme and host such as \"https://pods.example.org\", found \"https://pods.example.org/x\"",
            ],
        ),
        (
            "port = 1\nlog.format = \"xml\"\n[pods]\nmax_blob = true\n",
            &[
                "2:14: log.format: expected \"text\" or \"json\", found \"xml\"",
                "4:12: pods.max_blob: expected a size such as \"256 KiB\" or a number of bytes, found true",
            ],
        ),
    ] {
        let path = file(&dir, toml);
        let (code, stderr) = complaint(&["check-config", &path], &[]);
        let expected: Vec<_> = complaints.iter().map(|complaint| format!("{path}:{complaint}")).collect();
        assert_eq!(
            (code, stderr),
            (if complaints.is_empty() { 0 } else { 2 }, expected.join("\n")),
            "{toml}"
        );
        if !complaints.is_empty() {
            assert_eq!(complaint(&["--config", &path], &[]), (2, expected.join("\n")), "at start: {toml}");
        }
    }
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "port = 1\nhostname = \n");
    let (code, stderr) = complaint(&["check-config", &path], &[]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with(&format!("{path}:2:12: this is not TOML: ")), "{stderr}");
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let dir = TempDir::new().unwrap();
    let data = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let path = file(&dir, &format!("data_dir = {:?}\nregistry = \"memory\"\n", data("from-file")));
    let made = |args: &[&str], env: &[(&str, &str)]| {
        let all = [&["--config", &path, "-H", "127.0.0.1", "-p", "0"], args].concat();
        let mut broker = Broker::spawn(command().args(all).envs(env.iter().copied()));
        assert!(broker.terminate().success());
        ["from-file", "from-env", "from-flag"].into_iter().find(|name| fs::remove_dir_all(data(name)).is_ok())
    };
    assert_eq!(made(&[], &[]), None, "registry = \"memory\" in the file");
    assert_eq!(made(&["-r", "redb"], &[]), Some("from-file"));
    let env = [("GEMMAPOD_SIGNAL_DATA", data("from-env")), ("GEMMAPOD_SIGNAL_REGISTRY", "redb".into())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(made(&[], &env), Some("from-env"));
    assert_eq!(made(&["-d", &data("from-flag")], &env), Some("from-flag"));
    assert_eq!(made(&["--set", &format!("data_dir={}", data("from-flag"))], &env), Some("from-flag"));
    assert_eq!(made(&[], &[("GEMMAPOD_SIGNAL_REGISTRY", "")]), None, "an empty variable is not set");
}

#[test]
fn failures_at_run_time_end_with_1_and_the_mend() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data").to_str().unwrap().to_owned();
    let here = ["-H", "127.0.0.1"];
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_eq!(
        complaint(&[&here[..], &["-r", "memory", "-p", &port]].concat(), &[]),
        (
            1,
            format!(
                "cannot listen on 127.0.0.1:{port}: another process uses this address already; \
                 stop it, or choose another port with --port"
            )
        )
    );
    assert_eq!(
        complaint(&["-H", "192.0.2.1", "-r", "memory", "-p", "0"], &[]),
        (
            1,
            "cannot listen on 192.0.2.1:0: this host has no such address; \
             choose another with --hostname (0.0.0.0 is all of them)"
                .into()
        )
    );
    let _first = Broker::start(&["-d", &data]);
    assert_eq!(
        complaint(&[&here[..], &["-p", "0", "-d", &data]].concat(), &[]),
        (
            1,
            format!(
                "the data directory {data} is in use by another broker; stop that one, or choose another with --data-dir"
            )
        )
    );
    let (code, sentence) = complaint(&[&here[..], &["-p", "0", "-d", "/proc/nowhere"]].concat(), &[]);
    assert_eq!(code, 1);
    assert!(sentence.starts_with("cannot use the data directory /proc/nowhere: "), "{sentence}");
}

#[test]
fn sigterm_and_sigint_end_cleanly() {
    for signal in ["TERM", "INT"] {
        let mut broker = Broker::start(&["-r", "memory"]);
        broker.signal(signal);
        assert!(broker.child.wait().unwrap().success());
        broker.wait_for(&format!("SIG{signal} received, stopping"));
        broker.wait_for("stopped");
    }
}

#[test]
fn the_log_can_be_json() {
    let mut broker = Broker::start(&["-r", "memory", "--set", "log.format=json"]);
    broker.signal("TERM");
    let line: serde_json::Value = serde_json::from_str(&broker.wait_for("SIGTERM")).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"SIGTERM received, stopping".into()));
    assert!(line["timestamp"].is_string());
}

#[test]
fn rust_log_chooses_what_is_logged() {
    let mut broker =
        Broker::spawn(command().args(["-H", "127.0.0.1", "-p", "0", "-r", "memory"]).env("RUST_LOG", "info"));
    assert!(broker.terminate().success());
    broker.wait_for("stopped");
    let output = run(&["-p", "0", "-r", "memory"], &[("RUST_LOG", "shout")]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_page_of_settings_is_in_step() {
    let printed = String::from_utf8(run(&["settings", "--markdown"], &[]).stdout).unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    assert!(
        fs::read_to_string(page).unwrap() == printed,
        "docs/settings.md is out of step: cargo run -- settings --markdown > docs/settings.md"
    );
}

#[test]
fn the_settings_of_the_nixos_module_are_in_step() {
    let printed = String::from_utf8(run(&["settings", "--json"], &[]).stdout).unwrap();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("nixos-module/settings.json");
    assert!(
        fs::read_to_string(list).unwrap() == printed,
        "nixos-module/settings.json is out of step: cargo run -- settings --json > nixos-module/settings.json"
    );
}

#[test]
fn the_list_of_settings_is_a_configuration_that_holds() {
    let dir = TempDir::new().unwrap();
    let toml = String::from_utf8(run(&["settings"], &[]).stdout).unwrap();
    assert_eq!(complaint(&["check-config", &file(&dir, &toml)], &[]), (0, String::new()));
}
