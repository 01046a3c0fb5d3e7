//! Places for what is as much as a connection without being one: a WebSocket on a stream of HTTP/2.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::crowd::{Counted, Crowd};
use crate::config::Live;

/// Gives out places among all connections, on behalf of the client of one connection.
#[derive(Clone)]
pub struct Places {
    pub live: Live,
    pub room: Arc<Semaphore>,
    pub crowd: Arc<Crowd>,
    /// Nobody where a trusted proxy is at the other end, whose connections are not counted by address.
    pub client: Option<IpAddr>,
}

/// A place that was taken; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    _counted: Option<Counted>,
    _room: OwnedSemaphorePermit,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The client has as many connections as one may have.
    OfClient,
    /// There are as many connections as there may be.
    AtAll,
}

impl Places {
    /// Takes one more place, as another connection would.
    pub fn take(&self) -> Result<Place, NoPlace> {
        let limit = self.live.load().http.max_connections_per_address;
        let counted = match self.client {
            Some(client) => Some(self.crowd.enter(client, limit).ok_or(NoPlace::OfClient)?),
            None => None,
        };
        let room = self.room.clone().try_acquire_owned().map_err(|_| NoPlace::AtAll)?;
        Ok(Place { _counted: counted, _room: room })
    }
}
