//! What is wrong with a PEM file, and how to mend it.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::tls::x509::InvalidCertificate;

/// A file that certificates cannot be taken from.
#[derive(Debug, thiserror::Error)]
#[error("{} {problem}", .file.display())]
pub struct FileError {
    /// The file.
    pub(crate) file: PathBuf,
    /// The rest of the sentence.
    pub(crate) problem: Problem,
}

/// What is wrong with a file, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no such file.
    #[error("is not there: correct its path in the configuration, or have the certificate made first")]
    Missing,
    /// This process may not read it.
    #[error("cannot be read by this process: give its user the permission to read it")]
    Forbidden,
    /// It could not be read for another reason.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// Nothing is in it.
    #[error("is empty: expected PEM text, which begins with -----BEGIN")]
    Empty,
    /// Something in it begins like PEM, but is not.
    #[error("is not whole PEM text (line {line}: {flaw}): write it again from where it came")]
    Broken {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        flaw: &'static str,
    },
    /// A chain without certificates.
    #[error("holds no certificate: expected PEM text with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// Certificates in another form.
    #[error(
        "holds {label:?} in line {line}, which is not read here: expected nothing but -----BEGIN CERTIFICATE-----"
    )]
    OtherForm {
        /// What it calls itself.
        label: String,
        /// Counted from 1.
        line: usize,
    },
    /// A private key where everybody may look.
    #[error(
        "holds a private key: move the key to the file that `key` names, and leave only certificates here"
    )]
    KeyInChain,
    /// A key file without a key.
    #[error("holds no private key: expected PEM text with -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// A second private key.
    #[error("holds a second private key in line {line}: leave only the one of the certificate")]
    SecondKey {
        /// Counted from 1.
        line: usize,
    },
    /// A certificate where the key should be.
    #[error("holds a certificate and no private key: `key` must name the file of the key, `chain` this one")]
    CertificateForKey,
    /// A key that needs a password.
    #[error(
        "is encrypted, and nobody is there to type the password: decrypt it with `openssl pkey -in FILE -out NEW`"
    )]
    Encrypted,
    /// A key of another kind.
    #[error(
        "holds a private key that TLS cannot use here: expected RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    UnknownKey,
    /// A key of another certificate.
    #[error(
        "holds a key that does not fit the first certificate in {}: take the two that were made together",
        .chain.display()
    )]
    OtherKey {
        /// The file with the certificate.
        chain: PathBuf,
    },
    /// The certificates themselves are wrong.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            _ => Self::Unreadable(error),
        }
    }
}

impl Problem {
    /// This problem, with the file that it is about.
    pub fn of(self, file: &Path) -> FileError {
        FileError { file: file.into(), problem: self }
    }
}
