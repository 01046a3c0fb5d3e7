//! A socket's place in the directory.

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{Arc, atomic::Ordering},
};

use super::{Directory, member::Member};
use crate::signal::outbox::Outbox;

/// A socket's place in the directory; dropping it is leaving.
#[derive(Debug)]
pub struct Place(Member);

impl Directory {
    /// Lets a socket in; what is meant for it goes into `outbox`. `network` is the client's, or `None` for a client that
    /// no limit holds for.
    pub fn join(self: &Arc<Self>, outbox: Arc<Outbox>, network: Option<IpAddr>) -> Place {
        let id = self.next_socket.fetch_add(1, Ordering::Relaxed);
        self.lock().join(id, outbox.clone(), network);
        Place(Member::new(self.clone(), id, outbox))
    }
}

impl Deref for Place {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}
