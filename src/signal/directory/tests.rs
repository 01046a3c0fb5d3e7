use std::{
    sync::{atomic::Ordering, mpsc::channel},
    task::{Context, Poll, Waker},
    thread,
};

use async_trait::async_trait;

use super::{
    super::{
        admission::{Admission, AdmitAll},
        close::Close,
        entitlement::{Entitlement, Key},
        outbox::Outbox,
        socket::SocketHandle,
    },
    handled::{Admitted, Handled},
    place::Place,
    *,
};
use crate::net::{budget::Budget, network::ClientNetwork};

/// The watchdog relies on it.
#[test]
fn a_directory_that_is_held_up_tells_nothing() {
    let directory = Directory::new(SignalSettings::default());
    let (sender, answer) = channel();
    thread::scope(|scope| {
        let held = directory.lock();
        scope.spawn(|| sender.send(directory.stats()).unwrap());
        answer.recv_timeout(Duration::from_millis(200)).unwrap_err();
        drop(held);
    });
    assert_eq!(answer.recv().unwrap(), Stats { origins: 0, sessions: 0 });
}

fn join(directory: &Arc<Directory>) -> Place {
    directory.join(Arc::new(Outbox::new(10_000, Budget::new(10_000).of(None))), None)
}

/// As if its credential were revoked while its registration was being admitted.
#[test]
fn a_socket_that_is_being_closed_takes_no_pod_id() {
    let directory = Directory::new(SignalSettings::default());
    let [revoked, other] = [(); 2].map(|()| join(&directory));
    revoked.outbox().close(Close::CREDENTIAL_REFUSED);
    let admitted =
        |place: &Place| place.admit("pod".into(), Ok(Entitlement::Owner([1; 32])), ClientNetwork::default());
    assert!(matches!(admitted(&revoked), Admitted::NotYet));
    assert!(directory.holder("pod").is_none());
    assert!(matches!(admitted(&other), Admitted::Holds));
    assert_eq!(directory.holder("pod").unwrap().socket, other.id());
}

#[test]
fn a_socket_that_is_being_closed_is_not_promoted() {
    let directory = Directory::new(SignalSettings::default());
    let [holder, revoked, next] = [(); 3].map(|()| join(&directory));
    let admitted =
        |place: &Place| place.admit("pod".into(), Ok(Entitlement::Owner([1; 32])), ClientNetwork::default());
    assert!(matches!(admitted(&holder), Admitted::Holds));
    assert!(matches!(admitted(&revoked), Admitted::TakesOver(_)));
    assert!(matches!(admitted(&next), Admitted::NotYet));
    revoked.outbox().close(Close::CREDENTIAL_REFUSED);
    drop(holder);
    assert_eq!(directory.holder("pod").unwrap().socket, next.id());
    drop((revoked, next));
    assert!(directory.lock().is_empty());
}

/// It is not read meanwhile, and its answer comes behind what it sent before.
#[tokio::test(start_paused = true)]
async fn a_holder_is_not_silent_while_it_registers_and_has_the_whole_time_afterwards() {
    let directory = Directory::new(SignalSettings::default());
    let [holder, newcomer] = [(); 2].map(|()| join(&directory));
    let admitted =
        |place: &Place| place.admit("pod".into(), Ok(Entitlement::Open(None)), ClientNetwork::default());
    assert!(matches!(admitted(&holder), Admitted::Holds));
    let Admitted::TakesOver(takeover) = admitted(&newcomer) else { panic!("it should wait") };
    let holder_after = |seconds| {
        let now = Instant::now() + Duration::from_secs(seconds);
        takeover.check_holder(now, Duration::from_secs(3));
        directory.holder("pod").unwrap().socket
    };
    holder.begin_registration();
    assert_eq!([1, 3, 10].map(holder_after), [holder.id(); 3]);
    holder.end_registration();
    assert_eq!([2, 3].map(holder_after), [holder.id(), newcomer.id()]);
}

/// All that waits for a socket, and why it is closed.
fn sent(place: &Place) -> (Vec<String>, Option<Close>) {
    let frames = std::iter::from_fn(|| place.outbox().try_next()).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let closed = match place.outbox().poll_hurried(&mut cx) {
        Poll::Ready(close) => Some(close),
        Poll::Pending => None,
    };
    (frames, closed)
}

fn frames(place: &Place) -> Vec<String> {
    sent(place).0
}

