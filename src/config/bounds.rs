//! Limits and times that nobody could choose a value for. They are constants: no file, variable or flag sets them. Tests set
//! them, so that they need not wait for as long or send as much. docs/limits.md lists them.

use std::time::Duration;

use bytesize::ByteSize;

use super::section::section;

section! {
    /// Fixed bounds of signalling sockets.
    SignalBounds {
        /// A socket that sends no frame for this long after the upgrade is closed with 1008. Clients send their first frame as
        /// soon as the socket is open; half a minute is enough for it on the slowest line.
        first_frame_timeout: Duration = Duration::from_secs(30);
        /// Sessions that one visitor's socket may hold at a time. A page has one for each pod that it shows, and another for a
        /// moment when it begins anew.
        sessions_per_socket: u32 = 8;
        /// Candidates that each side of a session may send for one offer. A browser has a few for each network interface and
        /// each server that it asks, some dozens in total.
        candidates_per_session: u32 = 256;
        /// How many sockets of one address can send frames at `signal.frames_per_second` at the same time: all of them together
        /// are read no faster than that. Those of a real host or visitor rest most of the time.
        sockets_at_full_rate: u32 = 10;
    }
}

section! {
    /// Fixed bounds of uploads.
    PodBounds {
        /// An upload whose body arrives slower than this many bytes a second is answered with 408, once `upload_grace` is used
        /// up. A telephone modem is as fast.
        min_upload_rate: ByteSize = ByteSize::kib(4);
        /// How long the body of an upload may stand still, or how far it may lag behind `min_upload_rate`. A line that lost
        /// packets is back in that time.
        upload_grace: Duration = Duration::from_secs(10);
    }
}

section! {
    /// Fixed bounds of connections.
    HttpBounds {
        /// A TLS handshake, and the PROXY header before it, must be done within this time: some round trips on the slowest line.
        handshake_timeout: Duration = Duration::from_secs(10);
        /// A client that takes less than 64 KiB of an answer in this time is cut off. Slower than 2 KiB a second, a pod does not
        /// open within minutes, and its download holds a file and a piece of memory.
        write_timeout: Duration = Duration::from_secs(30);
    }
}

section! {
    /// Fixed bounds of the janitor.
    JanitorBounds {
        /// How long it rests between two rounds. Its rules count in days, so that an hour makes no difference to them.
        interval: Duration = Duration::from_hours(1);
    }
}
