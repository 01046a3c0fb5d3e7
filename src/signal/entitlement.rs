//! What a registration is good for.

/// What a registration is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entitlement {
    /// The pod id has no owner: a holder that is there keeps it. With the key that was proven, if any.
    Open(Option<Key>),
    /// The pod id is owned by this key, which was proven.
    Owner(Key),
}

/// An owner key; nothing to this module but a name.
pub type Key = [u8; 32];

impl Entitlement {
    /// Returns the key that was proven, if any.
    pub fn proof(&self) -> Option<Key> {
        match self {
            Self::Open(proof) => *proof,
            Self::Owner(key) => Some(*key),
        }
    }
}
