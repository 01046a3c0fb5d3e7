//! The cryptography under the `jsonwebtoken` crate: Ed25519 of ed25519-dalek, and nothing else.
//!
//! The crate takes one provider for the whole process. A program that embeds the broker and uses `jsonwebtoken` for
//! other algorithms installs a provider of its own before the broker is built; it must know EdDSA too.

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Signer, Verifier},
};

/// What stands before the 32 secret bytes in a PKCS #8 file of Ed25519 (RFC 8410, section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(TokenSigner::new(*algorithm, key)?)),
    verifier_factory: |algorithm, key| Ok(Box::new(TokenVerifier::new(*algorithm, key)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes this the provider of the process, unless it has one.
pub fn install() {
    // The one that is there may be another program's: it stays.
    let _ = PROVIDER.install_default();
}

/// A secret key in the form that every provider takes.
pub fn encoding_key(secret: &[u8; 32]) -> EncodingKey {
    EncodingKey::from_ed_der(&[PKCS8.as_slice(), secret].concat())
}

struct TokenSigner(SigningKey);

impl TokenSigner {
    fn new(algorithm: Algorithm, key: &EncodingKey) -> Result<Self, Error> {
        only_ed25519(algorithm, key.family())?;
        let secret = key.as_bytes().strip_prefix(&PKCS8).and_then(|secret| secret.try_into().ok());
        Ok(Self(SigningKey::from_bytes(secret.ok_or(ErrorKind::InvalidEddsaKey)?)))
    }
}

impl Signer<Vec<u8>> for TokenSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(ed25519_dalek::Signer::sign(&self.0, message).to_bytes().into())
    }
}

impl JwtSigner for TokenSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct TokenVerifier(VerifyingKey);

impl TokenVerifier {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        only_ed25519(algorithm, key.family())?;
        let bytes = key.try_get_as_bytes()?.try_into().map_err(|_| ErrorKind::InvalidEddsaKey)?;
        Ok(Self(VerifyingKey::from_bytes(bytes).map_err(|_| ErrorKind::InvalidEddsaKey)?))
    }
}

impl Verifier<Vec<u8>> for TokenVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let signature = Signature::from_slice(signature).map_err(|_| signature::Error::new())?;
        self.0.verify_strict(message, &signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for TokenVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

fn only_ed25519(algorithm: Algorithm, family: AlgorithmFamily) -> Result<(), Error> {
    match (algorithm, family) {
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => Ok(()),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    }
}
