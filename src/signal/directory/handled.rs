//! What came of a frame, and of a registration.

use super::takeover::Takeover;
use crate::signal::{ids::PodId, outbox::waiting::Waiting};

/// What came of a frame.
#[derive(Debug)]
#[must_use]
pub enum Handled {
    /// All that it asked for is done, or its sender was told why not.
    Done,
    /// It was a registration that could be carried out: it is to be admitted first.
    Registers(Registration),
    /// There is no room for it in the queue of the origin that it is for. Its sender is to be read no further until
    /// there is.
    Waits(Passing),
    /// It was refused because its sender's network sends too many of its kind. Its sender is to be read no further for a
    /// moment.
    TooMany,
}

/// A frame that waits until its receiver has room for it.
#[derive(Debug)]
pub struct Passing {
    /// Becomes ready when the frame need not wait any longer.
    pub waiting: Waiting,
    /// The session that it belongs to.
    pub session_id: Box<str>,
}

/// A registration that the directory could carry out, once it is admitted.
#[derive(Debug)]
#[must_use = "a registration must be admitted or refused"]
pub struct Registration {
    /// The pod id.
    pub pod: PodId,
    /// The `ownerToken` of the frame.
    pub token: Option<String>,
}

/// What came of a registration.
#[derive(Debug)]
#[must_use = "a takeover must be decided"]
pub enum Admitted {
    /// The socket holds the pod id, and is told so once that is recorded: see [`Member::registered`].
    Holds,
    /// It waits for the pod id, and this takeover begins with it: it is to be decided when the holder has had the time to
    /// show that it is there.
    TakesOver(Takeover),
    /// It waits together with others, was refused, or is being closed.
    NotYet,
}
