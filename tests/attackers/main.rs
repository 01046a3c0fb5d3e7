//! A hundred clients, some of which attack: the other ninety lose no request.
//!
//! The clients are addresses of 127.0.0.0/8. The attackers are a process of low priority, because elsewhere they would
//! have machines of their own. `ATTACK_SECONDS=30 cargo test --release --test attackers -- --nocapture` measures what the
//! ninety see with and without each attack; no time is asserted.

mod attacks;
mod client;
mod honest;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::atomic::Ordering,
};

use honest::{be_the_host, phase};
use serde_json::Value;
use support::{pod::Pod, process::Broker};
use tokio::sync::Mutex;

/// The pod id of the host whose visitors all are.
const HOST: &str = "home";

/// One attack at a time: they share the machine.
static TURN: Mutex<()> = Mutex::const_new(());

/// What the attackers could do in their last second.
async fn the_honest_lose_nothing_to(attack: &str) -> Value {
    let _turn = TURN.lock().await;
    let seconds = env::var("ATTACK_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let size = env::var("ATTACK_POD_BYTES").map_or(20_000, |bytes| bytes.parse().unwrap());
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let data = tempfile::tempdir().unwrap();
    // Loopback is exempt by default, and these clients are not to be.
    let mut args = vec!["--data-dir", data.path().to_str().unwrap(), "--set", "limits.exempt="];
    if env::var_os("ATTACK_SECONDS").is_none() {
        // Limits that attackers exceed within seconds on a slow machine too.
        args.extend(["--set", "limits.reads_per_address=5/s burst 20"]);
        args.extend(["--set", "limits.upgrades_per_address=5/s burst 20"]);
    }
    let broker = Broker::start(&args);
    let address: SocketAddr = broker.address.parse().unwrap();
    let http = reqwest::Client::new();
    let pod = http.post(broker.url("/pods")).header("content-type", "text/html");
    let answer =
        pod.body(Pod::named("p").padded(size).html()).send().await.unwrap().json::<Value>().await.unwrap();
    let slug = answer["id"].as_str().unwrap();
    let host = be_the_host(&broker.address).await;

    let calm = phase(address, slug, seconds).await;
    assert_eq!(calm.lost.load(Ordering::Relaxed), 0, "lost without any attack");
    let (told, calm_p99) = calm.told();
    println!("{attack}, before:   {told}");

    let mut attackers = Command::new("nice")
        .args(["-n", "19"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "attacks::be_the_attackers", "--ignored", "--nocapture"])
        .envs([("ATTACK", attack), ("ATTACKED", &*broker.address), ("ATTACKED_SLUG", slug)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = phase(address, slug, seconds).await;
    let _ = attackers.kill();
    let attackers = attackers.wait_with_output().unwrap();
    let lost = seen.lost.load(Ordering::Relaxed);
    let (told, p99) = seen.told();
    println!(
        "{attack}, under attack: {told}, {lost} lost; p99 is {:.2} times that",
        p99.as_secs_f64() / calm_p99.as_secs_f64()
    );
    let attackers = String::from_utf8_lossy(&attackers.stdout).into_owned();
    let attackers: Value =
        attackers.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    println!("{attack}, the attackers: {attackers} (their last second)");
    assert_eq!(lost, 0, "honest clients lost requests");
    assert!(!host.is_finished(), "the host should be there still");
    attackers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_ask_without_end() {
    let attackers = the_honest_lose_nothing_to("requests").await;
    assert!(attackers["refused"].as_u64() > Some(0), "the attackers should be refused");
}

/// All visit the host of the honest visitors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_that_flood_a_host() {
    let attackers = the_honest_lose_nothing_to("floods").await;
    assert!(attackers["refused"].as_u64() > Some(0), "the attackers should be there, and be refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stall() {
    the_honest_lose_nothing_to("stalls").await;
}
