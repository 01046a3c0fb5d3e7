//! The tables of credentials in redb, made with the first one.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `credentials` | SHA-256 of the secret | a version byte, then the credential as JSON |
//! | `credential_names` | owner key, name | SHA-256 of the secret |

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
    WriteTransaction,
};

use super::rows::{decode, encode};
use crate::pods::{AddedCredential, Credential, CredentialLimits, CredentialName, Digest, OwnerKey};

const CREDENTIALS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("credentials");
const NAMES: TableDefinition<'_, (&[u8; 32], &str), &[u8; 32]> = TableDefinition::new("credential_names");

/// Adds a credential within `limits`.
pub fn add(
    txn: &WriteTransaction,
    credential: &Credential,
    limits: CredentialLimits,
) -> Result<AddedCredential, redb::Error> {
    let (mut credentials, mut names) = (txn.open_table(CREDENTIALS)?, txn.open_table(NAMES)?);
    let Credential { owner_key, name, secret_hash, .. } = credential;
    if let Some(known) = credentials.get(&secret_hash.0)? {
        let known: Credential = decode(known.value())?;
        let is_repeated = credential.is_repeat_of(&known);
        return Ok(if is_repeated { AddedCredential::Added } else { AddedCredential::SecretTaken });
    }
    let hashes = hashes(&names, owner_key)?;
    if hashes.iter().any(|(known, _)| known == name.as_str()) {
        return Ok(AddedCredential::NameTaken);
    }
    if hashes.len() >= limits.per_key {
        return Ok(AddedCredential::TooManyForKey);
    }
    if credentials.len()? >= limits.total {
        return Ok(AddedCredential::Full);
    }
    credentials.insert(&secret_hash.0, encode(credential).as_slice())?;
    names.insert((&owner_key.0, name.as_str()), &secret_hash.0)?;
    Ok(AddedCredential::Added)
}

/// Removes the credential of this name and returns it, if there is one.
pub fn revoke(
    txn: &WriteTransaction,
    owner_key: &OwnerKey,
    name: &CredentialName,
) -> Result<Option<Credential>, redb::Error> {
    // Both are made at the same time, as readers open both.
    let (mut credentials, mut names) = (txn.open_table(CREDENTIALS)?, txn.open_table(NAMES)?);
    let removed = names.remove((&owner_key.0, name.as_str()))?.map(|hash| *hash.value());
    let Some(hash) = removed else { return Ok(None) };
    let removed = credentials.remove(&hash)?;
    removed.map(|value| decode(value.value())).transpose()
}

/// Returns the credential whose secret has this hash.
pub fn find(db: &Database, secret_hash: &Digest) -> Result<Option<Credential>, redb::Error> {
    match db.begin_read()?.open_table(CREDENTIALS) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        table => table?.get(&secret_hash.0)?.map(|value| decode(value.value())).transpose(),
    }
}

/// Returns the credentials of a key in the order of their names.
pub fn of_key(db: &Database, owner_key: &OwnerKey) -> Result<Vec<Credential>, redb::Error> {
    let txn = db.begin_read()?;
    let names = match txn.open_table(NAMES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let credentials = txn.open_table(CREDENTIALS)?;
    let mut found = Vec::new();
    for (_, hash) in hashes(&names, owner_key)? {
        if let Some(value) = credentials.get(&hash.0)? {
            found.push(decode(value.value())?);
        }
    }
    Ok(found)
}

/// Names and hashes of the credentials of a key.
fn hashes(
    names: &impl ReadableTable<(&'static [u8; 32], &'static str), &'static [u8; 32]>,
    owner_key: &OwnerKey,
) -> Result<Vec<(String, Digest)>, redb::Error> {
    let mut found = Vec::new();
    for entry in names.range((&owner_key.0, "")..)? {
        let (key, hash) = entry?;
        let (of, name) = key.value();
        if *of != owner_key.0 {
            break;
        }
        found.push((name.to_owned(), Digest(*hash.value())));
    }
    Ok(found)
}
