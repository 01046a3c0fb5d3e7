//! The account at a directory, and its key.
//!
//! The key is on disk before the directory hears of it: a crash while the account is made loses nothing, as the
//! directory gives the same account to the same key. With an external account binding the key is made by
//! `instant-acme` and is stored after the directory took it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::{Account, AccountBuilder, Error, ExternalAccountKey, Key, NewAccount};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{
    directory::DirectoryClient,
    failure::{About, Cause, Failure},
    store::AcmeStore,
};
use crate::clock::Clock;

/// The account of one directory: made when it is first needed, shared by all domains.
pub struct Accounts {
    pub directory: DirectoryClient,
    pub url: String,
    pub contacts: Vec<String>,
    /// The id and the key that bind the account to one elsewhere.
    pub binding: Option<(String, Vec<u8>)>,
    pub store: AcmeStore,
    pub clock: Clock,
    pub ready: Mutex<Option<Account>>,
}

/// What is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The account's URL, once the directory gave it one.
    id: Option<String>,
    /// PKCS #8 in base64url.
    key_pkcs8: String,
    directory: String,
    /// Whom the directory was told to write to.
    contacts: Vec<String>,
}

impl Stored {
    fn key(&self) -> Option<PrivatePkcs8KeyDer<'static>> {
        BASE64_URL_SAFE_NO_PAD.decode(&self.key_pkcs8).ok().map(Into::into)
    }

    /// The whole of `text`, if its key is one.
    fn read(text: &str) -> Result<(Self, PrivatePkcs8KeyDer<'static>), String> {
        let stored: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let key = stored.key().ok_or("its key is not base64url")?;
        Key::from_pkcs8_der(key.clone_key()).map_err(|error| error.to_string())?;
        Ok((stored, key))
    }
}

impl Accounts {
    /// The account, made or restored where there is none yet.
    pub async fn get(&self, about: About<'_>) -> Result<Account, Failure> {
        let mut ready = self.ready.lock().await;
        if let Some(account) = &*ready {
            return Ok(account.clone());
        }
        let account = self.restore(about).await?;
        Ok(ready.insert(account).clone())
    }

    /// Reads the directory's URLs again when the account is next needed.
    pub async fn reset(&self) {
        *self.ready.lock().await = None;
    }

    /// Makes the account known to a directory that has forgotten it, with the same key.
    pub async fn register_again(&self, about: About<'_>) -> Result<(), Failure> {
        let mut ready = self.ready.lock().await;
        *ready = None;
        if let Some((mut stored, _)) = self.stored()? {
            tracing::warn!(
                directory = self.url,
                "the ACME directory does not know the account: it is registered again"
            );
            stored.id = None;
            self.save(&stored)?;
        }
        *ready = Some(self.restore(about).await?);
        Ok(())
    }

    async fn restore(&self, about: About<'_>) -> Result<Account, Failure> {
        let failed = |error: Error| about.request(&error);
        let (mut stored, key) = match self.stored()? {
            Some(stored) => stored,
            None if self.binding.is_some() => return self.bind(about).await,
            None => self.new_key()?,
        };
        let account = match &stored.id {
            Some(id) => self.builder().from_parts(id.clone(), key, self.url.clone()).await.map_err(failed)?,
            None => {
                let pair = (Key::from_pkcs8_der(key.clone_key()).map_err(failed)?, PrivateKeyDer::Pkcs8(key));
                match self.builder().create_from_key(pair, self.url.clone()).await.map_err(failed) {
                    Ok((account, _)) => {
                        stored = Stored { id: Some(account.id().into()), contacts: Vec::new(), ..stored };
                        self.save(&stored)?;
                        tracing::info!(account = account.id(), "an ACME account was registered");
                        account
                    }
                    // The old account may not be had again: its key is kept, and a new one is bound.
                    Err(failure) if self.binding.is_some() && failure.cause == Cause::Other => {
                        self.put_aside("its directory has forgotten it")?;
                        return self.bind(about).await;
                    }
                    Err(failure) => return Err(failure),
                }
            }
        };
        if stored.contacts != self.contacts {
            self.tell_contacts(&account, stored, about).await?;
        }
        Ok(account)
    }

