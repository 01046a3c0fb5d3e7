//! What an owner and an operator do on a full disk, with the real commands.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output, time::Duration};

use ed25519_dalek::SigningKey;
use serde_json::json;

use super::{get, upload};
use crate::support::{
    credential::basic,
    frames,
    mount::Tmpfs,
    pod::{Pod, hex},
    process::{Broker, command, ended},
    socket::Socket,
};

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap().trim_end().to_owned()
}

/// What an owner asks for in `folder`. Signed requests are taken some seconds after the start only.
fn owner(folder: &Path, broker: &Broker, args: &[&str]) -> Output {
    let url = broker.url("");
    loop {
        let mut command = command();
        let output =
            ended(command.current_dir(folder).args(args).args(["--key", "owner.key", "--broker", &url]));
        if !text(&output.stderr).contains("before the broker was up") {
            return output;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_and_operators_delete_revoke_and_unbind_on_a_full_disk() {
    const TEST: &str = "owners_and_operators_delete_revoke_and_unbind_on_a_full_disk";
    let Some(disk) = Tmpfs::mount(TEST, 16 << 20) else { return };
    let (folder, data) = (tempfile::tempdir().unwrap(), disk.join("data"));
    let key = SigningKey::from_bytes(&[9; 32]);
    let pod = |n: usize| Pod::signed_by(key.clone(), &n.to_string()).html();
    let file = json!({ "publicKey": hex(key.verifying_key().as_bytes()), "secretKey": hex(&key.to_bytes()) });
    let path = folder.path().join("owner.key");
    fs::write(&path, file.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();

    let mut broker = Broker::start(&["-d", &data]);
    let mut slugs = Vec::new();
    for n in 0..100 {
        let (status, answer) = upload(&broker, pod(n)).await;
        assert_eq!(status, 200, "{answer}");
        slugs.push(answer["id"].as_str().unwrap().to_owned());
    }
    let ask = |args: &[&str]| owner(folder.path(), &broker, args);
    let added = done(&ask(&["credentials", "add", "--name", "home"]));
    let secret = added.split("home:").nth(1).unwrap().split('@').next().unwrap().to_owned();
    for pod_id in ["released", "unbound"] {
        done(&ask(&["claim", pod_id]));
    }

    let full = (507, json!({ "error": "this broker has no room left for the pod" }));
    for slug in &slugs[..3] {
        disk.fill();
        assert_eq!(upload(&broker, pod(100)).await, full);
        assert_eq!(done(&ask(&["pods", "delete", slug])), format!("deleted {slug}"));
        assert_eq!(get(&broker, &format!("/{slug}")).await.0, 404);
    }
    disk.fill();
    assert_eq!(done(&ask(&["credentials", "revoke", "home"])), "revoked home");
    let mut socket = Socket::authorized(&broker.address, &[&basic("home", &secret)]).await;
    socket.send(frames::register("pod")).await;
    assert_eq!(socket.receive().await["t"], "error");
    disk.fill();
    assert_eq!(done(&ask(&["unbind", "released"])), "the pod id \"released\" is free");
    disk.fill();
    assert_eq!(upload(&broker, pod(101)).await, full);

    // Without a shutdown, which would have room to write in.
    broker.kill();
    disk.fill();
    let unbind = |pod_id| ended(command().args(["unbind", pod_id, "--data-dir", &data]));
    assert_eq!(done(&unbind("unbound")), "the pod id \"unbound\" is free");
    disk.fill();
    let janitor = |unused_for: &str| {
        let mut command = command();
        command
            .env("GEMMAPOD_SIGNAL_JANITOR_GRACE", "1s")
            .env("GEMMAPOD_SIGNAL_JANITOR_UNUSED_FOR", unused_for);
        ended(command.args(["janitor", "--data-dir", &data]))
    };
    let report = done(&janitor("1s"));
    assert!(report.contains("97 deleted: 0 expired, 97 unused"), "{report}");

    fs::remove_file(disk.path().join("filler")).unwrap();
    let broker = Broker::start(&["-d", &data]);
    assert_eq!(upload(&broker, pod(102)).await.0, 200);
    for slug in &slugs {
        assert_eq!(get(&broker, &format!("/{slug}")).await.0, 404);
    }
}

/// It is said once, and all else goes on.
#[tokio::test]
async fn a_file_system_that_keeps_no_room_is_named_at_the_start() {
    const TEST: &str = "a_file_system_that_keeps_no_room_is_named_at_the_start";
    let Some(disk) = Tmpfs::mount_ramfs(TEST) else { return };
    let data = disk.join("data");
    let mut broker = Broker::start(&["-d", &data]);
    let warns = |line: &&String| line.contains("WARN") && line.contains("/reserve cannot be kept");
    assert_eq!(broker.before_listening.iter().filter(warns).count(), 1, "{:?}", broker.before_listening);
    let (status, answer) = upload(&broker, Pod::named("pod").html()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(get(&broker, "/health").await.0, 200);
    assert!(broker.terminate().success());
    assert_eq!(broker.lines().iter().filter(warns).count(), 0);
}
