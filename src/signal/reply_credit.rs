//! How many frames a peer may send in reply to those that it was sent.
//!
//! A host answers every offer. If its answers counted against `signal.frames_per_second`, strangers could use up the
//! host's rate by making it answer, and everybody's answers would come late. So each frame that a host is sent pays for
//! its replies; its sender has paid with its own rate, and offers with `limits.offers_per_address`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Replies that an offer pays for: an answer and the candidates that follow it.
const PER_OFFER: u32 = 32;
/// Credit that a peer may save: 32,768 offers that it has not answered yet.
const MAX: u32 = 1 << 20;

/// The frames that one peer may send without their counting against its rate.
#[derive(Debug, Default)]
pub struct ReplyCredit(AtomicU32);

impl ReplyCredit {
    /// Grants the replies to an offer.
    pub fn grant_offer(&self) {
        self.grant(PER_OFFER);
    }

    /// Grants the reply to any other frame.
    pub fn grant_frame(&self) {
        self.grant(1);
    }

    fn grant(&self, frames: u32) {
        let more = |credit: u32| Some(credit.saturating_add(frames).min(MAX));
        let _ = self.0.fetch_update(Relaxed, Relaxed, more);
    }

    /// Takes credit for one frame. Returns whether there was any.
    pub fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |credit| credit.checked_sub(1)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(credit: &ReplyCredit) -> u32 {
        (0..).take_while(|_| credit.spend()).count() as u32
    }

    #[test]
    fn credit_is_spent_once_and_not_saved_without_end() {
        let credit = ReplyCredit::default();
        assert_eq!(spent(&credit), 0);
        credit.grant_frame();
        credit.grant_offer();
        assert_eq!(spent(&credit), PER_OFFER + 1);
        for _ in 0..2 * MAX / PER_OFFER {
            credit.grant_offer();
        }
        assert_eq!(spent(&credit), MAX);
        assert_eq!(spent(&credit), 0);
    }
}
