//! Frames of WebSockets that break the rules, or never become whole.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    attack::{MAX_FRAME, many},
    support::{
        SOON,
        bytes::{BINARY, CLOSE, CONTINUATION, FIN, PING, TEXT, close_code, frame, frame_header},
    },
    target::{Attack, over_every_transport},
};

over_every_transport! {
    ten_thousand_sockets_of_garbage,
    json_that_nests_without_end,
    fragments_without_end,
    fragments_with_pings_between_them,
    frames_that_break_the_rules,
}

async fn ten_thousand_sockets_of_garbage(attack: Attack) {
    let target = attack.begin(&[]).await;
    let mut noise = vec![0; 4096];
    getrandom::fill(&mut noise).unwrap();
    let begins = [
        [target.transport.preface(), &noise].concat(),
        target.transport.unfinished_head(20),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        "A".repeat(4096).into_bytes(),
    ]
    .map(Bytes::from);
    let mut heads = many(5000 / target.transport.cost(), async |n| {
        let mut stream = target.connect().await;
        stream.push(&begins[n % begins.len()]).await;
        stream
    })
    .await;
    let complete = Bytes::from(frame(FIN | TEXT, &[b'['; MAX_FRAME]));
    let almost = complete.slice(..complete.len() - 1);
    let garbage = Bytes::from(frame(0xf0 | TEXT, &noise));
    let mut sockets = many(5000, async |n| {
        let mut stream = target.socket().await;
        match n % 8 {
            0 => stream.push(&almost.slice(..n / 8 % 14)).await,
            1 => stream.push(&garbage).await,
            // Complete, and then idle: its buffer must not stay for nothing.
            2..5 => stream.push(&complete).await,
            _ => stream.push(&almost).await,
        }
        (n, stream)
    })
    .await;
    target.digested().await;
    target.bystander_was_served().await;
    let (_, garbage) = sockets.iter_mut().find(|(n, _)| n % 8 == 1).unwrap();
    assert_eq!(close_code(garbage).await, Some(1002));
    heads.clear();
    drop(sockets);
    target.lift().await;
}

