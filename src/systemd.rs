//! Tells the service manager how things stand (sd_notify(3)); without one, all of this does nothing.

use std::time::Duration;

use gemmapod_signal::ServerHandle;
use sd_notify::NotifyState;
use tokio::time::interval;

/// How often the status is brought up to date.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Tells that the broker is ready, then feeds the watchdog and keeps the status up to date.
///
/// The watchdog is fed from a task of the runtime that serves, after the directory answered: where either hangs, it
/// starves.
pub async fn keep_informed(server: ServerHandle) {
    notify(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled();
    let mut ticks = interval(watchdog.map_or(STATUS_INTERVAL, |period| (period / 2).min(STATUS_INTERVAL)));
    loop {
        ticks.tick().await;
        let live = server.live();
        let status = format!("{} origins, {} sessions", live.origins, live.sessions);
        match watchdog {
            Some(_) => notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]),
            None => notify(&[NotifyState::Status(&status)]),
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
