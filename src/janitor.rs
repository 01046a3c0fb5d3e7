//! When the janitor works, and by which rules.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    clock::Clock,
    config::{Config, JanitorSettings, Lifetime, RegistryKind},
    pods::{Janitor, JanitorReport, JanitorRules, Moment, OpenError, RedbRegistry, Registry, RegistryError},
};

/// How often it looks whether it is due.
const LOOK: Duration = Duration::from_secs(10);

/// A round of the janitor that a person asked for did not come about.
#[derive(Debug, thiserror::Error)]
pub enum JanitorError {
    /// The registry could not be opened.
    #[error("{0}")]
    Open(#[source] OpenError),
    /// A running broker has it open.
    #[error("{0}; a running broker does this itself, with janitor.enabled = true")]
    InUse(#[source] OpenError),
    /// There is nothing to delete from.
    #[error("registry = \"memory\" keeps nothing when the broker stops: there is nothing to look at")]
    Memory,
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl JanitorError {
    /// Whether the command line, or a setting, is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Open(OpenError::Missing(_)) | Self::Memory)
    }
}

fn rules(settings: &JanitorSettings) -> JanitorRules {
    let Lifetime(grace) = settings.grace;
    let water = settings.high_water.zip(settings.low_water);
    JanitorRules {
        grace,
        unused_for: settings.unused_for.map(|Lifetime(time)| time),
        water: water.map(|(high, low)| (high.as_u64(), low.as_u64())),
    }
}

impl App {
    /// What time it is for the janitor.
    pub fn moment(&self) -> Moment {
        Moment { date: self.clock.now(), running: self.clock.running() }
    }
}

/// Has the janitor work as the settings say, until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut due = Duration::ZERO;
    loop {
        let settings = app.live.load().janitor.clone();
        if settings.enabled && app.clock.running() >= due {
            match app.janitor.round(&*app.registry, &rules(&settings), app.moment(), false).await {
                Ok(report) if report.deleted() > 0 => tracing::info!("janitor: {report}"),
                Ok(report) => tracing::debug!("janitor: {report}"),
                Err(error) => tracing::error!(%error, "the janitor could not finish its round"),
            }
            due = app.clock.running() + settings.bounds.interval;
        } else if !settings.enabled {
            app.janitor.sleep();
            due = Duration::ZERO;
        }
        let next = app.clock.after(settings.bounds.interval.min(LOOK));
        tokio::select! {
            () = app.clock.wait(next) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One round over the data directory of a broker that does not run. With `dry`, nothing is deleted. Ages go by dates
/// alone.
///
/// # Errors
///
/// The registry cannot be opened, or fails.
pub async fn run_janitor(config: &Config, dry: bool) -> Result<JanitorReport, JanitorError> {
    if config.registry == RegistryKind::Memory {
        return Err(JanitorError::Memory);
    }
    let registry = RedbRegistry::open_existing(&config.data_dir).map_err(|error| match error {
        OpenError::BrokerRunning(_) => JanitorError::InUse(error),
        other => JanitorError::Open(other),
    })?;
    let report =
        Janitor::round_by_dates(&registry, &rules(&config.janitor), Clock::default().now(), dry).await?;
    registry.close().await?;
    Ok(report)
}
