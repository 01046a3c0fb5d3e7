//! Renewal, by the certificate's lifetime and by what the directory suggests.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use gemmapod_signal::Clock;
use x509_parser::parse_x509_certificate;

use crate::{
    broker::{Broker, DAY, account, files},
    gate::{Harm, step},
    log,
    pebble::Pebble,
};

/// How long until two thirds of the lifetime of `certificate` are over.
fn until_two_thirds(certificate: &[u8]) -> Duration {
    let (_, parsed) = parse_x509_certificate(certificate).unwrap();
    let validity = parsed.validity();
    let seconds = validity.not_after.timestamp() - validity.not_before.timestamp();
    Duration::from_secs(seconds as u64) * 2 / 3
}

/// A pebble whose own certificate does not end while time passes.
async fn lasting_pebble() -> Option<Pebble> {
    Pebble::valid_for(100 * 365 * DAY, &[]).await
}

#[tokio::test]
async fn at_two_thirds_of_the_lifetime() {
    let Some(pebble) = lasting_pebble().await else { return };
    let broker = Broker::start(&pebble, &["thirds.example"]).await;
    let first = broker.certificate("thirds.example").await;
    let (until, key) = (until_two_thirds(&first), account(&pebble)["key_pkcs8"].clone());
    // Up to a thirtieth of the lifetime is jitter.
    broker.clock.pass(until * 9 / 10);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pebble.gate.count(step::ORDER), 1, "it is not yet time");
    broker.clock.pass(until / 10 + DAY);
    broker.renewed("thirds.example", &first).await;
    assert_eq!(account(&pebble)["key_pkcs8"], key);
    broker.stop().await;
}

#[tokio::test]
async fn the_directory_is_down_at_renewal() {
    let Some(pebble) = lasting_pebble().await else { return };
    let broker = Broker::start(&pebble, &["later.example"]).await;
    let first = broker.certificate("later.example").await;
    pebble.gate.harm("/", Harm::Closed);
    broker.clock.pass(until_two_thirds(&first) + DAY);
    let line = broker.fails(1, "later.example", "is not reached").await;
    assert!(line.contains("was not renewed"), "{line}");
    assert_eq!(broker.shown("later.example").await.as_ref(), Some(&first));
    broker.clock.pass(DAY);
    broker.fails(2, "later.example", "is not reached").await;
    pebble.gate.heal();
    broker.clock.pass(Duration::from_secs(3600));
    broker.renewed("later.example", &first).await;
    broker.stop().await;
}

/// Says that certificates are to be renewed within an hour from `begin`.
fn suggest(pebble: &Pebble, begin: SystemTime) {
    let time = |time| humantime::format_rfc3339_seconds(time);
    let end = begin + Duration::from_secs(3600);
    let window = format!(r#"{{"suggestedWindow":{{"start":"{}","end":"{}"}}}}"#, time(begin), time(end));
    pebble.gate.heal();
    pebble.gate.harm("/renewal-info/", Harm::Answered(200, "Retry-After: 21600\r\n".into(), window));
}

#[tokio::test]
async fn when_the_directory_suggests() {
    let Some(pebble) = lasting_pebble().await else { return };
    pebble.gate.offer_renewal_info();
    suggest(&pebble, SystemTime::now() + 10 * DAY);
    let broker = Broker::start(&pebble, &["suggested.example"]).await;
    let first = broker.certificate("suggested.example").await;
    assert_eq!(pebble.gate.requests("/renewal-info/"), 0, "a new certificate is not asked about at once");
    let six_hours = Duration::from_secs(6 * 3600);
    for polls in 1..=2 {
        until_waiting("suggested.example", polls).await;
        broker.clock.pass(six_hours + Duration::from_secs(1));
        let asked = || pebble.gate.requests("/renewal-info/") >= polls;
        until("the directory is asked every six hours", asked).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(pebble.gate.requests("/renewal-info/"), 2);
    assert_eq!(pebble.gate.count(step::ORDER), 1);
    // Something happened: the directory wants it to be renewed now. pebble itself takes no `replaces`.
    suggest(&pebble, SystemTime::now() - DAY);
    until_waiting("suggested.example", 3).await;
    broker.clock.pass(six_hours + Duration::from_secs(1));
    broker.renewed("suggested.example", &first).await;
    let orders = pebble.gate.payloads(step::ORDER);
    assert!(!orders[0].contains("replaces") && orders[1].contains(r#""replaces":""#), "{orders:?}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(log::lines(&["suggested.example", "a certificate was issued"]).len(), 2, "once, not for ever");
    broker.stop().await;
}

#[tokio::test]
async fn a_directory_that_wants_no_replaced_certificate_named() {
    let Some(pebble) = lasting_pebble().await else { return };
    pebble.gate.offer_renewal_info();
    suggest(&pebble, SystemTime::now() + 10 * DAY);
    let broker = Broker::start(&pebble, &["replaced.example"]).await;
    let first = broker.certificate("replaced.example").await;
    let problem = r#"{"type":"urn:ietf:params:acme:error:alreadyReplaced","detail":"not again"}"#;
    pebble.gate.harm_once(step::ORDER, Harm::Answered(409, String::new(), problem.into()));
    broker.clock.pass(until_two_thirds(&first) + DAY);
    broker.renewed("replaced.example", &first).await;
    let named: Vec<_> =
        pebble.gate.payloads(step::ORDER).iter().map(|order| order.contains("replaces")).collect();
    assert_eq!(named, [false, true, false]);
    assert_eq!(log::lines(&["replaced.example", "alreadyReplaced"]), Vec::<String>::new());
    broker.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_shown_until_there_is_a_better_one() {
    let Some(pebble) = lasting_pebble().await else { return };
    let broker = Broker::start(&pebble, &["expired.example"]).await;
    let first = broker.certificate("expired.example").await;
    broker.stop().await;
    pebble.gate.harm("/", Harm::Closed);
    let clock = Clock::default();
    clock.pass(until_two_thirds(&first) * 2);
    let broker = Broker::with(&pebble, &["expired.example"], "", clock).await;
    assert_eq!(broker.shown("expired.example").await.as_ref(), Some(&first));
    broker.fails(1, "expired.example", "was not renewed").await;
    assert_eq!(broker.shown("expired.example").await.as_ref(), Some(&first));
    broker.stop().await;
}

#[tokio::test]
async fn a_corrupt_certificate_is_kept_and_replaced() {
    let pebble = pebble!();
    let broker = Broker::start(&pebble, &["torn.example"]).await;
    let first = broker.certificate("torn.example").await;
    broker.stop().await;
    let path = files(&pebble, "torn.example.pem").remove(0);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() * 3 / 4]).unwrap();
    let broker = Broker::start(&pebble, &["torn.example"]).await;
    broker.renewed("torn.example", &first).await;
    assert!(!log::lines(&[path.to_str().unwrap(), "another is ordered"]).is_empty());
    broker.stop().await;
}

/// Waits until the broker has begun, for the `count`th time, to wait for the renewal of `domain`: time that passes
/// before it has looked at the clock is not noticed.
async fn until_waiting(domain: &str, count: usize) {
    log::wait_for(count, &[domain, "to be renewed at"]).await;
}

async fn until(what: &str, fits: impl Fn() -> bool) {
    for _ in 0..1000 {
        if fits() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
