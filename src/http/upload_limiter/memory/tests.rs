use tokio::time::timeout;

use super::{super::ledger::Refused, *};

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
    in_time(upload.grow(1, bytes)).await;
    in_time(upload.grow(bytes - 1, bytes - 1)).await;
    upload.received(received);
    upload
}

/// Waits for as long as an upload does.
async fn in_time<T>(event: impl Future<Output = T>) -> T {
    timeout(WAIT, event).await.expect("no upload waits for longer")
}

/// Takes `step` bytes of `need` for a new upload.
fn take(ledger: &mut Ledger, client: Option<IpAddr>, id: u64, step: u64, need: u64) -> Result<(), Refused> {
    ledger.take(client.map_or(Payer::Upload(id), Payer::Network), id, step, need)
}

/// Takes all `bytes` of a new upload, in two pieces.
fn take_all(ledger: &mut Ledger, client: Option<IpAddr>, id: u64, bytes: u64) -> Result<(), Refused> {
    take(ledger, client, id, 1, bytes)?;
    take(ledger, client, id, bytes - 1, bytes - 1)
}

#[test]
fn one_client_leaves_half_to_the_others_and_nothing_is_lost() {
    let mut ledger = Ledger::new(100);
    let [one, two] = [client(1), client(2)];
    assert_eq!(take(&mut ledger, one, 0, 101, 101), Err(Refused::ForOthers));
    let taken = (1..=100).filter(|id| take_all(&mut ledger, one, *id, 5).is_ok()).count();
    assert_eq!((taken, ledger.left), (10, 50));
    assert_eq!(take_all(&mut ledger, two, 101, 25), Ok(()));
    assert_eq!(take(&mut ledger, two, 102, 1, 1), Err(Refused::ForItsNetwork));
    assert_eq!(take_all(&mut ledger, None, 103, 25), Ok(()));
    ledger.give_back(Payer::Network(two.unwrap()), 101, 25);
    ledger.give_back(Payer::Upload(103), 103, 25);
    (1..=10).for_each(|id| ledger.give_back(Payer::Network(one.unwrap()), id, 5));
    assert!(ledger.by_payer.is_empty());
    assert_eq!(take_all(&mut ledger, one, 104, 100), Ok(()), "one upload may take what is left");
}

#[tokio::test]
async fn a_site_of_many_networks_leaves_half_to_the_others_too() {
    let memory = UploadMemory::new(100, WAIT);
    let mut uploads = Vec::new();
    for network in 0..50 {
        let mut upload = memory.reservation(Some(format!("2001:db8:1:{network}::1").parse().unwrap()));
        if upload.wait(1, 5).is_none() && upload.wait(4, 4).is_none() {
            uploads.push(upload);
        }
    }
    assert_eq!((uploads.len(), memory.lock().ledger.left), (10, 50));
    let mut another = memory.reservation(Some("2001:db8:2::1".parse().unwrap()));
    assert!(another.wait(1, 50).is_none() && another.wait(49, 49).is_none());
}

#[test]
fn what_is_announced_takes_nothing_and_first_pieces_a_third() {
    let mut ledger = Ledger::new(300);
    let taken = (1..200).filter(|id| take(&mut ledger, None, *id, 1, 90).is_ok()).count();
    assert_eq!((taken, ledger.left), (100, 200));
    assert_eq!(take(&mut ledger, client(1), 0, 1, 1), Err(Refused::ForOthers), "nor if it needs no more");
    assert_eq!(take(&mut ledger, None, 1, 89, 89), Ok(()));
    assert_eq!(take(&mut ledger, client(1), 0, 1, 1), Ok(()));
    ledger.complete(Payer::Upload(2), 2);
    assert_eq!(take(&mut ledger, client(2), 0, 1, 1), Ok(()), "one has arrived");
}

#[test]
fn a_piece_is_taken_only_if_all_uploads_can_be_completed_then() {
    let mut ledger = Ledger::new(300);
    for n in 1..4 {
        assert_eq!(take(&mut ledger, client(n), 0, 10, 90), Ok(()));
        assert_eq!(take(&mut ledger, client(n), 0, 30, 80), Ok(()));
    }
    assert_eq!(take(&mut ledger, client(4), 0, 20, 90), Ok(()));
    assert_eq!(
        take(&mut ledger, client(5), 0, 20, 90),
        Err(Refused::ForOthers),
        "60 are left, and 50 needed"
    );
    assert_eq!(take(&mut ledger, client(1), 0, 30, 50), Ok(()), "30 are left, and 20 needed");
    assert_eq!(take(&mut ledger, client(2), 0, 11, 50), Err(Refused::ForOthers), "19 would be left");
    assert_eq!(take(&mut ledger, client(1), 0, 20, 20), Ok(()));
    assert_eq!(take(&mut ledger, client(2), 0, 11, 50), Ok(()));
}

