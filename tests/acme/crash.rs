//! SIGKILL at each step of an order.

use std::{collections::HashSet, fs};

use crate::{
    broker::{account, certificate, files, settings},
    gate::{Harm, step},
    support::process::{Broker, command},
};

/// Before the directory hears of a step, and before the broker hears that it is done.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step() {
    const STEPS: [&str; 9] = [
        step::DIRECTORY,
        step::NONCE,
        step::ACCOUNT,
        step::ORDER,
        step::AUTHORIZATION,
        step::CHALLENGE,
        step::UNDER_WAY,
        step::FINALIZE,
        step::CERTIFICATE,
    ];
    let pebble = pebble!();
    let file = pebble.folder.path().join("broker.toml");
    fs::write(&file, settings(&pebble, &["killed.example"], "")).unwrap();
    let start = || Broker::spawn(command().arg("--config").arg(&file));
    let mut keys = HashSet::new();
    for at in STEPS {
        for harm in [Harm::SwallowedRequest, Harm::SwallowedAnswer] {
            pebble.gate.harm(at, harm.clone());
            let mut broker = start();
            pebble.gate.swallowed().await;
            let answer = reqwest::get(broker.url("/health")).await.unwrap();
            assert_eq!(answer.status(), 200, "plain traffic goes on at {at}");
            broker.kill();
            pebble.gate.heal();
            // It is made after the directory was read.
            if at != step::DIRECTORY || !files(&pebble, "/account.json").is_empty() {
                keys.insert(account(&pebble)["key_pkcs8"].to_string());
            }
        }
    }
    let broker = start();
    certificate(&pebble.issued_trust().await, pebble.tls_port, "killed.example").await;
    keys.insert(account(&pebble)["key_pkcs8"].to_string());
    assert_eq!(keys.len(), 1, "the account's key lasts");
    let accounts: HashSet<_> = pebble.gate.answers(step::ACCOUNT).iter().map(|head| location(head)).collect();
    assert_eq!(accounts.len(), 1, "the directory gave one account");
    // One is lost with its answer; one more may be lost if the challenge was looked for while nobody was there.
    assert!((2..=3).contains(&pebble.gate.count(step::ORDER)), "{} orders", pebble.gate.count(step::ORDER));
    assert_eq!(pebble.gate.count(step::FINALIZE), 1, "one certificate was issued");
    drop(broker);
    assert_eq!(files(&pebble, ".order.json").len(), 0);
}

fn location(head: &str) -> String {
    head.lines().find(|line| line.to_ascii_lowercase().starts_with("location:")).unwrap().to_owned()
}
