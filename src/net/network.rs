//! The networks of clients.

use std::net::IpAddr;

use super::connection_limiter::rate_limit_key;

/// The network of a client: the rate-limit key of its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientNetwork {
    /// The network that the client is counted by. `None` for a peer without an address for whom no proxy speaks.
    pub counted: Option<IpAddr>,
    /// The same, if the client can claim pod ids from it: others who come from it share a network with the client, and
    /// are not the clients of a proxy.
    pub claims_from: Option<IpAddr>,
}

impl ClientNetwork {
    /// Returns the network of a client at `address`, which is its own.
    pub fn of(address: IpAddr) -> Self {
        let network = Some(rate_limit_key(address));
        Self { counted: network, claims_from: network }
    }
}
