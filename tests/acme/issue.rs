//! How certificates come to be.

use std::{fs, os::unix::fs::PermissionsExt};

use gemmapod_signal::Clock;

use crate::{
    broker::{Broker, account, files},
    gate::step,
    log,
};

#[tokio::test]
async fn tls_alpn_01_without_port_80() {
    let pebble = pebble!();
    let broker =
        Broker::with(&pebble, &["alpn.example"], "challenges = [\"tls-alpn-01\"]", Clock::default()).await;
    broker.serves_plainly().await;
    broker.certificate("alpn.example").await;
    assert!(!log::lines(&["alpn.example", "a certificate was issued"]).is_empty());
    assert_eq!(pebble.gate.count(step::ORDER), 1);
    broker.stop().await;
}

#[tokio::test]
async fn http_01_without_tls() {
    let pebble = pebble!();
    let acme = "challenges = [\"http-01\"]\ncontact = [\"mailto:admin@http.example\"]";
    let broker = Broker::with(&pebble, &["http.example"], acme, Clock::default()).await;
    broker.certificate("http.example").await;
    assert_eq!(account(&pebble)["contacts"][0], "mailto:admin@http.example");
    for path in files(&pebble, "") {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_stored_certificate_is_shown_at_once_and_nothing_is_ordered() {
    let pebble = pebble!();
    let broker = Broker::start(&pebble, &["stored.example"]).await;
    let first = broker.certificate("stored.example").await;
    broker.stop().await;
    let broker = Broker::start(&pebble, &["stored.example"]).await;
    assert_eq!(broker.shown("stored.example").await.as_ref(), Some(&first));
    broker.stop().await;
    assert_eq!((pebble.gate.count(step::ORDER), pebble.gate.count(step::ACCOUNT)), (1, 1));
    assert_eq!(files(&pebble, ".order.json").len(), 0);
}

#[tokio::test]
async fn without_a_certificate_handshakes_fail_and_plain_http_is_served() {
    let pebble = pebble!();
    pebble.gate.harm("/", crate::gate::Harm::SwallowedRequest);
    let broker = Broker::start(&pebble, &["none.example"]).await;
    let error = pebble.issued_trust().await.certificate(pebble.tls_port, "none.example").await.unwrap_err();
    assert!(error.to_string().contains("alert"), "a TLS alert was to come: {error}");
    broker.serves_plainly().await;
    broker.stop().await;
}

#[tokio::test]
async fn an_external_account_is_bound() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = pebble!(("BINDING", KEY));
    let broker = Broker::start(&pebble, &["unbound.example"]).await;
    broker.fails(1, "unbound.example", "set acme.eab_key_id and acme.eab_key_file").await;
    broker.stop().await;
    let file = pebble.folder.path().join("eab.key");
    let acme = format!("eab_key_id = \"kid-1\"\neab_key_file = {file:?}");
    fs::write(&file, KEY.to_lowercase()).unwrap();
    let broker = Broker::with(&pebble, &["misbound.example"], &acme, Clock::default()).await;
    let line = broker.fails(1, "misbound.example", "did not take the external account binding").await;
    assert!(line.contains("acme.eab_key_id") && line.contains("acme.eab_key_file"), "{line}");
    broker.stop().await;
    // The key that was refused must not be in the way of the one that is bound.
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let broker = Broker::with(&pebble, &["bound.example"], &acme, Clock::default()).await;
    broker.certificate("bound.example").await;
    broker.stop().await;
}
