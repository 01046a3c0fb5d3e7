//! The janitor of a running broker, and the one that a person starts.

use std::{process::Command, time::Instant};

use gemmapod_signal::{RedbRegistry, Registry};

use crate::support::{
    SOON,
    pod::Pod,
    process::{Broker, command, ended},
    server::{TestServer, config},
};

fn janitor(directory: &str, args: &[&str]) -> Command {
    let mut command = command();
    command.args(["janitor", "--data-dir", directory]).args(args);
    command
}

fn said(command: &mut Command) -> String {
    let output = ended(command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_person_sees_what_would_go_and_has_it_go() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().to_str().unwrap();
    let mut broker = Broker::start(&["--data-dir", directory]);
    for name in ["a", "b", "c"] {
        let upload = reqwest::Client::new().post(broker.url("/pods")).header("content-type", "text/html");
        assert_eq!(upload.body(Pod::named(name).padded(10_000).html()).send().await.unwrap().status(), 200);
    }
    let output = ended(&mut janitor(directory, &["--dry-run"]));
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.contains("is in use by a running broker; stop it and its sockets first"),
        "{complaint}"
    );
    assert!(
        complaint.contains("a running broker does this itself, with janitor.enabled = true"),
        "{complaint}"
    );
    assert!(broker.terminate().success());

    let water = ["--set", "janitor.high_water=15000", "--set", "janitor.low_water=12000"];
    assert!(said(janitor(directory, &water).arg("--dry-run")).contains(" 0 deleted"), "within their grace");
    // The shortest grace is a second, and how long a date is a second old is a matter of waiting.
    let short = [&water[..], &["--set", "janitor.grace=1s"]].concat();
    let mut foreseen = said(janitor(directory, &short).arg("--dry-run"));
    let begun = Instant::now();
    while !foreseen.contains(" 2 deleted") && begun.elapsed() < SOON {
        foreseen = said(janitor(directory, &short).arg("--dry-run"));
    }
    let foreseen =
        foreseen.strip_prefix("nothing is deleted in this dry run; otherwise it would be: ").unwrap();
    assert!(
        foreseen.starts_with("3 pods looked at; 2 deleted: 0 expired, 0 unused, 2 for room; "),
        "{foreseen}"
    );
    assert_eq!(said(&mut janitor(directory, &short)), foreseen);
    let registry = RedbRegistry::open(data.path()).unwrap();
    assert_eq!(registry.list(None, 9).await.unwrap().len(), 1);
    registry.close().await.unwrap();

    let output = ended(janitor(directory, &["--registry", "memory"]).arg("--dry-run"));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("registry = \"memory\" keeps nothing"), "{complaint}");
}

#[tokio::test]
async fn a_running_broker_deletes_what_expired_once_its_grace_is_over() {
    let toml = "[uploads]\nlifetime = \"1s\"\n[janitor]\nenabled = true\ngrace = \"1s\"\n\
        [janitor.bounds]\ninterval = \"20ms\"";
    let registry = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let builder = gemmapod_signal::SignalServer::builder()
        .config(config(toml))
        .registry(RedbRegistry::open(registry.path()).unwrap());
    let server = TestServer::from(builder).await;
    let slug = server.store(Pod::named("p").html()).await;
    assert_eq!(server.http.get(server.url(&format!("/{slug}/meta"))).send().await.unwrap().status(), 200);
    let blobs = registry.path().join("blobs");
    let gone = async {
        while std::fs::read_dir(&blobs).unwrap().next().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("what expired is deleted");
    server.stop().await;
}
