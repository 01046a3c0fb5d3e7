//! How many downloads run at a time: each holds a file open and a piece of it in memory, for as long as its client
//! likes to take it within the write timeout.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::HttpError;
use crate::{
    net::{
        budget::{Budget, ClientBudget},
        client_permits::{ClientPermit, ClientPermits},
        connection_limiter::{ConnectionCapacity, ConnectionLimiter, ConnectionPermit},
    },
    pods::Blob,
};

/// When a client that is refused may come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Downloads of one client that are looked up and opened at a time: a thousand at once hold up one another, and not
/// those of others.
const OPENED_AT_A_TIME: usize = 4;

/// Bytes of large pieces that are in memory at a time. Readers that do not read may use up their client's share of it, or
/// with those of others all; the pieces of whoever finds none are small.
const MEMORY: usize = 64 << 20;

/// Lets a bounded number of downloads run at a time; of one client, as many as it may have connections, however many of
/// them share one, and never all.
pub struct Downloads {
    all: Arc<Semaphore>,
    pool: ConnectionCapacity,
    by_client: Arc<ConnectionLimiter>,
    opening: ClientPermits,
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
            opening: ClientPermits::new(OPENED_AT_A_TIME),
            pieces: Budget::new(MEMORY / Blob::PIECE as usize),
        }
    }

    /// Waits until a download of `client` may be looked up and opened. It may be for as long as the place is kept.
    pub async fn open(&self, client: Option<IpAddr>) -> Option<ClientPermit> {
        self.opening.enter(client).await
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
                    .enter(client, self.pool.share(limit))
                    .ok_or_else(|| busy("too many downloads of your address are running; try again later"))?,
            ),
            None => None,
        };
        let of_all = self.all.clone().try_acquire_owned();
        let of_all = of_all.map_err(|_| busy("too many downloads are running; try again later"))?;
        Ok(DownloadPermit { _of_client: of_client, _of_all: of_all })
    }
}