#[test]
fn what_requests_take_is_kept_from_bodies() {
    let mut ledger = Ledger::new(300);
    assert_eq!([ledger.take_request(60), ledger.take_request(60)], [60, 40], "they have a third at most");
    assert_eq!(take(&mut ledger, client(1), 0, 20, 200), Ok(()));
    assert_eq!(take(&mut ledger, client(1), 0, 181, 181), Err(Refused::ForOthers));
    assert_eq!(take(&mut ledger, client(1), 0, 180, 180), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_large_upload_that_waits_does_not_hold_up_a_small_one() {
    let memory = UploadMemory::new(100, WAIT);
    let first = upload(&memory, client(1), 60, 60).await;
    let large = tokio::spawn({
        let memory = memory.clone();
        async move { upload(&memory, client(2), 80, 80).await.bytes() }
    });
    for _ in 0..3 {
        tokio::time::sleep(WAIT / 5).await;
        let began = Instant::now();
        drop(upload(&memory, client(3), 39, 39).await);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(!large.is_finished());
    }
    drop(first);
    assert_eq!(large.await.unwrap(), 80);
}

#[tokio::test(start_paused = true)]
async fn as_many_that_stand_still_are_ended_as_make_room() {
    let memory = UploadMemory::new(300, WAIT);
    let mut uploads = Vec::new();
    for n in 1..=4 {
        uploads.push(upload(&memory, client(n), 60, 50).await);
    }
    let ended = || uploads.iter().map(|upload| upload.ended().is_cancelled()).collect::<Vec<_>>();
    let waited = tokio::spawn({
        let memory = memory.clone();
        async move { upload(&memory, client(5), 170, 0).await }
    });
    let mut tenths = tokio::time::interval(WAIT / 40);
    for tenth in 1..14 {
        tenths.tick().await;
        uploads[2..].iter().for_each(|upload| upload.received(50 + tenth));
    }
    assert_eq!(ended(), [true, true, false, false]);
    drop(uploads);
    waited.await.unwrap();
}

/// However many wait, giving memory back costs little.
#[tokio::test(start_paused = true)]
async fn those_that_wait_behind_cost_nothing() {
    let memory = UploadMemory::new(90_000, WAIT);
    let mut held = Vec::new();
    for n in 0..30 {
        let mut upload = memory.reservation(client(n));
        upload.grow(1_000, 30_000).await;
        held.push(upload);
    }
    let is_waiting = |upload: &mut Reservation| upload.wait(5_000, 29_000).is_some();
    assert!(held.iter_mut().filter_map(|upload| is_waiting(upload).then_some(())).count() > 20);
    for n in 0..10_000_u32 {
        let mut upload = memory.reservation(Some((0x0a00_0000 + n).to_be_bytes().into()));
        upload.wait(1_000, 20_000);
        held.push(upload);
    }
    let before = memory.lock().line.asked;
    for _ in 0..100 {
        drop(memory.request(32));
    }
    let asked = memory.lock().line.asked - before;
    assert!(asked <= 100 * 20, "{asked} were looked at");
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
    let waited = tokio::spawn(async move { waiting.grow(110, 110).await });
    tokio::task::yield_now().await;
    tokio::time::advance(WAIT / 5).await;
    let young = upload(&memory, client(3), 100, 1).await;
    let is_young = young.ended();
    tokio::time::advance(WAIT / 5).await;
    assert!(!ended.is_cancelled() && !is_young.is_cancelled() && !waited.is_finished());
    let may_be_ended = {
        let State { ledger, arrivals, .. } = &*young.memory.lock();
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

/// Nor if it is the only one that could be, as strangers have just begun or wait themselves.
#[tokio::test(start_paused = true)]
async fn an_upload_that_comes_steadily_is_never_ended() {
    let memory = UploadMemory::new(300_000, WAIT);
    let steady = upload(&memory, client(1), 100_000, 1).await;
    let mut strangers = (2..60).map(|n| memory.reservation(client(n))).collect::<Vec<_>>();
    let wait = |stranger: &mut Reservation| stranger.wait(250_000, 250_000).is_some();
    assert!(strangers.iter_mut().all(wait));
    let waiting = tokio::spawn({
        let memory = memory.clone();
        async move { memory.reservation(client(60)).grow(250_000, 250_000).await }
    });
    let mut tenths = tokio::time::interval(WAIT / 40);
    for tenth in 1..40 {
        tenths.tick().await;
        // All of it would come again within half of the wait.
        steady.received(1 + tenth * 5_000);
        assert!(!steady.ended().is_cancelled(), "after {tenth} tenths");
    }
    waiting.abort();
}

/// Patience is that of an upload, not of each of its pieces.
#[tokio::test(start_paused = true)]
async fn who_has_waited_for_one_piece_does_not_wait_as_long_for_the_next() {
    let memory = UploadMemory::new(300_000, WAIT);
    let mut growing = memory.reservation(client(1));
    in_time(growing.grow(1_000, 161_000)).await;
    for n in 2..8 {
        let still = upload(&memory, client(n), 170_000, 1).await;
        let ended = still.ended();
        // It is old enough to be ended.
        tokio::time::sleep(WAIT / 4).await;
        let began = Instant::now();
        let held = growing.bytes();
        let is_ended = async {
            ended.cancelled().await;
            drop(still);
        };
        in_time(async { tokio::join!(is_ended, growing.grow(140_000, 160_000)) }).await;
        assert_eq!(began.elapsed(), if n == 2 { WAIT / 4 } else { Duration::ZERO });
        growing.shrink(held);
    }
}
