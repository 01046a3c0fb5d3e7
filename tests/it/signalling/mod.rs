//! The tables in `src/signal/mod.rs` row by row, and every limit of a socket, over real sockets.

mod any;
mod backpressure;
mod endings;
mod limits;
mod liveness;
mod new;
mod offers;
mod opaque;
mod origin;
mod visitor;
mod waiting;
