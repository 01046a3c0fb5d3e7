//! Pod ids and the keys that own them: `PUT /owner/:key/pod-ids/:podId` claims one, `DELETE` gives it up. Each is proved
//! by a signature of the owner key over the request.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use salvo::{Request, Response, handler, http::StatusCode};

use super::{
    error::HttpError,
    owner_request::{owner_path, signed_by},
};
use crate::{
    app::App,
    net::{
        client::{Client, network_of},
        limits::RequestKind,
    },
    owner::pod_ids::NotClaimed,
    pods::{OwnerKey, PodIdRefused, RegistryError},
    printable::shown,
};

/// `PUT /owner/:key/pod-ids/:podId`.
pub struct ClaimPodId(pub Arc<App>);

/// `DELETE /owner/:key/pod-ids/:podId`.
pub struct ReleasePodId(pub Arc<App>);

#[handler]
impl ClaimPodId {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let (key, pod_id) = asked_for(app, request).await?;
        let config = app.live.load_full();
        let client = Client::of(request, &config.trusted_proxies).address;
        let kinds: &[_] =
            if app.owners.owns_anything(&key, client).await? { &[] } else { &[RequestKind::NewcomerChange] };
        let charge = app.limits.charge(kinds, client)?;
        let network = network_of(request, &config.trusted_proxies);
        let claimed = app.owners.claim(&pod_id, key, network).await;
        charge.keep_if(claimed.is_ok());
        claimed?;
        tracing::info!(pod_id = &*shown(&pod_id), owner_key = %key, "pod id claimed by its owner");
        response.status_code(StatusCode::NO_CONTENT);
        Ok(())
    }
}

#[handler]
impl ReleasePodId {
    async fn handle(&self, request: &mut Request, response: &mut Response) -> Result<(), HttpError> {
        let Self(app) = self;
        let (key, pod_id) = asked_for(app, request).await?;
        app.owners.release(&pod_id, key, app.network(request)).await?;
        tracing::info!(pod_id = &*shown(&pod_id), owner_key = %key, "pod id given up by its owner");
        response.status_code(StatusCode::NO_CONTENT);
        Ok(())
    }
}

/// Returns the key and the pod id in the path of a request that this key signed, and that is taken for the first time.
async fn asked_for(app: &App, request: &Request) -> Result<(OwnerKey, String), HttpError> {
    let (key, rest) = owner_path(request)?;
    let pod_id = rest.strip_prefix("pod-ids/").ok_or(HttpError::NotFound)?;
    let pod_id = percent_decode_str(pod_id).decode_utf8().map_err(|_| {
        HttpError::new(StatusCode::BAD_REQUEST, "expected the pod id in the path as percent-encoded UTF-8")
    })?;
    signed_by(app, request, key, false).await?;
    Ok((key, pod_id.into_owned()))
}

impl From<NotClaimed> for HttpError {
    fn from(refused: NotClaimed) -> Self {
        let status = match &refused {
            NotClaimed::Off => StatusCode::FORBIDDEN,
            NotClaimed::Length => StatusCode::BAD_REQUEST,
            NotClaimed::TooManyOfNetwork => StatusCode::TOO_MANY_REQUESTS,
            NotClaimed::Refused(PodIdRefused::OtherOwner) => StatusCode::FORBIDDEN,
            NotClaimed::Refused(PodIdRefused::NotOwned) => StatusCode::NOT_FOUND,
            NotClaimed::Refused(
                PodIdRefused::NotHeld | PodIdRefused::OtherHost | PodIdRefused::OtherNetwork,
            )
            | NotClaimed::SharedAddress => StatusCode::CONFLICT,
            NotClaimed::Refused(_) => StatusCode::INSUFFICIENT_STORAGE,
            NotClaimed::Registry(RegistryError::Full(_)) => {
                let message = "this broker has no room left to record the pod id";
                return Self::new(StatusCode::INSUFFICIENT_STORAGE, message);
            }
            NotClaimed::Registry(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match refused {
            NotClaimed::Registry(error) => Self::Registry(error),
            refused => Self::new(status, refused.to_string()),
        }
    }
}
