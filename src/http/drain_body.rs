//! Reads on after a refusal: a client that is still sending could not read why it was refused if the connection were closed
//! under it.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use salvo::http::ReqBody;
use tokio::{sync::Semaphore, time::timeout};

/// How much of a refused body is read, and for how long.
const MAX_BYTES: usize = 64 << 20;
const MAX_TIME: Duration = Duration::from_secs(5);
/// Refused bodies that are read at the same time. Beyond these it is the client's loss.
const MAX_BODIES: usize = 256;

/// Bodies that are read and thrown away.
pub struct BodyDrain(Arc<Semaphore>);

impl Default for BodyDrain {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }
}

impl BodyDrain {
    /// Reads the rest of a body in a task of its own.
    pub fn drain(&self, mut body: ReqBody) {
        let Ok(permit) = self.0.clone().try_acquire_owned() else { return };
        let mut left = MAX_BYTES;
        let rest = async move {
            while let Some(Ok(frame)) = body.next().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    // The rest waits in the client, which has as long to see the answer.
                    pending::<()>().await;
                }
            }
        };
        tokio::spawn(async move {
            let _permit = permit;
            // A client that goes on and on is cut off.
            let _ = timeout(MAX_TIME, rest).await;
        });
    }
}
