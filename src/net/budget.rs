//! A number of bytes or places that all clients share, of which none takes more than it leaves.
//!
//! These are dynamic thresholds (Choudhury and Hahne, 1998): those that hold most are refused first, and `n` that fill up
//! side by side leave one part in `n + 1` to a newcomer. They hold at each level apart: an IPv6 /48 takes no more than it
//! leaves to other networks, a client in it no more than its /48 then leaves to the other clients in it, and a holder no
//! more than its client leaves to its other holders.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    client_permits::ClientKey,
    connection_limiter::{rate_limit_key, site_of},
};

/// A number of bytes or places.
#[derive(Debug)]
pub struct Budget(Mutex<State>);

#[derive(Debug)]
struct State {
    limit: usize,
    used: usize,
    by_network: HashMap<ClientKey, usize>,
}

/// A budget as one client may take from it. A client without an address shares nothing with others but the total.
#[derive(Clone, Debug)]
pub struct ClientBudget {
    budget: Arc<Budget>,
    client: Option<IpAddr>,
}

/// What was taken; dropping it gives it back.
#[derive(Debug)]
pub struct BudgetPermit {
    budget: ClientBudget,
    amount: usize,
}

impl Budget {
    /// Returns a budget of `limit`.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { limit, used: 0, by_network: HashMap::new() })))
    }

    /// Allows another amount from now on.
    pub fn set_limit(&self, limit: usize) {
        self.lock().limit = limit;
    }

    /// Returns the budget for a client.
    pub fn of(self: &Arc<Self>, client: Option<IpAddr>) -> ClientBudget {
        ClientBudget { budget: self.clone(), client: client.map(rate_limit_key) }
    }

    /// Returns how much is taken.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientBudget {
    /// Takes `amount` for a holder of the client that holds `held` already. Returns `false` if it or its networks would then
    /// hold more than is left to them now.
    pub fn take(&self, amount: usize, held: usize) -> bool {
        if amount == 0 {
            return true;
        }
        let mut state = self.budget.lock();
        let mut room = state.limit.saturating_sub(state.used);
        let by_network = &state.by_network;
        let of_networks = self.networks().map(|key| by_network.get(&key).copied().unwrap_or_default());
        for held in of_networks.chain([held]) {
            if held.saturating_add(amount) > room {
                return false;
            }
            room -= held;
        }
        state.add(self.networks(), amount);
        true
    }

    /// Takes `amount` even if it is not left.
    pub fn take_anyway(&self, amount: usize) {
        if amount > 0 {
            self.budget.lock().add(self.networks(), amount);
        }
    }

    /// Gives back what was taken.
    pub fn give_back(&self, amount: usize) {
        if amount > 0 {
            self.budget.lock().subtract(self.networks(), amount);
        }
    }

    /// Takes `amount`, or returns `None` if the client would then hold more than is left to it now.
    pub fn permit(&self, amount: usize) -> Option<BudgetPermit> {
        self.take(amount, 0).then(|| BudgetPermit { budget: self.clone(), amount })
    }

    /// Returns the networks that count for the client, the largest first.
    fn networks(&self) -> impl Iterator<Item = ClientKey> + use<> {
        let site = self.client.and_then(site_of).map(ClientKey::Site);
        site.into_iter().chain(self.client.map(ClientKey::Client))
    }
}

impl State {
    fn add(&mut self, networks: impl Iterator<Item = ClientKey>, amount: usize) {
        self.used += amount;
        networks.for_each(|network| *self.by_network.entry(network).or_default() += amount);
    }

    fn subtract(&mut self, networks: impl Iterator<Item = ClientKey>, amount: usize) {
        self.used -= amount;
        for network in networks {
            if let Some(held) = self.by_network.get_mut(&network) {
                *held -= amount;
                if *held == 0 {
                    self.by_network.remove(&network);
                }
            }
        }
    }
}

impl BudgetPermit {
    /// Takes what is missing to `amount`. Returns `false` if it is not left to the client.
    pub fn grow_to(&mut self, amount: usize) -> bool {
        let more = amount.saturating_sub(self.amount);
        let is_left = self.budget.take(more, self.amount);
        self.amount += if is_left { more } else { 0 };
        is_left
    }
}

impl Drop for BudgetPermit {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1200;

    fn of(budget: &Arc<Budget>, client: &str) -> ClientBudget {
        budget.of(Some(client.parse().unwrap()))
    }

    /// Takes one after the other until there is nothing left to the client; returns what it holds.
    fn fill(budget: &ClientBudget) -> Vec<BudgetPermit> {
        (0..2 * LIMIT).map_while(|_| budget.permit(1)).collect()
    }

    #[test]
    fn holders_that_fill_up_side_by_side_leave_room_for_a_newcomer() {
        let budget = Budget::new(1 << 20);
        let nobody = budget.of(None);
        let mut held = [0; 20];
        for _ in 0..1000 {
            for held in &mut held {
                *held += if nobody.take(1000, *held) { 1000 } else { 0 };
            }
        }
        assert!(nobody.take((1 << 20) / 22, 0), "{budget:?}");
        nobody.give_back((1 << 20) / 22 + held.iter().sum::<usize>());
        assert_eq!(budget.used(), 0);
        assert!(nobody.take(1 << 20, 0), "one that is alone can have all of it");
    }

    #[test]
    fn however_a_network_fills_up_any_other_finds_a_part() {
        for (flood, others) in [
            (vec!["192.0.2.1"], vec!["192.0.2.2", "::ffff:192.0.2.3", "2001:db8::1"]),
            (vec!["2001:db8:1::1", "2001:db8:1::2"], vec!["2001:db8:1:1::1", "2001:db8:2::1", "192.0.2.1"]),
            (vec!["2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:3::1"], vec!["2001:db8:2::1"]),
        ] {
            let budget = Budget::new(LIMIT);
            let mut held = Vec::new();
            for _ in 0..4 {
                held.extend(flood.iter().flat_map(|client| fill(&of(&budget, client))));
            }
            for other in others {
                assert!(fill(&of(&budget, other)).len() >= LIMIT / 9, "{flood:?} {other}: {}", held.len());
            }
            drop(held);
            assert!(budget.lock().by_network.is_empty());
            assert_eq!(budget.used(), 0);
        }
    }

    /// However many holders a client has, and in whatever order they take all that they may.
    #[test]
    fn holders_share_what_their_client_may_have() {
        let budget = Budget::new(LIMIT);
        let flood = of(&budget, "192.0.2.1");
        let mut held = [0; 50];
        for held in &mut held {
            while flood.take(1, *held) {
                *held += 1;
            }
        }
        assert_eq!(held.iter().sum::<usize>(), LIMIT / 2);
        assert_eq!(held[0], LIMIT / 3);
        assert!(of(&budget, "192.0.2.2").take(LIMIT / 6, 0));
    }

    #[test]
    fn a_permit_grows_as_far_as_there_is_room_and_gives_all_of_it_back() {
        let budget = Budget::new(LIMIT);
        let mut permit = of(&budget, "192.0.2.1").permit(10).unwrap();
        assert!(permit.grow_to(5) && permit.grow_to(100) && !permit.grow_to(LIMIT));
        assert_eq!(budget.used(), 100);
        drop(permit);
        assert_eq!(budget.used(), 0);
    }
}
