//! `GET /health`: whether the broker lives, and who is on it.

use std::sync::Arc;

use salvo::{Request, Response, handler};
use serde::Serialize;

use super::{
    App,
    error::{HttpError, render_json},
};

pub struct Health(pub Arc<App>);

#[derive(Serialize)]
struct Body<'a> {
    ok: bool,
    origins: Vec<String>,
    sessions: usize,
    registry: &'a str,
}

#[handler]
impl Health {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        if request.uri().path() != "/health" {
            return Err(HttpError::NotFound);
        }
        let directory = &self.0.hub.directory;
        let mut origins = directory.origins();
        origins.sort_unstable();
        let body =
            Body { ok: true, origins, sessions: directory.live().sessions, registry: self.0.registry.name() };
        render_json(response, &body);
        Ok(())
    }
}
