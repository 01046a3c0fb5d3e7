//! Strangers own as many pod ids as there may be: nobody's uploads and nobody's own pod ids depend on it.

use gemmapod_signal::{Holder, MemoryRegistry, OwnerKey, PodIdChange, Registry, owner::key::OwnerSecret};
use reqwest::Method;

use super::{
    binding::taken,
    proof::{Owner, broker_with, later},
};
use crate::support::server::TestServer;

/// Pod ids that may be owned, and those of one key.
const MAX_OWNED: u32 = 100_000;
const MAX_OWNED_PER_KEY: u32 = 1000;

/// A registry in which there is room for one more owned pod id.
async fn almost_full() -> MemoryRegistry {
    let registry = MemoryRegistry::new(1 << 30);
    let claimed = |n: u32| {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&(n / MAX_OWNED_PER_KEY).to_be_bytes());
        let key: OwnerKey = OwnerSecret::from_bytes(&seed).owner_key();
        (format!("stranger-{n}"), PodIdChange::Claimed { key, holder: Holder::Nobody })
    };
    for first in (0..MAX_OWNED - 1).step_by(MAX_OWNED_PER_KEY as usize) {
        let changes = (first..(first + MAX_OWNED_PER_KEY).min(MAX_OWNED - 1)).map(claimed).collect();
        assert!(registry.change_pod_ids(changes).await.unwrap().iter().all(Result::is_ok));
    }
    registry
}

async fn put(server: &TestServer, owner: &Owner, slug: &str, html: &str) -> u16 {
    let put = owner.signed(server, Method::PUT, &format!("/{slug}"), Some(html), later());
    put.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_table_refuses_no_upload_and_takes_nothing_from_owners() {
    for bind in ["first-use", "uploads"] {
        let (server, _clock) = broker_with(&format!("[signal]\nbind = {bind:?}"), almost_full().await).await;
        let (owner, late) = (Owner::new(), Owner::new());
        drop(taken(&server, "mine", &owner.token("mine")).await);
        let claim =
            late.signed(&server, Method::PUT, &format!("/owner/{}/pod-ids/late", late.key()), None, later());
        assert_eq!(claim.send().await.unwrap().status(), 507, "the table should be full");
        for html in [late.pod("new").html(), late.reachable("new", "dartc")] {
            let slug = server.store(html.clone()).await;
            assert_eq!(put(&server, &late, &slug, &html).await, 200, "{bind}");
            late.upload(&server, &html).await;
        }
        drop(taken(&server, "mine", &owner.token("mine")).await);
        drop(server.origin("without a proof").await);
    }
}
