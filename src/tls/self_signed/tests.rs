//! Renewal, with a clock that the test moves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::time::sleep;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::{LOOK, SelfSigned, authority::Authority, ensure};
use crate::{
    clock::Clock,
    config::{Config, Domain, Live},
    tls::{CertStore, context::CertContext},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn config(directory: &TempDir, domains: &str) -> Config {
    let directory = directory.path();
    Config::from_toml(&format!(
        "data_dir = {directory:?}\n[tls]\nmode = \"self-signed\"\ndomains = {domains}"
    ))
    .unwrap()
}

fn context(config: Config) -> CertContext {
    CertContext {
        live: Live::new(config),
        store: Arc::default(),
        http_challenges: Arc::default(),
        clock: Clock::default(),
    }
}

fn shown(store: &CertStore) -> CertificateDer<'static> {
    store.first().unwrap().key.cert[0].clone()
}

#[test]
fn renewal_is_due_after_two_thirds() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory, "[\"pods.example\"]");
    let now = SystemTime::now();
    let certificate = |day| ensure(&config, now + DAY * day).unwrap().key.cert[0].clone();
    let first = certificate(0);
    assert_eq!(certificate(59), first);
    let second = certificate(61);
    assert_ne!(second, first);
    assert_eq!(certificate(100), second);
    // The authority goes on until a certificate would outlive it.
    let authority = || std::fs::read(directory.path().join("tls/ca.pem")).unwrap();
    let before = authority();
    certificate(3500);
    assert_eq!(authority(), before);
    certificate(3600);
    assert_ne!(authority(), before);
    // A clock that was far ahead leaves a certificate that is not valid yet: it is made again.
    let again = certificate(0);
    assert_eq!(certificate(1), again);
}

/// The authority is replaced only by what it cannot vouch for, and then the old one is kept.
#[test]
fn other_domains_take_no_authority_away() {
    let directory = tempfile::tempdir().unwrap();
    let tls = directory.path().join("tls");
    let read = |name: &str| std::fs::read_to_string(tls.join(name)).unwrap();
    let kept = || {
        let mut files: Vec<_> =
            std::fs::read_dir(&tls).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.retain(|name| name.to_str().unwrap().starts_with("ca-"));
        files.iter().map(|name| read(name.to_str().unwrap())).collect::<Vec<_>>()
    };
    let mut expected: Vec<String> = Vec::new();
    let mut before: Option<[String; 2]> = None;
    for (domains, is_new) in [
        ("[\"pods.example\", \"192.0.2.1\"]", true),
        ("[\"192.0.2.1\", \"pods.example\"]", false),
        ("[\"pods.example\"]", false),
        ("[\"192.0.2.1\"]", false),
        ("[\"a.pods.example\", \"*.pods.example\"]", false),
        ("[\"other.example\"]", true),
        ("[\"other.example\", \"192.0.2.1\"]", true),
        ("[\"other.example\"]", false),
        ("[\"pods.example\"]", true),
    ] {
        // A restart, or a reload, finds the same.
        for _ in 0..2 {
            let leaf = ensure(&config(&directory, domains), SystemTime::now()).unwrap();
            let mut names: Vec<_> = leaf.title.split(", ").map(|name| format!("{name:?}")).collect();
            names.sort();
            let mut wanted: Vec<_> = domains.trim_matches(['[', ']']).split(", ").collect();
            wanted.sort_unstable();
            assert_eq!(names, wanted);
        }
        let now = ["ca.pem", "ca.key"].map(read);
        if let Some(before) = before {
            assert_eq!(now != before, is_new, "{domains}");
            if is_new {
                expected.extend(before);
            }
        }
        before = Some(now);
        let mut kept = kept();
        kept.sort();
        expected.sort();
        assert_eq!(kept, expected, "{domains}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_broker_renews_and_follows_its_domains() {
    let directory = tempfile::tempdir().unwrap();
    let context = context(config(&directory, "[\"pods.example\"]"));
    let clock = context.clock.clone();
    let pass = async |time| {
        clock.pass(time);
        sleep(LOOK * 2).await;
    };
    let source = SelfSigned::prepare(&context).unwrap();
    let (reload, stop) = (source.reload_handle(), CancellationToken::new());
    let running = tokio::spawn(source.run(stop.clone()));
    let first = shown(&context.store);
    pass(DAY * 59).await;
    assert_eq!(shown(&context.store), first);
    pass(DAY * 2).await;
    let second = shown(&context.store);
    assert_ne!(second, first);
    pass(DAY * 61).await;
    let third = shown(&context.store);
    assert_ne!(third, second);
    assert!(!context.store.is_public("pods.example"));

    context.live.store(config(&directory, "[\"pods.example\", \"a.pods.example\"]"));
    reload.notify_one();
    pass(DAY).await;
    assert_eq!(context.store.first().unwrap().names, ["pods.example", "a.pods.example"]);

    // What cannot be renewed stays, and is tried again.
    let fourth = shown(&context.store);
    let (tls, aside) = (directory.path().join("tls"), directory.path().join("aside"));
    std::fs::rename(&tls, &aside).unwrap();
    std::fs::write(&tls, "in the way").unwrap();
    pass(DAY * 70).await;
    assert_eq!(shown(&context.store), fourth);
    std::fs::remove_file(&tls).unwrap();
    std::fs::rename(&aside, &tls).unwrap();
    pass(DAY).await;
    assert_ne!(shown(&context.store), fourth);
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn an_authority_covers_names_below_its_own() {
    let name = |name: &str| Domain::Name(name.into());
    let address = |address: &str| Domain::Address(address.parse().unwrap());
    let domains =
        [name("pods.example"), name("*.wild.example"), address("192.0.2.1"), address("2001:db8::1")];
    let made = Authority::make(&domains, SystemTime::now()).unwrap();
    let authority = Authority::read(&made.certificate, &made.key).unwrap();
    for domain in
        domains.iter().chain(&[name("a.pods.example"), name("wild.example"), name("*.pods.example")])
    {
        assert!(authority.covers(domain), "{domain}");
    }
    for domain in [name("example"), name("xpods.example"), address("192.0.2.2"), address("2001:db8::2")] {
        assert!(!authority.covers(&domain), "{domain}");
    }
}

#[test]
fn a_damaged_certificate_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory, "[\"pods.example\"]");
    let now = SystemTime::now();
    ensure(&config, now).unwrap();
    for name in ["leaf.pem", "leaf.key"] {
        let file = directory.path().join("tls").join(name);
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&file, text).unwrap();
            ensure(&config, now).unwrap();
            assert_ne!(std::fs::read_to_string(&file).unwrap(), text);
        }
        std::fs::remove_file(&file).unwrap();
        ensure(&config, now).unwrap();
        assert!(file.exists());
    }
}
