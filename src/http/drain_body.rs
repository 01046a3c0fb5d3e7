//! Reads on after a refusal: a client that is still sending could not read why it was refused if the connection were closed
//! under it.

use std::{future::pending, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use salvo::http::ReqBody;
use tokio::time::timeout;

use crate::net::budget::Budget;

/// How much of a refused body is read, and for how long.
const MAX_BYTES: usize = 64 << 20;
const MAX_TIME: Duration = Duration::from_secs(5);
/// Refused bodies that are read at the same time. Beyond these, and beyond its share of them, it is the client's loss.
const MAX_BODIES: usize = 256;

/// Bodies that are read and thrown away.
pub struct BodyDrain(Arc<Budget>);

impl Default for BodyDrain {
    fn default() -> Self {
        Self(Budget::new(MAX_BODIES))
    }
}

impl BodyDrain {
    /// Reads the rest of a body that `client` sends in a task of its own. `held` is what was taken for the request: it is
    /// dropped with the body.
    pub fn drain<T: Send + 'static>(&self, client: Option<IpAddr>, mut body: ReqBody, held: T) {
        let Some(permit) = self.0.of(client).permit(1) else { return };
        let mut left = MAX_BYTES;
        let rest = async move {
            while let Some(Ok(frame)) = body.next().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    // The rest waits in the client, which has as long to see the answer.
                    pending::<()>().await;
                }
            }
        };
        tokio::spawn(async move {
            let _held = (permit, held);
            // A client that goes on and on is cut off.
            let _ = timeout(MAX_TIME, rest).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use salvo::{BoxedError, hyper::body::Frame};
    use tokio::{
        sync::mpsc::{UnboundedReceiver, unbounded_channel},
        time::Instant,
    };

    use super::*;

    fn client(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    /// A body without an end, and what tells whether it is read.
    fn body() -> (ReqBody, UnboundedReceiver<()>) {
        let (sender, receiver) = unbounded_channel();
        let frames = stream::repeat_with(move || {
            let _ = sender.send(());
            Ok::<_, BoxedError>(Frame::data(Bytes::from_static(&[0; 1 << 20])))
        });
        (
            ReqBody::Boxed { inner: Box::pin(http_body_util::StreamBody::new(frames)), fuse_config: None },
            receiver,
        )
    }

    async fn is_read(drain: &BodyDrain, client: Option<IpAddr>) -> bool {
        let (body, mut read) = body();
        drain.drain(client, body, ());
        read.recv().await.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_as_many_bodies_as_it_may_leaves_places_to_others() {
        let drain = BodyDrain::default();
        for _ in 0..2 * MAX_BODIES {
            drain.drain(client("192.0.2.1"), body().0, ());
        }
        assert!(!is_read(&drain, client("192.0.2.1")).await);
        for other in ["192.0.2.2", "192.0.2.3", "2001:db8::1"] {
            assert!(is_read(&drain, client(other)).await, "{other}");
        }
        tokio::time::sleep(MAX_TIME * 2).await;
        assert!(is_read(&drain, client("192.0.2.1")).await);
        tokio::time::sleep(MAX_TIME * 2).await;
        assert_eq!(drain.0.used(), 0);
    }

    /// What was taken for a request is in use while its body is read on, and no longer.
    #[tokio::test(start_paused = true)]
    async fn what_is_held_for_a_request_is_held_while_its_body_is_read() {
        let (drain, held) = (BodyDrain::default(), Arc::new(()));
        let ((body, mut read), start) = (body(), Instant::now());
        drain.drain(client("192.0.2.1"), body, held.clone());
        assert!(read.recv().await.is_some());
        assert_eq!(Arc::strong_count(&held), 2);
        while read.recv().await.is_some() {}
        assert_eq!((Arc::strong_count(&held), start.elapsed()), (1, MAX_TIME));
    }
}
