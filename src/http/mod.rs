//! The HTTP side: one file for each group of routes, one error type.

mod access;
mod challenge;
mod close_on_shutdown;
pub(crate) mod compression;
mod conditions;
mod cors;
mod credentials;
mod download;
pub(crate) mod downloads;
pub(crate) mod drain_body;
mod error;
mod get_or_head;
mod health;
mod host;
mod hsts;
mod isolation;
mod json;
mod limit;
mod meta;
mod owned;
mod owner_request;
mod pod_hosts;
mod pod_ids;
mod pod_path;
mod redirect;
mod small_writes;
pub(crate) mod tarpit;
mod upgrade;
mod upload;
pub(crate) mod upload_limiter;

use std::sync::Arc;

use salvo::{Router, Service};

use self::get_or_head::get_or_head;
use crate::app::App;

pub(crate) use self::redirect::service as redirect_service;

/// What only an owner can do. An upload that is signed is none of it: pages upload, too.
fn owner_routes(app: &Arc<App>) -> Router {
    Router::new()
        .hoop(owner_request::FromProgram(app.clone()))
        .push(
            Router::with_path("{slug}")
                .push(Router::new().put(owned::Replace(app.clone())))
                .push(Router::new().delete(owned::Delete(app.clone()))),
        )
        .push(get_or_head("owner/{key}/pods", owned::ListOwned(app.clone())))
        .push(
            Router::with_path("owner/{key}/pod-ids/{**pod_id}")
                .push(Router::new().put(pod_ids::ClaimPodId(app.clone())))
                .push(Router::new().delete(pod_ids::ReleasePodId(app.clone()))),
        )
        .push(get_or_head("owner/{key}/credentials", credentials::List(app.clone())))
        .push(
            Router::with_path("owner/{key}/credentials")
                .push(Router::new().post(credentials::Add(app.clone())))
                .push(Router::with_path("{name}").delete(credentials::Revoke(app.clone()))),
        )
}

/// All routes: the broker's own, then those of the embedding program, then "not found".
pub(crate) fn service(app: &Arc<App>, others: Vec<Router>) -> Service {
    let mut router = Router::new()
        .push(Router::with_path("signal").goal(upgrade::Upgrade(app.clone())))
        .push(get_or_head("health", health::Health::new(app.clone())))
        .push(
            Router::with_path("pods")
                .push(Router::new().post(upload::Upload(app.clone())))
                .push(Router::new().options(cors::Preflight)),
        );
    for other in others {
        router = router.push(other);
    }
    let router = router
        .push(get_or_head("{slug}", download::Download(app.clone())))
        .push(owner_routes(app))
        .push(get_or_head("{slug}/meta", meta::Meta(app.clone())))
        .push(challenge::challenge_route(app))
        .push(Router::with_path("{**path}").goal(error::NotFound));
    Service::new(router)
        .hoop(access::AccessLog(app.clone()))
        .hoop(close_on_shutdown::CloseOnShutdown(app.clone()))
        .hoop(hsts::Hsts(app.clone()))
        .hoop(cors::AnyOriginUploads)
        .hoop(limit::Limit(app.clone()))
        .hoop(host::ValidHost(app.clone()))
        .hoop(pod_hosts::PodHosts(app.clone()))
        .catcher(salvo::catcher::Catcher::new(error::FallbackErrors))
}
