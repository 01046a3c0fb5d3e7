//! Signalling: origins register pod ids, visitors negotiate sessions with them.
//!
//! [`wire`] reads and writes frames, [`directory`] knows who holds which pod id and session, [`outbox`] is what
//! waits for one socket, in the order of `queue`; [`socket`] is one connection's life. A frame goes from one socket through the directory
//! into the outbox of another.
//!
//! # A socket's states
//!
//! A socket is *new*, then for the rest of its life an *origin* or a *visitor*.
//!
//! Of several rows that fit, the first holds.
//!
//! | state | it sends | what happens |
//! | --- | --- | --- |
//! | any | bytes that are not JSON, or `null` | `invalid json` |
//! | any | a frame of an unknown kind, or JSON that is no object | dropped |
//! | was closed for a registration or its credential, or replaced | anything | dropped |
//! | any, is being closed | `register` | dropped |
//! | new | `register` without a fit pod id | `podId required` or `podId must be text` (or what is wrong with it), then closed with 1008 |
//! | new | `register` with a proof of an owner key that is wrong, or without one where one is needed | the reason, then closed with 1008 |
//! | new | `register` with a proof of the key that owns the pod id, while an origin holds it that did not prove that key | it becomes its origin; the other loses its pod id and sessions and is closed with 4001; newcomers that wait for the pod id are refused |
//! | new | `register` with a pod id that another origin holds and for which 16 newcomers wait | `pod id is held`, then closed with 4003 |
//! | new | any other `register` with a pod id that another origin holds | it is a newcomer that waits, and one that stands by if it proved the key that owns the pod id; the other is pinged |
//! | new, waits | anything | dropped |
//! | new | `register` with any other pod id | it becomes an origin and holds the pod id |
//! | new | `offer` | it becomes a visitor, and the rows of a visitor hold for this offer already |
//! | new | `answer` | `wrong role` |
//! | new | `candidate` | `uninitialized socket` |
//! | new | `error` | dropped |
//! | new | nothing in time | closed with 1008 |
//! | origin | `register` | `already initialized` |
//! | origin | `offer` | `wrong role` |
//! | visitor | `register` | `already initialized` |
//! | visitor | `answer` | `wrong role` |
//! | visitor | `offer` with an unfit pod id, or without one if its first offer had no fit one | `podId required` (or what is wrong with it) |
//! | origin, visitor | `offer`, `answer` or `candidate` without a fit session id, or without what it carries | `sessionId required`, `sessionId must be text`, `sdp required` or `candidate required` (or what is wrong with the id) |
//! | origin, visitor | `error` without a session id, or that says nothing | dropped |
//! | origin, visitor | `candidate` of a session of its own, after `candidates_per_session` others since the session's last offer | `too many candidates` |
//! | origin | `answer`, `candidate` or `error` of a session of its own, for which the visitor's queue has no room | `the peer reads too slowly: this frame was dropped` |
//! | origin | any other `answer`, `candidate` or `error` of a session of its own | it goes to the session's visitor |
//! | origin | `answer`, `candidate` or `error` of any other session | dropped: the visitor has gone, or never offered to this origin |
//! | visitor | `offer` over the rate of its network (`limits.offers_per_address`) | `too many offers from your address; try again later`; it is read no further for 250 ms |
//! | visitor | `offer` with a session id of its own, for another pod | `session belongs to another pod` |
//! | visitor | `offer` with a session id of its own | it goes to the same origin (renegotiation) |
//! | visitor | `offer` with a session id of its own whose offer waits for the origin | it takes the place of the one that waits and of what followed it |
//! | visitor | `offer` for a pod id that no origin holds, and for which offers do not wait (see below) | `origin offline` |
//! | visitor | `offer` while it holds `sessions_per_socket` others | `too many sessions` |
//! | visitor | `offer` for a pod id that no origin holds | it waits for the origin |
//! | visitor | `offer` with a session id that another visitor of this origin holds | `session id is taken` |
//! | visitor | any other `offer` | the session begins; the offer goes to the pod's origin |
//! | visitor | `candidate` or `error` of a session of its own whose offer waits | it waits behind the offer |
//! | visitor | any of these three that would have to wait and for which there is no room | the session ends: `origin offline` |
//! | visitor | `candidate` or `error` of a session of its own | it goes to the session's origin |
//! | visitor | `candidate` of any other session | `origin offline` |
//! | visitor | `error` of any other session | dropped |
//!
//! # Who pays for what waits
//!
//! A peer that takes what it is sent is never closed for what others send it.
//!
//! | event | what happens |
//! | --- | --- |
//! | a frame of a visitor has no room in the queue of its origin | the visitor is read no further until it has, for `ping_interval` at most; then it is told `the peer reads too slowly: this frame was dropped` |
//! | a frame of an origin has no room in the queue of its visitor | the row above: an origin is not held up for one visitor |
//! | more than 4 KiB of the broker's own frames wait for a peer | it is read no further until it took some |
//! | a peer takes nothing for `ping_interval` while something waits for it | it is closed with 1013 |
//! | a peer sends more than `frames_per_second`, or its client more than ten times as many | it is read no faster; of an origin, the replies to what its visitors sent do not count (`reply_credit`) |
//!
//! A session may have as much waiting as there is room left in the queue, and a queue may hold as much of the common
//! budget as is left of that: those that hold most are refused first. At an origin, the client networks of its visitors
//! take turns by bytes, and the broker's own frames come first; frames of one session are sent in order, those of
//! different sessions are not. Of a peer that is read no further, the next 8 KiB or 16 frames are still read, so that its
//! pings are answered and its end is noticed. While a registration is recorded, its origin is read no further and sent
//! nothing but pings.
//!
//! # Who keeps a pod id
//!
//! | event | what happens |
//! | --- | --- |
//! | the holder sends anything but a close frame, be it a pong, or takes some of what waits for it | the newcomers that wait for its pod id are told `pod id is held` and closed with 4003, except those that stand by |
//! | a newcomer comes, and each quarter of `takeover_timeout` while newcomers wait and the holder owes no answer | the holder is pinged |
//! | nothing came from the holder for `takeover_timeout` since the first ping that it did not answer, or since its own registration was recorded | the holder loses its pod id and sessions and is closed with 4001; then as below |
//! | the holder's socket ends | the first newcomer that waits gets the pod id; the others are told `pod id is held` and closed with 4003, except those that stand by |
//! | a newcomer's socket ends | it waits no more |
//!
//! # When a registration counts, and until when
//!
//! An origin that got a pod id, at once or after it waited, is told nothing, and no visitor gets through to it, before
//! its registration is recorded. Whoever loses a right leaves the directory at that moment, however slowly it reads: what
//! waits for it is discarded, but for an error frame and the close frame, and nothing that it sends is passed on.
//!
//! | event | what happens |
//! | --- | --- |
//! | the registration is recorded, or there is no room for a record, or the registry takes more than 10 s | the origin is told `registered` |
//! | the pod id has got another owner meanwhile | the origin: the reason, then closed with 1008; it loses its pod id and sessions |
//! | the credential of the origin is revoked, or it is replaced | it loses its pod id and sessions |
//!
//! # Offers that wait for an origin
//!
//! Offers wait for at most `offline_grace` where the origin may be on its way back: in the first 30 s after the broker
//! started, and for a pod id whose last origin left less than two minutes ago. While a registration is recorded, they wait
//! for it, with `offline_grace` = 0 for at most 3 s. How much may wait is bounded for each
//! socket, each client network, each pod id and in total.
//!
//! | event | what happens |
//! | --- | --- |
//! | the registration of an origin is recorded | after `registered` it is sent each offer, and what followed it in the order in which it came; a visitor whose session id another session of the origin has is told `session id is taken` |
//! | an offer has waited for `offline_grace` | its visitor: `origin offline`, with the session id |
//! | the visitor's socket ends | its offers are dropped |
//!
//! # How sessions end
//!
//! | event | who is told what |
//! | --- | --- |
//! | the visitor's socket ends | nobody: later answers are dropped |
//! | the origin's socket ends, or another takes its pod id | each of its visitors: `origin offline`, with the session id |
//! | a peer takes nothing of what waits for it, for too long | it is closed with 1013; then as above |
//! | the credential of a socket is revoked | the socket: a sentence, then closed with 1008; then as where a socket ends |
//!
//! # How the broker stops
//!
//! Negotiations that are under way are finished: a socket is closed with 1012 once nothing is expected of it. Until then
//! everything goes on, but for offers that would have to wait for an origin, or whose origin was closed already: `the
//! broker is restarting; try again in a few seconds`.
//!
//! | socket | nothing is expected of it |
//! | --- | --- |
//! | new | 3 s after the stop began, or after it came |
//! | visitor with an offer that has no answer | 3 s after its last frame, or that of its origins |
//! | visitor whose offers all have an answer | 500 ms after the same |
//! | origin | when it is so for all its visitors, and for all new sockets |
//! | any other | at once |
//! | any | after half of `drain_timeout` |
//!
//! A new socket, and a visitor for each of its sessions without an answer, is told that the broker is restarting before
//! the close: browsers do not notice that their socket is closed.
//!
//! A refused frame never closes a socket, except a refused registration: real hosts take no notice of an error
//! frame without a session id and would believe themselves registered.

pub mod admission;
pub mod close;
pub mod directory;
pub mod entitlement;
pub mod ids;
pub mod outbox;
mod queue;
mod read_budget;
pub mod registration;
mod reply_credit;
pub mod shutdown;
pub mod socket;
pub mod state;
mod takeovers;
pub mod wire;
mod write_stall;
