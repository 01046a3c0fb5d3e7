//! Why ACME cannot be set up.

use std::path::PathBuf;

use tokio_rustls::rustls;

/// A setting of ACME names a file that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The root certificate.
    #[error("acme.root: {} {why}: it must be the PEM file of a root certificate that vouches for acme.directory", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key of the external account binding.
    #[error("acme.eab_key_file: {} {why}: it must hold the key as the directory gave it, in base64url", path.display())]
    Binding {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS with the directory.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}
