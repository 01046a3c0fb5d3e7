//! What a round of the janitor did.

use std::fmt;

use bytesize::ByteSize;

use crate::pods::Usage;

/// What a round did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JanitorReport {
    /// Pods that were looked at.
    pub looked_at: u64,
    /// Pods that went because they had expired.
    pub expired: u64,
    /// Pods that went because they were not used.
    pub unused: u64,
    /// Pods that went because room was short.
    pub for_room: u64,
    /// What is left.
    pub left: Usage,
    /// What was there.
    pub before: Usage,
}

impl JanitorReport {
    /// How many pods went.
    pub fn deleted(&self) -> u64 {
        self.expired + self.unused + self.for_room
    }
}

impl fmt::Display for JanitorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { looked_at, expired, unused, for_room, left, before } = self;
        let freed = ByteSize(before.bytes.saturating_sub(left.bytes));
        write!(
            f,
            "{looked_at} pods looked at; {} deleted: {expired} expired, {unused} unused, {for_room} for room; \
             {freed} freed; {} pods of {} left",
            self.deleted(),
            left.pods,
            ByteSize(left.bytes)
        )
    }
}
