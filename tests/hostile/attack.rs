//! What attacks are made of.

use futures_util::{StreamExt, stream};

/// The default of `signal.max_frame`.
pub const MAX_FRAME: usize = 256 << 10;
/// The default of `pods.max_blob`.
pub const MAX_BLOB: usize = 50 << 20;

/// Makes `count` of something, some at a time.
pub async fn many<F: Future>(count: usize, make: impl FnMut(usize) -> F) -> Vec<F::Output> {
    stream::iter(0..count).map(make).buffer_unordered(100).collect().await
}
