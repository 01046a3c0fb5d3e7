//! How many uploads are read at a time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::HttpError;
use crate::{config::PodSettings, net::crowd::group_of};

/// Lets a bounded number of uploads, of bounded size together, be read at a time; of one client, a smaller number.
pub struct Turnstile {
    slots: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    wait: Duration,
    slots_per_client: usize,
    by_client: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Turnstile {
    /// Memory is counted in units of this many bytes.
    const UNIT: u64 = 1024;

    pub fn new(settings: &PodSettings) -> Self {
        let units = settings.upload_memory.as_u64() / Self::UNIT;
        Self {
            slots: Arc::new(Semaphore::new(settings.max_uploads as usize)),
            memory: Arc::new(Semaphore::new(units as usize)),
            wait: settings.upload_wait,
            slots_per_client: settings.max_uploads_per_address as usize,
            by_client: Mutex::default(),
        }
    }

    /// A place for an upload of `bytes` bytes, or the refusal once it has waited for too long.
    pub async fn enter(&self, client: Option<IpAddr>, bytes: u64) -> Result<Turn, HttpError> {
        let units = u32::try_from(bytes.div_ceil(Self::UNIT)).unwrap_or(u32::MAX);
        let turn = async {
            let of_client = match client {
                Some(client) => Some(self.slots_of(client).acquire_owned().await?),
                None => None,
            };
            let slot = self.slots.clone().acquire_owned().await?;
            let memory = self.memory.clone().acquire_many_owned(units).await?;
            Ok::<_, AcquireError>(Turn { _of_client: of_client, _slot: slot, memory })
        };
        match timeout(self.wait, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(HttpError::Busy {
                message: "too many uploads are running; try again later",
                retry_after: self.wait,
            }),
        }
    }

    /// The slots of one client, which are there for as long as one is taken or waited for.
    fn slots_of(&self, client: IpAddr) -> Arc<Semaphore> {
        let client = group_of(client);
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = by_client.get(&client).and_then(Weak::upgrade) {
            return slots;
        }
        by_client.retain(|_, slots| slots.strong_count() > 0);
        let slots = Arc::new(Semaphore::new(self.slots_per_client));
        by_client.insert(client, Arc::downgrade(&slots));
        slots
    }
}

/// An upload's place. It lasts as long as the bytes of the upload do: see [`Turn::hold`].
pub struct Turn {
    _of_client: Option<OwnedSemaphorePermit>,
    _slot: OwnedSemaphorePermit,
    memory: OwnedSemaphorePermit,
}

impl Turn {
    /// Returns `bytes` as [`Bytes`] that keep this place until the last clone of them is dropped, whoever holds it: a
    /// verification, a registry that writes to a slow disk, a task whose client has gone. Memory that was reserved
    /// beyond them is given back now.
    pub fn hold(mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        let needed = (bytes.as_ref().len() as u64).div_ceil(Turnstile::UNIT);
        let spare = self.memory.num_permits().saturating_sub(needed as usize);
        drop(self.memory.split(spare));
        Bytes::from_owner(Held { bytes, _turn: self })
    }
}

/// The bytes of an upload with the place that they take.
struct Held<T> {
    bytes: T,
    _turn: Turn,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}
