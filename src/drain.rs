//! How a broker ends: nobody new gets in, what runs is finished, sockets are told to come back.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    http::App,
    net::{front::Entrance, serving::StopServing},
};

/// How long a connection that was let in before the stop has to send its request.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a TLS handshake that had begun before the stop has to be done.
const HANDSHAKES: Duration = Duration::from_secs(1);
/// Over how long the closing of many sockets is spread.
const SPREAD: Duration = Duration::from_secs(3);

/// What a stop has to do with.
pub struct Drain {
    pub app: Arc<App>,
    pub entrance: Entrance,
    /// Of each server: cancelled when it has got all connections that there will be.
    pub handed_over: [CancellationToken; 2],
    pub servers: [StopServing; 2],
}

impl Drain {
    /// Waits for the stop, then drains for at most `drain_timeout`.
    pub async fn run(self) {
        let Self { app, .. } = &self;
        app.stop.cancelled().await;
        let drain_timeout = app.live.load().drain_timeout;
        let end = Instant::now() + drain_timeout;
        app.sockets.close();
        // Half of the time is for peers to answer.
        let at_most = SPREAD.min(drain_timeout / 2);
        tokio::join!(self.settle(end), app.hub.directory.close_all(at_most));
        if timeout_at(end, app.sockets.wait()).await.is_err() {
            tracing::warn!(sockets = app.sockets.len(), "sockets did not close in time");
        }
    }

    /// Connections that were let in before the stop get their answer; only then idle ones are closed, and running
    /// requests have until `end`.
    async fn settle(&self, end: Instant) {
        let settled = async {
            let handshakes = async {
                for handed_over in &self.handed_over {
                    handed_over.cancelled().await;
                }
            };
            // Unfinished ones are given up.
            let _ = timeout(HANDSHAKES, handshakes).await;
            if !self.entrance.is_empty() {
                sleep(SETTLE).await;
            }
        };
        let _ = timeout_at(end, settled).await;
        self.entrance.silent.cancel();
        for server in &self.servers {
            server.stop_by(end);
        }
    }
}