fn error(message: &str) -> String {
    format!(r#"{{"t":"error","message":"{message}"}}"#)
}

const OFFER: &[u8] = br#"{"t":"offer","podId":"pod","sessionId":"s","sdp":"SDP"}"#;
const OFFERED: &str = r#"{"t":"offer","sessionId":"s","sdp":"SDP"}"#;
const ANSWER: &[u8] = br#"{"t":"answer","sessionId":"s","sdp":"SDP"}"#;
const REGISTERED: &str = r#"{"t":"registered","podId":"pod"}"#;
const OFFLINE: &str = r#"{"t":"error","sessionId":"s","message":"origin offline"}"#;

fn handle(place: &Place, frame: &[u8]) {
    assert!(matches!(place.handle(frame, &AdmitAll), Handled::Done));
}

/// At any time, also where no offer waits for an origin that is offline.
#[tokio::test(start_paused = true)]
async fn visitors_get_through_once_a_registration_is_recorded() {
    let without_grace =
        SignalSettings { offline_grace: crate::config::Grace(Duration::ZERO), ..SignalSettings::default() };
    for settings in [SignalSettings::default(), without_grace] {
        let directory = Directory::new(settings);
        tokio::time::advance(Duration::from_mins(1)).await;
        let [origin, visitor] = [(); 2].map(|()| join(&directory));
        assert!(matches!(
            origin.admit("pod".into(), Ok(Entitlement::Open(None)), ClientNetwork::default()),
            Admitted::Holds
        ));
        handle(&visitor, OFFER);
        assert_eq!((sent(&origin), frames(&visitor)), ((vec![], None), vec![]));
        origin.registered(&"pod".into(), Ok(true));
        assert_eq!(frames(&origin), [REGISTERED, OFFERED]);
        handle(&origin, ANSWER);
        assert_eq!(frames(&visitor).len(), 1);
    }
}

#[test]
fn a_newcomer_is_told_that_it_got_the_pod_id_once_that_is_recorded() {
    let directory = Directory::new(SignalSettings::default());
    let [holder, refused, next, visitor] = [(); 4].map(|()| join(&directory));
    let owner = Entitlement::Owner([1; 32]);
    holder.hold(&"pod".into(), owner);
    for newcomer in [&refused, &next] {
        assert!(!matches!(
            newcomer.admit("pod".into(), Ok(owner), ClientNetwork::default()),
            Admitted::Holds
        ));
    }
    drop(holder);
    handle(&visitor, OFFER);
    assert_eq!((frames(&refused), frames(&next)), (vec![], vec![]));
    let promoted = || directory.take_promoted().into_iter().map(|(_, holder)| holder.socket);
    assert!(promoted().eq([refused.id()]));
    directory.registered(refused.id(), &"pod".into(), Err("no right".into()));
    assert_eq!(sent(&refused), (vec![error("no right")], Some(Close::REGISTRATION_REFUSED)));
    assert!(promoted().eq([next.id()]));
    assert_eq!(frames(&next), [""; 0]);
    directory.registered(next.id(), &"pod".into(), Ok(true));
    assert_eq!(frames(&next), [REGISTERED, OFFERED]);
}

/// However slowly it reads: what waits for it is not sent, and what it sends is not passed on.
#[tokio::test(start_paused = true)]
async fn who_loses_a_right_is_out_at_once() {
    type Lose = fn(&Arc<Directory>, &Place) -> Option<Place>;
    fn with_a_newcomer(directory: &Arc<Directory>, entitlement: Entitlement) -> (Place, Admitted) {
        let newcomer = join(directory);
        let admitted = newcomer.admit("pod".into(), Ok(entitlement), ClientNetwork::default());
        (newcomer, admitted)
    }
    let ways: [(Lose, Option<&str>, Close); 5] = [
        (
            |directory, origin| {
                directory.evict(origin.id(), "pod", "claimed");
                None
            },
            Some("claimed"),
            Close::REGISTRATION_REFUSED,
        ),
        (
            |_, origin| {
                SocketHandle::of(origin).close("revoked", Close::CREDENTIAL_REFUSED);
                None
            },
            Some("revoked"),
            Close::CREDENTIAL_REFUSED,
        ),
        (
            |_, origin| {
                let _ = origin.admit("other".into(), Err("wrong token".into()), ClientNetwork::default());
                None
            },
            Some("wrong token"),
            Close::REGISTRATION_REFUSED,
        ),
        (
            |directory, _| {
                let (newcomer, admitted) = with_a_newcomer(directory, Entitlement::Owner([1; 32]));
                assert!(matches!(admitted, Admitted::Holds));
                Some(newcomer)
            },
            None,
            Close::REPLACED,
        ),
        (
            |directory, _| {
                let (newcomer, admitted) = with_a_newcomer(directory, Entitlement::Open(None));
                let Admitted::TakesOver(takeover) = admitted else { panic!("it should wait") };
                let patience = Duration::from_secs(3);
                takeover.check_holder(Instant::now() + patience, patience).unwrap();
                Some(newcomer)
            },
            None,
            Close::REPLACED,
        ),
    ];
    for (lose, told, close) in ways {
        let directory = Directory::new(SignalSettings::default());
        let [origin, visitor] = [(); 2].map(|()| join(&directory));
        origin.hold(&"pod".into(), Entitlement::Open(None));
        handle(&visitor, OFFER);
        let next = lose(&directory, &origin);
        assert_eq!(directory.holder("pod").map(|holder| holder.socket), next.as_ref().map(|next| next.id()));
        handle(&origin, ANSWER);
        assert_eq!(sent(&origin), (told.map(error).into_iter().collect(), Some(close)));
        assert_eq!(frames(&visitor), [OFFLINE]);
        drop((origin, visitor, next));
        assert!(directory.lock().is_empty());
    }
}

/// So that the end of one socket is never the end of a row of others.
#[test]
fn a_holder_gets_no_second_pod_id_and_waits_for_none() {
    let directory = Directory::new(SignalSettings::default());
    let register = |place: &Place, pod: &str| {
        place.admit(pod.into(), Ok(Entitlement::Open(None)), ClientNetwork::default())
    };
    let [holder, other] = [(); 2].map(|()| join(&directory));
    assert!(matches!(register(&holder, "pod"), Admitted::Holds));
    assert!(matches!(register(&other, "other"), Admitted::Holds));
    for pod in ["other", "free", "pod"] {
        assert!(matches!(register(&holder, pod), Admitted::NotYet));
        assert_eq!(sent(&holder), (vec![error("already initialized")], None));
    }
    drop(other);
    assert_eq!(directory.origins(), ["pod"]);
    drop(holder);
    assert!(directory.lock().is_empty());
}

/// However many sessions one network has: each frame of it waits for its turn.
#[test]
fn a_network_with_many_sessions_puts_nobody_off() {
    let directory = Directory::new(SignalSettings::default());
    let outbox = || Arc::new(Outbox::new(1 << 20, Budget::new(1 << 20).of(None)));
    let of_origin = outbox();
    let origin = directory.join(of_origin.clone(), None);
    origin.hold(&"pod".into(), Entitlement::Open(None));
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

/// Its table has a lock of its own.
#[test]
fn offers_are_counted_while_the_directory_is_free() {
    struct Counts(Arc<Directory>, AtomicU64);

    #[async_trait]
    impl Admission for Counts {
        async fn entitlement(&self, _: &str, _: Option<&str>) -> Result<Entitlement, String> {
            unreachable!()
        }

        async fn registered(&self, _: &str, _: Option<Key>) -> Result<bool, String> {
            unreachable!()
        }

        fn count_offer(&self) -> Result<(), &'static str> {
            assert!(self.0.state.try_lock().is_ok(), "all sockets wait");
            self.1.fetch_add(1, Ordering::Relaxed);
            Err("too many")
        }

        fn network(&self) -> ClientNetwork {
            ClientNetwork::default()
        }
    }

    let directory = Directory::new(SignalSettings::default());
    let (visitor, counts) = (join(&directory), Counts(directory.clone(), AtomicU64::new(0)));
    let handle = |frame: &str| visitor.handle(frame.as_bytes(), &counts);
    let whole = r#"{"t":"offer","podId":"pod","sessionId":"s","sdp":"x"}"#;
    assert!(matches!(handle(whole), Handled::TooMany));
    for ill_formed in [
        r#"{"t":"offer","podId":"pod","sessionId":"s"}"#,
        r#"{"t":"offer","podId":"pod","sdp":"x"}"#,
        r#"{"t":"offer","podId":1,"sessionId":"s","sdp":"x"}"#,
        r#"{"t":"candidate","sessionId":"s","candidate":"x"}"#,
    ] {
        assert!(matches!(handle(ill_formed), Handled::Done), "{ill_formed}");
    }
    assert_eq!(counts.1.into_inner(), 1);
}
