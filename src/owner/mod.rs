//! Proofs of ownership: owner keys, tokens for pod ids, signatures on requests.

mod clock;
pub mod components;
pub mod digest;
mod fields;
pub mod key;
mod provider;
pub mod replay;
pub mod signature;
pub mod token;
