//! Holds refusals back: who asks in a loop is answered a few times a second, and not as fast as it goes.

use std::{net::IpAddr, sync::Arc};

use salvo::Request;
use tokio::time::sleep;

use crate::net::{
    budget::Budget,
    refusals::{Refusals, TARPIT_DELAY},
};

/// Refusals that are held back at a time over HTTP/1.1: each takes some kilobytes. More, and more than a
/// client's share of them, are answered at once. Over HTTP/2 the streams of a connection bound them.
const TARPIT_SLOTS: usize = 2048;

/// Refusals that are held back.
pub struct Tarpit(Arc<Budget>);

impl Default for Tarpit {
    fn default() -> Self {
        Self(Budget::new(TARPIT_SLOTS))
    }
}

impl Tarpit {
    /// Waits before `request` of `client` is refused.
    pub async fn hold(&self, request: &Request, client: Option<IpAddr>) {
        if let Some(refusals) = request.extensions().get::<Refusals>() {
            // Counted before the client can reset the stream.
            refusals.add();
            return sleep(TARPIT_DELAY).await;
        }
        if let Some(_held) = self.0.of(client).permit(1) {
            sleep(TARPIT_DELAY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_all_the_slots_that_it_may_leaves_some_to_others() {
        let (tarpit, request) = (Tarpit::default(), Request::default());
        let hold = |client: &str| tarpit.hold(&request, Some(client.parse().unwrap()));
        let mut flood: FuturesUnordered<_> = (0..2 * TARPIT_SLOTS).map(|_| hold("192.0.2.1")).collect();
        let mut at_once = 0;
        while flood.next().now_or_never().flatten().is_some() {
            at_once += 1;
        }
        assert!(at_once > 0 && at_once < 2 * TARPIT_SLOTS);
        assert!(hold("192.0.2.2").now_or_never().is_none(), "another is held back as ever");
        flood.for_each(|()| async {}).await;
        assert!(hold("192.0.2.1").now_or_never().is_none());
    }
}