    /// Contacts are a courtesy: a directory that does not want them is told so in the log, and serves us without.
    async fn tell_contacts(
        &self,
        account: &Account,
        stored: Stored,
        about: About<'_>,
    ) -> Result<(), Failure> {
        let contacts: Vec<_> = self.contacts.iter().map(String::as_str).collect();
        match account.update_contacts(&contacts).await {
            Ok(()) => self.save(&Stored { contacts: self.contacts.clone(), ..stored }),
            Err(error) => {
                let failure = about.request(&error);
                if matches!(failure.cause, Cause::UnknownAccount | Cause::DirectoryClient) {
                    return Err(failure);
                }
                tracing::warn!("acme.contact was not set: {failure}");
                Ok(())
            }
        }
    }

    /// An account with an external account binding.
    async fn bind(&self, about: About<'_>) -> Result<Account, Failure> {
        let binding = self.binding.as_ref().map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
        let contact: Vec<_> = self.contacts.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = self
            .builder()
            .create(&new, self.url.clone(), binding.as_ref())
            .await
            .map_err(|error| about.binding(&error))?;
        self.save(&Stored {
            id: Some(account.id().into()),
            key_pkcs8: BASE64_URL_SAFE_NO_PAD.encode(credentials.private_key().secret_pkcs8_der()),
            directory: self.url.clone(),
            contacts: self.contacts.clone(),
        })?;
        tracing::info!(account = account.id(), "an ACME account was registered and bound");
        Ok(account)
    }

    /// What is on disk. What cannot be read as an account is put aside, never deleted.
    fn stored(&self) -> Result<Option<(Stored, PrivatePkcs8KeyDer<'static>)>, Failure> {
        let path = self.store.account();
        let text = self.store.read(&path).map_err(|error| Failure::file(&path, &error))?;
        match text.as_deref().map(Stored::read).transpose() {
            Ok(stored) => Ok(stored),
            Err(why) => self.put_aside(&why).map(|()| None),
        }
    }

    fn put_aside(&self, why: &str) -> Result<(), Failure> {
        let path = self.store.account();
        let aside =
            self.store.put_aside(&path, self.clock.now()).map_err(|error| Failure::file(&path, &error))?;
        tracing::warn!(
            "{} is of no use as an ACME account ({why}): it is kept as {}, and a new account is made; \
             put a good copy back and restart to go on with the old one",
            path.display(),
            aside.display()
        );
        Ok(())
    }

    fn new_key(&self) -> Result<(Stored, PrivatePkcs8KeyDer<'static>), Failure> {
        let no_key = |error: Error| Failure::new(Cause::Other, format!("no key could be made: {error}"));
        let (_, key) = Key::generate_pkcs8().map_err(no_key)?;
        let key_pkcs8 = BASE64_URL_SAFE_NO_PAD.encode(key.secret_pkcs8_der());
        let stored = Stored { id: None, key_pkcs8, directory: self.url.clone(), contacts: Vec::new() };
        self.save(&stored)?;
        Ok((stored, key))
    }

    fn save(&self, stored: &Stored) -> Result<(), Failure> {
        let path = self.store.account();
        let text = serde_json::to_string_pretty(stored).expect("strings are always JSON");
        self.store.write(&path, &text).map_err(|error| Failure::file(&path, &error))
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.directory.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_account_is_read() {
        let (_, key) = Key::generate_pkcs8().unwrap();
        let key_pkcs8 = BASE64_URL_SAFE_NO_PAD.encode(key.secret_pkcs8_der());
        let stored =
            Stored { id: None, key_pkcs8, directory: "https://ca.example/dir".into(), contacts: vec![] };
        let text = serde_json::to_string(&stored).unwrap();
        assert!(Stored::read(&text).is_ok());
        for length in 0..text.len() {
            assert!(Stored::read(&text[..length]).is_err(), "{length} bytes of {}", text.len());
        }
        let wrong = Stored { key_pkcs8: "AAAA".into(), ..stored };
        assert!(Stored::read(&serde_json::to_string(&wrong).unwrap()).is_err());
    }
}
