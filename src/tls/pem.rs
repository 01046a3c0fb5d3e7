//! Reads certificates and keys from PEM files, and says what is wrong with them.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error as PemError, SectionKind, from_buf},
};

use super::x509::Wrong;
use crate::regular_file;

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
    #[error("is not whole PEM text ({0}): write it again from where it came")]
    Broken(String),
    /// A chain without certificates.
    #[error("holds no certificate: expected PEM text with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// A private key where everybody may look.
    #[error(
        "holds a private key: move the key to the file that `key` names, and leave only certificates here"
    )]
    KeyInChain,
    /// A key file without a key.
    #[error("holds no private key: expected PEM text with -----BEGIN PRIVATE KEY-----")]
    NoKey,
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
    Certificate(#[from] Wrong),
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

/// The certificates in `file`, in their order.
pub fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    read(file).and_then(|text| chain(&text)).map_err(|problem| problem.of(file))
}

/// The private key in `file`.
pub fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    read(file).and_then(|text| key(&text)).map_err(|problem| problem.of(file))
}

fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    let text = regular_file::read(file)?;
    if text.trim_ascii().is_empty() { Err(Problem::Empty) } else { Ok(text) }
}

/// The certificates in PEM text.
pub fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let mut chain = Vec::new();
    for (kind, der) in sections(text)? {
        match kind {
            SectionKind::Certificate => chain.push(CertificateDer::from(der)),
            kind if is_key(kind) => return Err(Problem::KeyInChain),
            _ => {}
        }
    }
    match chain.is_empty() {
        true if is_encrypted(text) => Err(Problem::KeyInChain),
        true => Err(Problem::NoCertificate),
        false => Ok(chain),
    }
}

/// The first private key in PEM text.
pub fn key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    if is_encrypted(text) {
        return Err(Problem::Encrypted);
    }
    let mut problem = Problem::NoKey;
    for (kind, der) in sections(text)? {
        match kind {
            SectionKind::PrivateKey => return Ok(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::RsaPrivateKey => return Ok(PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::EcPrivateKey => return Ok(PrivateKeyDer::Sec1(der.into())),
            SectionKind::Certificate => problem = Problem::CertificateForKey,
            _ => {}
        }
    }
    Err(problem)
}

fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// PKCS#8 says so in the label, OpenSSL's older way in a header that base64 does not have.
fn is_encrypted(text: &[u8]) -> bool {
    let holds = |mark: &[u8]| memchr::memmem::find(text, mark).is_some();
    holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"Proc-Type: 4,ENCRYPTED")
}

fn sections(mut text: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, Problem> {
    let mut sections = Vec::new();
    let broken = |error| {
        Problem::Broken(match error {
            PemError::MissingSectionEnd { .. } => "an -----END line is missing".into(),
            PemError::IllegalSectionStart { .. } => "a -----BEGIN line is cut short".into(),
            PemError::Base64Decode(_) => "base64 is damaged".into(),
            other => other.to_string(),
        })
    };
    while let Some(section) = from_buf(&mut text).map_err(broken)? {
        sections.push(section);
    }
    Ok(sections)
}
