//! What every registry promises about credentials.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use gemmapod_signal::{
    AddedCredential, Credential, CredentialLimits, CredentialPodIds, Digest, OwnerKey, RedbRegistry, Registry,
};

const LIMITS: CredentialLimits = CredentialLimits { per_key: 3, total: 5 };

fn credential(key: u8, name: &str, secret: &str) -> Credential {
    Credential {
        owner_key: OwnerKey([key; 32]),
        name: name.parse().unwrap(),
        secret_hash: Digest::of(secret.as_bytes()),
        pod_ids: None,
        created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
    }
}

pub async fn credentials_are_kept_until_they_are_revoked(registry: Arc<impl Registry>) {
    let add =
        async |credential: &Credential| registry.add_credential(credential.clone(), LIMITS).await.unwrap();
    let names = async |key: u8| -> Vec<String> {
        let credentials = registry.credentials(&OwnerKey([key; 32])).await.unwrap();
        credentials.iter().map(|credential| credential.name.to_string()).collect()
    };
    let home = credential(1, "home", "a");
    assert_eq!(registry.credential(&home.secret_hash).await.unwrap(), None);
    assert_eq!(registry.revoke_credential(&home.owner_key, &home.name).await.unwrap(), None);
    assert!(names(1).await.is_empty());

    assert_eq!(add(&home).await, AddedCredential::Added);
    assert_eq!(registry.credential(&home.secret_hash).await.unwrap(), Some(home.clone()));
    // The same again, as of a client that lost the answer; the first one stays.
    let later = Credential { created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(2), ..home.clone() };
    assert_eq!(add(&later).await, AddedCredential::Added);
    assert_eq!(registry.credentials(&home.owner_key).await.unwrap(), std::slice::from_ref(&home));
    // A name is one key's, a secret is one credential's.
    assert_eq!(add(&credential(1, "home", "b")).await, AddedCredential::NameTaken);
    assert_eq!(add(&credential(2, "other", "a")).await, AddedCredential::SecretTaken);
    let for_two = CredentialPodIds::try_from(vec!["one".to_owned(), "two".to_owned()]).unwrap();
    let few = Credential { pod_ids: Some(for_two), ..credential(2, "home", "c") };
    assert_eq!(add(&few).await, AddedCredential::Added);
    assert_eq!(registry.credential(&few.secret_hash).await.unwrap(), Some(few.clone()));

    // Names are in order, and keys beside one another are apart.
    assert_eq!(add(&credential(1, "attic", "d")).await, AddedCredential::Added);
    assert_eq!(add(&credential(1, "Garage", "e")).await, AddedCredential::Added);
    assert_eq!(add(&credential(1, "fourth", "f")).await, AddedCredential::TooManyForKey);
    assert_eq!(add(&credential(0, "home", "g")).await, AddedCredential::Added);
    assert_eq!(names(1).await, ["Garage", "attic", "home"]);
    assert_eq!((names(0).await, names(2).await), (vec!["home".to_owned()], vec!["home".to_owned()]));
    // All together there are five: those with less room get no more, those with more do.
    assert_eq!(add(&credential(3, "home", "h")).await, AddedCredential::Full);
    let limits = CredentialLimits { total: 6, ..LIMITS };
    let mine = registry.add_credential(credential(2, "more", "i"), limits).await.unwrap();
    assert_eq!(mine, AddedCredential::Added);

    assert_eq!(registry.revoke_credential(&home.owner_key, &home.name).await.unwrap(), Some(home.clone()));
    assert_eq!(registry.revoke_credential(&home.owner_key, &home.name).await.unwrap(), None);
    assert_eq!(registry.credential(&home.secret_hash).await.unwrap(), None);
    assert_eq!(registry.credential(&few.secret_hash).await.unwrap(), Some(few));
    assert_eq!(names(1).await, ["Garage", "attic"]);
    // The name is free again, and so is the secret.
    assert_eq!(add(&credential(1, "home", "a")).await, AddedCredential::Full);
    let again = registry.add_credential(credential(1, "home", "a"), limits).await.unwrap();
    assert_eq!(again, AddedCredential::Added);
}

#[tokio::test]
async fn on_disk_credentials_and_revocations_last() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, gone) = (credential(1, "kept", "a"), credential(1, "gone", "b"));
    let registry = RedbRegistry::open(directory.path()).unwrap();
    for credential in [&kept, &gone] {
        let added = registry.add_credential(credential.clone(), LIMITS).await.unwrap();
        assert_eq!(added, AddedCredential::Added);
    }
    registry.revoke_credential(&gone.owner_key, &gone.name).await.unwrap().unwrap();
    registry.close().await.unwrap();
    drop(registry);
    let registry = RedbRegistry::open(directory.path()).unwrap();
    assert_eq!(registry.credentials(&kept.owner_key).await.unwrap(), std::slice::from_ref(&kept));
    assert_eq!(registry.credential(&kept.secret_hash).await.unwrap(), Some(kept));
    assert_eq!(registry.credential(&gone.secret_hash).await.unwrap(), None);
}
