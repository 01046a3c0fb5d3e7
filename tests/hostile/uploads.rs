//! Uploads that are too large, too many, too slow or broken off.

use std::{
    io,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{interval, timeout},
};

use crate::support::{
    SOON,
    bytes::{Answer, connect},
    pod::Pod,
    siege::Siege,
};

use crate::attack::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_upload_of_4_gib() {
    let siege = Siege::lay("a_chunked_upload_of_4_gib", &[]).await;
    let mut stream = connect(siege.address()).await.unwrap();
    stream.write_all(CHUNKED_UPLOAD.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let mut sent = 0_u64;
    let write = async {
        while sent < 4 << 30 {
            if writer.write_all(&chunk).await.is_err() {
                return;
            }
            sent += 1 << 20;
        }
    };
    let read = async {
        let answer = Answer::read(&mut reader).await.expect("the 413 should be readable");
        assert_eq!(answer.status, 413, "{answer:?}");
        // A well-behaved client would stop sending now. This one does not.
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    };
    timeout(SOON * 2, async { tokio::join!(write, read) }).await.expect("the broker should have cut it off");
    assert!(sent < 1 << 30, "{sent} bytes of the upload were taken");
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_uploads_can_read_why() {
    let siege = Siege::lay("refused_uploads_can_read_why", &[]).await;
    let answers = many(20, async |n| {
        let body = vec![b'x'; 8 << 20];
        match n % 2 {
            0 => upload(siege.address(), "application/zip", &body).await.status,
            _ => {
                // It claims more than it may send, and sends much of it before it looks.
                let mut stream = connect(siege.address()).await.unwrap();
                stream.write_all(upload_head("text/html", MAX_BLOB + 1).as_bytes()).await.unwrap();
                stream.write_all(&body).await.expect("a refused upload should not be reset");
                Answer::read(&mut stream).await.expect("the refusal should be readable").status
            }
        }
    });
    let answers = answers.await;
    assert_eq!(answers.iter().filter(|status| **status == 415).count(), 10, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 413).count(), 10, "{answers:?}");
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_uploads_at_once() {
    let siege = Siege::lay("a_thousand_uploads_at_once", &[]).await;
    siege.uploads_may_be_busy();
    let pod = Pod::named("one of many").padded(1_200_000).html();
    let started = Instant::now();
    let uploads = (0..1000).map(async |n| {
        let mut stream = connect(siege.address()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let head = upload_head("text/html", pod.len());
        let write = async {
            writer.write_all(head.as_bytes()).await?;
            if n % 50 == 0 {
                // A slow line: 12 pieces within some three seconds.
                let mut beat = interval(Duration::from_millis(250));
                for piece in pod.as_bytes().chunks(pod.len() / 12) {
                    beat.tick().await;
                    writer.write_all(piece).await?;
                }
                Ok::<(), io::Error>(())
            } else {
                writer.write_all(pod.as_bytes()).await
            }
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 4, Answer::read(&mut reader)));
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
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_50_mb_and_unknown_length() {
    let siege = Siege::lay("uploads_of_50_mb_and_unknown_length", &["pods.upload_wait=4s"]).await;
    siege.uploads_may_be_busy();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let uploads = (0..200).map(async |n| {
        let mut stream = connect(siege.address()).await.unwrap();
        stream.write_all(CHUNKED_UPLOAD.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let write = async {
            for _ in 0..49 {
                writer.write_all(&chunk).await?;
            }
            // Every tenth stops a little before its end and waits for what happens.
            if n % 10 != 0 {
                writer.write_all(b"0\r\n\r\n").await?;
            }
            Ok::<(), io::Error>(())
        };
        let (_, answer) = tokio::join!(write, timeout(SOON * 2, Answer::read(&mut reader)));
        answer.expect("each upload should be answered").expect("each answer should be readable").status
    });
    let answers = join_all(uploads).await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    let [no_pods, stopped, busy] = [400, 408, 503].map(count);
    println!("{no_pods} no pods, {stopped} stopped on their way, {busy} told to retry");
    assert_eq!(no_pods + stopped + busy, 200, "{answers:?}");
    siege.lift().await;
}
