//! Times as tokens and signatures write them.

use std::time::SystemTime;

/// Whole seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
