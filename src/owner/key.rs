//! The owner's key pair, as the GemmaPod CLI keeps it: a JSON file with `publicKey` and `secretKey`, 64 hex digits each.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signer, SigningKey};
use serde::Deserialize;

use super::provider;
use crate::{pods::OwnerKey, regular_file};

/// Bytes of a key file that are read at most; real ones have 168.
const MAX_FILE: u64 = 16 * 1024;

/// The secret half of an owner key. It is wiped from memory when it is dropped, and never shown.
pub struct OwnerSecret(SigningKey);

/// A key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be opened or read.
    #[error("cannot read the key file {}: {source}", .file.display())]
    Unreadable {
        /// The file that was named.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The path names a directory, a device or a pipe.
    #[error("{} is not a regular file; expected the key file of the GemmaPod CLI", .0.display())]
    NotAFile(PathBuf),
    /// Users other than its owner may read or write the file.
    #[error("others may use the key file {} (mode {mode:04o}); run: chmod 600 {}", .file.display(), .file.display())]
    TooOpen {
        /// The file that was named.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold a key pair.
    #[error(
        "{} is not a key file: expected JSON with \"publicKey\" and \"secretKey\" of 64 hex digits each",
        .0.display()
    )]
    NotAKey(PathBuf),
    /// Something follows the key pair.
    #[error("{} holds more than one key pair: expected nothing from line {line} on", .file.display())]
    More {
        /// The file that was named.
        file: PathBuf,
        /// The line in which it begins, counted from 1.
        line: usize,
    },
    /// The two halves are not of one pair.
    #[error("the publicKey in {} does not belong to its secretKey; restore the file from a backup, as a new key would not own your pods", .0.display())]
    NotAPair(PathBuf),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyFile {
    public_key: String,
    secret_key: String,
}

impl OwnerSecret {
    /// Takes the 32 secret bytes of an Ed25519 key (RFC 8032, section 5.1.5).
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// Reads a key file of the GemmaPod CLI.
    ///
    /// # Errors
    ///
    /// The file cannot be read, others may read or write it, or it holds no key pair.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Unreadable { file: path.into(), source };
        // What is open is what is looked at, whatever the path names a moment later. A pipe does not block it.
        let file = regular_file::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(KeyError::NotAFile(path.into()));
        }
        if let Some(mode) = too_open(&metadata) {
            return Err(KeyError::TooOpen { file: path.into(), mode });
        }
        let mut json = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut json).map_err(unreadable)?;
        Self::parse(&json, path)
    }

    fn parse(json: &[u8], path: &Path) -> Result<Self, KeyError> {
        let not_a_key = || KeyError::NotAKey(path.into());
        let mut values = serde_json::Deserializer::from_slice(json).into_iter::<KeyFile>();
        let file = values.next().and_then(Result::ok).ok_or_else(not_a_key)?;
        let (pair, rest) = json.split_at(values.byte_offset());
        if !rest.trim_ascii().is_empty() {
            let blank = rest.len() - rest.trim_ascii_start().len();
            let before = [pair, &rest[..blank]].concat();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            return Err(KeyError::More { file: path.into(), line });
        }
        if json.len() as u64 > MAX_FILE {
            return Err(not_a_key());
        }
        let public: OwnerKey = digits(&file.public_key).parse().map_err(|_| not_a_key())?;
        // An owner key is 32 bytes in hex, and so is its secret half.
        let secret: OwnerKey = digits(&file.secret_key).parse().map_err(|_| not_a_key())?;
        let secret = Self::from_bytes(&secret.0);
        if secret.owner_key() != public {
            return Err(KeyError::NotAPair(path.into()));
        }
        Ok(secret)
    }

    /// The public half.
    pub fn owner_key(&self) -> OwnerKey {
        OwnerKey(self.0.verifying_key().to_bytes())
    }

    /// The key in the form that tokens are signed with.
    pub(super) fn encoding_key(&self) -> jsonwebtoken::EncodingKey {
        provider::encoding_key(self.0.as_bytes())
    }

    /// Signs `message` (Ed25519, RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for OwnerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnerSecret").field(&self.owner_key()).finish()
    }
}

/// Hex as the CLI reads it: with blanks around it, or `0x` before it.
fn digits(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text)
}

