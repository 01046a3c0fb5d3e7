//! How many downloads run at a time: each holds a file open and a piece of it in memory, for as long as its client
//! likes to take it within the write timeout.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::HttpError;
use crate::{
    net::{
        blocking_limiter::BlockingLimiter,
        budget::{Budget, ClientBudget},
        connection_limiter::{ConnectionCapacity, ConnectionLimiter, ConnectionPermit},
    },
    pods::{Blob, DiskRead, RegistryError},
};

/// When a client that is refused may come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Downloads of one client that are looked up, opened or read from the disk at a time: a thousand at once hold up one
/// another, and not those of others.
const READS_OF_CLIENT: usize = 4;

/// Those of all clients: tokio has 512 threads for all that waits for a disk, and the rest is for other things.
const READS: usize = 128;

/// Bytes of large pieces that are in memory at a time. Readers that do not read may use up their client's share of it, or
/// with those of others all; the pieces of whoever finds none are small.
const MEMORY: usize = 64 << 20;

/// Lets a bounded number of downloads run at a time; of one client, as many as it may have connections, however many of
/// them share one, and never all.
pub struct Downloads {
    all: Arc<Semaphore>,
    pool: ConnectionCapacity,
    by_client: Arc<ConnectionLimiter>,
    reads: Arc<BlockingLimiter>,
    /// Large pieces that may be in memory at a time.
    pieces: Arc<Budget>,
}

/// The place of one download; dropping it is its end.
pub struct DownloadPermit {
    _of_client: Option<ConnectionPermit>,
    _of_all: OwnedSemaphorePermit,
}

impl Downloads {
    /// Lets as many downloads run at a time as `pool` has places.
    pub fn new(pool: ConnectionCapacity) -> Self {
        Self {
            all: Arc::new(Semaphore::new(pool.places)),
            pool,
            by_client: Arc::default(),
            reads: BlockingLimiter::new(READS_OF_CLIENT, READS),
            pieces: Budget::new(MEMORY / Blob::PIECE as usize),
        }
    }

    /// Looks a download of `client` up and opens it when it is its turn.
    pub async fn open<T: Send + 'static>(
        &self,
        client: Option<IpAddr>,
        open: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.reads.run(client, open).await.map_err(RegistryError::failed)?
    }

    /// Returns what reads pieces of a download of `client` from the disk when it is their turn.
    pub fn read(&self, client: Option<IpAddr>) -> impl Fn(DiskRead) -> DiskRead + Send + Sync + 'static {
        let reads = self.reads.clone();
        move |read| -> DiskRead {
            let reads = reads.clone();
            Box::pin(async move { reads.run_apart(client, read).await.map_err(io::Error::other)? })
        }
    }

    /// Returns what the large pieces of a download of `client` are taken from.
    pub fn pieces(&self, client: Option<IpAddr>) -> ClientBudget {
        self.pieces.of(client)
    }

    /// Returns a place for a download of `client`, of which `limit` may run at a time at most.
    pub fn begin(&self, client: Option<IpAddr>, limit: u32) -> Result<DownloadPermit, HttpError> {
        let busy = |message| HttpError::Busy { message, retry_after: RETRY_AFTER };
        let of_client = match client {
            Some(client) => Some(
                self.by_client
                    .enter(client, self.pool.share(limit, self.all.available_permits()))
                    .ok_or_else(|| busy("too many downloads of your address are running; try again later"))?,
            ),
            None => None,
        };
        let of_all = self.all.clone().try_acquire_owned();
        let of_all = of_all.map_err(|_| busy("too many downloads are running; try again later"))?;
        Ok(DownloadPermit { _of_client: of_client, _of_all: of_all })
    }
}
