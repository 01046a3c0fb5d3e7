//! Why the registry does not work, for `GET /health` and the log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pods::RegistryError;

/// Why the registry does not work, if it does not.
#[derive(Default)]
pub struct Problem(Mutex<Sentences>);

#[derive(Default)]
struct Sentences {
    /// Since an attempt to read or write, and until a look at all of it finds nothing.
    access: Option<String>,
    /// For good: nothing is written to a damaged file.
    damage: Option<String>,
}

impl Problem {
    /// Returns the problem as a sentence, or `None` if the registry works.
    pub fn sentence(&self) -> Option<String> {
        let sentences = self.sentences();
        sentences.damage.clone().or_else(|| sentences.access.clone())
    }

    /// Returns why nothing is written any more, if that is so.
    pub fn damage(&self) -> Option<String> {
        self.sentences().damage.clone()
    }

    /// Returns whether an attempt to read or write failed, and no look has found since that all works.
    pub fn is_of_access(&self) -> bool {
        self.sentences().access.is_some()
    }

    /// Notes that the file is damaged.
    pub fn found_damage(&self, error: &redb::Error) {
        let sentence = "the registry is damaged: nothing can be written to it; stop the broker and restore a backup of its \
                        data directory";
        if self.sentences().damage.replace(sentence.into()).is_none() {
            tracing::error!(%error, "the registry is damaged and nothing is written to it any more; stop the broker and restore a backup of its data directory");
        }
    }

    /// Notes that the registry could not be read or written, as `what` says.
    pub fn cannot(&self, what: &str, error: &RegistryError) {
        let cause = match error {
            RegistryError::Full(cause) => cause.clone(),
            other => other.to_string(),
        };
        let sentence = format!("the registry cannot be {what}: {cause}");
        let before = self.sentences().access.replace(sentence.clone());
        if before.as_ref() != Some(&sentence) {
            tracing::error!("{sentence}");
        }
    }

    /// Notes that whatever the registry needs can be read and written.
    pub fn works(&self) {
        if self.sentences().access.take().is_some() {
            tracing::info!("the registry can be read and written again");
        }
    }

    fn sentences(&self) -> MutexGuard<'_, Sentences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
