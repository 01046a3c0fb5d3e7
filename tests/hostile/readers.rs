//! Peers that do not read what they asked for.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    attack::{MAX_FRAME, many},
    support::{
        SOON,
        bytes::{self, FIN, PING, TEXT, frame},
        pod::Pod,
    },
    target::{Attack, Target, over_every_transport},
    wire::Wire,
};

over_every_transport! {
    visitors_that_never_read,
    visitors_with_one_large_frame_each,
    visitors_that_took_one_large_frame_each,
    visitors_that_spend_the_common_budget,
    an_origin_that_never_reads,
    downloads_that_are_never_read,
    pings_without_reading_the_pongs,
}

/// A visitor with a session `s0`, `s1`, … that never reads.
async fn deaf_visitor(target: &Target, pod: &str, n: usize) -> Wire {
    let mut visitor = target.narrow_socket().await;
    let offer = json!({ "t": "offer", "podId": pod, "sessionId": format!("s{n}"), "sdp": "x" });
    visitor.write_all(&bytes::text(&offer.to_string())).await.unwrap();
    visitor
}

const DROPPED: &str = "the peer reads too slowly: this frame was dropped";

/// Answers of 100 KB for each visitor that does not read: more than its queue and the system's hold.
const ANSWERS: usize = 8;

async fn visitors_that_never_read(attack: Attack) {
    let target = attack.begin(&["signal.max_queue=257KiB"]).await;
    let visitors = (0..5).map(async |o| {
        let pod = format!("flood {o}");
        let mut origin = target.client().await;
        origin.send(json!({ "t": "register", "podId": pod })).await;
        origin.receive().await;
        let visitors = many(100, async |n| deaf_visitor(&target, &pod, n).await).await;
        for _ in 0..100 {
            assert_eq!(origin.receive().await["t"], "offer");
        }
        let sdp = "x".repeat(100_000);
        let answers: Vec<String> = (0..100)
            .map(|n| json!({ "t": "answer", "sessionId": format!("s{n}"), "sdp": sdp }).to_string())
            .collect();
        let (mut write, mut read) = origin.stream.split();
        let flood = async {
            for answer in answers.iter().cycle().take(ANSWERS * 100) {
                write.send(answer.as_str().into()).await.unwrap();
            }
            // All of it has arrived once this is complained about.
            write.send("{".into()).await.unwrap();
        };
        let complaints = async {
            let mut too_slow = 0;
            while let Some(message) = read.next().await {
                let Message::Text(frame) = message.unwrap() else { continue };
                let frame: Value = serde_json::from_str(&frame).unwrap();
                match frame["message"].as_str() {
                    Some(DROPPED) => too_slow += 1,
                    Some("invalid json") => break,
                    other => panic!("{other:?}"),
                }
            }
            too_slow
        };
        let flooded = timeout(SOON * 6, async { tokio::join!(flood, complaints) }).await;
        let ((), too_slow) = flooded.expect("the flood should have been taken");
        assert!(too_slow >= 100, "the answers to each visitor should have been refused in the end");
        visitors
    });
    let visitors = join_all(visitors).await;
    target.bystander_was_served().await;
    drop(visitors);
    target.lift().await;
}

/// A frame that left its queue for a socket that takes nothing must not be forgotten.
async fn visitors_with_one_large_frame_each(attack: Attack) {
    let target = attack.begin(&[]).await;
    let mut origin = target.client().await;
    origin.send(json!({ "t": "register", "podId": "large" })).await;
    origin.receive().await;
    let visitors = many(2500, async |n| deaf_visitor(&target, "large", n).await).await;
    for _ in 0..2400 {
        assert_eq!(origin.receive().await["t"], "offer");
    }
    let sdp = "x".repeat(MAX_FRAME - 200);
    for n in 0..2500 {
        origin.send(json!({ "t": "answer", "sessionId": format!("s{n}"), "sdp": sdp })).await;
    }
    target.digested().await;
    target.bystander_was_served().await;
    drop((visitors, origin));
    target.lift().await;
}

/// They read it and stay: what it passed through stays with their sockets.
async fn visitors_that_took_one_large_frame_each(attack: Attack) {
    let target = attack.begin(&[]).await;
    let mut origin = target.client().await;
    origin.send(json!({ "t": "register", "podId": "taken" })).await;
    origin.receive().await;
    let visitors = many(1250, async |pair| {
        let mut visitors = target.two_clients().await;
        for (n, visitor) in visitors.iter_mut().enumerate() {
            let session_id = format!("s{}", 2 * pair + n);
            visitor
                .send(json!({ "t": "offer", "podId": "taken", "sessionId": session_id, "sdp": "x" }))
                .await;
        }
        let [one, two] = visitors;
        [(2 * pair, one), (2 * pair + 1, two)]
    });
    let mut visitors: Vec<_> = visitors.await.into_iter().flatten().collect();
    for _ in 0..2500 {
        assert_eq!(origin.receive().await["t"], "offer");
    }
    let sdp = "x".repeat(MAX_FRAME - 200);
    for (n, visitor) in &mut visitors {
        origin.send(json!({ "t": "answer", "sessionId": format!("s{n}"), "sdp": sdp })).await;
        assert_eq!(visitor.receive().await["t"], "answer");
    }
    target.bystander_was_served().await;
    drop((visitors, origin));
    target.lift().await;
}

