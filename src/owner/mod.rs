//! Proofs of ownership: owner keys, tokens for pod ids, signatures on requests.

pub mod acceptance;
pub(crate) mod admission;
pub mod audience;
pub mod client;
mod client_hints;
pub mod components;
pub mod credential_client;
pub(crate) mod credentials;
pub mod digest;
mod fields;
pub mod key;
mod new_records;
pub(crate) mod owners;
pub(crate) mod pod_ids;
#[cfg(test)]
mod properties;
mod provider;
mod reloading_file;
pub mod replay;
pub mod sender;
pub mod signature;
pub mod signature_error;
mod time;
pub mod token;
pub(crate) mod uploads;
