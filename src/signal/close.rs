//! The codes and reasons with which the broker closes sockets.

/// Why the broker closes a socket: the code and the reason of the close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The close code (RFC 6455, section 7.4; 4000 and above are GemmaPod's own).
    pub code: u16,
    /// The reason, for people.
    pub reason: &'static str,
}

impl Close {
    /// Another socket registered the pod id.
    pub const REPLACED: Self = Self { code: 4001, reason: "replaced by new origin" };
    /// The pod id that was registered has a holder, which is there.
    pub const HELD: Self = Self { code: 4003, reason: "pod id is held" };
    /// The registration was refused; an error frame said why.
    pub const REGISTRATION_REFUSED: Self = Self { code: 1008, reason: "registration refused" };
    /// The credential of the socket is wrong, or was revoked; an error frame said so.
    pub const CREDENTIAL_REFUSED: Self = Self { code: 1008, reason: "credential refused" };
    /// Nothing came after the upgrade.
    pub const SILENT: Self = Self { code: 1008, reason: "no frame arrived in time" };
    /// A frame or message was larger than the limit.
    pub const TOO_BIG: Self = Self { code: 1009, reason: "frame too big" };
    /// A text message was not UTF-8.
    pub const NOT_UTF8: Self = Self { code: 1007, reason: "text is not UTF-8" };
    /// The bytes were not WebSocket.
    pub const PROTOCOL: Self = Self { code: 1002, reason: "protocol error" };
    /// The broker stops or restarts.
    pub const RESTART: Self = Self { code: 1012, reason: "service restart" };
    /// All sockets together have sent too much that makes no whole frame yet.
    pub const UNFINISHED: Self = Self { code: 1013, reason: "too many unfinished frames" };
    /// The peer took nothing for too long while frames waited for it.
    pub const TOO_SLOW: Self = Self { code: 1013, reason: "too many unread frames" };
    /// The connection has ended; this code is never sent.
    pub const ENDED: Self = Self { code: 1006, reason: "connection ended" };
}
