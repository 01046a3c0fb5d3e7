//! Who is charged for what is remembered of signed requests, tokens and pod ids.

use std::net::IpAddr;

use crate::net::connection_limiter::customer_key;

/// Who sends something that is taken once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The network that one customer may have all of.
    network: Option<IpAddr>,
    /// Whether the key owns something here.
    pub is_owner: bool,
}

impl Sender {
    /// Returns the sender at an address of `network`, if it is known.
    pub fn new(network: Option<IpAddr>, is_owner: bool) -> Self {
        Self { network: network.map(customer_key), is_owner }
    }
}
