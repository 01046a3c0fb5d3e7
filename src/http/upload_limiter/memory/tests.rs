use tokio::time::timeout;

use super::*;

const WAIT: Duration = Duration::from_secs(4);

fn client(n: u8) -> Option<IpAddr> {
    Some([192, 0, 2, n].into())
}

/// An upload of which `received` bytes have come, and which holds `bytes`.
async fn upload(
    memory: &Arc<UploadMemory>,
    client: Option<IpAddr>,
    bytes: u64,
    received: u64,
) -> Reservation {
    let mut upload = memory.reservation(client);
    in_time(upload.grow(bytes, bytes)).await;
    upload.received(received);
    upload
}

/// Waits for as long as an upload does.
async fn in_time<T>(event: impl Future<Output = T>) -> T {
    timeout(WAIT, event).await.expect("no upload waits for longer")
}

#[test]
fn one_client_leaves_half_to_the_others_and_nothing_is_lost() {
    let mut ledger = Ledger::new(100);
    let [one, two] = [client(1), client(2)];
    assert_eq!(ledger.take(one, 101, 101), None);
    let taken = (0..100).filter(|_| ledger.take(one, 5, 5).is_some()).count();
    assert_eq!((taken, ledger.left), (10, 50));
    assert_eq!([ledger.take(two, 25, 25), ledger.take(two, 1, 1)], [Some(25), None]);
    assert_eq!(ledger.take(None, 25, 25), Some(25));
    ledger.give_back(two, 25);
    ledger.give_back(None, 25);
    ledger.give_back(one, 50);
    assert!(ledger.by_network.is_empty());
    assert_eq!(ledger.take(one, 100, 100), Some(100), "one upload may take what is left");
}

#[tokio::test]
async fn a_site_of_many_networks_leaves_half_to_the_others_too() {
    let memory = UploadMemory::new(100, WAIT);
    let mut uploads = Vec::new();
    for network in 0..50 {
        let mut upload = memory.reservation(Some(format!("2001:db8:1:{network}::1").parse().unwrap()));
        if upload.take(5, 5) {
            uploads.push(upload);
        }
    }
    assert_eq!((uploads.len(), memory.lock().ledger.left), (10, 50));
    assert!(memory.reservation(Some("2001:db8:2::1".parse().unwrap())).take(50, 50));
}

#[test]
fn what_is_kept_goes_to_those_that_need_no_more() {
    let mut ledger = Ledger::new(300);
    for n in 1..5 {
        assert_eq!(ledger.take(client(n), 20, 90), Some(20), "steps are taken while there is plenty");
    }
    for n in 5..7 {
        assert_eq!(ledger.take(client(n), 20, 90), Some(90), "then all that is needed");
    }
    assert_eq!(ledger.take(client(7), 20, 90), None, "or nothing");
}

#[test]
fn what_requests_take_is_kept_from_bodies() {
    let mut ledger = Ledger::new(300);
    assert_eq!([ledger.take_request(60), ledger.take_request(60)], [60, 40], "they have a third at most");
    assert_eq!([ledger.take(client(1), 20, 201), ledger.take(client(1), 90, 200)], [Some(20), None]);
    assert_eq!(ledger.take(client(2), 90, 180), Some(180));
}

#[tokio::test(start_paused = true)]
async fn a_large_upload_that_waits_does_not_hold_up_a_small_one() {
    let memory = UploadMemory::new(100, WAIT);
    let first = upload(&memory, client(1), 60, 60).await;
    let large = tokio::spawn({
        let memory = memory.clone();
        async move { upload(&memory, client(2), 80, 80).await.bytes() }
    });
    tokio::task::yield_now().await;
    drop(upload(&memory, client(3), 40, 40).await);
    assert!(!large.is_finished());
    drop(first);
    assert_eq!(large.await.unwrap(), 80);
}

#[tokio::test(start_paused = true)]
async fn the_slowest_is_ended_once_another_has_waited() {
    let memory = UploadMemory::new(300, WAIT);
    let fast = upload(&memory, client(1), 100, 90).await;
    let slow = upload(&memory, client(2), 100, 10).await;
    let whole = upload(&memory, client(3), 80, 1).await;
    whole.mark_arrived();
    let silent = memory.reservation(client(4));
    let ended = slow.ended();
    tokio::spawn(async move {
        ended.cancelled().await;
        drop(slow);
    });
    let began = Instant::now();
    assert_eq!(upload(&memory, client(5), 100, 0).await.bytes(), 100);
    assert_eq!(began.elapsed(), WAIT / 4);
    assert!([fast, whole, silent].iter().all(|upload| !upload.ended().is_cancelled()));
}

#[tokio::test(start_paused = true)]
async fn uploads_that_wait_or_have_just_begun_are_not_ended() {
    let memory = UploadMemory::new(400, WAIT);
    let mut waiting = upload(&memory, client(1), 100, 1).await;
    let held = upload(&memory, client(2), 200, 1).await;
    held.mark_arrived();
    let ended = waiting.ended();
    let waited = tokio::spawn(async move { waiting.grow(10, 10).await });
    tokio::task::yield_now().await;
    tokio::time::advance(WAIT / 5).await;
    let young = upload(&memory, client(3), 100, 1).await;
    let is_young = young.ended();
    tokio::time::advance(WAIT / 5).await;
    assert!(!ended.is_cancelled() && !is_young.is_cancelled() && !waited.is_finished());
    let may_be_ended = {
        let State { ledger, arrivals } = &*young.memory.lock();
        arrivals.burdens(ledger, Duration::ZERO).count()
    };
    assert_eq!(may_be_ended, 1, "only the young one is looked at");
    drop(held);
    waited.await.unwrap();
}

