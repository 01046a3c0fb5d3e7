//! How many blocking threads the work of clients takes. All that waits for a disk shares one pool of threads, which is first
//! come, first served: a client that takes any number of places there holds up everybody else.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::client_permits::{ClientPermit, ClientPermits};

/// Runs a few works of each client at a time, and a bounded number in total. Others wait behind those of their own client.
pub struct BlockingLimiter {
    clients: ClientPermits,
    all: Arc<Semaphore>,
}

struct BlockingPermit {
    _of_client: Option<ClientPermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// The work panicked, or the runtime ended.
#[derive(Debug, thiserror::Error)]
#[error("the work was not finished")]
pub struct Unfinished;

impl BlockingLimiter {
    /// Lets `of_client` works of each client run at a time, and `all` in total.
    pub fn new(of_client: usize, all: usize) -> Arc<Self> {
        Arc::new(Self { clients: ClientPermits::new(of_client), all: Arc::new(Semaphore::new(all)) })
    }

    /// Runs `work` when it is the turn of `client`. Dropping this gives up the turn, but not work that has begun: a thread
    /// that waits for a disk cannot be interrupted, and counts until it is done. The caller must be polled until then, whatever
    /// its client does, as handlers of requests are.
    ///
    /// # Errors
    ///
    /// Returns an error if the work panics after it had to wait, or if the runtime ends before it.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unfinished> {
        let Some(permit) = self.enter(client).now_or_never() else {
            return self.run_apart(client, work).await;
        };
        // A task of its own would cost a tenth of a small download.
        let work = async move {
            let done = work.await;
            drop(permit);
            done
        };
        Ok(ToTheEnd(Some(Box::pin(work))).await)
    }

    /// The same for a caller that may not be polled for as long as its client likes, as bodies of answers may not.
    ///
    /// # Errors
    ///
    /// Returns an error if the work panics, or if the runtime ends before it.
    pub async fn run_apart<T: Send + 'static>(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Unfinished> {
        let (mut answer, answered) = oneshot::channel();
        let this = self.clone();
        // Whoever is handed a place has to use it, and to give it back.
        tokio::spawn(async move {
            let permit = tokio::select! {
                biased;
                () = answer.closed() => return,
                permit = this.enter(client) => permit,
            };
            let done = work.await;
            drop(permit);
            // The caller may have left.
            let _ = answer.send(done);
        });
        answered.await.map_err(|_| Unfinished)
    }

    async fn enter(&self, client: Option<IpAddr>) -> BlockingPermit {
        let of_client = self.clients.enter(client).await;
        BlockingPermit { _of_client: of_client, _of_all: self.all.clone().acquire_owned().await.ok() }
    }
}

/// Goes on in a task of its own when it is dropped before its end.
struct ToTheEnd<T: Send + 'static>(Option<BoxFuture<'static, T>>);

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let work = self.0.as_mut().expect("it is not polled after its end");
        let done = ready!(work.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|_| !thread::panicking());
        if let (Some(rest), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, mpsc},
        time::Duration,
    };

    use futures_util::poll;
    use tokio::{
        runtime,
        task::{JoinSet, spawn_blocking, yield_now},
        time::timeout,
    };

    use super::*;

    const FLOOD: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn other(n: u8) -> Option<IpAddr> {
        Some([192, 0, 3, n].into())
    }

    /// A disk that hangs until it is dropped.
    struct Disk(Arc<Mutex<mpsc::Receiver<()>>>, Option<mpsc::Sender<()>>);

    impl Disk {
        fn new() -> Self {
            let (open, hanging) = mpsc::channel();
            Self(Arc::new(Mutex::new(hanging)), Some(open))
        }

        fn read(&self) -> impl Future<Output = ()> + Send + 'static {
            let hanging = self.0.clone();
            async move {
                let read = move || {
                    let _ = hanging.lock().unwrap().recv();
                };
                spawn_blocking(read).await.unwrap();
            }
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            drop(self.1.take());
        }
    }

    fn with_threads(count: usize, test: impl Future<Output = ()>) {
        let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(count).build();
        runtime.unwrap().block_on(test);
    }

    async fn settle() {
        for _ in 0..5_000 {
            yield_now().await;
        }
    }

    async fn is_served(limiter: &Arc<BlockingLimiter>, client: Option<IpAddr>) {
        let work = limiter.run(client, async { spawn_blocking(|| ()).await.unwrap() });
        timeout(Duration::from_secs(10), work).await.expect("others should be served").unwrap();
    }

    #[test]
    fn a_client_whose_work_hangs_holds_up_itself_alone() {
        with_threads(8, async {
            let (limiter, disk) = (BlockingLimiter::new(4, 6), Disk::new());
            let mut flood = JoinSet::new();
            for _ in 0..500 {
                let (limiter, read) = (limiter.clone(), disk.read());
                flood.spawn(async move { limiter.run(FLOOD, read).await });
            }
            settle().await;
            for n in 0..20 {
                is_served(&limiter, other(n)).await;
            }
            is_served(&limiter, None).await;
            drop(disk);
            while let Some(done) = flood.join_next().await {
                done.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn clients_that_fill_the_total_leave_threads_to_what_needs_no_turn() {
        with_threads(8, async {
            let (limiter, disk) = (BlockingLimiter::new(4, 6), Disk::new());
            let mut flood = JoinSet::new();
            for n in 0..200 {
                let (limiter, read) = (limiter.clone(), disk.read());
                flood.spawn(async move { limiter.run(other(n), read).await });
            }
            settle().await;
            timeout(Duration::from_secs(10), spawn_blocking(|| ())).await.expect("a thread is left").unwrap();
            drop(disk);
            while let Some(done) = flood.join_next().await {
                done.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn work_that_has_begun_counts_when_its_client_has_gone_and_what_waits_leaves_the_line() {
        with_threads(8, async {
            let (limiter, disk) = (BlockingLimiter::new(4, 6), Disk::new());
            for _ in 0..100 {
                let mut gone = Box::pin(limiter.run(FLOOD, disk.read()));
                assert!(poll!(&mut gone).is_pending());
                settle().await;
            }
            timeout(Duration::from_secs(10), spawn_blocking(|| ())).await.expect("a thread is left").unwrap();
            let waits = tokio::spawn({
                let limiter = limiter.clone();
                async move { limiter.run(FLOOD, async {}).await }
            });
            settle().await;
            assert!(!waits.is_finished());
            drop(disk);
            waits.await.unwrap().unwrap();
            settle().await;
            assert_eq!(limiter.all.available_permits(), 6);
        });
    }

    #[test]
    fn a_caller_that_is_not_polled_holds_up_nobody() {
        with_threads(8, async {
            let limiter = BlockingLimiter::new(1, 1);
            let mut stuck = Box::pin(limiter.run_apart(FLOOD, async {}));
            assert!(poll!(&mut stuck).is_pending());
            is_served(&limiter, FLOOD).await;
            is_served(&limiter, other(1)).await;
            stuck.await.unwrap();
        });
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_place_back() {
        let limiter = BlockingLimiter::new(1, 1);
        assert!(limiter.run_apart(FLOOD, async { panic!("on purpose") }).await.is_err());
        let panics = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.run(FLOOD, async { panic!("on purpose") }).await }
        });
        assert!(panics.await.unwrap_err().is_panic());
        is_served(&limiter, FLOOD).await;
    }
}
