//! New certificates in place of old ones, while connections are open.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::start::command_without_rights;
use crate::support::{
    SOON,
    certs::{Authority, Files, Pair, set_life},
    process::{Broker, command},
    server::TestServer,
    tls_client::{Client, first},
};

/// Waits until new connections to `name` are shown the certificate of `pair`.
pub async fn until_shown(client: &Client, address: &str, name: &str, pair: &Pair) {
    let wanted: CertificateDer<'_> = first(&pair.chain);
    let poll = async {
        while client.shown(address, name).await != wanted {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, poll).await.expect("the new certificate should have been shown");
}

#[tokio::test]
async fn a_reload_drops_no_socket() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let server = TestServer::with(&files.toml(&["pair"])).await;
    let client = Client::trusting(&authority.pem());
    let mut origin = client.socket(&server.address, "pods.example").await;
    origin.register("pod").await;
    let new = authority.issue(&["pods.example"]);
    files.write("pair", &new);
    server.handle.reload_certificates();
    until_shown(&client, &server.address, "pods.example", &new).await;
    origin.nothing().await;
}

#[tokio::test]
async fn changed_files_are_found_without_a_signal() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let client = Client::trusting(&authority.pem());
    let [one, two, three] = [1, 2, 3].map(|_| authority.issue(&["pods.example"]));
    // As certbot and NixOS do it: a link to a directory that changes as a whole.
    for (name, pair) in [("1", &one), ("2", &two)] {
        fs::create_dir(files.path(name)).unwrap();
        files.write(&format!("{name}/pair"), pair);
    }
    let link = |to: &str| {
        symlink(to, files.path("new")).unwrap();
        fs::rename(files.path("new"), files.path("live")).unwrap();
    };
    link("1");
    let server = TestServer::with(&files.toml(&["live/pair"])).await;
    assert_eq!(client.shown(&server.address, "pods.example").await, first(&one.chain));
    link("2");
    until_shown(&client, &server.address, "pods.example", &two).await;
    // Written over in place, the key a while after the chain.
    fs::write(files.path("2/pair.pem"), &three.chain).unwrap();
    sleep(Duration::from_millis(500)).await;
    fs::write(files.path("2/pair.key"), &three.key).unwrap();
    until_shown(&client, &server.address, "pods.example", &three).await;
}

#[tokio::test]
async fn a_broken_pair_keeps_the_old_one_and_the_others_go_on() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let old = ["one", "two"].map(|name| authority.issue(&[&format!("{name}.example")]));
    files.write("one", &old[0]);
    files.write("two", &old[1]);
    let config = files.config(&["one", "two"]);
    let mut broker =
        tokio::task::spawn_blocking(move || Broker::spawn(command().args(["--config", &config])))
            .await
            .unwrap();
    let client = Client::trusting(&authority.pem());
    let expired = authority.issue_with(&["one.example"], |params| set_life(params, -20, -10));
    files.write("one", &expired);
    let new = authority.issue(&["two.example"]);
    files.write("two", &new);
    until_shown(&client, &broker.address, "two.example", &new).await;
    assert_eq!(client.shown(&broker.address, "one.example").await, first(&old[0].chain));
    // Looked at several times more, it is not complained of again.
    sleep(Duration::from_secs(5)).await;
    let mended = authority.issue(&["one.example"]);
    files.write("one", &mended);
    until_shown(&client, &broker.address, "one.example", &mended).await;
    let said = broker.lines_until("a new certificate for one.example is served");
    let complaints: Vec<_> = said.iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(complaints.len(), 1, "{said:?}");
    let sentence = format!(
        "the certificate that was served before stays: {} holds a certificate for one.example that expired on",
        files.path("one.pem").display()
    );
    assert!(complaints[0].contains(&sentence), "{complaints:?}");
}

/// Permissions change no content, and no time of it.
#[tokio::test]
async fn a_key_that_may_be_read_at_last_is_read() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let mode = |name: &str, mode| {
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let Some(mut command) = command_without_rights(&files) else { return };
    command.args(["--config", &files.config(&["pair"])]);
    let mut broker = tokio::task::spawn_blocking(move || Broker::spawn(&mut command)).await.unwrap();
    let client = Client::trusting(&authority.pem());
    let new = authority.issue(&["pods.example"]);
    fs::write(files.path("new.key"), &new.key).unwrap();
    mode("new.key", 0o000);
    fs::rename(files.path("new.key"), files.path("pair.key")).unwrap();
    fs::write(files.path("pair.pem"), &new.chain).unwrap();
    broker.wait_for("cannot be read by this process: give its user the permission to read it");
    mode("pair.key", 0o644);
    until_shown(&client, &broker.address, "pods.example", &new).await;
}

#[test]
fn the_end_is_warned_of_from_14_days_before() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    for (days, warned) in [(13, true), (15, false)] {
        files.write("pair", &authority.issue_with(&["pods.example"], |params| set_life(params, -1, days)));
        let config = files.config(&["pair"]);
        let broker = Broker::spawn(command().args(["--config", &config]));
        let warnings: Vec<_> = broker.before_listening.iter().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), usize::from(warned), "{warnings:?}");
        for warning in warnings {
            assert!(warning.contains("the certificate for pods.example ends on "), "{warning}");
            assert!(warning.contains(", in 13 days: renew it"), "{warning}");
        }
    }
}
