//! What every source of certificates works on.

use std::sync::Arc;

use super::{HttpChallenges, store::CertStore};
use crate::{clock::Clock, config::Live};

/// What every source of certificates works on.
#[derive(Clone)]
pub struct CertContext {
    pub live: Live,
    pub store: Arc<CertStore>,
    pub http_challenges: Arc<HttpChallenges>,
    pub clock: Clock,
}
