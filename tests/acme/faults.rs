//! What can go wrong at the first order.

use std::{fs, time::Duration};

use gemmapod_signal::Clock;

use crate::{
    broker::{Broker, DAY, account, files},
    gate::{Harm, step},
    log,
    pebble::Pebble,
    tls,
};

#[tokio::test]
async fn rejected_nonces() {
    let pebble = pebble!(("PEBBLE_WFE_NONCEREJECT", "50"));
    let broker = Broker::start(&pebble, &["nonces.example"]).await;
    for failures in 0.. {
        let issued = log::wait_for(1, &["nonces.example", "a certificate was issued"]);
        tokio::select! {
            _ = issued => break,
            line = log::wait_for(failures + 1, &["nonces.example", "next try at"]) => {
                assert!(line.contains("rejected one nonce after the other"), "{line}");
                assert!(failures < 30, "each try should get a little further");
                broker.clock.pass(DAY);
            }
        }
    }
    broker.certificate("nonces.example").await;
    assert_eq!(pebble.gate.count(step::ORDER), 1, "each try goes on with the same order");
    broker.stop().await;
}

#[tokio::test]
async fn slow_validation() {
    let pebble = pebble!(("PEBBLE_VA_NOSLEEP", ""), ("PEBBLE_VA_SLEEPTIME", "4"));
    let broker = Broker::start(&pebble, &["slow.example"]).await;
    broker.serves_plainly().await;
    broker.certificate("slow.example").await;
    assert_eq!(pebble.gate.count(step::ORDER), 1);
    broker.stop().await;
}

#[tokio::test]
async fn validation_takes_longer_than_anybody_waits() {
    let pebble = pebble!();
    // The directory never says that it has looked.
    let pending =
        r#"{"status":"pending","identifier":{"type":"dns","value":"stuck.example"},"challenges":[]}"#;
    pebble.gate.harm_after_one(step::AUTHORIZATION, Harm::Answered(200, String::new(), pending.into()));
    let broker = Broker::start(&pebble, &["stuck.example"]).await;
    while log::lines(&["stuck.example", "next try at"]).is_empty() {
        broker.clock.pass(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    broker.fails(1, "stuck.example", "takes long for looking for the challenge: the order stays open").await;
    pebble.gate.heal();
    broker.clock.pass(Duration::from_secs(75));
    broker.certificate("stuck.example").await;
    assert_eq!(pebble.gate.count(step::ORDER), 1, "it goes on with the same order");
    broker.stop().await;
}

/// A stranger's web server at `address`, which has a page for everything.
async fn strange_web_server(address: (&'static str, u16)) {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let page = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nwelcome";
            tokio::io::AsyncWriteExt::write_all(&mut stream, page).await.unwrap();
        }
    });
}

#[tokio::test]
async fn somebody_else_answers_http_01() {
    let pebble = pebble!();
    pebble.point("mistaken.example", "127.0.0.4").await;
    strange_web_server(("127.0.0.4", pebble.http_port)).await;
    let broker =
        Broker::with(&pebble, &["mistaken.example"], "challenges = [\"http-01\"]", Clock::default()).await;
    let line = broker.fails(1, "mistaken.example", "did not give our answer at port 80").await;
    assert!(line.contains("that no proxy answers before this broker"), "{line}");
    pebble.point("mistaken.example", "127.0.0.1").await;
    broker.clock.pass(DAY);
    broker.certificate("mistaken.example").await;
    assert_eq!(pebble.gate.count(step::ACCOUNT), 1);
    broker.stop().await;
}

#[tokio::test]
async fn the_domain_points_elsewhere() {
    let pebble = pebble!();
    pebble.point("elsewhere.example", "127.0.0.2").await;
    let broker = Broker::start(&pebble, &["elsewhere.example"]).await;
    let line = broker.fails(1, "elsewhere.example", "port 80 of elsewhere.example was not reached").await;
    assert!(line.contains("elsewhere.example did not give our answer at port 443"), "both are tried: {line}");
    assert!(line.contains("check that DNS (A and AAAA) points here"), "{line}");
    // Somebody else is there.
    tls::stranger(("127.0.0.2", pebble.tls_port)).await;
    broker.clock.pass(DAY);
    broker.fails(2, "elsewhere.example", "elsewhere.example did not give our answer at port 443").await;
    // DNS is put right.
    pebble.point("elsewhere.example", "127.0.0.1").await;
    broker.clock.pass(DAY);
    broker.certificate("elsewhere.example").await;
    broker.stop().await;
}

#[tokio::test]
async fn the_first_challenge_fails_and_the_next_does_not() {
    let pebble = pebble!();
    // pebble looks at 127.0.0.3, where only port 80 is ours.
    pebble.point("second.example", "127.0.0.3").await;
    let http = tokio::net::TcpListener::bind(("127.0.0.3", pebble.http_port)).await.unwrap();
    let ours = pebble.http_port;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = http.accept().await {
            let mut broker = tokio::net::TcpStream::connect(("127.0.0.1", ours)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut broker).await });
        }
    });
    let broker = Broker::start(&pebble, &["second.example"]).await;
    broker.certificate("second.example").await;
    assert_eq!(log::lines(&["second.example", "next try at"]).len(), 0);
    assert_eq!(pebble.gate.count(step::ORDER), 2);
    broker.stop().await;
}

