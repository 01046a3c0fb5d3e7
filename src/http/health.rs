//! `GET|HEAD /health`: whether the broker lives and its registry works, and who is on it.

use std::sync::Arc;

use salvo::{Request, Response, handler, http::StatusCode};
use serde::Serialize;

use super::{
    App,
    error::{HttpError, render_json},
};
use crate::{config::OriginsShown, net::path::normalize};

pub struct Health(pub Arc<App>);

#[derive(Serialize)]
struct Body<'a> {
    ok: bool,
    /// Why pods cannot be read or written at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<Origins>,
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
        let directory = &self.0.hub.directory;
        let live = directory.live();
        let origins = match self.0.live.load().health.origins {
            OriginsShown::List => {
                let mut origins = directory.origins();
                origins.sort_unstable();
                Some(Origins::All(origins))
            }
            OriginsShown::Count => Some(Origins::Count(live.origins)),
            OriginsShown::Off => None,
        };
        let problem = self.0.registry.problem();
        if problem.is_some() {
            response.status_code(StatusCode::SERVICE_UNAVAILABLE);
        }
        let body = Body {
            ok: problem.is_none(),
            problem: problem.as_deref(),
            origins,
            sessions: live.sessions,
            registry: self.0.registry.name(),
        };
        render_json(response, &body);
        Ok(())
    }
}
