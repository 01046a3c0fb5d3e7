//! Other domains, and another directory, while the broker runs.

use std::time::Duration;

use gemmapod_signal::Clock;

use crate::{
    broker::{Broker, account, files, settings, settings_by},
    gate::{Harm, step},
    log,
};

#[tokio::test]
async fn domains_come_and_go() {
    let pebble = pebble!();
    let broker = Broker::start(&pebble, &["stays.reload.example"]).await;
    let first = broker.certificate("stays.reload.example").await;
    broker.reload(&settings(&pebble, &["stays.reload.example", "comes.reload.example"], ""));
    broker.certificate("comes.reload.example").await;
    assert_eq!(broker.shown("stays.reload.example").await.as_ref(), Some(&first));
    broker.reload(&settings(&pebble, &["stays.reload.example"], ""));
    until_hidden(&broker, "comes.reload.example").await;
    assert_eq!(broker.shown("stays.reload.example").await.as_ref(), Some(&first));
    // What was issued is kept: a domain that comes back needs no order.
    broker.reload(&settings(&pebble, &["comes.reload.example", "stays.reload.example"], ""));
    broker.certificate("comes.reload.example").await;
    assert_eq!((pebble.gate.count(step::ORDER), pebble.gate.count(step::ACCOUNT)), (2, 1));
    broker.stop().await;
}

async fn until_hidden(broker: &Broker, domain: &str) {
    for _ in 0..1000 {
        if broker.shown(domain).await.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{domain} is still served");
}

#[tokio::test]
async fn an_order_under_way_goes_on_after_a_reload() {
    let pebble = pebble!();
    pebble.gate.harm(step::FINALIZE, Harm::SwallowedRequest);
    let broker = Broker::start(&pebble, &["slow.reload.example"]).await;
    pebble.gate.swallowed().await;
    let key = account(&pebble)["key_pkcs8"].clone();
    broker.reload(&settings(&pebble, &["slow.reload.example", "new.reload.example"], ""));
    pebble.gate.heal();
    broker.certificate("slow.reload.example").await;
    broker.certificate("new.reload.example").await;
    broker.serves_plainly().await;
    assert_eq!(pebble.gate.count(step::ORDER), 2, "one for each domain");
    assert_eq!(account(&pebble)["key_pkcs8"], key);
    broker.stop().await;
}

#[tokio::test]
async fn another_directory_takes_over_once_it_has_issued() {
    let pebble = pebble!();
    let other = pebble.gate.another().await;
    other.harm("/", Harm::Closed);
    let broker = Broker::start(&pebble, &["moves.reload.example"]).await;
    let first = broker.certificate("moves.reload.example").await;
    broker.reload(&settings_by(&other, &pebble, &["moves.reload.example"], ""));
    broker.fails(1, "moves.reload.example", "is not reached").await;
    assert_eq!(broker.shown("moves.reload.example").await.as_ref(), Some(&first), "it stays until then");
    // The next try would be in a minute; SIGHUP has it made now.
    other.heal();
    broker.reload_certificates();
    broker.renewed("moves.reload.example", &first).await;
    assert_eq!(log::lines(&["moves.reload.example", "next try at"]).len(), 1);
    assert_eq!((pebble.gate.count(step::ORDER), other.count(step::ORDER)), (1, 1));
    assert_eq!(files(&pebble, "/account.json").len(), 2, "each directory has its account");
    // The way back needs no order.
    broker.reload(&settings(&pebble, &["moves.reload.example"], ""));
    assert_eq!(broker.until_shown("moves.reload.example", &first).await, first);
    assert_eq!(pebble.gate.count(step::ORDER), 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_reload_asks_nothing_of_a_directory_that_wants_us_to_wait() {
    let pebble = pebble!();
    pebble.gate.harm(step::ORDER, Harm::rate_limited());
    let broker = Broker::start(&pebble, &["patient.reload.example"]).await;
    broker.fails(1, "patient.reload.example", "rate limited until").await;
    pebble.gate.heal();
    let asked = pebble.gate.requests("/");
    broker.reload_certificates();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pebble.gate.requests("/"), asked);
    // Another domain's order tells it nothing of this one.
    broker.reload(&settings(&pebble, &["patient.reload.example", "hasty.reload.example"], ""));
    broker.certificate("hasty.reload.example").await;
    let orders = pebble.gate.payloads(step::ORDER);
    assert_eq!(orders.iter().filter(|order| order.contains("patient.reload.example")).count(), 1);
    broker.clock.pass(Duration::from_secs(7200));
    broker.certificate("patient.reload.example").await;
    broker.stop().await;
}

#[tokio::test]
async fn settings_of_no_use_change_nothing() {
    let pebble = pebble!();
    pebble.gate.harm("/", Harm::Closed);
    let broker = Broker::with(&pebble, &["kept.reload.example"], "", Clock::default()).await;
    broker.fails(1, "kept.reload.example", "is not reached").await;
    let wrong = settings(&pebble, &["kept.reload.example", "never.reload.example"], "")
        .replace("root.pem", "missing.pem");
    broker.reload(&wrong);
    let line = log::wait_for(1, &["certificates are ordered as before", "missing.pem"]).await;
    assert!(line.contains("acme.root"), "{line}");
    pebble.gate.heal();
    broker.clock.pass(Duration::from_secs(3600));
    broker.certificate("kept.reload.example").await;
    assert_eq!(pebble.gate.count(step::ORDER), 1);
    broker.stop().await;
}
