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
    /// One place to listen on, written as `[[listen]]`.
    listen: Listen {
        /// `HOST:PORT` (`[::]:443` is every address, IPv4 too), `unix:PATH`, or `systemd:NAME` for a socket that systemd hands over.
        address: Option<ListenAddress> = None;
        /// What it serves: `public` all routes, `redirect` only the redirect to https and ACME's http-01.
        purpose: Purpose = Purpose::Public;
        /// Whether connections begin with TLS.
        tls: bool = false;
        /// Whether `[::]` leaves IPv4 alone.
        ipv6_only: bool = false;
        /// Whether trusted proxies begin each connection with a PROXY header (version 1 or 2).
        proxy_protocol: bool = false;
        /// The permissions of a Unix socket, in octal.
        mode: FileMode = known("0660");
        /// The group of a Unix socket.
        group: Option<Text> = None;
    }
}

entry! {
    /// A certificate and its key, written as `[[tls.certificates]]`.
    certificates: CertificateFiles {
        /// The certificate and those that vouch for it, in order (PEM).
        chain: Option<PathBuf> = None;
        /// Its private key (PEM: PKCS#8, PKCS#1 or SEC1).
        key: Option<PathBuf> = None;
    }
}

settings! {
    top {
        /// TCP port to listen on: 8080 if it is not set, with TLS 443. 0 lets the system choose a free one; the log says which.
        port ["PORT"]: Option<u16> = None;
        /// Address or host name to listen on. `0.0.0.0` is every IPv4 address of the host, `::` every address.
        hostname ["HOST"]: Hostname = known("0.0.0.0");
        /// Where to listen, in place of `hostname` and `port`: any number of `[[listen]]` tables. Without them, TLS listens on port 443 and redirects port 80 there.
        listen: Vec<Listen> = Vec::new();
        /// Proxies whose word about a client's address is believed: addresses, networks in CIDR notation, or `unix` for every peer of a Unix socket.
        trusted_proxies: List<TrustedProxy> = List::default();
        /// Where pods are kept: `redb` (in the data directory, safe against a power cut) or `memory` (lost at the end).
        registry: RegistryKind = RegistryKind::Redb;
        /// The directory that holds everything that lasts. It is made if it is missing; only one broker can use it at a time.
        data_dir ["GEMMAPOD_SIGNAL_DATA"]: PathBuf = known("./gemmapod-signal-data");
        /// The URL under which the world reaches this broker: it begins the `url` of an uploaded pod. Without it, the `Host` header of the upload is used.
        public_url: Option<PublicUrl> = None;
        /// How long a stopping broker waits for running uploads, downloads and sockets before it ends them. Many sockets are told to come back one after the other, within half of it and at most 3 s.
        drain_timeout: Duration = known("10s");
    }

    /// What is logged, and how.
    log: LogSettings {
        /// Which lines are written: a level for the broker's own, or `target=level` pairs with commas between them. Libraries log errors only, unless a pair names them, such as `info,rustls=warn`.
        level ["RUST_LOG"]: LogLevel = known("info");
        /// `text` for people, `json` for machines (one object a line).
        format: LogFormat = LogFormat::Text;
    }

    /// TLS and its certificates.
    tls: TlsSettings {
        /// Where certificates come from: `off`, `files`, `self-signed` or `acme`. If it is not set: `acme` where `domains` are named, else `off`.
        mode: Option<TlsMode> = None;
        /// The names that certificates are for; with `self-signed` they may be IP addresses too.
        domains: List<Domain> = List::default();
        /// The certificates of mode `files`: any number of `[[tls.certificates]]` tables; the name that a client asks for chooses.
        certificates: Vec<CertificateFiles> = Vec::new();
        /// Whether browsers are told to use nothing but TLS for a year (HSTS), once a certificate that the world trusts is served.
        hsts: bool = true;
    }

    /// Certificates from an ACME directory (RFC 8555), for `tls.mode = "acme"`.
    acme: AcmeSettings {
        /// `letsencrypt`, `letsencrypt-staging`, or the URL of another directory.
        directory: AcmeDirectory = known("letsencrypt");
        /// Where the directory may write to when something is wrong: addresses such as `mailto:admin@example.org`.
        contact: List<Contact> = List::default();
        /// How control of a domain is proved, in the order of preference: `tls-alpn-01` takes port 443, `http-01` takes port 80.
        challenges: List<ChallengeKind> = known("tls-alpn-01, http-01");
        /// A root certificate (PEM) that the directory's own TLS is checked with, for a private one.
        root: Option<PathBuf> = None;
        /// The key id of an external account binding, where the directory asks for one.
        eab_key_id: Option<Text> = None;
        /// A file with the key of the external account binding, in base64url as the directory gives it.
        eab_key_file: Option<PathBuf> = None;
    }

    /// Limits of the signalling sockets at `/signal`.
    signal: SignalSettings + SignalBounds {
        /// Open sockets in total; a further upgrade is answered with 503.
        max_sockets: u32 = 16_000;
        /// A peer that was silent for this long is pinged. One that leaves two pings without an answer, half this time each, is gone. One that takes nothing for this long while frames wait for it is closed with 1013, and a visitor's frame waits this long for room in its origin's queue.
        ping_interval: Duration = known("30s");
        /// Largest frame that a client may send; over it the socket is closed with 1009.
        max_frame: ByteSize = ByteSize::kib(256);
        /// Bytes that may wait for one peer. Over it, visitors that send to an origin are read no further until there is room; an origin that sends to a visitor is told that its frame was dropped.
        max_queue: ByteSize = ByteSize::mib(1);
        /// Bytes that may wait for all peers together, beside the first 8 KiB of each; no client address (IPv6: no /48) holds more of them than it leaves to others, and no peer more than its address then leaves. Over it, senders wait or are told, as with `max_queue`.
        max_queue_total: ByteSize = ByteSize::mib(64);
        /// Total buffer for incomplete incoming frames, excluding the first 8 KiB of each socket; a socket keeps the room of its largest frame until it ends. No client address (IPv6: no /48) holds more than it leaves to others, and no socket more than its address then leaves; one that sends more is closed with 1013.
        max_unfinished_total: ByteSize = ByteSize::mib(32);
        /// Frames a second that are read from one socket, with bursts of twice as many; the rest waits in the client's own queue. Replies of a host to its visitors do not count, up to 32 for an offer and one for any other frame. All sockets of one address together have ten times as many, an IPv6 /48 forty times, but for those in `limits.exempt`; 32 frames of a socket that is seldom heard do not wait for other sockets.
        frames_per_second: u32 = 500;
        /// How long the holder of a pod id has to answer a ping, when another origin registers the same pod id, before it is replaced.
        takeover_timeout: Duration = known("3s");
        /// How long an offer waits for the host of its pod id, where the host was connected in the last two minutes or the broker started less than 30 s ago, before the visitor is told `origin offline`. `"0s"`: not at all.
        offline_grace: Grace = known("8s");
        /// When a pod id comes to belong to an owner key, so that nobody else can register it: `first-use` (with its first registration, if that proves a key with a credential or an `ownerToken`), `uploads` (with the first signed upload of a pod that names it, too) or `off`. See docs/ownership.md.
        bind: BindMode = BindMode::FirstUse;
        /// Whether every registration needs a proof of an owner key: a credential or an `ownerToken`.
        require_owner: bool = false;
    }

    /// Limits of uploads, and the headers that pods are served with.
    pods: PodSettings + PodBounds {
        /// Largest pod that is taken; over it the upload is answered with 413.
        max_blob: ByteSize = ByteSize::mib(50);
        /// Uploads that are verified and stored at the same time. One whose body has arrived waits for it; one whose body still arrives does not count.
        max_uploads: u32 = 32;
        /// Uploads of one client address (IPv6: of one /64, and four times as many of a /48) at the same time, from their first byte to their last; the others wait.
        max_uploads_per_address: u32 = 8;
        /// Memory for all running uploads together. An upload takes 32 KiB for its request, or 80 KiB over HTTP/2, as long as all requests have no more than a third. For its body and 48 KiB of buffers it takes memory as the body arrives, and keeps it until the pod is stored or refused; the body is not read before there is some. What is announced takes none. An upload waits while the others of its client address (IPv6: of its /48) hold more than would be left, with its first 32 KiB while those that have no more hold a third, and with any more while not all that have more could be completed then, one after the other. When one has waited for a quarter of `upload_wait`, the upload that comes slowest for what it holds is answered with 503, and as many that stand still as make room. On top of it, up to a tenth of it stays with the process for the next bodies.
        upload_memory: ByteSize = ByteSize::mib(160);
        /// How long an upload waits in total, for others of its client, for memory and to be stored, before it is answered with 503. It should be shorter than `http.idle_timeout`, after which the connection ends as one on which nothing moves.
        upload_wait: Duration = known("20s");
        /// Memory for pods in compressed form (gzip), so that those which are asked for again and again take less of the line. The first who asks gets the pod as it is; a pod of more than a quarter of this is never compressed, and compression is off if less than 16 KiB is configured.
        compression_memory: ByteSize = ByteSize::mib(16);
        /// Bytes of pods that `registry = "memory"` may hold; over it an upload is answered with 507.
        memory_limit: ByteSize = ByteSize::mib(256);
        /// How pods are kept apart from one another in a browser: `none`, as the reference; `sandbox`, where none of them can keep anything; `subdomain`, where each has a host of its own below `domain`. See docs/isolation.md.
        isolation: Isolation = Isolation::None;
        /// The domain below which pods get hosts of their own, for `isolation = "subdomain"`. All names below it must lead to this broker, and its certificate must be for them.
        domain: Option<Domain> = None;
        /// The `Content-Security-Policy` of served pods.
        content_security_policy: HeaderValue = HeaderValue::from_static(POD_CSP);
        /// The `Permissions-Policy` of served pods.
        permissions_policy: HeaderValue = HeaderValue::from_static(POD_PERMISSIONS);
    }

    /// Whose uploads are taken.
    uploads: UploadSettings {
        /// `open` (everybody's), `owners` (uploads signed by the keys below), `token` (with a bearer token) or `closed`. Owners can delete their pods under each of them.
        policy: UploadPolicy = UploadPolicy::Open;
        /// Owner keys for `owners`.
        owners: List<OwnerKey> = List::default();
        /// A file of further owner keys for `owners`, one on each line; `#` begins a comment. It is read again when it has changed.
        owners_file: Option<PathBuf> = None;
        /// A file of the SHA-256 hashes of tokens for `token`, one on each line, perhaps after a name. It is read again when it has changed.
        tokens_file: Option<PathBuf> = None;
        /// How long an uploaded pod is served; without it, until somebody deletes it. Pods that are there keep the end that they were given.
        lifetime: Option<Lifetime> = None;
    }

    /// Limits of connections, whatever they carry.
    http: HttpSettings + HttpBounds {
        /// Connections in total; further ones wait in the system's queue until one ends. Where fewer than one in 16 is free, one on which nothing was sent yet, of the client that has most of those, ends for each further one of others. An eighth of them, but at least 256, may speak HTTP/2, which takes more memory; where there is no place for it, HTTP/1.1 is chosen.
        max_connections: u32 = 20_000;
        /// Connections of one client address (IPv6: of one /64); a further one is closed. Of a trusted proxy, only those are counted whose client a PROXY header names, for that client. Each WebSocket on a connection of HTTP/2 counts as one more, and a client has at most this many downloads at a time. An IPv6 /48 has at most four times as many. Neither ever has more than half of all, and fewer once more than half are open (docs/limits.md, "Places"). Where the process may open too few files for `max_connections`, an address has at most a quarter of what there is room for.
        max_connections_per_address: u32 = 1_000;
        /// A request's head must have arrived within this time after the connection was ready for it: after it was opened, or after the previous response. Over HTTP/2 each head has it from its first byte on, except from trusted proxies.
        head_timeout: Duration = known("15s");
        /// A connection on which nothing moves for this long is closed; between two requests of HTTP/1.1 it is `head_timeout` if that is shorter.
        idle_timeout: Duration = known("1m");
    }

    /// How often one client may ask for something, and all together. Too often is answered with 429. A rate such as `60/min burst 20` allows 20 at once after a rest, and 60 a minute for ever; without `burst`, the first number is the burst. `off` is no limit. An IPv6 /48 has four times the limit of an address, sockets at most half of all.
    limits: LimitSettings {
        /// Addresses and networks that no limit in this section holds for. A proxy on this host that `trusted_proxies` does not name looks like one client: so loopback is here by default.
        exempt: List<Network> = known("127.0.0.0/8, ::1/128");
        /// Uploads in total, with the credentials and pod ids that are added for keys that own nothing yet.
        uploads: RateLimit = known("200/s burst 5000");
        /// Uploads of one client address (IPv6: of one /64), with whatever else owners change.
        uploads_per_address: RateLimit = known("60/min burst 100");
        /// Uploads that one owner key signed.
        uploads_per_owner: RateLimit = known("30/min burst 100");
        /// Requests for pods, for what is known of them, for `/health` and for whatever is not there, in total.
        reads: RateLimit = known("5000/s burst 50000");
        /// The same of one client address (IPv6: of one /64).
        reads_per_address: RateLimit = known("20/s burst 1000");
        /// Upgrades to WebSockets in total; too many are answered before the upgrade.
        upgrades: RateLimit = known("2000/s burst 50000");
        /// The same of one client address (IPv6: of one /64).
        upgrades_per_address: RateLimit = known("20/s burst 1000");
        /// Registrations of pod ids in total; one that would wait for more than 5 s is told so and its socket is closed with 1008.
        registrations: RateLimit = known("1000/s burst 50000");
        /// The same of one client address (IPv6: of one /64).
        registrations_per_address: RateLimit = known("20/s burst 1000");
        /// Offers of the visitors of one client address (IPv6: of one /64). A further one is not delivered, and the visitor is told so: each costs its host an answer and a peer connection.
        offers_per_address: RateLimit = known("10/s burst 200");
        /// Open sockets of one client address (IPv6: of one /64), but never more than half of `signal.max_sockets`, and fewer once more than half are open (docs/limits.md, "Places"); a further upgrade is answered with 429.
        sockets_per_address: u32 = 1_000;
    }

    /// How much may be kept. A pod that has no room in total is answered with 507, one that its owner key has no room for with 403, one too many of an address with 429. Quotas that are not set are no limit.
    quotas: QuotaSettings {
        /// Pods in total.
        pods: Option<u32> = None;
        /// Bytes of pods in total. Pods with the same bytes count once, as they are kept once.
        bytes: Option<ByteSize> = None;
        /// Pods of one owner key, of those whose upload it signed.
        pods_per_owner: Option<u32> = None;
        /// Bytes of the same pods.
        bytes_per_owner: Option<ByteSize> = None;
        /// Pods that one client address (IPv6: one /64, and a /48 four times as many) may upload in a day; each is free again a day later. Not for those in `limits.exempt`, and forgotten when the broker stops.
        pods_per_address_and_day: Option<u32> = Some(1_000);
        /// The same in bytes.
        bytes_per_address_and_day: Option<ByteSize> = Some(ByteSize::gib(4));
    }

    /// Deletes pods that nobody wants any more.
    janitor: JanitorSettings + JanitorBounds {
        /// Whether it works.
        enabled: bool = false;
        /// What was uploaded or replaced within this time is never deleted. Nothing is deleted either within this time after the broker started, or after its clock was set forward.
        grace: Lifetime = Lifetime(Duration::from_hours(24));
        /// Deletes pods that were not fetched, uploaded or replaced for this long.
        unused_for: Option<Lifetime> = None;
        /// Once pods take more bytes than this, those that were not used for longest are deleted until they take `low_water`; of those that were not used for `grace`, first the ones whose upload was not signed. Pods within `grace` count for neither: set `quotas.bytes`, too.
        high_water: Option<ByteSize> = None;
        /// Pods are deleted for `high_water` until they take no more bytes than this.
        low_water: Option<ByteSize> = None;
    }

    /// What `GET /health` tells everybody.
    health: HealthSettings {
        /// `list` all pod ids that origins hold, as the reference does, as far as they fit into 64 KiB; `count` tells how many, `off` nothing of them.
        origins: OriginsShown = OriginsShown::List;
    }
}
