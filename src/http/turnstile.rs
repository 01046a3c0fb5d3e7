//! How many uploads are read at a time, and how many bytes they may take together.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::HttpError;
use crate::{config::PodSettings, net::crowd::group_of};

/// Lets a bounded number of uploads, of bounded size together, be read at a time; of one client, a share of both.
pub struct Turnstile {
    settings: Settings,
    slots: Arc<Semaphore>,
    memory: Arc<UploadMemory>,
    by_client: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Settings {
    slots: usize,
    slots_per_client: usize,
    memory: u64,
    wait: Duration,
}

impl Settings {
    fn of(settings: &PodSettings) -> Self {
        Self {
            slots: settings.max_uploads as usize,
            slots_per_client: settings.max_uploads_per_address as usize,
            memory: settings.upload_memory.as_u64(),
            wait: settings.upload_wait,
        }
    }
}

impl Turnstile {
    pub fn new(settings: &PodSettings) -> Self {
        let settings = Settings::of(settings);
        Self {
            settings,
            slots: Arc::new(Semaphore::new(settings.slots)),
            memory: Arc::new(UploadMemory::new(settings.memory)),
            by_client: Mutex::default(),
        }
    }

    /// Whether it is as `settings` ask for.
    pub fn fits(&self, settings: &PodSettings) -> bool {
        self.settings == Settings::of(settings)
    }

    /// A place for an upload of `bytes` bytes, or the refusal once it has waited for too long.
    pub async fn enter(&self, client: Option<IpAddr>, bytes: u64) -> Result<Turn, HttpError> {
        let client = client.map(group_of);
        let turn = async {
            let of_client = match client {
                Some(client) => Some(self.slots_of(client).acquire_owned().await?),
                None => None,
            };
            let slot = self.slots.clone().acquire_owned().await?;
            let memory = self.memory.take(client, bytes).await;
            Ok::<_, AcquireError>(Turn { memory, _of_client: of_client, _slot: slot })
        };
        match timeout(self.settings.wait, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(HttpError::Busy {
                message: "too many uploads are running; try again later",
                retry_after: self.settings.wait,
            }),
        }
    }

    /// The slots of one client, which are there for as long as one is taken or waited for.
    fn slots_of(&self, client: IpAddr) -> Arc<Semaphore> {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = by_client.get(&client).and_then(Weak::upgrade) {
            return slots;
        }
        by_client.retain(|_, slots| slots.strong_count() > 0);
        let slots = Arc::new(Semaphore::new(self.settings.slots_per_client));
        by_client.insert(client, Arc::downgrade(&slots));
        slots
    }
}

/// The memory of all uploads. Whoever fits is served, in no order: a large upload that waits must not hold up small ones.
struct UploadMemory {
    state: Mutex<State>,
    given_back: Notify,
}

struct State {
    left: u64,
    held: HashMap<IpAddr, u64>,
}

impl UploadMemory {
    fn new(bytes: u64) -> Self {
        let state = State { left: bytes, held: HashMap::new() };
        Self { state: Mutex::new(state), given_back: Notify::new() }
    }

    /// Takes `bytes`, once they are left and `client` would not hold more with them than is left: uploads of one client,
    /// however slow they are, leave half of the memory to the others.
    async fn take(self: &Arc<Self>, client: Option<IpAddr>, bytes: u64) -> Reserved {
        loop {
            let given_back = self.given_back.notified();
            if self.lock().take(client, bytes) {
                return Reserved { memory: self.clone(), client, bytes };
            }
            given_back.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, client: Option<IpAddr>, bytes: u64) -> bool {
        let held = client.and_then(|client| self.held.get(&client).copied()).unwrap_or_default();
        let fits = held.saturating_add(bytes) <= self.left;
        if fits {
            self.left -= bytes;
            if let Some(client) = client {
                self.held.insert(client, held + bytes);
            }
        }
        fits
    }

    fn give_back(&mut self, client: Option<IpAddr>, bytes: u64) {
        self.left += bytes;
        let Some(client) = client else { return };
        if let Some(held) = self.held.get_mut(&client) {
            *held -= bytes;
            if *held == 0 {
                self.held.remove(&client);
            }
        }
    }
}

/// Bytes of the memory; dropping it gives them back.
struct Reserved {
    memory: Arc<UploadMemory>,
    client: Option<IpAddr>,
    bytes: u64,
}

impl Reserved {
    /// Gives back what exceeds `bytes`.
    fn shrink(&mut self, bytes: u64) {
        let spare = self.bytes.saturating_sub(bytes);
        self.bytes -= spare;
        self.memory.lock().give_back(self.client, spare);
        self.memory.given_back.notify_waiters();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// An upload's place. It lasts as long as the bytes of the upload do: see [`Turn::hold`].
pub struct Turn {
    memory: Reserved,
    _of_client: Option<OwnedSemaphorePermit>,
    _slot: OwnedSemaphorePermit,
}

impl Turn {
    /// Returns `bytes` as [`Bytes`] that keep this place until the last clone of them is dropped, whoever holds it: a
    /// verification, a registry that writes to a slow disk, a task whose client has gone. Memory that was reserved
    /// beyond them is given back now.
    pub fn hold(mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        self.memory.shrink(bytes.as_ref().len() as u64);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> Option<IpAddr> {
        Some([192, 0, 2, n].into())
    }

    #[test]
    fn one_client_leaves_half_to_the_others_and_nothing_is_lost() {
        let mut state = State { left: 100, held: HashMap::new() };
        assert!(!state.take(client(1), 101));
        let taken = (0..100).filter(|_| state.take(client(1), 5)).count();
        assert_eq!((taken, state.left), (10, 50));
        assert!(state.take(client(2), 25) && !state.take(client(2), 1) && state.take(None, 25));
        state.give_back(client(2), 25);
        state.give_back(None, 25);
        state.give_back(client(1), 50);
        assert!(state.held.is_empty());
        assert!(state.take(client(1), 100), "one upload may take what is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_upload_that_waits_does_not_hold_up_a_small_one() {
        let memory = Arc::new(UploadMemory::new(100));
        let first = memory.take(client(1), 60).await;
        let large = tokio::spawn({
            let memory = memory.clone();
            async move { memory.take(client(2), 80).await.bytes }
        });
        tokio::task::yield_now().await;
        drop(memory.take(client(3), 40).await);
        assert!(!large.is_finished());
        drop(first);
        assert_eq!(large.await.unwrap(), 80);
    }
}
