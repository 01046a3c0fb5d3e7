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
    target::{Attack, Body, Head, Transport, UPLOAD, over_every_transport},
};

over_every_transport! {
    an_upload_of_4_gib,
    refused_uploads_can_read_why,
    a_thousand_uploads_at_once,
    a_thousand_uploads_of_a_thousand_clients,
    a_thousand_uploads_in_json,
    forty_uploads_of_25_mb,
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

/// `pods.upload_memory` of those that fill it.
const UPLOAD_MEMORY: u64 = 100 << 20;

/// What an upload over this transport may take beside `pods.upload_memory` and a fifth of it. The heap keeps what requests took
/// when they are gone and bodies have their memory. A client of HTTP/2 fills the window of its stream before anything is read,
/// and a connection with TLS has buffers of its own; of both, `pods.upload_memory` counts a third at most.
fn beside(transport: Transport) -> u64 {
    match transport {
        Transport::Http1 => 16 << 10,
        Transport::Http2 => 96 << 10,
        Transport::Http2OverTls => 112 << 10,
    }
}

async fn a_thousand_uploads_of_a_thousand_clients(attack: Attack) {
    fill_memory(attack, 1000, "text/html", &padded(1_000_000)).await;
}

async fn a_thousand_uploads_in_json(attack: Attack) {
    let json = serde_json::json!({ "html": padded(1_000_000) }).to_string();
    fill_memory(attack, 1000, "application/json", &json).await;
}

async fn forty_uploads_of_25_mb(attack: Attack) {
    fill_memory(attack, 40, "text/html", &padded(25_000_000)).await;
}

fn padded(bytes: usize) -> String {
    Pod::named("one of many").padded(bytes).html()
}

/// Uploads that come from a client each, as fast as they are read, and are stored one after the other, so that all memory is
/// taken. Where the disk is slow and `pods.max_uploads` is large, they take no more than `pods.upload_memory` and a fifth of
/// it; that is tried by hand, with a broker that listens and
///
/// ```sh
/// strace -f -p PID -o /dev/null -e trace=fdatasync,fsync -e inject=fdatasync,fsync:delay_exit=5000000
/// ```
async fn fill_memory(attack: Attack, count: usize, content_type: &str, body: &str) {
    let settings = [
        "trusted_proxies=127.0.0.1",
        "pods.max_uploads=1",
        "pods.max_blob=30MiB",
        &format!("pods.upload_memory={UPLOAD_MEMORY}"),
    ];
    let target = attack.begin(&settings).await;
    target.uploads_may_be_busy();
    let [before, _] = target.memory();
    let uploads = (0..count).map(async |n| {
        let client = format!("10.0.{}.{}", n / 250, n % 250);
        let fields = [("content-type", content_type), ("x-forwarded-for", &client)];
        let head = Head { method: Method::POST, path: "/pods", fields: &fields };
        let (mut upload, mut download) = target.request(head, Body::Length(body.len())).await;
        let write = async {
            upload.write_all(body.as_bytes()).await?;
            upload.finish().await
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 4, download.answer()));
        answer.expect("each upload should be answered").expect("each answer should be readable").status
    });
    let answers = join_all(uploads).await;
    let [_, peak] = target.memory();
    let answered = |status| answers.iter().filter(|answer| **answer == status).count();
    println!(
        "{} stored, {} told to retry, {} MB before, {} MB at the peak",
        answered(200),
        answered(503),
        before >> 20,
        peak >> 20
    );
    assert_eq!(answered(200) + answered(503), count, "{answers:?}");
    let allowed = before + UPLOAD_MEMORY * 6 / 5 + count as u64 * beside(target.transport);
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
        // Up to 4 s for memory, what 10 GB take to be sent, and 10 s for a body that stands still.
        let (_, answer) = tokio::join!(write, timeout(SOON * 6, download.answer()));
        answer.expect("each upload should be answered").expect("each answer should be readable").status
    });
    let answers = join_all(uploads).await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    let [no_pods, stopped, busy] = [400, 408, 503].map(count);
    println!("{no_pods} no pods, {stopped} stopped on their way, {busy} told to retry");
    assert_eq!(no_pods + stopped + busy, 200, "{answers:?}");
    target.lift().await;
}
