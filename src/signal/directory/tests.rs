use std::{sync::mpsc::channel, thread, time::Duration};

use super::{
    super::{
        admission::{AdmitAll, Standing},
        budget::Budget,
        close::Close,
    },
    *,
};

/// The watchdog relies on it.
#[test]
fn a_directory_that_is_held_up_tells_nothing() {
    let directory = Directory::new(SignalSettings::default());
    let (sender, answer) = channel();
    thread::scope(|scope| {
        let held = directory.lock();
        scope.spawn(|| sender.send(directory.live()).unwrap());
        answer.recv_timeout(Duration::from_millis(200)).unwrap_err();
        drop(held);
    });
    assert_eq!(answer.recv().unwrap(), Live { origins: 0, sessions: 0 });
}

fn join(directory: &Arc<Directory>) -> Place {
    directory.join(Arc::new(Outbox::new(10_000, Budget::new(10_000))), None)
}

/// As if its credential were revoked while its registration was being admitted.
#[test]
fn a_socket_that_is_being_closed_takes_no_pod_id() {
    let directory = Directory::new(SignalSettings::default());
    let [revoked, other] = [(); 2].map(|()| join(&directory));
    revoked.outbox().close(Close::CREDENTIAL_REFUSED);
    let admitted = |place: &Place| place.admit("pod".into(), Ok(Standing::Owner([1; 32])), None);
    assert!(matches!(admitted(&revoked), Admitted::NotYet));
    assert!(directory.holder("pod").is_none());
    assert!(matches!(admitted(&other), Admitted::Holds));
    assert_eq!(directory.holder("pod").unwrap().socket, other.id());
}

#[test]
fn a_socket_that_is_being_closed_is_not_promoted() {
    let directory = Directory::new(SignalSettings::default());
    let [holder, revoked, next] = [(); 3].map(|()| join(&directory));
    let admitted = |place: &Place| place.admit("pod".into(), Ok(Standing::Owner([1; 32])), None);
    assert!(matches!(admitted(&holder), Admitted::Holds));
    assert!(matches!(admitted(&revoked), Admitted::Contests(_)));
    assert!(matches!(admitted(&next), Admitted::NotYet));
    revoked.outbox().close(Close::CREDENTIAL_REFUSED);
    drop(holder);
    assert_eq!(directory.holder("pod").unwrap().socket, next.id());
    drop((revoked, next));
    assert!(directory.lock().is_empty());
}

/// It is not read meanwhile, and its answer comes behind what it sent before.
#[test]
fn a_holder_is_not_silent_while_it_registers_and_has_a_whole_round_afterwards() {
    let directory = Directory::new(SignalSettings::default());
    let [holder, newcomer] = [(); 2].map(|()| join(&directory));
    let admitted = |place: &Place| place.admit("pod".into(), Ok(Standing::Open(None)), None);
    assert!(matches!(admitted(&holder), Admitted::Holds));
    let Admitted::Contests(mut contest) = admitted(&newcomer) else { panic!("it should wait") };
    let mut holder_after_a_round = || {
        contest.end_round();
        directory.holder("pod").unwrap().socket
    };
    holder.begin_registration();
    assert_eq!([(); 3].map(|()| holder_after_a_round()), [holder.id(); 3]);
    holder.end_registration();
    assert_eq!([(); 2].map(|()| holder_after_a_round()), [holder.id(), newcomer.id()]);
}

/// However many sessions one network has: each frame of it waits for its turn.
#[test]
fn a_network_with_many_sessions_puts_nobody_off() {
    let directory = Directory::new(SignalSettings::default());
    let outbox = || Arc::new(Outbox::new(1 << 20, Budget::new(1 << 20)));
    let of_origin = outbox();
    let origin = directory.join(of_origin.clone(), None);
    let _ = origin.admit("pod".into(), Ok(Standing::Open(None)), None);
    let offer = |place: &Place, session: &str| {
        let offer = format!(r#"{{"t":"offer","podId":"pod","sessionId":"{session}","sdp":"SDP"}}"#);
        assert!(matches!(place.handle(offer.as_bytes(), &AdmitAll), Handled::Done));
    };
    let join = |network: u8| directory.join(outbox(), Some([192, 0, 2, network].into()));
    let flood: Vec<_> = (0..100)
        .map(|n| {
            let place = join(1);
            offer(&place, &format!("flood{n:03}"));
            place
        })
        .collect();
    let honest = join(2);
    offer(&honest, "honest00");
    let frames: Vec<_> = std::iter::from_fn(|| of_origin.try_next()).collect();
    let at = frames.iter().position(|frame| frame.contains("honest"));
    // After `registered` and one of the flood.
    assert!(at <= Some(2), "{at:?} of {}", frames.len());
    drop(flood);
}
