//! Places for what is as much as a connection without being one: a WebSocket on a stream of HTTP/2, and requests on
//! streams of which there may be many on one connection.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    connection_limiter::{AddressLimits, ConnectionCapacity, ConnectionLimiter, ConnectionPermit},
    http2_places::{Http2Place, Http2Places},
    read_throttle::ReadThrottle,
    request_throttle::RequestThrottle,
    small_frames::FrameThrottles,
    streams::StreamProgress,
    throttle::{ClientThrottles, Rate},
};
use crate::config::Live;

/// Gives out places among all connections, on behalf of the client of one connection.
#[derive(Clone)]
pub struct ConnectionPermits {
    pub live: Live,
    pub room: Arc<Semaphore>,
    pub pool: ConnectionCapacity,
    pub connection_limiter: Arc<ConnectionLimiter>,
    pub http2_places: Http2Places,
    /// The same as for connections, for requests on streams of HTTP/2.
    pub requests: Arc<ConnectionLimiter>,
    /// How often these are begun.
    pub throttles: Arc<ClientThrottles>,
    /// How fast the frames of a connection are read.
    pub frames: Arc<FrameThrottles>,
    /// Nobody where a trusted proxy is at the other end, whose connections are not counted by address.
    pub client: Option<IpAddr>,
    /// The other end's, as it is known.
    pub address: Option<IpAddr>,
}

/// Requests on streams that are begun at once, and after that one at a time: hundreds at once hold up one another, and
/// not those of other clients.
const REQUESTS: Rate = Rate { interval: Duration::from_millis(5), burst: Duration::from_millis(5 * 32) };

/// A place that was taken. Dropping it frees it, and gives its stream the time of a response to end.
#[derive(Debug)]
pub struct StreamPermit {
    _counted: Option<ConnectionPermit>,
    _room: OwnedSemaphorePermit,
    progress: Arc<StreamProgress>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.progress.end_sending();
    }
}

/// A client has as many requests on streams of HTTP/2 as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRequests;

impl fmt::Display for TooManyRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many requests of your address are being answered; try again later")
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPermit {
    /// The client has as many connections as one may have.
    OfClient,
    /// There are as many connections as there may be.
    AtAll,
}

impl ConnectionPermits {
    /// Returns how many places one address and its site may have now.
    pub fn share(&self) -> AddressLimits {
        self.share_where_free(self.room.available_permits())
    }

    fn share_where_free(&self, free: usize) -> AddressLimits {
        self.pool.share(self.live.load().http.max_connections_per_address, free)
    }

    /// Counts a request on a stream, until its answer was taken: answers that are not taken wait in memory. A client may
    /// have as many as it may have connections, on however few of them; but one connection may use all its streams.
    pub fn request(&self, streams: u32) -> Result<Option<ConnectionPermit>, TooManyRequests> {
        let Some(client) = self.client else { return Ok(None) };
        // Beside other clients, whose requests take nothing from this one's.
        let limit = self.share_where_free(self.pool.places).of_client.max(streams);
        let places = self.pool.places.max(2 * streams as usize);
        let share = AddressLimits::of(limit, places, places);
        self.requests.enter(client, share).map(Some).ok_or(TooManyRequests)
    }

    /// Returns a place for a connection of HTTP/2, or `None` if the client has as many as it may have now.
    pub fn http2_place(&self) -> Option<Http2Place> {
        self.http2_places.take(self.limited_client())
    }

    /// Returns the throttle of requests on streams, if there is any for the client.
    pub fn throttle(&self) -> Option<RequestThrottle> {
        Some(RequestThrottle::new(self.throttles.of(self.client?, REQUESTS)))
    }

    /// Returns the throttle of the frames of HTTP/2, if there is any for the client.
    pub fn http2_throttle(&self) -> Option<ReadThrottle> {
        Some(self.frames.http2(self.limited_client()?, self.frames_of_sockets()))
    }

    /// Returns the throttle of the records of TLS, if there is any for the client.
    pub fn tls_throttle(&self) -> Option<ReadThrottle> {
        Some(self.frames.tls(self.limited_client()?, self.frames_of_sockets()))
    }

    fn frames_of_sockets(&self) -> u32 {
        self.live.load().signal.frames_per_second_per_address()
    }

    /// Returns whether no rate holds for the client at present.
    pub fn is_exempt(&self) -> bool {
        self.address.is_some_and(|address| self.live.load().limits.exempts(address))
    }

    /// Returns the client, if any limit holds for it at present.
    pub fn limited_client(&self) -> Option<IpAddr> {
        self.client.filter(|_| !self.is_exempt())
    }

    /// Takes one more place, as another connection would, for the stream in whose task this is called.
    pub fn take(&self) -> Result<StreamPermit, NoPermit> {
        let share = self.share();
        let room = self.room.clone().try_acquire_owned().map_err(|_| NoPermit::AtAll)?;
        let counted = match self.client {
            Some(client) => Some(self.connection_limiter.enter(client, share).ok_or(NoPermit::OfClient)?),
            None => None,
        };
        Ok(StreamPermit { _counted: counted, _room: room, progress: StreamProgress::of_stream() })
    }
}
