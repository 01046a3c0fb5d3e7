//! Whose silent connections there are, and which of them makes room for a newcomer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Silent connections by customer, and the customers by how many they have.
#[derive(Debug, Default)]
pub struct Customers {
    /// The oldest has the smallest number.
    connections: HashMap<IpAddr, BTreeMap<u64, Connection>>,
    by_size: BTreeSet<(usize, IpAddr)>,
    next: u64,
}

#[derive(Debug)]
struct Connection {
    opened: Instant,
    give_up: CancellationToken,
}

impl Customers {
    /// Adds a connection, which `give_up` ends. Returns its number.
    pub fn add(&mut self, customer: IpAddr, give_up: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        let connection = Connection { opened: Instant::now(), give_up };
        self.change(customer, |connections| connections.insert(number, connection));
        number
    }

    /// Removes a connection, if it is still there.
    pub fn remove(&mut self, customer: IpAddr, number: u64) {
        self.change(customer, |connections| connections.remove(&number));
    }

    /// Removes the oldest connection of the customer that has most, and returns what ends it. Returns `None` if `newcomer`
    /// has as many, or if it was opened less than `grace` ago.
    pub fn take_oldest(&mut self, newcomer: Option<IpAddr>, grace: Duration) -> Option<CancellationToken> {
        let own = newcomer.and_then(|newcomer| self.connections.get(&newcomer)).map_or(0, BTreeMap::len);
        let (most, customer) = *self.by_size.last()?;
        let (_, oldest) = self.connections[&customer].first_key_value()?;
        if most <= own || oldest.opened.elapsed() < grace {
            return None;
        }
        self.change(customer, BTreeMap::pop_first).map(|(_, oldest)| oldest.give_up)
    }

    fn change<T>(&mut self, customer: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, Connection>) -> T) -> T {
        let connections = self.connections.entry(customer).or_default();
        let before = connections.len();
        let changed = change(connections);
        let after = connections.len();
        if before != after {
            self.by_size.remove(&(before, customer));
            self.by_size.insert((after, customer));
        }
        if after == 0 {
            self.by_size.remove(&(0, customer));
            self.connections.remove(&customer);
        }
        changed
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.by_size.is_empty()
    }
}
