//! Whose uploads are taken: everybody's, those of certain owner keys, those with a bearer token, nobody's.

use std::{collections::HashSet, sync::Arc};

use subtle::{Choice, ConstantTimeEq};

use super::reloading_file::{ReloadingFile, Unusable, lines};
use crate::{
    config::{UploadPolicy, UploadSettings},
    pods::{Digest, OwnerKey},
};

/// Why an upload is refused.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Nobody's are taken.
    #[error("this broker takes no uploads")]
    Closed,
    /// There is no token.
    #[error("this broker takes uploads with a token only: expected Authorization: Bearer TOKEN")]
    NoToken,
    /// The token is not one of those that are known.
    #[error("the upload token is not known to this broker")]
    WrongToken,
    /// The request is not signed. A manifest proves nothing about who sends it: it is public.
    #[error(
        "this broker takes uploads of certain owners only, signed with the owner key: \
            use gemmapod-signal pods put, or sign the request as RFC 9421 says"
    )]
    Unsigned,
    /// It is signed by another key.
    #[error("this broker takes pods of certain owners only, and {0} is not one of them")]
    OtherOwner(OwnerKey),
    /// A file of keys or tokens cannot be used; the cause is for the log.
    #[error("this broker cannot tell whose uploads it takes")]
    Unusable(#[from] Unusable),
}

/// Knows whose uploads are taken. Its files are read when they have changed.
#[derive(Debug)]
pub struct UploadAccess {
    owners: ReloadingFile<HashSet<OwnerKey>>,
    tokens: ReloadingFile<Vec<Digest>>,
}

impl Default for UploadAccess {
    fn default() -> Self {
        Self { owners: ReloadingFile::new(owners), tokens: ReloadingFile::new(tokens) }
    }
}

impl UploadAccess {
    /// Whether an upload with this `Authorization` is worth reading. Waits for the disk.
    ///
    /// # Errors
    ///
    /// It is refused whatever it holds.
    pub fn check_before_body(
        &self,
        settings: &UploadSettings,
        authorization: Option<&[u8]>,
    ) -> Result<(), NotTaken> {
        match settings.policy {
            UploadPolicy::Open | UploadPolicy::Owners => Ok(()),
            UploadPolicy::Closed => Err(NotTaken::Closed),
            UploadPolicy::Token => {
                let token = authorization.and_then(bearer).ok_or(NotTaken::NoToken)?;
                let known = match &settings.tokens_file {
                    Some(path) => self.tokens.read(path)?,
                    None => Arc::default(),
                };
                if is_known(token, &known) { Ok(()) } else { Err(NotTaken::WrongToken) }
            }
        }
    }

    /// Checks that uploads are taken that `signer` signed, or nobody. Waits for the disk.
    ///
    /// # Errors
    ///
    /// Returns an error if they are not.
    pub fn of_owner(&self, settings: &UploadSettings, signer: Option<OwnerKey>) -> Result<(), NotTaken> {
        if settings.policy != UploadPolicy::Owners {
            return Ok(());
        }
        let owner_key = signer.ok_or(NotTaken::Unsigned)?;
        if settings.owners.contains(&owner_key) {
            return Ok(());
        }
        match &settings.owners_file {
            Some(path) if self.owners.read(path)?.contains(&owner_key) => Ok(()),
            _ => Err(NotTaken::OtherOwner(owner_key)),
        }
    }
}

/// The token of an `Authorization` header (RFC 6750, section 2.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token.trim_ascii())
}

/// Compares with every known token, in a time that does not depend on how much of one was guessed.
fn is_known(token: &[u8], known: &[Digest]) -> bool {
    let token = Digest::of(token);
    let found = known.iter().fold(Choice::from(0), |found, known| found | known.0.ct_eq(&token.0));
    found.into()
}

fn owners(text: &str) -> Result<HashSet<OwnerKey>, String> {
    let key = |(at, line): (usize, &str)| {
        line.parse().map_err(|_| format!("line {at}: expected an owner key of 64 hex digits"))
    };
    lines(text).map(key).collect()
}

