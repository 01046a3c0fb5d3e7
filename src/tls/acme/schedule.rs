//! When to renew, and how long to pause after a failure.
//!
//! `roll` is a random number in `0.0..1.0`.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// How often a directory is asked for the window of a renewal, unless it says otherwise.
pub const POLL: Duration = Duration::from_secs(6 * 3_600);
/// A directory that limits rates without saying until when.
pub const RATE_LIMITED: Duration = HOUR;
/// Longer than any limit that a directory has: a `Retry-After` beyond it is a mistake.
const LONGEST: Duration = Duration::from_secs(8 * 86_400);

/// How long to wait after `failures` failures in a row: a minute, then twice as long each time, a day at most.
/// `asked` is what the directory asked for, and nothing is tried before that.
pub fn pause(failures: u32, asked: Option<Duration>, roll: f64) -> Duration {
    let doubled = MINUTE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let jittered = doubled.min(DAY).mul_f64(1.0 + roll / 4.0).min(DAY);
    jittered.max(asked.unwrap_or_default().min(LONGEST))
}

/// How long to wait before the directory is asked for the window again.
pub fn poll(asked: Duration) -> Duration {
    asked.clamp(MINUTE, DAY)
}

/// When to renew a certificate that is valid within `validity`, by its lifetime alone: at two thirds, or up to a
/// thirtieth of the lifetime earlier, so that not all brokers come at once.
pub fn two_thirds(validity: &Range<SystemTime>, roll: f64) -> SystemTime {
    validity.start + lifetime(validity).mul_f64(2.0 / 3.0 - roll / 30.0)
}

/// When to renew by the window that the directory suggests (RFC 9773): somewhere within it, but while a tenth of the
/// lifetime is left.
pub fn within(window: &Range<SystemTime>, validity: &Range<SystemTime>, roll: f64) -> SystemTime {
    let chosen = window.start + lifetime(window).mul_f64(roll);
    chosen.min(validity.end - lifetime(validity) / 10)
}

fn lifetime(range: &Range<SystemTime>) -> Duration {
    range.end.duration_since(range.start).unwrap_or_default()
}

/// Which challenge to try: each after the other, and on with the one that succeeded.
#[derive(Debug, Default)]
pub struct Turn {
    next: usize,
    /// Challenges that failed one after the other.
    failed: usize,
}

impl Turn {
    /// The challenge to try, of `count`.
    pub fn index(&self, count: usize) -> usize {
        self.next % count
    }

    /// The challenge succeeded.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// The challenge failed. Whether the next is to be tried at once: only until each was tried once, as directories
    /// count failed challenges (Let's Encrypt allows five an hour for a name, and one more every twelve minutes).
    pub fn failed(&mut self, count: usize) -> bool {
        self.next += 1;
        self.failed += 1;
        self.failed < count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(days: u64) -> Duration {
        DAY * days as u32
    }

    #[test]
    fn pauses_double_from_a_minute_to_a_day() {
        let pauses: Vec<_> = (1..=13).map(|failures| pause(failures, None, 0.0).as_secs() / 60).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
        assert_eq!(pause(u32::MAX, None, 0.99), DAY);
        assert_eq!(pause(1, None, 1.0), Duration::from_secs(75));
    }

    #[test]
    fn nothing_is_tried_before_the_directory_allows() {
        assert_eq!(pause(1, Some(3 * DAY), 0.5), 3 * DAY);
        assert_eq!(pause(12, Some(MINUTE), 0.0), DAY);
        assert_eq!(pause(1, Some(Duration::MAX), 0.0), LONGEST);
        assert_eq!(poll(Duration::ZERO), MINUTE);
        assert_eq!(poll(Duration::MAX), DAY);
    }

    #[test]
    fn renewal_is_at_two_thirds_or_a_little_earlier() {
        let start = SystemTime::UNIX_EPOCH + days(20_000);
        let validity = start..start + days(90);
        assert!(two_thirds(&validity, 0.0).duration_since(start + days(60)).unwrap() < MINUTE);
        assert!((start + days(57)).duration_since(two_thirds(&validity, 1.0)).unwrap() < MINUTE);
        // A certificate whose dates are upside down is due at once.
        assert_eq!(two_thirds(&(start..start - days(1)), 0.3), start);
    }

    #[test]
    fn renewal_is_within_the_window_and_in_time() {
        let start = SystemTime::UNIX_EPOCH + days(20_000);
        let validity = start..start + days(90);
        let window = start + days(30)..start + days(32);
        assert_eq!(within(&window, &validity, 0.0), start + days(30));
        assert_eq!(within(&window, &validity, 0.5), start + days(31));
        let late = start + days(300)..start + days(302);
        assert_eq!(within(&late, &validity, 0.5), start + days(81));
    }

    /// Let's Encrypt lets five challenges of a name fail, and one more every twelve minutes.
    #[test]
    fn failing_challenges_stay_under_the_limit_of_lets_encrypt() {
        for count in [1, 2] {
            let (mut turn, mut allowed) = (Turn::default(), 5.0_f64);
            for failures in 1..40 {
                loop {
                    allowed -= 1.0;
                    assert!(allowed >= 0.0, "attempt {failures} with {count} challenges would be refused");
                    if !turn.failed(count) {
                        break;
                    }
                }
                allowed = (allowed + pause(failures, None, 0.0).as_secs_f64() / 720.0).min(5.0);
            }
        }
    }

    #[test]
    fn challenges_take_turns() {
        let mut turn = Turn::default();
        assert_eq!(turn.index(2), 0);
        assert!(turn.failed(2));
        assert_eq!(turn.index(2), 1);
        assert!(!turn.failed(2));
        assert_eq!(turn.index(2), 0);
        assert!(!turn.failed(2));
        turn.succeeded();
        assert_eq!(turn.index(2), 1);
        assert!(turn.failed(2));
        assert!(!Turn::default().failed(1));
    }
}
