//! Routes that are read.

use salvo::{
    Handler, Router,
    routing::{Filter, get, head},
};

/// A route that answers `GET`, and `HEAD` with the same head.
pub fn get_or_head(path: &str, goal: impl Handler) -> Router {
    Router::with_path(path).filter(get().or(head())).goal(goal)
}
