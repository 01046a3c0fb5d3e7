//! How much room pods take, and how much they may take.

/// What is kept, of one owner or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Pods.
    pub pods: u64,
    /// Bytes of their blobs. Pods with the same blob share it, where the registry keeps it once.
    pub bytes: u64,
}

/// How much may be kept; nothing is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quotas {
    /// Pods in total.
    pub pods: Option<u64>,
    /// Bytes in total.
    pub bytes: Option<u64>,
    /// Pods of one owner key.
    pub pods_per_owner: Option<u64>,
    /// Bytes of one owner key.
    pub bytes_per_owner: Option<u64>,
}

/// The quota that stands in the way of a pod, and what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// Of pods in total.
    #[error("this broker is full: it keeps {0} pods at most")]
    Pods(u64),
    /// Of bytes in total.
    #[error("this pod would exceed this broker's storage quota of {0} bytes")]
    Bytes(u64),
    /// Of pods of one owner.
    #[error("this owner key has as many pods here as it may, which is {0}: delete one first")]
    OwnerPods(u64),
    /// Of bytes of one owner.
    #[error(
        "the pods of this owner key may take {0} bytes here, and would take more with this one: delete one first"
    )]
    OwnerBytes(u64),
}

impl Quotas {
    /// Whether it may go on after a change from `before` to `after`, of all and of the owner.
    ///
    /// # Errors
    ///
    /// Something grew that has no room to. What is over a quota that was lowered may shrink.
    pub fn check(&self, before: [Usage; 2], after: [Usage; 2]) -> Result<(), QuotaExceeded> {
        let [all_before, owner_before] = before;
        let [all, owner] = after;
        let over = |quota: Option<u64>, before: u64, after: u64| {
            quota.filter(|quota| after > *quota && after > before)
        };
        let exceeded =
            over(self.bytes_per_owner, owner_before.bytes, owner.bytes).map(QuotaExceeded::OwnerBytes);
        let exceeded = exceeded
            .or(over(self.pods_per_owner, owner_before.pods, owner.pods).map(QuotaExceeded::OwnerPods));
        let exceeded = exceeded.or(over(self.bytes, all_before.bytes, all.bytes).map(QuotaExceeded::Bytes));
        let exceeded = exceeded.or(over(self.pods, all_before.pods, all.pods).map(QuotaExceeded::Pods));
        exceeded.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_beyond_a_quota_is_told_which_and_what_shrinks_is_let_through() {
        let quotas =
            Quotas { pods: Some(10), bytes: Some(1000), pods_per_owner: Some(2), bytes_per_owner: Some(300) };
        let usage = |pods, bytes| Usage { pods, bytes };
        let check = |before, after| quotas.check(before, after);
        let room = [usage(5, 500), usage(1, 100)];
        assert_eq!(check(room, [usage(6, 700), usage(2, 300)]), Ok(()));
        assert_eq!(check(room, [usage(6, 701), usage(2, 301)]), Err(QuotaExceeded::OwnerBytes(300)));
        assert_eq!(check(room, [usage(7, 500), usage(3, 100)]), Err(QuotaExceeded::OwnerPods(2)));
        assert_eq!(check([usage(9, 999), usage(0, 0)], [usage(10, 1000), usage(1, 1)]), Ok(()));
        assert_eq!(
            check([usage(9, 999), usage(0, 0)], [usage(10, 1001), usage(1, 2)]),
            Err(QuotaExceeded::Bytes(1000))
        );
        assert_eq!(
            check([usage(10, 10), usage(0, 0)], [usage(11, 11), usage(1, 1)]),
            Err(QuotaExceeded::Pods(10))
        );
        let over = [usage(50, 5000), usage(9, 900)];
        assert_eq!(check(over, [usage(50, 4999), usage(9, 899)]), Ok(()));
        assert_eq!(check(over, [usage(50, 5001), usage(9, 901)]), Err(QuotaExceeded::OwnerBytes(300)));
        assert_eq!(Quotas::default().check(room, over), Ok(()));
    }
}
