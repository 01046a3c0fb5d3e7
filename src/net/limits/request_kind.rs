//! What a request counts as.

/// What is limited for one client and in total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Pods that come in.
    Upload,
    /// Requests of owners that change something: for an address as uploads, and not in total, which strangers can use up.
    OwnerChange,
    /// Those of them that add something for a key that owns nothing yet: as uploads in total.
    NewcomerChange,
    /// Everything that is looked up.
    Read,
    /// Requests that become sockets.
    Upgrade,
    /// `register` frames.
    Registration,
    /// `offer` frames.
    Offer,
    /// Sockets with a wrong credential.
    WrongCredential,
    /// Credentials that are made.
    Credential,
    /// Those of them that are for keys that own nothing.
    NewcomerCredential,
}
