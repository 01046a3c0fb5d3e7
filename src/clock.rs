//! The time, as far as certificates depend on it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// The system's clock, which tests can move; clones are the same clock.
///
/// Pauses are measured by the time that passes, not by the date: a wrong date that is put right ends no pause and
/// makes none longer.
#[derive(Clone, Debug)]
pub struct Clock {
    begin: Instant,
    shift: Arc<watch::Sender<Shift>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shift {
    /// Time that passed beside the time that really did.
    passed: Duration,
    /// How far the date is wrong.
    ahead: Duration,
}

/// A moment to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Duration);

impl Default for Clock {
    fn default() -> Self {
        Self { begin: Instant::now(), shift: Arc::new(watch::Sender::new(Shift::default())) }
    }
}

impl Clock {
    /// The date.
    pub fn now(&self) -> SystemTime {
        let Shift { passed, ahead } = *self.shift.borrow();
        SystemTime::now() + passed + ahead
    }

    /// Lets `time` pass at once: who waits for less is woken.
    pub fn pass(&self, time: Duration) {
        self.shift.send_modify(|shift| shift.passed += time);
    }

    /// Puts the date `time` ahead of the right one, while no time passes.
    pub fn set_ahead(&self, time: Duration) {
        self.shift.send_modify(|shift| shift.ahead = time);
    }

    /// The moment after `pause`.
    pub(crate) fn after(&self, pause: Duration) -> Deadline {
        Deadline(self.running().saturating_add(pause))
    }

    /// Waits for `deadline`.
    pub(crate) async fn wait(&self, deadline: Deadline) {
        let mut shifts = self.shift.subscribe();
        loop {
            shifts.mark_unchanged();
            let left = deadline.0.saturating_sub(self.running());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                // The sender lives as long as this clock.
                _ = shifts.changed() => {}
            }
        }
    }

    /// How long it has been running.
    pub(crate) fn running(&self) -> Duration {
        self.begin.elapsed() + self.shift.borrow().passed
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passed_time_ends_a_pause_and_a_wrong_date_does_not() {
        let clock = Clock::default();
        let deadline = clock.after(Duration::from_secs(3600));
        clock.set_ahead(Duration::from_secs(1 << 25));
        let mut wait = Box::pin(clock.wait(deadline));
        assert!(wait.as_mut().now_or_never().is_none());
        clock.pass(Duration::from_secs(3599));
        assert!(wait.as_mut().now_or_never().is_none());
        clock.pass(Duration::from_secs(1));
        assert!(wait.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn the_date_is_ahead_until_it_is_put_right() {
        let (clock, year) = (Clock::default(), Duration::from_secs(365 * 86_400));
        clock.set_ahead(year);
        assert!(clock.now() > SystemTime::now() + year - Duration::from_secs(60));
        clock.set_ahead(Duration::ZERO);
        assert!(clock.now() < SystemTime::now() + Duration::from_secs(60));
    }
}
