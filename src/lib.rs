//! The signalling broker and pod host of GemmaPod, as a library.
//!
//! Origins register pod ids at `WS /signal`, visitors exchange SDP and ICE candidates with them; owners upload
//! signed pods at `POST /pods`, visitors fetch them at `GET /:slug`. The binary `gemmapod-signal` is a thin
//! command line on top of this crate.
//!
//! ```no_run
//! use gemmapod_signal::{Config, MemoryRegistry, SignalServer};
//!
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::default();
//! config.port = Some(0);
//! let server = SignalServer::builder().config(config).registry(MemoryRegistry::new(64 << 20)).bind().await?;
//! println!("listening on {}", server.local_addrs()[0]);
//! let handle = server.handle();
//! let serving = tokio::spawn(server.serve());
//! handle.shutdown();
//! serving.await??;
//! # Ok(())
//! # }
//! ```
//!
//! To keep pods elsewhere, implement [`Registry`]; to serve routes beside the broker's own, hand a
//! [`salvo::Router`] to [`Builder::routes`].

mod app;
mod clock;
pub mod config;
mod drain;
mod host;
mod http;
mod janitor;
mod net;
pub mod owner;
mod pods;
mod printable;
mod regular_file;
mod server;
mod signal;
pub mod telemetry;
mod tls;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use salvo;

pub use self::{
    clock::Clock,
    config::Config,
    janitor::{JanitorError, run_janitor},
    net::listener::BindError,
    pods::{
        AddedCredential, Blob, BoundBy, Credential, CredentialLimits, CredentialName, CredentialPodIds,
        Digest, Holder, InvalidPod, JanitorReport, MemoryRegistry, NetworkTag, NotACredentialName,
        NotCredentialPodIds, OpenError, OwnerKey, PodIdChange, PodIdChanged, PodIdRecord, PodIdRefused,
        PodIdState, PodRecord, QuotaExceeded, Quotas, RedbRegistry, Registry, RegistryError, Slug, Usage,
        VerifiedPod,
    },
    server::{Builder, ServeError, ServerHandle, SignalServer, StartError},
    signal::directory::Stats,
    tls::{
        acme::SetupError,
        pem::FileError,
        self_signed::{SelfSignedError, authority_pem},
        source::TlsError,
    },
};
