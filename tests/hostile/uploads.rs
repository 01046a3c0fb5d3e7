//! Uploads that are too large, too many, too slow or broken off.

use std::{
    io,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use http::Method;
use tokio::time::{interval, timeout};

use crate::{
    attack::{MAX_BLOB, many},
    support::{SOON, pod::Pod},
    target::{Attack, Body, Head, UPLOAD, over_every_transport},
};

over_every_transport! {
    an_upload_of_4_gib,
    refused_uploads_can_read_why,
    a_thousand_uploads_at_once,
    a_thousand_uploads_of_a_thousand_clients,
    uploads_of_50_mb_and_unknown_length,
}

async fn an_upload_of_4_gib(attack: Attack) {
    let target = attack.begin(&[]).await;
    let (mut upload, mut download) = target.request(UPLOAD, Body::Unknown).await;
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0_u64;
    let write = async {
        while sent < 4 << 30 {
            if upload.write_all(&chunk).await.is_err() {
                return;
            }
            sent += 1 << 20;
        }
    };
    let read = async {
        let answer = download.answer().await.expect("the 413 should be readable");
        assert_eq!(answer.status, 413, "{answer:?}");
        // A well-behaved client would stop sending now. This one does not.
        assert!(download.rest().await.unwrap_or_default().is_empty());
    };
    timeout(SOON * 2, async { tokio::join!(write, read) }).await.expect("the broker should have cut it off");
    assert!(sent < 1 << 30, "{sent} bytes of the upload were taken");
    target.lift().await;
}

async fn refused_uploads_can_read_why(attack: Attack) {
    let target = attack.begin(&[]).await;
    let answers = many(20, async |n| {
        let body = vec![b'x'; 8 << 20];
        match n % 2 {
            0 => target.upload("application/zip", &body).await.status,
            _ => {
                // It claims more than it may send, and sends much of it before it looks.
                let (mut upload, mut download) = target.request(UPLOAD, Body::Length(MAX_BLOB + 1)).await;
                upload.write_all(&body).await.expect("a refused upload should not be reset");
                download.answer().await.expect("the refusal should be readable").status
            }
        }
    });
    let answers = answers.await;
    assert_eq!(answers.iter().filter(|status| **status == 415).count(), 10, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 413).count(), 10, "{answers:?}");
    target.lift().await;
}

async fn a_thousand_uploads_at_once(attack: Attack) {
    let target = attack.begin(&[]).await;
    target.uploads_may_be_busy();
    let pod = Pod::named("one of many").padded(1_200_000).html();
    let started = Instant::now();
    let uploads = (0..1000).map(async |n| {
        let (mut upload, mut download) = target.request(UPLOAD, Body::Length(pod.len())).await;
        let write = async {
            if n % 50 == 0 {
                // A slow line: 12 pieces within some three seconds.
                let mut beat = interval(Duration::from_millis(250));
                for piece in pod.as_bytes().chunks(pod.len() / 12) {
                    beat.tick().await;
                    upload.write_all(piece).await?;
                }
            } else {
                upload.write_all(pod.as_bytes()).await?;
            }
            upload.finish().await
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 4, download.answer()));
        let answer = answer.expect("each upload should be answered").expect("each answer should be readable");
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
        answer.status
    });
    let answers = join_all(uploads).await;
    let stored = answers.iter().filter(|status| **status == 200).count();
    let refused = answers.iter().filter(|status| **status == 503).count();
    println!("{stored} stored, {refused} told to retry, {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(stored + refused, 1000, "{answers:?}");
    assert!(stored >= 100, "{stored} were stored");
    target.lift().await;
}

/// `pods.upload_memory` by default.
const UPLOAD_MEMORY: u64 = 160 << 20;
/// What a connection takes beside it: 96 KiB that a client of HTTP/2 may send before they are read, and the buffers of
/// TLS and of HTTP.
const PER_CONNECTION: u64 = 192 << 10;

/// They come as fast as they are read, and are stored one after the other.
async fn a_thousand_uploads_of_a_thousand_clients(attack: Attack) {
    let target = attack.begin(&["trusted_proxies=127.0.0.1", "pods.max_uploads=1"]).await;
    target.uploads_may_be_busy();
    let pod = Pod::named("one of many").padded(1_200_000).html();
    let [before, _] = target.memory();
    let uploads = (0..1000).map(async |n| {
        let client = format!("10.0.{}.{}", n / 250, n % 250);
        let fields = [("content-type", "text/html"), ("x-forwarded-for", &client)];
        let head = Head { method: Method::POST, path: "/pods", fields: &fields };
        let (mut upload, mut download) = target.request(head, Body::Length(pod.len())).await;
        let write = async {
            upload.write_all(pod.as_bytes()).await?;
            upload.finish().await
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 4, download.answer()));
        answer.expect("each upload should be answered").expect("each answer should be readable").status
    });
    let answers = join_all(uploads).await;
    let [_, peak] = target.memory();
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    println!(
        "{} stored, {} told to retry, {} MB before, {} MB at the peak",
        count(200),
        count(503),
        before >> 20,
        peak >> 20
    );
    assert_eq!(count(200) + count(503), 1000, "{answers:?}");
    let allowed = before + UPLOAD_MEMORY * 6 / 5 + 1000 * PER_CONNECTION;
    assert!(peak < allowed, "{} MB are more than {} MB", peak >> 20, allowed >> 20);
    target.lift().await;
}

async fn uploads_of_50_mb_and_unknown_length(attack: Attack) {
    let target = attack.begin(&["pods.upload_wait=4s"]).await;
    target.uploads_may_be_busy();
    let chunk = vec![b'x'; 1 << 20];
    let uploads = (0..200).map(async |n| {
        let (mut upload, mut download) = target.request(UPLOAD, Body::Unknown).await;
        let write = async {
            for _ in 0..49 {
                upload.write_all(&chunk).await?;
            }
            // Every tenth stops a little before its end and waits for what happens.
            if n % 10 != 0 {
                upload.finish().await?;
            }
            Ok::<(), io::Error>(())
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 2, download.answer()));
        answer.expect("each upload should be answered").expect("each answer should be readable").status
    });
    let answers = join_all(uploads).await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    let [no_pods, stopped, busy] = [400, 408, 503].map(count);
    println!("{no_pods} no pods, {stopped} stopped on their way, {busy} told to retry");
    assert_eq!(no_pods + stopped + busy, 200, "{answers:?}");
    target.lift().await;
}
