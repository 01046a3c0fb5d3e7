//! Offers that wait for the host of their pod id, with the candidates that follow them.
//!
//! What waits is bounded in bytes. Each offer counts [`OFFER_OVERHEAD`] on top of its frames, which bounds the number
//! of offers too. Where a bound is reached the newcomer is refused; what waits already stays. Of the room for a pod id, and
//! of all, a client network has at most as much as it leaves, so that one more network always finds some.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
};

use tokio::time::Instant;

use crate::signal::ids::{PodId, SessionId, SocketId};

/// Bookkeeping for one offer beside its frames.
pub const OFFER_OVERHEAD: usize = 1024;
/// Bookkeeping for one frame beside its text.
pub const FRAME_OVERHEAD: usize = 64;
/// Bytes that may wait for one visitor's socket.
pub const MAX_PER_SOCKET: usize = 64 << 10;
/// Bytes that may wait for the visitors of one client network.
const MAX_PER_NETWORK: usize = 512 << 10;
/// Bytes that may wait in total.
const MAX_TOTAL: usize = 16 << 20;

/// All waiting offers, in the order in which they came.
#[derive(Debug, Default)]
pub struct WaitingOffers {
    offers: BTreeMap<u64, WaitingOffer>,
    by_pod: HashMap<PodId, Queue>,
    by_socket: HashMap<SocketId, usize>,
    by_network: HashMap<IpAddr, usize>,
    bytes: usize,
    last: u64,
}

/// The offers that wait for one pod id.
#[derive(Debug, Default)]
struct Queue {
    numbers: Vec<u64>,
    bytes: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// An offer and what its visitor sent after it.
#[derive(Debug)]
pub struct WaitingOffer {
    pub pod: PodId,
    pub visitor: SocketId,
    pub session_id: SessionId,
    /// The visitor's network; `None` for clients that no limit holds for.
    pub network: Option<IpAddr>,
    /// When it has waited for long enough.
    pub expires: Instant,
    /// As the origin gets them: the offer first.
    pub frames: Vec<String>,
}

impl WaitingOffer {
    fn cost(&self) -> usize {
        OFFER_OVERHEAD + self.frames.iter().map(|frame| cost_of(frame)).sum::<usize>()
    }
}

fn cost_of(frame: &str) -> usize {
    frame.len() + FRAME_OVERHEAD
}

impl WaitingOffers {
    /// Adds an offer and returns its number, or `None` if there is no room for it. At most `pod_limit` bytes wait for
    /// one pod id, so that its host takes them all at once.
    pub fn add(&mut self, offer: WaitingOffer, pod_limit: usize) -> Option<u64> {
        if !self.reserve(&offer, offer.cost(), pod_limit) {
            return None;
        }
        self.last += 1;
        self.by_pod.entry(offer.pod.clone()).or_default().numbers.push(self.last);
        self.offers.insert(self.last, offer);
        Some(self.last)
    }

    /// Adds a frame behind an offer. Returns whether there was room for it.
    pub fn append(&mut self, number: u64, frame: String, pod_limit: usize) -> bool {
        let Some(mut offer) = self.offers.remove(&number) else { return false };
        let fits = self.reserve(&offer, cost_of(&frame), pod_limit);
        if fits {
            offer.frames.push(frame);
        }
        self.offers.insert(number, offer);
        fits
    }

    /// Puts another offer, alone, in the place of one that waits. Returns whether there was room for it.
    pub fn replace(&mut self, number: u64, frame: String, pod_limit: usize) -> bool {
        let Some(mut offer) = self.offers.remove(&number) else { return false };
        let freed = offer.frames.drain(..).map(|frame| cost_of(&frame)).sum();
        self.release(&offer, freed);
        self.offers.insert(number, offer);
        self.append(number, frame, pod_limit)
    }

    /// Removes one offer.
    pub fn remove(&mut self, number: u64) -> Option<WaitingOffer> {
        let offer = self.offers.remove(&number)?;
        if let Some(queue) = self.by_pod.get_mut(&offer.pod) {
            queue.numbers.retain(|other| *other != number);
        }
        self.release(&offer, offer.cost());
        Some(offer)
    }

