//! What a change is charged to before it is made.

use std::net::IpAddr;

use super::{policy::Exceeded, rules::Pair};

/// What one change was charged to. It stays charged unless it is given back: a client that goes away in the midst of a
/// commit may have made the change.
#[derive(Debug, Default)]
#[must_use]
pub struct RequestCharge(Vec<Pair>);

impl RequestCharge {
    /// Charges one to all of `pairs`, or to none.
    pub fn of(pairs: Vec<Pair>, client: Option<IpAddr>) -> Result<Self, Exceeded> {
        Pair::check_all(&pairs, client)?;
        Ok(Self(pairs))
    }

    /// Gives back what was taken from all clients together if the change was not made. The client's own limits count what
    /// it tries.
    pub fn keep_if(self, is_made: bool) {
        if !is_made {
            self.0.iter().for_each(Pair::give_back_total);
        }
    }
}
