//! `GET|HEAD /health`: whether the broker lives, and who is on it.

use std::sync::Arc;

use salvo::{Request, Response, handler};
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
        let body = Body { ok: true, origins, sessions: live.sessions, registry: self.0.registry.name() };
        render_json(response, &body);
        Ok(())
    }
}