/// Those that hold what they may hold and no more: the bystander must have room beside them.
async fn visitors_that_spend_the_common_budget(attack: Attack) {
    let settings = [
        "signal.max_frame=64KiB",
        "signal.max_queue=65KiB",
        "signal.max_queue_total=256KiB",
        "signal.frames_per_second=1000000",
    ];
    let target = attack.begin(&settings).await;
    let mut origin = target.client().await;
    origin.send(json!({ "t": "register", "podId": "hoard" })).await;
    origin.receive().await;
    let hoarders = many(8, async |n| deaf_visitor(&target, "hoard", n).await).await;
    let mut reader = target.client().await;
    reader.send(json!({ "t": "offer", "podId": "hoard", "sessionId": "reader", "sdp": "x" })).await;
    for _ in 0..9 {
        assert_eq!(origin.receive().await["t"], "offer");
    }
    // In step with one that reads, until there is no room: smaller steps than the frames of the bystander.
    let answer = |session: &str| json!({ "t": "answer", "sessionId": session, "sdp": "x".repeat(1000) });
    let mut complaint = Value::Null;
    for n in 0..20_000 {
        origin.send(answer(&format!("s{}", n % 8))).await;
        origin.send(answer("reader")).await;
        complaint = tokio::select! {
            frame = reader.receive() => {
                assert_eq!(frame["t"], "answer");
                continue;
            }
            frame = origin.receive() => frame,
        };
        break;
    }
    assert_eq!(complaint["message"], DROPPED, "the budget should have been spent");
    target.bystander_was_served().await;
    assert_ne!(complaint["sessionId"], "reader", "one that reads was given up");
    drop((hoarders, reader, origin));
    target.lift().await;
}

async fn an_origin_that_never_reads(attack: Attack) {
    let target = attack.begin(&["signal.ping_interval=2s"]).await;
    let mut origin = target.narrow_socket().await;
    origin.write_all(&bytes::text(r#"{"t":"register","podId":"deaf"}"#)).await.unwrap();
    // The only thing that it ever reads: it is registered.
    assert_eq!(origin.read_u8().await.unwrap(), FIN | TEXT);
    let sdp = "x".repeat(200_000);
    let told = many(100, async |n| {
        let mut visitor = target.client().await;
        let offer =
            json!({ "t": "offer", "podId": "deaf", "sessionId": format!("s{n}"), "sdp": sdp }).to_string();
        for _ in 0..20 {
            visitor.send_text(&offer).await;
        }
        visitor.send_text("{").await;
        let mut told = Vec::new();
        loop {
            let frame = visitor.receive().await;
            match frame["message"].as_str().unwrap() {
                "invalid json" => return told,
                message => told.push(message.to_owned()),
            }
        }
    });
    let told = told.await;
    assert!(told.iter().all(|told| told.contains(&"origin offline".into())), "{told:?}");
    drop(origin);
    target.lift().await;
}

async fn downloads_that_are_never_read(attack: Attack) {
    let target = attack.begin(&[]).await;
    let pod = Pod::named("wanted").padded(2_000_000).html();
    let answer = target.upload("text/html", pod.as_bytes()).await;
    let path = format!("/{}", answer.slug());
    let downloads = many(1000, async |_| target.stalled_download(&path).await);
    let downloads = downloads.await;
    target.bystander_was_served().await;
    drop(downloads);
    target.lift().await;
}

async fn pings_without_reading_the_pongs(attack: Attack) {
    let target = attack.begin(&["signal.frames_per_second=1000000"]).await;
    let pings = frame(FIN | PING, &[0; 125]).repeat(1000);
    let sockets = many(4, async |_| {
        let mut stream = target.narrow_socket().await;
        // 80 MB: the broker must stop taking them, for where should the pongs go?
        for taken in 0..600 {
            match timeout(Duration::from_secs(2), stream.write_all(&pings)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return (taken, stream),
            }
        }
        panic!("80 MB of pings were taken");
    });
    let sockets = sockets.await;
    println!(
        "{:?} thousands of pings were taken",
        sockets.iter().map(|(taken, _)| taken).collect::<Vec<_>>()
    );
    target.bystander_was_served().await;
    drop(sockets);
    target.lift().await;
}
