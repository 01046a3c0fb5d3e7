//! Does the work of TLS handshakes beside the threads that serve what is open.
//!
//! A signature takes the processor for up to some milliseconds, in which a thread of the runtime would serve nothing else.

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll, Wake},
    thread,
};

use tokio::{sync::Notify, task::spawn_blocking};

use super::blocking_limiter::BlockingLimiter;

/// Runs the steps of handshakes on blocking threads: of each client one at a time, and of all clients on half of the
/// processors. Clients take turns; whoever has many handshakes waits behind its own.
#[derive(Clone)]
pub struct HandshakeThreads(Arc<BlockingLimiter>);

/// Remembers that a step can go on, also while the step before it has not returned.
#[derive(Default)]
struct Progress(Notify);

impl Wake for Progress {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl Default for HandshakeThreads {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self::new((processors / 2).max(1))
    }
}

impl HandshakeThreads {
    fn new(threads: usize) -> Self {
        Self(BlockingLimiter::new(1, threads))
    }

    /// Runs `handshake` of `client`, which takes a turn for as long as it works, and none while it waits for its peer. Dropping this
    /// ends it after the step that has begun. The caller must be polled, as the turn ends when it takes note of the step.
    ///
    /// # Errors
    ///
    /// Returns the error of `handshake`, or one if it panics or the runtime ends.
    pub async fn run<T: Send + 'static>(
        &self,
        client: Option<IpAddr>,
        handshake: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let (mut handshake, progress) = (Box::pin(handshake), Arc::<Progress>::default());
        loop {
            let waker = progress.clone().into();
            let step = move || {
                let polled = handshake.as_mut().poll(&mut Context::from_waker(&waker));
                (handshake, polled)
            };
            let stepped = self.0.run(client, async { spawn_blocking(step).await }).await;
            let polled;
            (handshake, polled) = stepped.map_err(io::Error::other)?.map_err(io::Error::other)?;
            if let Poll::Ready(done) = polled {
                return done;
            }
            progress.0.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{poll_fn, ready},
        sync::{Mutex, mpsc},
        time::Duration,
    };

    use tokio::{
        sync::oneshot,
        task::{JoinHandle, yield_now},
        time::sleep,
    };

    use super::*;

    const CLIENT: [u8; 4] = [192, 0, 2, 1];
    const OTHER: [u8; 4] = [192, 0, 2, 2];

    fn client(address: [u8; 4]) -> Option<IpAddr> {
        Some(address.into())
    }

    fn spawn<T: Send + 'static>(
        threads: &HandshakeThreads,
        address: [u8; 4],
        handshake: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> JoinHandle<io::Result<T>> {
        let threads = threads.clone();
        tokio::spawn(async move { threads.run(client(address), handshake).await })
    }

    #[tokio::test]
    async fn whoever_has_many_waits_behind_its_own() {
        let (threads, order) = (HandshakeThreads::new(1), Arc::<Mutex<Vec<_>>>::default());
        let (release, released) = mpsc::channel::<()>();
        let first = async move {
            let _ = released.recv();
            Ok(())
        };
        let mut handshakes = vec![spawn(&threads, CLIENT, first)];
        for address in [CLIENT, CLIENT, CLIENT, OTHER] {
            let order = order.clone();
            let handshake = async move {
                order.lock().unwrap().push(address);
                Ok(())
            };
            handshakes.push(spawn(&threads, address, handshake));
        }
        // Each takes its place in line in a task of its own, which was spawned by a task.
        for _ in 0..2 {
            yield_now().await;
        }
        drop(release);
        for handshake in handshakes {
            handshake.await.unwrap().unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [OTHER, CLIENT, CLIENT, CLIENT]);
    }

    #[tokio::test]
    async fn one_that_waits_for_its_peer_holds_up_nobody() {
        let threads = HandshakeThreads::new(1);
        let ((peer, answer), (begun, begins)) = (oneshot::channel(), oneshot::channel());
        let waiting = spawn(&threads, CLIENT, async {
            begun.send(()).unwrap();
            answer.await.map_err(io::Error::other)
        });
        begins.await.unwrap();
        threads.run(client(CLIENT), ready(Ok(()))).await.unwrap();
        peer.send(7).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn it_goes_on_when_it_was_woken_within_a_step() {
        let mut steps = 0;
        let handshake = poll_fn(move |cx| {
            steps += 1;
            cx.waker().wake_by_ref();
            if steps < 100 { Poll::Pending } else { Poll::Ready(Ok(steps)) }
        });
        assert_eq!(HandshakeThreads::new(1).run(None, handshake).await.unwrap(), 100);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_the_thread() {
        let threads = HandshakeThreads::new(1);
        let panics = async { panic!("as a resolver might") };
        assert!(threads.run::<()>(client(CLIENT), panics).await.is_err());
        let waits = async {
            sleep(Duration::ZERO).await;
            Ok(())
        };
        threads.run(client(CLIENT), waits).await.unwrap();
    }
}
