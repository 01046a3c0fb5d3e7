//! A number of bytes that many holders share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes that may be held by all sockets together.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(limit) })
    }

    /// Allows another number of bytes from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes `bytes` if that many are left.
    #[cfg(test)]
    pub fn take(&self, bytes: usize) -> bool {
        self.take_fairly(bytes, 0)
    }

    /// Takes `bytes` for somebody who holds `held` bytes already, unless it would then hold more than is left now.
    ///
    /// So those that hold most are refused first, and `n` that fill up side by side leave one part in `n + 1` to a
    /// newcomer (dynamic thresholds, Choudhury and Hahne, 1998).
    pub fn take_fairly(&self, bytes: usize, held: usize) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let fits = |used: usize| {
            let wanted = held.checked_add(bytes)?;
            (wanted <= limit.saturating_sub(used)).then_some(used + bytes)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Takes `bytes` even if they are not left.
    pub fn take_anyway(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Returns how many bytes are taken.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_that_fill_up_side_by_side_leave_room_for_a_newcomer() {
        let budget = Budget::new(1 << 20);
        let mut held = [0; 20];
        for _ in 0..1000 {
            for held in &mut held {
                *held += if budget.take_fairly(1000, *held) { 1000 } else { 0 };
            }
        }
        assert!(budget.take_fairly((1 << 20) / 22, 0), "{budget:?}");
        budget.give_back((1 << 20) / 22 + held.iter().sum::<usize>());
        assert_eq!(budget.used(), 0);
        assert!(budget.take(1 << 20), "one that is alone can have all of it");
    }
}
