//! Limits of uploads: how many a client may have, how much memory their bodies take, how many are stored at a time.
//!
//! Permits follow bytes: an upload whose body stands still holds a place of its own client and memory for what has arrived, up
//! to twice as much. It holds no place among the uploads that are stored.

mod ledger;
mod line;
mod mapping;
mod memory;
mod slowest;

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use salvo::http::Version;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::mapping::{KeptMappings, Mapping};
pub use self::memory::RequestMemory;
use self::memory::{Reservation, UploadMemory};
use super::error::HttpError;
use crate::{
    config::PodSettings,
    net::client_permits::{ClientPermit, ClientPermits},
};

/// What the request of an upload takes, whatever it waits for: its connection, its future, and what its client sends before
/// anything of the body is read. That fits into a buffer of HTTP/1.1, or into the window of a stream of HTTP/2.
const HTTP1_REQUEST: u64 = 32 * 1024;
const HTTP2_REQUEST: u64 = 80 * 1024;
/// What waits in buffers while a body is read: three reads of HTTP/1.1, or a frame of HTTP/2 and the window of its stream.
const BUFFERS: u64 = 48 * 1024;
/// Requests and buffers take no more than this share of the memory each, so that little memory has room for uploads too.
const MAX_SHARE: u64 = 64;
/// The first piece that an upload takes for its body, unless it is shorter. Those that take no second one have no more than a
/// third of the memory (see [`ledger`]), so that more costs as many bytes.
const FIRST_BYTES: u64 = 32 * 1024;
/// The largest piece that it takes later, unless more has arrived.
const MAX_PIECE: u64 = 1024 * 1024;

/// Gives out permits for uploads.
pub struct UploadLimiter {
    settings: Settings,
    clients: ClientPermits,
    memory: Arc<UploadMemory>,
    mappings: Arc<KeptMappings>,
    stored: Arc<Semaphore>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Settings {
    stored_at_a_time: usize,
    of_client: usize,
    memory: u64,
    wait: Duration,
}

impl Settings {
    fn of(settings: &PodSettings) -> Self {
        Self {
            stored_at_a_time: settings.max_uploads as usize,
            of_client: settings.max_uploads_per_address as usize,
            memory: settings.upload_memory.as_u64(),
            wait: settings.upload_wait,
        }
    }
}

impl UploadLimiter {
    pub fn new(settings: &PodSettings) -> Self {
        let settings = Settings::of(settings);
        Self {
            settings,
            clients: ClientPermits::new(settings.of_client),
            memory: UploadMemory::new(settings.memory, settings.wait),
            mappings: KeptMappings::new(settings.memory),
            stored: Arc::new(Semaphore::new(settings.stored_at_a_time)),
        }
    }

    /// Returns whether `settings` ask for the same limits.
    pub fn fits(&self, settings: &PodSettings) -> bool {
        self.settings == Settings::of(settings)
    }

    /// Takes the memory of a request that has come over this version of HTTP. It lasts as long as the request's body is read,
    /// by whomever.
    pub fn request(&self, version: Version) -> RequestMemory {
        let bytes = if version < Version::HTTP_2 { HTTP1_REQUEST } else { HTTP2_REQUEST };
        self.memory.request(bytes.min(self.share()))
    }

    /// Waits for a place among the uploads of `client`.
    ///
    /// # Errors
    ///
    /// Returns 503 if there is none within `pods.upload_wait`.
    pub async fn begin(&self, client: Option<IpAddr>) -> Result<ArrivingUpload, HttpError> {
        let mut wait = Wait { total: self.settings.wait, left: self.settings.wait };
        let place = wait.until(self.clients.enter(client)).await?;
        let memory = self.memory.reservation(client);
        Ok(ArrivingUpload {
            memory,
            buffers: BUFFERS.min(self.share()),
            place,
            wait,
            mappings: self.mappings.clone(),
            stored: self.stored.clone(),
        })
    }

