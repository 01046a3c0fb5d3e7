//! The sockets that were opened with a credential, so that they can be closed when it is revoked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    pods::Digest,
    signal::{close::Close, socket::SocketHandle},
};

const REVOKED: &str = "the credential of this host was revoked by its owner";

/// Open sockets by the hash of the secret that they presented.
#[derive(Debug, Default)]
pub struct OpenSockets {
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    by_secret: HashMap<Digest, HashMap<u64, Option<SocketHandle>>>,
    next: u64,
}

/// One socket's entry; dropping it removes the entry.
#[derive(Debug)]
pub struct CredentialSocket {
    open: Arc<OpenSockets>,
    secret_hash: Digest,
    number: u64,
}

impl OpenSockets {
    /// Enters a socket that is not open yet.
    pub fn enter(self: &Arc<Self>, secret_hash: Digest) -> CredentialSocket {
        let mut sockets = self.lock();
        let number = sockets.next;
        sockets.next += 1;
        sockets.by_secret.entry(secret_hash).or_default().insert(number, None);
        CredentialSocket { open: self.clone(), secret_hash, number }
    }

    /// Closes all sockets that presented this secret, and those that are about to open.
    pub fn revoke(&self, secret_hash: &Digest) {
        let revoked = self.lock().by_secret.remove(secret_hash);
        revoked.into_iter().flatten().filter_map(|(_, socket)| socket).for_each(|socket| close(&socket));
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CredentialSocket {
    /// The socket is open; it is closed at once if the credential was revoked meanwhile.
    pub fn opened(&self, socket: SocketHandle) {
        let mut sockets = self.open.lock();
        let entry = sockets.by_secret.get_mut(&self.secret_hash).and_then(|of| of.get_mut(&self.number));
        match entry {
            Some(entry) => *entry = Some(socket),
            None => {
                drop(sockets);
                close(&socket);
            }
        }
    }
}

impl Drop for CredentialSocket {
    fn drop(&mut self) {
        let mut sockets = self.open.lock();
        if let Some(of_secret) = sockets.by_secret.get_mut(&self.secret_hash) {
            of_secret.remove(&self.number);
            if of_secret.is_empty() {
                sockets.by_secret.remove(&self.secret_hash);
            }
        }
    }
}

fn close(socket: &SocketHandle) {
    socket.close(REVOKED, Close::CREDENTIAL_REFUSED);
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use super::*;
    use crate::{
        config::SignalSettings,
        net::budget::Budget,
        signal::{
            directory::Directory,
            outbox::{Next, Outbox},
        },
    };

    async fn told(outbox: &Outbox) -> (Next, Close) {
        let next = async || poll_fn(|cx| outbox.poll_next(cx)).await;
        (next().await.unwrap(), next().await.unwrap_err())
    }

    #[tokio::test]
    async fn a_revocation_closes_sockets_that_are_open_and_those_that_are_about_to_be() {
        let open = Arc::<OpenSockets>::default();
        let outboxes = [(); 3].map(|()| Arc::new(Outbox::new(1000, Budget::new(1000).of(None))));
        let directory = Directory::new(SignalSettings::default());
        let places = outboxes.each_ref().map(|outbox| directory.join(outbox.clone(), None));
        let handles = places.each_ref().map(SocketHandle::of);
        let [before, after, other] = [1, 1, 2].map(|secret| open.enter(Digest([secret; 32])));
        let [first, second, third] = handles;
        before.opened(first);
        other.opened(third);
        open.revoke(&Digest([1; 32]));
        after.opened(second);
        let frame = Next::Frame(format!(r#"{{"t":"error","message":"{REVOKED}"}}"#));
        for outbox in &outboxes[..2] {
            assert_eq!(told(outbox).await, (frame.clone(), Close::CREDENTIAL_REFUSED));
        }
        assert_eq!(outboxes[2].try_next(), None);
        // The same credential may come again, and entries go with their sockets.
        drop((before, after, other));
        assert!(open.lock().by_secret.is_empty());
    }
}
