//! How often the client of one HTTP/2 connection is refused for asking too often.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio_util::sync::CancellationToken;

/// How long a refusal is held back.
pub const TARPIT_DELAY: Duration = Duration::from_millis(250);
/// Refusals that a connection survives: 256 at once, and one a second for as long as it lasts. Each is held back, so a
/// client that waits for its answers takes seconds to get beyond them with all its streams; one that resets them does
/// not wait. Clients that are refused now and then keep their connection, and the WebSockets on it.
const ALLOWED: Quota = Quota::per_second(NonZeroU32::MIN).allow_burst(NonZeroU32::new(256).unwrap());

/// Counts the refusals of a connection; clones are of the same one.
#[derive(Clone)]
pub struct Refusals<C: Clock = DefaultClock> {
    allowed: Arc<Allowed<C>>,
    too_many: CancellationToken,
}

type Allowed<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl Default for Refusals {
    fn default() -> Self {
        Self::by(DefaultClock::default())
    }
}

impl<C: Clock> Refusals<C> {
    /// Returns a count that recovers by `clock`.
    fn by(clock: C) -> Self {
        let allowed = Arc::new(RateLimiter::direct_with_clock(ALLOWED, clock));
        Self { allowed, too_many: CancellationToken::new() }
    }

    /// Counts one more.
    pub fn add(&self) {
        if self.allowed.check().is_err() {
            self.too_many.cancel();
        }
    }

    /// Returns once there were too many.
    pub async fn too_many(&self) {
        self.too_many.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    /// Adds refusals, one after each `pause`, until they are too many or `most`; returns how many there were.
    fn refused(pause: Duration, most: u32) -> u32 {
        let clock = FakeRelativeClock::default();
        let refusals = Refusals::by(clock.clone());
        (0..most)
            .take_while(|_| {
                clock.advance(pause);
                refusals.add();
                !refusals.too_many.is_cancelled()
            })
            .count() as u32
    }

    #[test]
    fn refusals_now_and_then_are_never_too_many() {
        let days = 7 * 24 * 3600;
        assert_eq!(refused(Duration::from_secs(1), days), days);
        assert_eq!(refused(Duration::from_secs(60), days / 60), days / 60);
    }

    #[test]
    fn refusals_without_a_pause_are_too_many_soon() {
        assert_eq!(refused(Duration::ZERO, 10_000), 256);
        // As fast as 32 streams are refused.
        assert_eq!(refused(Duration::from_millis(8), 10_000), 258);
        let slow = refused(Duration::from_millis(900), 10_000);
        assert!((2_500..2_600).contains(&slow), "{slow}");
    }
}
