//! The origin that holds a pod id.

use crate::{
    net::network::ClientNetwork,
    signal::{entitlement::Key, ids::SocketId},
};

/// The origin that holds a pod id.
#[derive(Clone, Copy, Debug)]
pub struct HolderSocket {
    pub socket: SocketId,
    /// The owner key that it proved when it registered the pod id.
    pub proof: Option<Key>,
    /// The network of its client.
    pub network: ClientNetwork,
    /// What has become of the record of its registration.
    pub record: Record,
}

/// How far the registration of a holder is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// It is being recorded: the holder has been told nothing, and no visitor gets through to it.
    Pending,
    /// It is on record.
    Written,
    /// There was no room for it, or the registry failed.
    Missing,
}
