//! Every setting: its name, its kind, its default and what it means. Nothing about a setting stands elsewhere.

use std::{path::PathBuf, time::Duration};

use crate::pods::OwnerKey;
use bytesize::ByteSize;
use salvo::http::HeaderValue;

use super::{
    access::{BindMode, Lifetime, UploadPolicy},
    bounds::{HttpBounds, JanitorBounds, PodBounds, SignalBounds},
    grace::Grace,
    list::List,
    net::{FileMode, ListenAddress, Network, Purpose, TrustedProxy},
    pod_headers::{POD_CSP, POD_PERMISSIONS},
    rate::RateLimit,
    section::section,
    setting::Setting,
    tls::{AcmeDirectory, ChallengeKind, Contact, Domain, TlsMode},
    value::{
        Hostname, Isolation, LogFormat, LogLevel, OriginsShown, PublicUrl, RegistryKind, Text, Value, known,
    },
};

macro_rules! setting {
    ($key:expr, [$($env:literal)?], $doc:expr, $ty:ty, $($field:ident).+) => {
        Setting {
            key: $key,
            env: setting!(@env $($env)?),
            doc: $doc,
            expected: <$ty as Value>::EXPECTED,
            kind: <$ty as Value>::KIND,
            to_toml: |target| target.$($field).+.to_toml(),
            set_text: |target, text| { target.$($field).+ = Value::from_text(text)?; Ok(()) },
            set_toml: |target, value| { target.$($field).+ = Value::from_toml(value)?; Ok(()) },
            copy: |target, source| target.$($field).+ = source.$($field).+.clone(),
        }
    };
    (@env) => { None };
    (@env $env:literal) => { Some($env) };
}

