//! Answers to ACME's http-01 (RFC 8555, section 8.3), by token.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The answers that are expected now.
#[derive(Debug, Default)]
pub struct HttpChallenges {
    by_token: Mutex<HashMap<String, String>>,
}

impl HttpChallenges {
    /// Answers `token` with `authorization` from now on.
    pub fn answer(&self, token: &str, authorization: &str) {
        self.lock().insert(token.into(), authorization.into());
    }

    /// Ends [`HttpChallenges::answer`].
    pub fn end(&self, token: &str) {
        self.lock().remove(token);
    }

    /// The answer to `token`.
    pub fn get(&self, token: &str) -> Option<String> {
        self.lock().get(token).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
