//! How much one client may do at a time; what is more waits, and holds up nobody else.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection_limiter::{SITE_FACTOR, rate_limit_key, site_of};

/// Gives places to clients, and to those of IPv6 by their /48 too. Whoever finds no place waits for one.
pub struct ClientPermits {
    of_client: usize,
    by_network: Mutex<HashMap<ClientKey, Weak<Semaphore>>>,
}

/// A network that is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKey {
    Client(IpAddr),
    Site(IpAddr),
}

/// A place of one client. Dropping it frees it.
pub struct ClientPermit {
    _of_client: OwnedSemaphorePermit,
    _of_site: Option<OwnedSemaphorePermit>,
}

impl ClientPermits {
    pub fn new(of_client: usize) -> Self {
        Self { of_client, by_network: Mutex::default() }
    }

    /// Waits for a place of `client`. Returns `None` for a client without an address, for which there is no limit.
    pub async fn enter(&self, client: Option<IpAddr>) -> Option<ClientPermit> {
        let client = rate_limit_key(client?);
        let of_client = self.place_of(ClientKey::Client(client), self.of_client).await;
        let of_site = match site_of(client) {
            Some(site) => {
                let places = self.of_client.saturating_mul(SITE_FACTOR as usize);
                Some(self.place_of(ClientKey::Site(site), places).await)
            }
            None => None,
        };
        Some(ClientPermit { _of_client: of_client, _of_site: of_site })
    }

    async fn place_of(&self, network: ClientKey, places: usize) -> OwnedSemaphorePermit {
        self.places_of(network, places).acquire_owned().await.expect("it is never closed")
    }

    /// Returns the places of one network, which are there for as long as one is taken or waited for.
    fn places_of(&self, network: ClientKey, places: usize) -> Arc<Semaphore> {
        let mut by_network = self.by_network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = by_network.get(&network).and_then(Weak::upgrade) {
            return semaphore;
        }
        by_network.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        by_network.insert(network, Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn enter(places: &ClientPermits, address: &str) -> Option<ClientPermit> {
        places.enter(Some(address.parse().unwrap())).now_or_never().flatten()
    }

    #[test]
    fn a_client_has_its_places_and_a_site_four_times_as_many() {
        let places = ClientPermits::new(2);
        let mut of_site = Vec::new();
        for network in 0..8 {
            for host in 1..4 {
                of_site.extend(enter(&places, &format!("2001:db8:1:{network}::{host}")));
            }
        }
        assert_eq!(of_site.len(), 8);
        let _other = enter(&places, "2001:db8:2::1").unwrap();
        let _v4 = [enter(&places, "192.0.2.1").unwrap(), enter(&places, "::ffff:192.0.2.1").unwrap()];
        assert!(enter(&places, "192.0.2.1").is_none());
        of_site.pop();
        assert!(enter(&places, "2001:db8:1:99::1").is_some());
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let places = Arc::new(ClientPermits::new(1));
        let first = enter(&places, "192.0.2.1").unwrap();
        let second = tokio::spawn({
            let places = places.clone();
            async move { places.enter(Some([192, 0, 2, 1].into())).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap().is_some());
        drop(enter(&places, "192.0.2.2"));
        assert_eq!(places.by_network.lock().unwrap().len(), 1, "nothing should stay behind");
    }
}