/// A directory may be done with a challenge before it answers that it will look at it.
#[tokio::test]
async fn a_challenge_that_fails_at_once_is_a_challenge_that_failed() {
    let pebble = pebble!();
    pebble.point("hasty.example", "127.0.0.4").await;
    pebble.gate.harm(step::CHALLENGE, Harm::FoundWanting);
    let broker = Broker::start(&pebble, &["hasty.example"]).await;
    broker.fails(1, "hasty.example", "tls-alpn-01 failed: ").await;
    let line = log::lines(&["hasty.example", "next try at"]).remove(0);
    assert!(line.contains("http-01 failed: ") && !line.contains("account.json"), "{line}");
    broker.stop().await;
}

#[tokio::test]
async fn the_directory_is_down_at_the_start_and_back_after_an_hour() {
    let pebble = pebble!();
    pebble.gate.harm("/", Harm::Closed);
    let broker = Broker::start(&pebble, &["down.example"]).await;
    broker.fails(1, "down.example", "is not reached: check acme.directory").await;
    assert_eq!(broker.shown("down.example").await, None);
    pebble.gate.heal();
    broker.clock.pass(Duration::from_secs(3600));
    broker.certificate("down.example").await;
    assert_eq!(log::lines(&["down.example", "next try at"]).len(), 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_rate_limit_is_respected() {
    let pebble = pebble!();
    pebble.gate.harm(step::ORDER, Harm::rate_limited());
    let broker = Broker::start(&pebble, &["limited.example"]).await;
    broker.fails(1, "limited.example", "rate limited until 20").await;
    pebble.gate.heal();
    let asked = pebble.gate.requests(step::ORDER);
    broker.clock.pass(Duration::from_secs(7100));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pebble.gate.requests(step::ORDER), asked, "nothing is ordered before the limit ends");
    broker.clock.pass(Duration::from_secs(100));
    broker.certificate("limited.example").await;
    broker.stop().await;
}

#[tokio::test]
async fn a_corrupt_account_file_is_kept_and_replaced() {
    let pebble = pebble!();
    let broker = Broker::start(&pebble, &["corrupt.example"]).await;
    broker.certificate("corrupt.example").await;
    broker.stop().await;
    let path = files(&pebble, "/account.json").remove(0);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    fs::remove_file(&files(&pebble, "corrupt.example.pem")[0]).unwrap();
    let broker = Broker::start(&pebble, &["corrupt.example"]).await;
    broker.certificate("corrupt.example").await;
    broker.stop().await;
    let warnings = log::lines(&[path.to_str().unwrap(), "of no use as an ACME account"]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let kept = fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    let kept: Vec<_> =
        kept.filter(|path| path.to_str().unwrap().contains("account.json.unusable-")).collect();
    assert_eq!(fs::read(&kept[0]).unwrap(), whole[..whole.len() / 2]);
    assert!(account(&pebble)["id"].is_string());
}

#[tokio::test]
async fn the_directory_forgets_the_account() {
    let pebble = pebble!();
    let broker = Broker::start(&pebble, &["forgotten.example"]).await;
    broker.certificate("forgotten.example").await;
    broker.stop().await;
    let key = account(&pebble)["key_pkcs8"].clone();
    let path = files(&pebble, "/account.json").remove(0);
    let mut stored = account(&pebble);
    stored["id"] = format!("https://127.0.0.1:{}/my-account/999", pebble.gate.port).into();
    fs::write(&path, stored.to_string()).unwrap();
    fs::remove_file(&files(&pebble, "forgotten.example.pem")[0]).unwrap();
    let broker = Broker::start(&pebble, &["forgotten.example"]).await;
    broker.certificate("forgotten.example").await;
    broker.stop().await;
    assert_eq!(account(&pebble)["key_pkcs8"], key, "the key goes on");
}

#[tokio::test]
async fn one_of_two_domains_fails() {
    let pebble = pebble!();
    pebble.point("bad.two.example", "127.0.0.2").await;
    let broker = Broker::start(&pebble, &["bad.two.example", "good.two.example"]).await;
    broker.fails(1, "bad.two.example", "was not reached").await;
    broker.certificate("good.two.example").await;
    assert_eq!(broker.shown("bad.two.example").await, None);
    assert_eq!(log::lines(&["good.two.example", "next try at"]).len(), 0);
    assert_eq!(pebble.gate.count(step::ACCOUNT), 1, "both share one account");
    broker.stop().await;
}

#[tokio::test]
async fn the_clock_is_a_year_ahead() {
    let pebble = pebble!();
    let clock = Clock::default();
    clock.set_ahead(365 * DAY);
    let broker = Broker::with(&pebble, &["ahead.example"], "", clock).await;
    let line = broker.fails(1, "ahead.example", "the time by this host's clock: set the clock right").await;
    assert!(line.contains("certificate expired"), "{line}");
    // Putting the clock right does not make the pause a year longer.
    broker.clock.set_ahead(Duration::ZERO);
    broker.clock.pass(Duration::from_secs(75));
    broker.certificate("ahead.example").await;
    broker.stop().await;
}

#[tokio::test]
async fn a_clock_so_far_ahead_that_new_certificates_are_old() {
    let Some(pebble) = Pebble::valid_for(30 * 365 * DAY, &[]).await else { return };
    let clock = Clock::default();
    clock.set_ahead(10 * 365 * DAY);
    let broker = Broker::with(&pebble, &["decade.example"], "", clock).await;
    broker.fails(1, "decade.example", "old by this host's clock").await;
    broker.certificate("decade.example").await;
    broker.clock.pass(Duration::from_secs(30));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pebble.gate.count(step::ORDER), 1, "no order after order");
    broker.stop().await;
}