/// Writes a table that may stand several times.
macro_rules! entry {
    ($(#[doc = $entry_doc:literal])* $list:ident : $name:ident { $( $(#[doc = $doc:literal])* $key:ident : $ty:ty = $default:expr; )* }) => {
        section! { $(#[doc = $entry_doc])* $name { $( $(#[doc = $doc])* $key : $ty = $default; )* } }

        impl $name {
            /// Its keys, in the order of the documentation.
            pub const SETTINGS: &'static [Setting<Self>] = &[
                $( setting!(stringify!($key), [], concat!($($doc, "\n"),*), $ty, $key), )*
            ];
        }
    };
}

/// Writes the configuration's types and the table of all settings from one list.
macro_rules! settings {
    (
        top { $( $(#[doc = $top_doc:literal])* $top:ident $( [$top_env:literal] )? : $top_ty:ty = $top_default:expr; )* }
        $(
            $(#[doc = $section_doc:literal])*
            $section:ident : $name:ident $(+ $bounds:ident)? { $( $(#[doc = $doc:literal])* $key:ident $( [$env:literal] )? : $ty:ty = $default:expr; )* }
        )*
    ) => {
        section! {
            /// What the broker does: the defaults, changed by a file, the environment and flags.
            Config {
                $( $(#[doc = $top_doc])* $top: $top_ty = $top_default; )*
                $( $(#[doc = $section_doc])* $section: $name = $name::default(); )*
            }
        }

        $( section! { $(#[doc = $section_doc])* $name $(+ $bounds)? { $( $(#[doc = $doc])* $key : $ty = $default; )* } } )*

        /// All settings, in the order of the documentation.
        pub static SETTINGS: &[Setting<Config>] = &[
            $( setting!(stringify!($top), [$($top_env)?], concat!($($top_doc, "\n"),*), $top_ty, $top), )*
            $( $( setting!(
                concat!(stringify!($section), ".", stringify!($key)),
                [$($env)?], concat!($($doc, "\n"),*), $ty, $section . $key
            ), )* )*
        ];
    };
}

entry! {
    /// An address to listen on, written as `[[listen]]`.
    listen: Listen {
        /// `HOST:PORT` (`[::]:443` is every address, including IPv4), `unix:PATH`, or `systemd:NAME` for a socket passed by systemd.
        address: Option<ListenAddress> = None;
        /// `public` serves all routes, `redirect` only redirects to https and answers ACME http-01 challenges.
        purpose: Purpose = Purpose::Public;
        /// Whether connections use TLS.
        tls: bool = false;
        /// Whether `[::]` accepts IPv6 only.
        ipv6_only: bool = false;
        /// Whether trusted proxies send a PROXY protocol header (version 1 or 2) at the start of each connection.
        proxy_protocol: bool = false;
        /// Permissions of a Unix socket, in octal.
        mode: FileMode = known("0660");
        /// Group of a Unix socket.
        group: Option<Text> = None;
    }
}

entry! {
    /// A certificate chain and its key, written as `[[tls.certificates]]`.
    certificates: CertificateFiles {
        /// File with the server's certificate, followed by its issuers in order (PEM).
        chain: Option<PathBuf> = None;
        /// File with the private key (PEM: PKCS#8, PKCS#1 or SEC1).
        key: Option<PathBuf> = None;
    }
}

settings! {
    top {
        /// TCP port to listen on. Default: 8080, or 443 with TLS. With 0 the system chooses a free port, which is logged.
        port ["PORT"]: Option<u16> = None;
        /// Address or host name to listen on. `0.0.0.0` is every IPv4 address, `::` every IPv4 and IPv6 address.
        hostname ["HOST"]: Hostname = known("0.0.0.0");
        /// Addresses to listen on, instead of `hostname` and `port`: any number of `[[listen]]` tables. Without them, a broker with TLS listens on port 443 and redirects port 80 there.
        listen: Vec<Listen> = Vec::new();
        /// Reverse proxies that are trusted to report client addresses: addresses, networks in CIDR notation, or `unix` for every peer of a Unix socket. See docs/proxies.md.
        trusted_proxies: List<TrustedProxy> = List::default();
        /// Where pods are stored: `redb` (in the data directory, durable) or `memory` (lost when the broker stops).
        registry: RegistryKind = RegistryKind::Redb;
        /// Directory for all persistent data. It is created if it does not exist. Only one broker can use it at a time.
        data_dir ["GEMMAPOD_SIGNAL_DATA"]: PathBuf = known("./gemmapod-signal-data");
        /// Public URL of this broker, used for the `url` of uploaded pods, signed requests and owner tokens. Without it, the `url` of a pod is made from the `Host` header of the upload.
        public_url: Option<PublicUrl> = None;
        /// How long a stopping broker waits for running uploads, downloads and sockets before it closes them. If there are many sockets, they are closed gradually, within half of this time and at most 3 s, so that clients do not all reconnect at once.
        drain_timeout: Duration = known("10s");
    }

    /// Logging.
    log: LogSettings {
        /// Log level of the broker, or comma-separated `target=level` pairs. Libraries log errors only, unless a pair names them, as in `info,rustls=warn`.
        level ["RUST_LOG"]: LogLevel = known("info");
        /// `text`, or `json` (one object per line).
        format: LogFormat = LogFormat::Text;
    }

    /// TLS and its certificates.
    tls: TlsSettings {
        /// Where certificates come from: `off`, `files`, `self-signed` or `acme`. Default: `acme` if `domains` is set, `off` otherwise.
        mode: Option<TlsMode> = None;
        /// Names for certificates; with `self-signed`, IP addresses are possible too.
        domains: List<Domain> = List::default();
        /// Certificates for mode `files`: any number of `[[tls.certificates]]` tables, selected by the server name that the client sends (SNI).
        certificates: Vec<CertificateFiles> = Vec::new();
        /// Whether `Strict-Transport-Security` is sent, with one year, for names with a publicly trusted certificate (RFC 6797).
        hsts: bool = true;
    }

    /// Certificates from an ACME directory (RFC 8555), for `tls.mode = "acme"`.
    acme: AcmeSettings {
        /// `letsencrypt`, `letsencrypt-staging`, or the URL of another directory.
        directory: AcmeDirectory = known("letsencrypt");
        /// Contact addresses for the directory, such as `mailto:admin@example.org`.
        contact: List<Contact> = List::default();
        /// Challenge types in order of preference: `tls-alpn-01` requires port 443, `http-01` requires port 80.
        challenges: List<ChallengeKind> = known("tls-alpn-01, http-01");
        /// File with the root certificate (PEM) for the TLS connection to a private directory.
        root: Option<PathBuf> = None;
        /// Key id of the external account binding, if the directory requires one.
        eab_key_id: Option<Text> = None;
        /// File with the key of the external account binding, in base64url as issued by the directory.
        eab_key_file: Option<PathBuf> = None;
    }

    /// Limits of the signalling sockets at `/signal`.
    signal: SignalSettings + SignalBounds {
        /// Open sockets in total; a further upgrade is answered with 503.
        max_sockets: u32 = 16_000;
        /// A peer that was silent for this long is pinged, and closed after two unanswered pings, each with half of this time. A peer that reads nothing for this long while frames wait for it is closed with 1013. A visitor's frame waits at most this long for room in its origin's queue.
        ping_interval: Duration = known("30s");
        /// Largest frame that a client may send; a larger one closes the socket with 1009.
        max_frame: ByteSize = ByteSize::kib(256);
        /// Bytes that may be queued for one peer. When an origin's queue is full, its visitors are not read until there is room; when a visitor's queue is full, frames from its origin are dropped, and the origin receives an error frame.
        max_queue: ByteSize = ByteSize::mib(1);
        /// Total bytes queued for all peers, excluding the first 8 KiB of each. No client address (IPv6: no /48) may use more than it leaves to others, and no peer more than its address then leaves. When it is used up, `max_queue` describes what happens.
        max_queue_total: ByteSize = ByteSize::mib(64);
        /// Total buffer for incomplete incoming frames, excluding the first 8 KiB of each socket; a socket keeps the room of its largest frame until it ends. No client address (IPv6: no /48) holds more than it leaves to others, and no socket more than its address then leaves; one that sends more is closed with 1013.
        max_unfinished_total: ByteSize = ByteSize::mib(32);
        /// Frames a second that are read from one socket, with bursts of twice as many; the rest waits in the client's own queue. Replies of a host to its visitors do not count, up to 32 for an offer and one for any other frame. All sockets of one address together have ten times as many, an IPv6 /48 forty times, but for those in `limits.exempt`; 32 frames of a socket that is seldom heard do not wait for other sockets.
        frames_per_second: u32 = 500;
        /// When another origin registers a pod id that is held: how long the holder may take to answer a ping before it is replaced.
        takeover_timeout: Duration = known("3s");
        /// How long an offer waits for the host of its pod id before the visitor receives `origin offline`, if the host was connected in the last two minutes or the broker started less than 30 s ago. `"0s"` disables waiting.
        offline_grace: Grace = known("8s");
        /// When a pod id becomes owned by a key, so that nobody else can register it: `first-use` (at its first registration, if that has a credential or an `ownerToken`), `uploads` (also at the first signed upload of a pod with this pod id) or `off`. See docs/ownership.md.
        bind: BindMode = BindMode::FirstUse;
        /// Whether every registration requires a proof of an owner key: a credential or an `ownerToken`.
        require_owner: bool = false;
    }

    /// Limits of uploads, and headers of served pods.
    pods: PodSettings + PodBounds {
        /// Largest upload; a larger one is answered with 413.
        max_blob: ByteSize = ByteSize::mib(50);
        /// Uploads that are verified and stored at the same time. Others wait once their body has arrived; uploads whose body is still arriving are not counted.
        max_uploads: u32 = 32;
        /// Uploads of one client address (IPv6: of one /64, and four times as many of a /48) at the same time, from their first byte to their last; the others wait.
        max_uploads_per_address: u32 = 8;
        /// Memory for all running uploads together. An upload takes 32 KiB for its request, or 80 KiB over HTTP/2, as long as all requests have no more than a third. For its body and 48 KiB of buffers it takes memory as the body arrives, and keeps it until the pod is stored or refused; the body is not read before there is some. What is announced takes none. An upload waits while the others of its client address (IPv6: of its /48) hold more than would be left, with its first 32 KiB while those that have no more hold a third, and with any more while not all that have more could be completed then, one after the other. When one has waited for a quarter of `upload_wait`, the upload that comes slowest for what it holds is answered with 503, and as many that stand still as make room. On top of it, up to a tenth of it stays with the process for the next bodies.
        upload_memory: ByteSize = ByteSize::mib(160);
        /// How long an upload waits in total, for others of its client, for memory and to be stored, before it is answered with 503. It should be shorter than `http.idle_timeout`, after which the connection ends as one on which nothing moves.
        upload_wait: Duration = known("20s");
        /// Memory for a cache of compressed (gzip) pods. The first request for a pod is answered without compression. A pod larger than a quarter of this is never compressed, and compression is off if less than 16 KiB is configured.
        compression_memory: ByteSize = ByteSize::mib(16);
        /// Total bytes of pods with `registry = "memory"`; an upload beyond it is answered with 507.
        memory_limit: ByteSize = ByteSize::mib(256);
        /// How pods are isolated from one another in the browser: `none`, as the reference; `sandbox`, in which pods cannot store anything; `subdomain`, in which each pod has its own host under `domain`. See docs/isolation.md.
        isolation: Isolation = Isolation::None;
        /// Parent domain of the pods' hosts with `isolation = "subdomain"`. All names under it must resolve to this broker and be covered by its certificate.
        domain: Option<Domain> = None;
        /// `Content-Security-Policy` of served pods.
        content_security_policy: HeaderValue = HeaderValue::from_static(POD_CSP);
        /// `Permissions-Policy` of served pods.
        permissions_policy: HeaderValue = HeaderValue::from_static(POD_PERMISSIONS);
    }

    /// Who may upload.
    uploads: UploadSettings {
        /// `open` (everybody), `owners` (uploads signed by the keys below), `token` (with a bearer token) or `closed`. Owners can always delete their pods.
        policy: UploadPolicy = UploadPolicy::Open;
        /// Owner keys for the policy `owners`.
        owners: List<OwnerKey> = List::default();
        /// File with further owner keys for the policy `owners`, one per line, with comments after `#`. It is reloaded when it changes.
        owners_file: Option<PathBuf> = None;
        /// File with the SHA-256 hashes of tokens for the policy `token`, one per line, optionally after a name. It is reloaded when it changes.
        tokens_file: Option<PathBuf> = None;
        /// How long an uploaded pod is served. Without it, pods do not expire. A change does not affect pods that are already stored.
        lifetime: Option<Lifetime> = None;
    }

    /// Limits of connections.
    http: HttpSettings + HttpBounds {
        /// Connections in total; further ones wait in the system's queue until one ends. Where fewer than one in 16 is free, one on which nothing was sent yet, of the client that has most of those, ends for each further one of others. An eighth of them, but at least 256, may speak HTTP/2, which takes more memory; where there is no place for it, HTTP/1.1 is chosen.
        max_connections: u32 = 20_000;
        /// Connections of one client address (IPv6: of one /64); a further one is closed. Of a trusted proxy, only those are counted whose client a PROXY header names, for that client. Each WebSocket on a connection of HTTP/2 counts as one more, and a client has at most this many downloads at a time. An IPv6 /48 has at most four times as many. Neither ever has more than half of all, and fewer once more than half are open (docs/limits.md, "Places"). Where the process may open too few files for `max_connections`, an address has at most a quarter of what there is room for.
        max_connections_per_address: u32 = 1_000;
        /// The header of a request must arrive within this time after the connection was opened, or after the previous response. Over HTTP/2 the time starts with the first byte of each header, and does not apply to trusted proxies.
        head_timeout: Duration = known("15s");
        /// A connection without any progress for this long is closed. Between two HTTP/1.1 requests it is `head_timeout`, if that is shorter.
        idle_timeout: Duration = known("1m");
    }

    /// Rate limits per client and in total; a request beyond one is answered with 429. The rate `60/min burst 20` allows a burst of 20 and 60 a minute on average; without `burst`, the burst is the first number. `off` disables a limit. An IPv6 /48 has four times the limit of an address, but at most half of all sockets.
    limits: LimitSettings {
        /// Addresses and networks that are exempt from the limits of this section. The default contains loopback, because all clients of a local proxy that is not in `trusted_proxies` have that address.
        exempt: List<Network> = known("127.0.0.0/8, ::1/128");
        /// Uploads in total, including credentials and pod ids that are added for keys that own nothing yet.
        uploads: RateLimit = known("200/s burst 5000");
        /// Uploads and other changes by owners per client address (IPv6: per /64).
        uploads_per_address: RateLimit = known("60/min burst 100");
        /// Signed uploads per owner key.
        uploads_per_owner: RateLimit = known("30/min burst 100");
        /// All `GET` and `HEAD` requests (pods, metadata, `/health`, unknown paths) in total.
        reads: RateLimit = known("5000/s burst 50000");
        /// Such requests per client address (IPv6: per /64).
        reads_per_address: RateLimit = known("20/s burst 1000");
        /// Upgrades to WebSockets in total; too many are answered before the upgrade.
        upgrades: RateLimit = known("2000/s burst 50000");
        /// Upgrades to WebSockets per client address (IPv6: per /64).
        upgrades_per_address: RateLimit = known("20/s burst 1000");
        /// Registrations of pod ids in total. One that would have to wait for more than 5 s receives an error frame, and its socket is closed with 1008.
        registrations: RateLimit = known("1000/s burst 50000");
        /// Registrations per client address (IPv6: per /64).
        registrations_per_address: RateLimit = known("20/s burst 1000");
        /// Offers of visitors per client address (IPv6: per /64). An offer beyond it is not delivered, and the visitor receives an error frame. Each offer costs the host an answer and a peer connection.
        offers_per_address: RateLimit = known("10/s burst 200");
        /// Open sockets of one client address (IPv6: of one /64), but never more than half of `signal.max_sockets`, and fewer once more than half are open (docs/limits.md, "Places"); a further upgrade is answered with 429.
        sockets_per_address: u32 = 1_000;
    }

    /// Storage quotas. An upload beyond a total quota is answered with 507, beyond the quota of its owner key with 403, and beyond that of its address with 429. A quota that is not set is unlimited.
    quotas: QuotaSettings {
        /// Pods in total.
        pods: Option<u32> = None;
        /// Bytes of pods in total. Identical pods are stored and counted once.
        bytes: Option<ByteSize> = None;
        /// Pods per owner key, counting signed uploads only.
        pods_per_owner: Option<u32> = None;
        /// Bytes of pods per owner key, counting signed uploads only.
        bytes_per_owner: Option<ByteSize> = None;
        /// Pods that a client address (IPv6: a /64; a /48 has four times as many) may upload within 24 hours. It does not apply to addresses in `limits.exempt`, and counters are reset when the broker stops.
        pods_per_address_and_day: Option<u32> = Some(1_000);
        /// Bytes that a client address may upload within 24 hours, counted in the same way.
        bytes_per_address_and_day: Option<ByteSize> = Some(ByteSize::gib(4));
    }

    /// The janitor, which deletes unused pods.
    janitor: JanitorSettings + JanitorBounds {
        /// Whether the janitor runs.
        enabled: bool = false;
        /// Pods that were uploaded or replaced within this time are never deleted. Nothing is deleted within this time after the broker started or its clock was set forward.
        grace: Lifetime = Lifetime(Duration::from_hours(24));
        /// Pods that were not fetched, uploaded or replaced for this long are deleted.
        unused_for: Option<Lifetime> = None;
        /// When pods take more bytes than this, the least recently used are deleted until `low_water` is reached, and of those that were unused for `grace`, unsigned uploads first. Pods within `grace` are not counted: also set `quotas.bytes`.
        high_water: Option<ByteSize> = None;
        /// Bytes at which deletion for `high_water` stops.
        low_water: Option<ByteSize> = None;
    }

    /// What `GET /health` shows.
    health: HealthSettings {
        /// `list` shows all registered pod ids, as the reference does, up to 64 KiB; `count` shows their number; `off` shows neither.
        origins: OriginsShown = OriginsShown::List;
    }
}