/// An upload that is slow but small is not why a large one waits.
#[tokio::test(start_paused = true)]
async fn the_network_that_holds_most_pays() {
    let memory = UploadMemory::new(300, WAIT);
    let large = upload(&memory, client(1), 150, 90).await;
    let small = upload(&memory, client(2), 50, 1).await;
    let ended = large.ended();
    let waited = tokio::spawn({
        let memory = memory.clone();
        async move { upload(&memory, client(3), 120, 0).await.bytes() }
    });
    in_time(ended.cancelled()).await;
    assert!(!small.ended().is_cancelled());
    drop(large);
    assert_eq!(waited.await.unwrap(), 120);
}

/// A client that waits because it holds so much itself ends none of those that hold less.
#[tokio::test(start_paused = true)]
async fn smaller_networks_are_spared() {
    let memory = UploadMemory::new(300, WAIT);
    let large = upload(&memory, client(1), 100, 90).await;
    let small = upload(&memory, client(2), 50, 1).await;
    let mut another = memory.reservation(client(1));
    let ended = large.ended();
    let waited = tokio::spawn(async move { another.grow(90, 90).await });
    in_time(ended.cancelled()).await;
    assert!(!small.ended().is_cancelled());
    drop(large);
    waited.await.unwrap();
}

/// Which upload of one client is ended while another client waits: one came fast and stands still, one comes slowly and
/// steadily, and one is nearly done.
#[tokio::test(start_paused = true)]
async fn the_one_that_would_take_longest_is_ended() {
    let memory = UploadMemory::new(3_000, WAIT);
    let still = upload(&memory, client(1), 500, 450).await;
    let steady = upload(&memory, client(1), 500, 1).await;
    let nearly_done = upload(&memory, client(1), 500, 490).await;
    let waited = tokio::spawn({
        let memory = memory.clone();
        async move { upload(&memory, client(2), 2_000, 0).await.bytes() }
    });
    let coming = async {
        let mut tenths = tokio::time::interval(WAIT / 40);
        for tenth in 1.. {
            tenths.tick().await;
            steady.received(tenth * 10);
            nearly_done.received(490 + tenth / 3);
        }
    };
    let is_ended = still.ended();
    tokio::select! {
        () = coming => unreachable!(),
        () = in_time(is_ended.cancelled()) => {}
    }
    assert!(!steady.ended().is_cancelled() && !nearly_done.ended().is_cancelled());
    drop((still, steady, nearly_done));
    assert_eq!(waited.await.unwrap(), 2_000);
}

/// Some networks hold a little less than an upload that comes well, and trickle.
#[tokio::test(start_paused = true)]
async fn an_upload_that_comes_well_is_not_ended_for_those_that_trickle() {
    let memory = UploadMemory::new(9_000, WAIT);
    let well = upload(&memory, client(1), 2_000, 1).await;
    let mut trickle = Vec::new();
    for n in 2..=4 {
        trickle.push(upload(&memory, client(n), 1_900, 1_880).await);
    }
    let waited = tokio::spawn({
        let memory = memory.clone();
        async move { upload(&memory, client(5), 2_000, 0).await.bytes() }
    });
    let coming = async {
        let mut tenths = tokio::time::interval(WAIT / 40);
        for tenth in 1.. {
            tenths.tick().await;
            well.received(tenth * 50);
            trickle.iter().for_each(|trickle| trickle.received(1_880 + tenth / 10));
        }
    };
    let ended = trickle.iter().map(|upload| upload.ended()).collect::<Vec<_>>();
    let first = futures_util::future::select_all(ended.iter().map(|ended| Box::pin(ended.cancelled())));
    tokio::select! {
        () = coming => unreachable!(),
        _ = in_time(first) => {}
    }
    assert!(!well.ended().is_cancelled());
    drop((well, trickle));
    assert_eq!(waited.await.unwrap(), 2_000);
}

/// Strangers send all but a few bytes at once, and then nothing, or one now and then.
#[tokio::test(start_paused = true)]
async fn who_keeps_a_few_bytes_back_ends_no_upload_that_comes_steadily() {
    for (strangers, held, kept_back, honest_holds) in [
        (2, 50_000, 1, 8_000),
        (2, 50_000, 0, 8_000),
        (4, 20_000, 10, 28_000),
        (5, 25_000, 100, 1_000),
        (3, 40_000, 1, 30),
    ] {
        let memory = UploadMemory::new(140_000, WAIT);
        let mut others = Vec::new();
        for n in 0..strangers {
            others.push(upload(&memory, client(n), held, held - kept_back).await);
        }
        let honest = upload(&memory, client(100), honest_holds, 1).await;
        let waited = tokio::spawn({
            let memory = memory.clone();
            async move { upload(&memory, client(101), 60_000, 0).await.bytes() }
        });
        let coming = async {
            let mut tenths = tokio::time::interval(WAIT / 40);
            for tenth in 1.. {
                tenths.tick().await;
                honest.received(1 + tenth * honest_holds / 200);
                others
                    .iter()
                    .for_each(|other| other.received(held - kept_back + (tenth / 10).min(kept_back)));
            }
        };
        let ended = others.iter().map(|upload| upload.ended()).collect::<Vec<_>>();
        let first = futures_util::future::select_all(ended.iter().map(|ended| Box::pin(ended.cancelled())));
        tokio::select! {
            () = coming => unreachable!(),
            _ = in_time(first) => {}
        }
        assert!(!honest.ended().is_cancelled(), "{strangers} hold {held}, {kept_back} less");
        drop((honest, others));
        assert_eq!(waited.await.unwrap(), 60_000);
    }
}