async fn json_that_nests_without_end(attack: Attack) {
    let target = attack.begin(&[]).await;
    let bodies = [
        "[".repeat(10 << 20),
        r#"{"a":"#.repeat(2 << 20),
        format!(r#"{{"html": {}"#, "[".repeat(10 << 20)),
        format!(r#"{{"html": {}{}}}"#, "[".repeat(5 << 20), "]".repeat(5 << 20)),
        format!(r#"{{"x": {}, "html": "#, r#"{"a":["#.repeat(1 << 20)),
    ];
    let answers = many(30, async |n| target.upload("application/json", bodies[n % 5].as_bytes()).await);
    for answer in answers.await {
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    let frames = ["[".repeat(MAX_FRAME - 100), r#"{"t":"#.repeat((MAX_FRAME - 100) / 5)];
    let mut wrapped = vec![];
    for nest in &frames {
        wrapped.push(nest.clone());
        wrapped
            .push(format!(r#"{{"t":"offer","podId":"p","sessionId":"s","sdp":{}"#, &nest[..MAX_FRAME - 200]));
    }
    let half = MAX_FRAME / 2 - 100;
    wrapped.push(format!(
        r#"{{"t":"offer","podId":"p","sessionId":"s","sdp":{}{}}}"#,
        "[".repeat(half),
        "]".repeat(half)
    ));
    many(100, async |n| {
        let mut socket = target.client().await;
        for frame in wrapped.iter().cycle().skip(n).take(20) {
            socket.send_text(frame).await;
            let message = socket.receive().await["message"].as_str().unwrap().to_owned();
            assert!(["invalid json", "nested too deeply"].contains(&&*message), "{message}");
        }
    })
    .await;
    target.lift().await;
}

/// Empty ones have a rate; here they come as fast as they can.
async fn fragments_without_end(attack: Attack) {
    let target = attack.begin(&["signal.frames_per_second=4000000"]).await;
    let begin = frame(TEXT, b"");
    let more = frame(CONTINUATION, b"").repeat(10_000);
    let codes = many(50, async |_| {
        let mut stream = target.socket().await;
        stream.write_all(&begin).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let flood = async {
            while writer.write_all(&more).await.is_ok() {}
            std::future::pending().await
        };
        let mut close = [0; 4];
        tokio::select! {
            () = flood => {}
            read = timeout(SOON, reader.read_exact(&mut close)) => {
                read.expect("fragments without end should be cut off").expect("the close frame should be readable");
            }
        }
        assert_eq!(close[0], FIN | CLOSE);
        u16::from_be_bytes([close[2], close[3]])
    });
    for code in codes.await {
        assert_eq!(code, 1009);
    }
    target.lift().await;
}

/// Control frames between the fragments must not hide how much has been gathered.
async fn fragments_with_pings_between_them(attack: Attack) {
    let target = attack.begin(&[]).await;
    let piece = [frame(CONTINUATION, &[b'x'; 4096]), frame(FIN | PING, b"")].concat();
    let almost = Bytes::from([frame(TEXT, b"["), piece.repeat(MAX_FRAME / 4096 - 1)].concat());
    let sockets = many(3000, async |_| {
        let mut stream = target.socket().await;
        stream.push(&almost).await;
        stream
    });
    let sockets = sockets.await;
    target.digested().await;
    target.bystander_was_served().await;
    drop(sockets);
    target.lift().await;
}

async fn frames_that_break_the_rules(attack: Attack) {
    let target = attack.begin(&[]).await;
    let unmasked = [vec![FIN | TEXT, 2], b"{}".to_vec()].concat();
    let big = frame(FIN | BINARY, &vec![b'x'; MAX_FRAME + 1]);
    let halves =
        [frame(TEXT, &vec![b'x'; MAX_FRAME / 2]), frame(FIN | CONTINUATION, &vec![b'x'; MAX_FRAME])].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("a frame without a mask", unmasked, 1002),
        ("reserved bits", frame(FIN | 0x70 | TEXT, b"{}"), 1002),
        ("an unknown kind of frame", frame(FIN | 0x3, b"{}"), 1002),
        ("an unknown control frame", frame(FIN | 0xb, b""), 1002),
        ("a control frame in fragments", frame(PING, b""), 1002),
        ("a large ping", frame(FIN | PING, &[0; 126]), 1002),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b""), 1002),
        ("a message within a message", [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(), 1002),
        ("text that is not UTF-8", frame(FIN | TEXT, b"\xff\xfe"), 1007),
        ("a frame that is too big", big, 1009),
        ("a message that is too big", halves, 1009),
        ("a claim of 2^63 - 1 bytes", frame_header(FIN | TEXT, u64::MAX >> 1), 1009),
        ("a claim of 2^64 - 1 bytes", frame_header(FIN | TEXT, u64::MAX), 1009),
        (
            "a close frame, then more",
            [frame(FIN | CLOSE, &1000_u16.to_be_bytes()), frame(FIN | TEXT, b"{}").repeat(10_000)].concat(),
            1000,
        ),
        ("a close frame with a bad code", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
    ];
    many(cases.len() * 20, async |n| {
        let (what, bytes, code) = &cases[n % cases.len()];
        let stream = target.socket().await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        // More follows than the broker will ever read: the close frame must arrive all the same.
        let noise = vec![0; 1 << 20];
        let write = async {
            writer.write_all(bytes).await?;
            writer.write_all(&noise).await
        };
        let read = async {
            let mut close = [0; 4];
            let read = reader.read_exact(&mut close).await;
            assert!(read.is_ok(), "{what}: {read:?}");
            assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (FIN | CLOSE, *code), "{what}");
        };
        timeout(SOON, async { tokio::join!(write, read) }).await.unwrap_or_else(|_| panic!("{what}: no end"))
    })
    .await;
    target.lift().await;
}
