//! The configuration that holds now: a reload puts another in its place.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Config;

/// A handle to the current configuration; clones see the same one.
#[derive(Clone, Debug)]
pub struct Live(Arc<ArcSwap<Config>>);

impl Live {
    /// Begins with `config`.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The configuration as it is now. Not to be held across an `await` for long.
    pub fn load(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    /// The same, to be held for as long as a request takes.
    pub fn load_full(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Puts another configuration in place.
    pub fn store(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}
