//! Tells the service manager how things stand (sd_notify(3)); without one, all of this does nothing.

use std::time::Duration;

use gemmapod_signal::{ServerHandle, Stats};
use sd_notify::NotifyState;
use tokio::time::interval;

/// How often the status is brought up to date.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Tells that the broker is ready, then feeds the watchdog and keeps the status up to date.
pub async fn keep_informed(server: ServerHandle) {
    notify(&[NotifyState::Ready]);
    let look = || (server.is_stopping(), server.stats());
    feed(sd_notify::watchdog_enabled(), look, notify).await;
}

/// Tells the status again and again, and feeds the watchdog that expects it once in `watchdog`.
///
/// It is fed from a task of the runtime that serves, and after the directory answered: where either hangs, it starves.
async fn feed(
    watchdog: Option<Duration>,
    look: impl Fn() -> (bool, Stats),
    tell: impl Fn(&[NotifyState<'_>]),
) {
    let mut ticks = interval(watchdog.map_or(STATUS_INTERVAL, |period| (period / 2).min(STATUS_INTERVAL)));
    loop {
        ticks.tick().await;
        let (stopping, Stats { origins, sessions }) = look();
        let draining = if stopping { "draining; " } else { "" };
        let status = format!("{draining}origins: {origins}, sessions: {sessions}");
        match watchdog {
            Some(_) => tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]),
            None => tell(&[NotifyState::Status(&status)]),
        }
    }
}

/// Tells that the configuration is being read again, does it with `reload`, and tells that it is done.
pub fn while_reloading(reload: impl FnOnce()) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager was not told of the reload"),
    }
    reload();
    notify(&[NotifyState::Ready]);
}

/// Tells that the broker drains.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told how things stand");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{SocketAddr, TcpStream},
        sync::{
            Arc, Mutex, MutexGuard, PoisonError,
            mpsc::{Receiver, RecvTimeoutError, channel},
        },
    };

    use gemmapod_signal::{
        Config, MemoryRegistry, SignalServer,
        salvo::{Router, handler},
    };
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    const WATCHDOG: Duration = Duration::from_millis(100);
    const SOON: Duration = Duration::from_secs(10);
    const WORKERS: usize = 2;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap()
    }

    /// Feeds a watchdog in `runtime`; what it gets.
    fn fed(runtime: &Runtime, look: impl Fn() -> (bool, Stats) + Send + 'static) -> Receiver<String> {
        let (sender, fed) = channel();
        runtime.spawn(feed(Some(WATCHDOG), look, move |states| {
            let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
            sender.send(lines.join("\n")).unwrap();
        }));
        fed
    }

    fn starves(fed: &Receiver<String>) -> bool {
        // What was on its way.
        while fed.try_recv().is_ok() {}
        fed.recv_timeout(5 * WATCHDOG) == Err(RecvTimeoutError::Timeout)
    }

    fn hold(lock: &Mutex<()>) -> MutexGuard<'_, ()> {
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn a_directory_that_does_not_answer_starves_the_watchdog() {
        let (runtime, lock) = (runtime(), Arc::new(Mutex::new(())));
        let directory = lock.clone();
        let fed = fed(&runtime, move || {
            let _answers = hold(&directory);
            (false, Stats { origins: 3, sessions: 1 })
        });
        assert_eq!(fed.recv_timeout(SOON).unwrap(), "WATCHDOG=1\nSTATUS=origins: 3, sessions: 1");
        let held = hold(&lock);
        assert!(starves(&fed));
        drop(held);
        fed.recv_timeout(SOON).expect("it should be fed again");
    }

    /// A route that keeps a thread of the runtime for as long as the lock is held.
    struct Hang(Arc<Mutex<()>>);

    #[handler]
    impl Hang {
        async fn handle(&self) {
            drop(hold(&self.0));
        }
    }

    #[test]
    fn a_runtime_that_does_not_turn_starves_the_watchdog() {
        let (runtime, lock) = (runtime(), Arc::new(Mutex::new(())));
        let routes = Router::with_path("hang").get(Hang(lock.clone()));
        let config = Config::from_toml("port = 0\nhostname = \"127.0.0.1\"").unwrap();
        let builder =
            SignalServer::builder().config(config).registry(MemoryRegistry::new(1 << 20)).routes(routes);
        let server = runtime.block_on(builder.bind()).unwrap();
        let (address, handle) = (server.local_addrs()[0], server.handle());
        runtime.spawn(server.serve());
        let fed = fed(&runtime, move || (handle.is_stopping(), handle.stats()));
        fed.recv_timeout(SOON).expect("it should be fed");
        let held = hold(&lock);
        // More than enough to find each thread.
        let _requests: Vec<_> = (0..4 * WORKERS).map(|_| ask(address)).collect();
        while !starves(&fed) {}
        drop(held);
        fed.recv_timeout(SOON).expect("it should be fed again");
    }

    fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /hang HTTP/1.1\r\nHost: broker\r\n\r\n").unwrap();
        stream
    }
}
