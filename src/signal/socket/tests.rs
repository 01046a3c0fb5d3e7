use tokio::io::duplex;

use super::*;
use crate::signal::{admission::AdmitAll, entitlement::Entitlement};

const SENDERS: usize = 10;
const UNFINISHED: usize = 1 << 20;
/// Bytes of each frame that are outside of the common budget.
const FREE: usize = 8 * 1024;

/// `nixos-module/limits.nix` counts on it.
#[tokio::test]
async fn frames_that_wait_for_room_take_no_more_than_their_sockets_reserved_to_read_them() {
    let hub = Hub {
        directory: Directory::new(SignalSettings::default()),
        budget: Budget::new(usize::MAX),
        read_budget: Budget::new(UNFINISHED),
        throttles: Arc::default(),
    };
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