/// A line is the SHA-256 of a token, perhaps with a name before it.
fn tokens(text: &str) -> Result<Vec<Digest>, String> {
    let hash = |(at, line): (usize, &str)| {
        let mut words = line.split_whitespace().rev();
        let hash = words.next().unwrap_or_default().parse();
        // A second hash is no name.
        let is_one = !words.any(|word| word.parse::<Digest>().is_ok());
        hash.ok()
            .filter(|_| is_one)
            .ok_or_else(|| format!("line {at}: expected a name and the SHA-256 of a token, 64 hex digits"))
    };
    lines(text).map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const ALICE: OwnerKey = OwnerKey([1; 32]);
    const BOB: OwnerKey = OwnerKey([2; 32]);

    fn settings(toml: &str) -> UploadSettings {
        Config::from_toml(&format!("[uploads]\n{toml}")).unwrap_or_else(|errors| panic!("{errors:?}")).uploads
    }

    fn with_file(name: &str, policy: &str, text: &str) -> (tempfile::TempDir, UploadSettings) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, text).unwrap();
        let settings = settings(&format!("policy = {policy:?}\n{name} = {path:?}"));
        (directory, settings)
    }

    #[test]
    fn owners_are_listed_in_the_settings_or_in_a_file() {
        let access = UploadAccess::default();
        let file = format!("# people\n{BOB} # Bob\n\n");
        let (_directory, mut settings) = with_file("owners_file", "owners", &file);
        settings.owners.0.push(ALICE);
        access.check_before_body(&settings, None).unwrap();
        access.of_owner(&settings, Some(ALICE)).unwrap();
        access.of_owner(&settings, Some(BOB)).unwrap();
        assert!(matches!(access.of_owner(&settings, None), Err(NotTaken::Unsigned)));
        let other = OwnerKey([3; 32]);
        assert!(
            matches!(access.of_owner(&settings, Some(other)), Err(NotTaken::OtherOwner(key)) if key == other)
        );
        let (_directory, broken) = with_file("owners_file", "owners", "Bob");
        let refused = access.of_owner(&broken, Some(BOB)).unwrap_err();
        let NotTaken::Unusable(cause) = refused else { panic!("{refused}") };
        assert!(cause.to_string().ends_with("line 1: expected an owner key of 64 hex digits"), "{cause}");
    }

    #[test]
    fn a_line_that_holds_more_than_one_entry_is_refused() {
        let hash = |token: &str| Digest::of(token.as_bytes());
        let (one, two) = (hash("one"), hash("two"));
        for text in [format!("{one} {two}"), format!("{one} alice {two}"), format!("{one} {two} alice")] {
            let sentence = "line 2: expected a name and the SHA-256 of a token, 64 hex digits";
            assert_eq!(tokens(&format!("{one}\n{text}")).unwrap_err(), sentence, "{text}");
        }
        assert_eq!(tokens(&format!("Alice of the office {one} # {two}")).unwrap(), [one]);
        for text in [format!("{ALICE} {BOB}"), format!("{ALICE},{BOB}"), format!("{ALICE} alice")] {
            let sentence = "line 2: expected an owner key of 64 hex digits";
            assert_eq!(owners(&format!("{BOB}\n{text}")).unwrap_err(), sentence, "{text}");
        }
    }

    #[test]
    fn tokens_are_kept_as_hashes() {
        let access = UploadAccess::default();
        let hash = |token: &str| Digest::of(token.as_bytes());
        let file = format!("alice {}\n{}\n", hash("secret"), hash("another"));
        let (_directory, settings) = with_file("tokens_file", "token", &file);
        let door = |authorization: Option<&str>| {
            access.check_before_body(&settings, authorization.map(str::as_bytes))
        };
        assert!(door(Some("Bearer secret")).is_ok());
        assert!(door(Some("bearer another")).is_ok());
        for none in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic secret")] {
            assert!(matches!(door(none), Err(NotTaken::NoToken)), "{none:?}");
        }
        for wrong in
            ["Bearer secre", "Bearer secrets", "Bearer SECRET", &format!("Bearer {}", hash("secret"))]
        {
            assert!(matches!(door(Some(wrong)), Err(NotTaken::WrongToken)), "{wrong}");
        }
    }

    /// Were the list left at the first hash that fits, the first of 20,000 would be found thousands of times faster.
    #[test]
    fn the_place_of_a_token_in_the_list_does_not_show() {
        let known: Vec<_> = (0..20_000_u32).map(|n| Digest::of(&n.to_be_bytes())).collect();
        let took = |token: u32| {
            let once = || {
                let begun = std::time::Instant::now();
                is_known(&token.to_be_bytes(), std::hint::black_box(&known));
                begun.elapsed()
            };
            (0..50).map(|_| once()).min().unwrap()
        };
        let (first, last, none) = (took(0), took(19_999), took(20_000));
        assert!(is_known(&0_u32.to_be_bytes(), &known) && !is_known(&20_000_u32.to_be_bytes(), &known));
        assert!(first * 50 > last && first * 50 > none, "{first:?} {last:?} {none:?}");
    }

    #[test]
    fn open_is_open_and_closed_is_closed() {
        let access = UploadAccess::default();
        let open = UploadSettings::default();
        access.check_before_body(&open, None).unwrap();
        access.of_owner(&open, Some(ALICE)).unwrap();
        access.of_owner(&open, None).unwrap();
        let closed = settings("policy = \"closed\"");
        assert!(matches!(access.check_before_body(&closed, Some(b"Bearer x")), Err(NotTaken::Closed)));
    }
}