    fn share(&self) -> u64 {
        self.settings.memory / MAX_SHARE
    }
}

/// Returns how many bytes an upload that holds `held` takes for `arrived` ones, of a body of at most `limit` bytes.
fn step(held: u64, arrived: u64, limit: u64) -> u64 {
    arrived.max(held + held.clamp(FIRST_BYTES, MAX_PIECE)).min(limit) - held
}

/// How long an upload still waits, for all that it waits for together.
struct Wait {
    total: Duration,
    left: Duration,
}

impl Wait {
    /// Waits for `event`, or returns the refusal once the time is used up.
    async fn until<T>(&mut self, event: impl Future<Output = T>) -> Result<T, HttpError> {
        let start = Instant::now();
        let happened = timeout(self.left, event).await;
        self.left = self.left.saturating_sub(start.elapsed());
        happened.map_err(|_| self.busy("too many uploads are running; try again later"))
    }

    fn busy(&self, message: &'static str) -> HttpError {
        HttpError::Busy { message, retry_after: self.total }
    }
}

/// An upload whose body arrives.
pub struct ArrivingUpload {
    memory: Reservation,
    /// What is taken for buffers, beside the body.
    buffers: u64,
    place: Option<ClientPermit>,
    wait: Wait,
    mappings: Arc<KeptMappings>,
    stored: Arc<Semaphore>,
}

impl ArrivingUpload {
    /// Waits for memory for `arrived` bytes, of a body of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Returns 503 if the upload has waited for `pods.upload_wait`.
    pub async fn grow(&mut self, arrived: u64, limit: u64) -> Result<(), HttpError> {
        let held = self.memory.bytes();
        let of_body = held.saturating_sub(self.buffers);
        if held == 0 || arrived > of_body {
            let buffers = if held == 0 { self.buffers } else { 0 };
            let (step, need) = (step(of_body, arrived, limit), limit - of_body);
            self.wait.until(self.memory.grow(buffers + step, buffers + need)).await?;
        }
        self.memory.received(arrived);
        Ok(())
    }

    /// Returns room for a body of `limit` bytes. What is in it is anything.
    pub fn room(&self, limit: u64) -> io::Result<Mapping> {
        self.mappings.get(usize::try_from(limit).map_err(io::Error::other)?)
    }

    /// Returns a token that is cancelled if the upload is to end because others wait for its memory.
    pub fn ended(&self) -> CancellationToken {
        self.memory.ended()
    }

    /// Returns the refusal of an upload that was ended.
    pub fn refusal(&self) -> HttpError {
        self.wait.busy("the memory for uploads is used up, and this one came slowest; try again later")
    }

    /// Waits until the whole body, which has arrived, may be verified and stored.
    ///
    /// # Errors
    ///
    /// Returns 503 if the upload has waited for `pods.upload_wait`.
    pub async fn arrived(mut self) -> Result<UploadPermit, HttpError> {
        self.memory.mark_arrived();
        let stored = self.wait.until(self.stored.acquire_owned()).await?;
        let stored = stored.expect("it is never closed");
        Ok(UploadPermit { memory: self.memory, buffers: self.buffers, _place: self.place, _stored: stored })
    }
}

/// The permit of an upload that is verified and stored. It lasts as long as the bytes of the upload do: see
/// [`UploadPermit::hold`].
pub struct UploadPermit {
    memory: Reservation,
    buffers: u64,
    _place: Option<ClientPermit>,
    _stored: OwnedSemaphorePermit,
}

impl UploadPermit {
    /// Returns `bytes` as [`Bytes`] that keep this permit until the last clone of them is dropped, whoever holds it: a
    /// verification, a registry that writes to a slow disk, a task whose client has gone. They take `memory` bytes; what was
    /// reserved beyond that is given back now.
    pub fn hold(mut self, bytes: impl AsRef<[u8]> + Send + 'static, memory: u64) -> Bytes {
        self.memory.shrink(memory + self.buffers);
        Bytes::from_owner(Held { bytes, _permit: self })
    }
}

/// The bytes of an upload with their permit.
struct Held<T> {
    bytes: T,
    _permit: UploadPermit,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}