/// The permission bits, if they let anybody but the file's owner do anything.
#[cfg(unix)]
fn too_open(metadata: &fs::Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn too_open(_: &fs::Metadata) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    /// A file that `keygenToFile` of gemmapod 0.6.2 wrote.
    const WRITTEN_BY_THE_CLI: &str = r#"{
  "publicKey": "932e4fa0c10bec1541124b8d9a12718f91b8b2acb3248d5c2152a37f2b539e3e",
  "secretKey": "5287d249880eb8da567c4216a8b62dca0c83cc08a3cf1773e2c66a022e87f291"
}"#;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("owner.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    fn problem(text: &str, mode: u32) -> String {
        let (_directory, path) = file(text, mode);
        let problem = OwnerSecret::read(&path).unwrap_err().to_string();
        problem.replace(&path.display().to_string(), "FILE")
    }

    #[test]
    fn a_key_file_of_the_cli_is_read() {
        let (_directory, path) = file(WRITTEN_BY_THE_CLI, 0o600);
        let secret = OwnerSecret::read(&path).unwrap();
        let public = "932e4fa0c10bec1541124b8d9a12718f91b8b2acb3248d5c2152a37f2b539e3e";
        assert_eq!(secret.owner_key().to_string(), public);
        assert!(!format!("{secret:?}").contains("5287d249"));
    }

    #[test]
    fn a_file_that_others_may_use_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o611, 0o660, 0o644, 0o777] {
            let expected = format!("others may use the key file FILE (mode {mode:04o}); run: chmod 600 FILE");
            assert_eq!(problem(WRITTEN_BY_THE_CLI, mode), expected);
        }
        for mode in [0o400, 0o600, 0o700] {
            let (_directory, path) = file(WRITTEN_BY_THE_CLI, mode);
            assert!(OwnerSecret::read(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_sentence() {
        let not_a_key = "FILE is not a key file: expected JSON with \"publicKey\" and \"secretKey\" of 64 hex digits each";
        for text in ["", "{}", "[]", "null", r#"{"publicKey":"00","secretKey":"00"}"#, "\0"] {
            assert_eq!(problem(text, 0o600), not_a_key);
        }
        assert_eq!(problem(&WRITTEN_BY_THE_CLI.replace("5287", "528"), 0o600), not_a_key);
        assert_eq!(problem(&"x".repeat(100_000), 0o600), not_a_key);
        let more = |line| format!("FILE holds more than one key pair: expected nothing from line {line} on");
        for (between, line) in [("", 4), (" ", 4), ("\n", 5), ("\n\n", 6), (",\n", 4)] {
            let two = format!("{WRITTEN_BY_THE_CLI}{between}{WRITTEN_BY_THE_CLI}");
            assert_eq!(problem(&two, 0o600), more(line), "{between:?}");
        }
        let far = format!("{WRITTEN_BY_THE_CLI}{}{WRITTEN_BY_THE_CLI}", "\n".repeat(MAX_FILE as usize));
        assert_eq!(problem(&far, 0o600), not_a_key);
        let other = WRITTEN_BY_THE_CLI.replace("5287", "5288");
        let not_a_pair = "the publicKey in FILE does not belong to its secretKey; restore the file from a backup, as a new key would not own your pods";
        assert_eq!(problem(&other, 0o600), not_a_pair);
    }

    #[test]
    fn a_directory_or_a_pipe_is_no_key_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(OwnerSecret::read(directory.path()), Err(KeyError::NotAFile(_))));
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(OwnerSecret::read(&pipe), Err(KeyError::NotAFile(_))));
        let missing = directory.path().join("missing");
        assert!(matches!(OwnerSecret::read(&missing), Err(KeyError::Unreadable { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = OwnerSecret::parse(&bytes, Path::new("x"));
        }

        #[test]
        fn every_pair_is_read_back(secret: [u8; 32]) {
            let public = OwnerSecret::from_bytes(&secret).owner_key();
            let json = format!(r#"{{"secretKey":"0x{}","publicKey":" {public}\n"}}"#, OwnerKey(secret));
            let json = json.replace('\n', "\\n");
            prop_assert_eq!(OwnerSecret::parse(json.as_bytes(), Path::new("x")).unwrap().owner_key(), public);
        }
    }
}
