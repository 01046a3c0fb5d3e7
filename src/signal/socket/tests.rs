use async_trait::async_trait;
use tokio::{
    io::{DuplexStream, duplex},
    sync::{Semaphore, watch},
};

use super::*;
use crate::{
    net::network::ClientNetwork,
    signal::{
        admission::AdmitAll,
        entitlement::{Entitlement, Key},
    },
};

const SENDERS: usize = 10;
const UNFINISHED: usize = 1 << 20;
/// Bytes of each frame that are outside of the common budget.
const FREE: usize = 8 * 1024;

fn hub() -> Hub {
    Hub {
        directory: Directory::new(SignalSettings::default()),
        budget: Budget::new(usize::MAX),
        read_budget: Budget::new(UNFINISHED),
        throttles: Arc::default(),
    }
}

/// `nixos-module/limits.nix` counts on it.
#[tokio::test]
async fn frames_that_wait_for_room_take_no_more_than_their_sockets_reserved_to_read_them() {
    let hub = hub();
    let of_origin = Arc::new(Outbox::new(10_000, hub.budget.of(None)));
    let origin = hub.directory.join(of_origin.clone(), None);
    origin.hold(&"pod".into(), Entitlement::Open(None));
    let mut closed = 0;
    for n in 0..SENDERS {
        let (ours, theirs) = duplex(1024);
        tokio::spawn(serve(ours, hub.clone(), Arc::new(AdmitAll), None, |_| ()));
        let sdp = "x".repeat(250_000);
        let offer = format!(r#"{{"t":"offer","podId":"pod","sessionId":"{n}","sdp":"{sdp}"}}"#);
        let mut sender = tokio::spawn(async move {
            let mut sender = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            let _ = sender.send(Message::text(offer)).await;
            while let Some(Ok(_)) = sender.next().await {}
        });
        // It is closed for want of room to read its frame, or its frame waits.
        let waits = async {
            while closed + of_origin.frames_in_line() <= n {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = waits => {}
            _ = &mut sender => closed += 1,
        }
    }
    assert!((1..SENDERS - 1).contains(&closed), "{closed} were closed");
    let waiting = of_origin.bytes_in_line();
    assert!(waiting <= UNFINISHED + SENDERS * FREE, "{waiting} bytes wait");
}

/// Records one registration at a time, in the order in which they came, as a registry does.
struct OneAtATime {
    turn: Semaphore,
    came: watch::Sender<usize>,
}

impl OneAtATime {
    async fn until_came(&self, registrations: usize) {
        self.came.subscribe().wait_for(|came| *came == registrations).await.unwrap();
    }
}

#[async_trait]
impl Admission for OneAtATime {
    async fn entitlement(&self, _: &str, _: Option<&str>) -> Result<Entitlement, String> {
        Ok(Entitlement::Open(None))
    }

    async fn registered(&self, _: &str, _: Option<Key>) -> Result<bool, String> {
        self.came.send_modify(|came| *came += 1);
        let _turn = self.turn.acquire().await.unwrap();
        Ok(true)
    }

    fn network(&self) -> ClientNetwork {
        ClientNetwork::default()
    }
}

/// Returns the peer of a socket that has asked for `pod`.
async fn registering(hub: &Hub, admission: &Arc<OneAtATime>, pod: &str) -> WebSocketStream<DuplexStream> {
    let (ours, theirs) = duplex(1024);
    tokio::spawn(serve(ours, hub.clone(), admission.clone(), None, |_| ()));
    let mut peer = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    peer.send(Message::text(format!(r#"{{"t":"register","podId":"{pod}"}}"#))).await.unwrap();
    peer
}

/// While a socket writes it does nothing else, and its registration stands in line before those of others.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_pongs_holds_up_no_registration() {
    let (hub, admission) =
        (hub(), Arc::new(OneAtATime { turn: Semaphore::new(1), came: watch::Sender::new(0) }));
    let before = admission.turn.acquire().await.unwrap();
    let mut stuck = registering(&hub, &admission, "stuck").await;
    admission.until_came(1).await;
    let ping = || Message::Ping(vec![0; 125].into());
    while timeout(Duration::from_secs(1), stuck.send(ping())).await.is_ok() {}
    let mut other = registering(&hub, &admission, "other").await;
    admission.until_came(2).await;
    let start = Instant::now();
    drop(before);
    let told = other.next().await.unwrap().unwrap();
    assert_eq!(told, Message::text(r#"{"t":"registered","podId":"other"}"#));
    assert_eq!(start.elapsed(), Duration::ZERO, "it waited for a peer");
    let mut held = hub.directory.origins();
    held.sort_unstable();
    assert_eq!(held, ["other", "stuck"]);
}
