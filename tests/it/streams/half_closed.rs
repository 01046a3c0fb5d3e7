//! Clients that say that they will send nothing more, then read (RFC 9112, section 9.6).

use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{Scene, TRANSPORTS, Transport, until};
use crate::support::{
    pod::Pod,
    raw::{Raw, upload_head},
};

const TIMES: usize = 20;

/// What is answered to a request after which nothing more comes.
async fn ask(scene: &Scene, request: &str, body: &[u8]) -> crate::support::raw::Answer {
    let mut raw: Raw = scene.http1().await;
    raw.send_bytes(&[request.replace('\n', "\r\n").as_bytes(), body].concat()).await;
    raw.finish().await;
    raw.answer().await
}

#[tokio::test]
async fn a_client_that_has_said_all_is_answered() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "").await;
        let small = Pod::named("small").padded(2_000).html();
        let large = Pod::named("large").padded(3_000_000).html();
        let get = |path: &str| format!("GET {path} HTTP/1.1\nHost: pods.example\n\n");
        let (small_slug, large_slug) = (scene.store(&small).await, scene.store(&large).await);
        for n in 0..TIMES {
            let at = format!("{transport:?}, {n}");
            assert_eq!(ask(&scene, &get("/health"), b"").await.status, 200, "{at}");
            assert!(ask(&scene, &get(&format!("/{small_slug}")), b"").await.body == small, "{at}");
            assert!(ask(&scene, &get(&format!("/{large_slug}")), b"").await.body == large, "{at}");
            let upload = ask(&scene, &upload_head(large.len()), large.as_bytes()).await;
            assert_eq!(upload.status, 200, "{at}");
        }
    }
}

/// One that is gone, and not only silent, is not sent a whole pod.
#[tokio::test]
async fn a_client_that_is_gone_ends_its_download() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "").await;
        let slug = scene.store(&Pod::named("pod").padded(20_000_000).html()).await;
        let mut raw = scene.http1().await;
        raw.send(&format!("GET /{slug} HTTP/1.1\nHost: pods.example\n\n")).await;
        raw.stir().await;
        assert_eq!(scene.open_pods(), 1, "{transport:?}");
        drop(raw);
        until("the pod is closed", || scene.open_pods() == 0).await;
    }
}

#[tokio::test]
async fn a_connection_that_was_reset_ends_its_download() {
    let scene = Scene::with(Transport::Plain, "").await;
    let slug = scene.store(&Pod::named("pod").padded(20_000_000).html()).await;
    let mut stream = TcpStream::connect(&scene.server.address).await.unwrap();
    let request = format!("GET /{slug} HTTP/1.1\r\nHost: pods.example\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    stream.read_u8().await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    until("the pod is closed", || scene.open_pods() == 0).await;
}
