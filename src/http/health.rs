//! `GET|HEAD /health`: whether the broker lives and its registry works, and who is on it.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use bytes::Bytes;
use salvo::{Request, Response, handler, http::StatusCode};
use serde::Serialize;
use tokio::time::{Duration, Instant};

use super::{
    error::HttpError,
    json::{json_of, send_json},
};
use crate::{app::App, config::OriginsShown, net::path::normalize};

/// Bytes of pod ids in one answer.
const LIST_BYTES: usize = 64 * 1024;
/// An answer with a list that is longer than this is made at most once in [`SHARED_FOR`], so that clients which do not
/// take it hold no copies.
const SHARED_FROM: usize = 2 * 1024;
const SHARED_FOR: Duration = Duration::from_secs(1);

const STUCK: &str = "the registry does not answer";

/// Answers how the broker is.
pub struct Health {
    app: Arc<App>,
    /// The last answer with a list of pod ids.
    shared: Mutex<Option<Shared>>,
}

/// An answer that several clients get.
#[derive(Clone)]
struct Shared {
    made: Instant,
    status: StatusCode,
    json: Bytes,
}

#[derive(Serialize)]
struct HealthBody<'a> {
    ok: bool,
    /// Why pods cannot be read or written at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<Origins>,
    /// How many pod ids the list leaves out because it would be too long.
    #[serde(rename = "originsOmitted", skip_serializing_if = "Option::is_none")]
    origins_omitted: Option<usize>,
    sessions: usize,
    registry: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Origins {
    All(Vec<String>),
    Count(usize),
}

#[handler]
impl Health {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        if normalize(request.uri().path()) != "/health" {
            return Err(HttpError::NotFound);
        }
        let is_list = self.app.live.load().health.origins == OriginsShown::List;
        let Shared { status, json, .. } = if is_list { self.shared() } else { self.make() };
        response.status_code(status);
        send_json(response, json);
        Ok(())
    }
}

impl Health {
    pub fn new(app: Arc<App>) -> Self {
        Self { app, shared: Mutex::default() }
    }

    /// Returns the last answer, if it is long and was made a moment ago, or another one.
    fn shared(&self) -> Shared {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shared {
            Some(last) if last.json.len() > SHARED_FROM && last.made.elapsed() < SHARED_FOR => last.clone(),
            _ => shared.insert(self.make()).clone(),
        }
    }

    fn make(&self) -> Shared {
        let directory = &self.app.hub.directory;
        let live = directory.stats();
        let mut origins_omitted = None;
        let origins = match self.app.live.load().health.origins {
            OriginsShown::List => {
                let mut origins = directory.origins();
                origins.sort_unstable();
                origins_omitted = shorten(&mut origins);
                Some(Origins::All(origins))
            }
            OriginsShown::Count => Some(Origins::Count(live.origins)),
            OriginsShown::Off => None,
        };
        let is_stuck = self.app.is_registry_stuck.load(Ordering::Relaxed);
        let problem = self.app.registry.problem();
        let problem = problem.or_else(|| is_stuck.then(|| STUCK.into()));
        let body = HealthBody {
            ok: problem.is_none(),
            problem: problem.as_deref(),
            origins,
            origins_omitted,
            sessions: live.sessions,
            registry: self.app.registry.name(),
        };
        let status = if body.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Shared { made: Instant::now(), status, json: json_of(&body) }
    }
}

/// Shortens a list to [`LIST_BYTES`]. Returns how many are left out, if any are.
fn shorten(origins: &mut Vec<String>) -> Option<usize> {
    let mut bytes = 0;
    let fitting = origins.iter().take_while(|origin| {
        bytes += json_of(origin).len() + 1;
        bytes <= LIST_BYTES
    });
    let (fitting, all) = (fitting.count(), origins.len());
    origins.truncate(fitting);
    (fitting < all).then(|| all - fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_where_it_gets_too_long() {
        let mut origins = vec!["x".repeat(1021); 63];
        assert_eq!(shorten(&mut origins), None);
        origins.extend(["\0".repeat(170), "x".into(), "y".into()]);
        assert_eq!((shorten(&mut origins), origins.len()), (Some(2), 64));
    }
}