    /// Removes all offers for a pod id and returns them in the order in which they came.
    pub fn take(&mut self, pod: &PodId) -> Vec<WaitingOffer> {
        let numbers = self.by_pod.get(pod).map(|queue| queue.numbers.clone()).unwrap_or_default();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Removes all offers and returns them in the order in which they came.
    pub fn take_all(&mut self) -> Vec<WaitingOffer> {
        let numbers: Vec<u64> = self.offers.keys().copied().collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Removes the offers that have waited for long enough.
    pub fn take_expired(&mut self, now: Instant) -> Vec<WaitingOffer> {
        let mut expired = Vec::new();
        while let Some((number, _)) = self.offers.first_key_value().filter(|(_, offer)| offer.expires <= now)
        {
            expired.extend(self.remove(*number));
        }
        expired
    }

    /// When the next offer has waited for long enough. After `signal.offline_grace` was shortened, those that came
    /// later wait for those before.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.offers.first_key_value().map(|(_, offer)| offer.expires)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
            && self.by_pod.is_empty()
            && self.by_socket.is_empty()
            && self.by_network.is_empty()
            && self.bytes == 0
    }

    /// Counts `bytes` of `offer` towards every bound, if all of them allow it.
    fn reserve(&mut self, offer: &WaitingOffer, bytes: usize, pod_limit: usize) -> bool {
        let queue = self.by_pod.get(&offer.pod);
        let left_of_pod = pod_limit.saturating_sub(queue.map_or(0, |queue| queue.bytes));
        let left = MAX_TOTAL - self.bytes;
        let of_socket = self.by_socket.get(&offer.visitor).copied().unwrap_or_default();
        let network_fits = offer.network.is_none_or(|network| {
            let of_pod = queue.and_then(|queue| queue.by_network.get(&network)).copied().unwrap_or_default();
            let of_all = self.by_network.get(&network).copied().unwrap_or_default();
            of_pod + bytes <= left_of_pod && of_all + bytes <= left.min(MAX_PER_NETWORK)
        });
        let fits =
            network_fits && bytes <= left_of_pod && bytes <= left && of_socket + bytes <= MAX_PER_SOCKET;
        if fits {
            let queue = self.by_pod.entry(offer.pod.clone()).or_default();
            queue.bytes += bytes;
            *self.by_socket.entry(offer.visitor).or_default() += bytes;
            if let Some(network) = offer.network {
                *queue.by_network.entry(network).or_default() += bytes;
                *self.by_network.entry(network).or_default() += bytes;
            }
            self.bytes += bytes;
        }
        fits
    }

    fn release(&mut self, offer: &WaitingOffer, bytes: usize) {
        if let Some(queue) = self.by_pod.get_mut(&offer.pod) {
            queue.bytes -= bytes;
            if let Some(network) = &offer.network {
                subtract(&mut queue.by_network, network, bytes);
            }
            if queue.numbers.is_empty() {
                self.by_pod.remove(&offer.pod);
            }
        }
        subtract(&mut self.by_socket, &offer.visitor, bytes);
        if let Some(network) = &offer.network {
            subtract(&mut self.by_network, network, bytes);
        }
        self.bytes -= bytes;
    }
}

fn subtract<K: Eq + Hash>(used: &mut HashMap<K, usize>, key: &K, bytes: usize) {
    if let Some(left) = used.get_mut(key) {
        *left -= bytes;
        if *left == 0 {
            used.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_POD_LIMIT: usize = usize::MAX;

    fn offer(pod: &str, visitor: SocketId, network: Option<&str>, bytes: usize) -> WaitingOffer {
        WaitingOffer {
            pod: pod.into(),
            visitor,
            session_id: "s".into(),
            network: network.map(|network| network.parse().unwrap()),
            expires: Instant::now(),
            frames: vec!["x".repeat(bytes)],
        }
    }

    /// How many offers of `bytes` each have room, each from a visitor of its own.
    fn room(waiting: &mut WaitingOffers, network: Option<&str>, bytes: usize, pod_limit: usize) -> usize {
        let first = waiting.last;
        let mut add = |visitor| waiting.add(offer("pod", visitor, network, bytes), pod_limit).is_some();
        (first..first + 100_000).take_while(|visitor| add(*visitor)).count()
    }

    #[test]
    fn bytes_and_offers_are_bounded_for_a_socket_a_network_a_pod_and_in_total() {
        for bytes in [1, 5_000, 60_000] {
            let cost = OFFER_OVERHEAD + FRAME_OVERHEAD + bytes;
            let mut waiting = WaitingOffers::default();
            let add = |waiting: &mut WaitingOffers| waiting.add(offer("pod", 7, None, bytes), NO_POD_LIMIT);
            let of_socket = (0..1000).take_while(|_| add(&mut waiting).is_some()).count();
            assert_eq!(of_socket, MAX_PER_SOCKET / cost, "one socket");

            let mut waiting = WaitingOffers::default();
            assert_eq!(room(&mut waiting, Some("192.0.2.1"), bytes, NO_POD_LIMIT), MAX_PER_NETWORK / cost);
            assert_eq!(room(&mut waiting, Some("192.0.2.2"), bytes, NO_POD_LIMIT), MAX_PER_NETWORK / cost);

            let mut waiting = WaitingOffers::default();
            assert_eq!(room(&mut waiting, None, bytes, 300_000), 300_000 / cost, "one pod id");

            let mut waiting = WaitingOffers::default();
            assert_eq!(room(&mut waiting, None, bytes, NO_POD_LIMIT), MAX_TOTAL / cost, "in total");
            waiting.take_all();
            assert!(waiting.is_empty(), "{waiting:?}");
        }
    }

    #[test]
    fn a_network_has_at_most_as_much_as_it_leaves() {
        let mut waiting = WaitingOffers::default();
        let flood = room(&mut waiting, Some("192.0.2.1"), 5_000, 300_000);
        let room_of_pod = 300_000 / (OFFER_OVERHEAD + FRAME_OVERHEAD + 5_000);
        assert_eq!(flood, room_of_pod.div_ceil(2), "of a pod id's room");
        assert_eq!(room(&mut waiting, Some("192.0.2.2"), 5_000, 300_000), flood / 2);
        waiting.take_all();
        assert!(waiting.is_empty(), "{waiting:?}");
        for network in 1..=33 {
            room(&mut waiting, Some(&format!("192.0.2.{network}")), 5_000, NO_POD_LIMIT);
        }
        assert!(room(&mut waiting, Some("198.51.100.1"), 5_000, NO_POD_LIMIT) >= 10, "in total");
    }

    #[test]
    fn frames_behind_an_offer_are_bounded_and_a_refused_one_changes_nothing() {
        let mut waiting = WaitingOffers::default();
        let number = waiting.add(offer("pod", 1, None, 100), NO_POD_LIMIT).unwrap();
        let appended =
            (0..10_000).take_while(|_| waiting.append(number, "x".repeat(36), NO_POD_LIMIT)).count();
        assert_eq!(appended, (MAX_PER_SOCKET - OFFER_OVERHEAD - 164) / 100);
        assert!(waiting.replace(number, "y".into(), NO_POD_LIMIT));
        assert_eq!(waiting.take(&"pod".into())[0].frames, ["y"]);
        assert!(waiting.is_empty(), "{waiting:?}");
    }

    #[test]
    fn offers_are_taken_in_the_order_in_which_they_came() {
        let mut waiting = WaitingOffers::default();
        for visitor in [3, 1, 2] {
            waiting.add(offer("pod", visitor, Some("192.0.2.1"), 1), NO_POD_LIMIT).unwrap();
            waiting.add(offer("other", visitor, None, 1), NO_POD_LIMIT).unwrap();
        }
        let visitors: Vec<_> = waiting.take(&"pod".into()).iter().map(|offer| offer.visitor).collect();
        assert_eq!(visitors, [3, 1, 2]);
        assert_eq!(waiting.take_expired(Instant::now()).len(), 3);
        assert!(waiting.is_empty(), "{waiting:?}");
    }
}
