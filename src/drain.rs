//! How a broker ends: nobody new gets in, what runs is finished, sockets are told to come back.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    net::{acceptor::AcceptContext, serving::StopServing},
    signal::shutdown::Closing,
};

/// How long a connection that was let in before the stop has to send its request.
const SETTLE: Duration = Duration::from_millis(300);
/// How often it is looked whether one that was opened just now has sent something.
const LOOK: Duration = Duration::from_millis(20);
/// How long a TLS handshake that had begun before the stop has to be done.
const HANDSHAKES: Duration = Duration::from_secs(1);
/// Over how long the closing of many sockets is spread.
const SPREAD: Duration = Duration::from_secs(3);

/// What a stop has to do with.
pub struct Drain {
    pub app: Arc<App>,
    pub accept_context: AcceptContext,
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
        let end = *app.drain_end.get_or_init(|| Instant::now() + drain_timeout);
        app.sockets.close();
        let settled = CancellationToken::new();
        let close_sockets = async {
            // Upgrades that come meanwhile still find the hosts.
            let _ = timeout(drain_timeout / 4, settled.cancelled()).await;
            // Half of the time is for peers to answer.
            let negotiations = (end - drain_timeout / 2).saturating_duration_since(Instant::now());
            app.hub.directory.close_all(Closing { spread: SPREAD.min(negotiations), negotiations }).await;
        };
        let _ = tokio::join!(self.settle(end, &settled), timeout_at(end, close_sockets));
        // Only now, as the process stays for the negotiations anyway: a browser may still use what it has opened.
        self.accept_context.silent.give_up();
        for server in &self.servers {
            server.stop_by(end);
        }
        if timeout_at(end, app.sockets.wait()).await.is_err() {
            tracing::warn!(sockets = app.sockets.len(), "sockets did not close in time");
        }
    }

    /// Waits until connections that were let in before the stop have sent their requests, or have had the time to.
    async fn settle(&self, end: Instant, settled: &CancellationToken) {
        let settle = async {
            let handshakes = async {
                for handed_over in &self.handed_over {
                    handed_over.cancelled().await;
                }
            };
            // Unfinished ones are given up.
            let _ = timeout(HANDSHAKES, handshakes).await;
            if !self.accept_context.is_empty() {
                sleep(SETTLE).await;
                while self.accept_context.silent.may_speak() {
                    sleep(LOOK).await;
                }
            }
        };
        let _ = timeout_at(end, settle).await;
        settled.cancel();
    }
}
