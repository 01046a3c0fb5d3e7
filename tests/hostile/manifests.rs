//! Uploads whose manifest is the attack.

use serde_json::json;

use crate::{
    attack::{MAX_BLOB, many},
    support::pod::{Pod, envelope},
    target::{Attack, over_every_transport},
};

over_every_transport! { cbor_bombs_as_manifests, manifests_of_50_mb }

/// CBOR that claims or holds more than it should.
fn cbor_bombs() -> Vec<Vec<u8>> {
    let claim = |major: u8, length: u64| [vec![major << 5 | 27], length.to_be_bytes().to_vec()].concat();
    let mut bombs = Vec::new();
    for length in [1 << 32, 1 << 62, 1 << 63, u64::MAX] {
        for major in [2, 3, 4, 5] {
            bombs.push(claim(major, length));
            // {"sig": …} and {"sig": [], "payload": …}
            bombs.push([b"\xa2\x63sig".to_vec(), claim(major, length)].concat());
            bombs.push([b"\xa2\x63sig\x80\x67payload".to_vec(), claim(major, length)].concat());
        }
    }
    for opener in [&b"\x81"[..], b"\xc1", b"\xa1\x00", b"\x9f", b"\xbf\x00", b"\x5f", b"\x7f"] {
        bombs.push(opener.repeat(250_000 / opener.len()));
    }
    let items = 250_000_u32;
    bombs.push([vec![0x9a], items.to_be_bytes().to_vec(), vec![0; items as usize]].concat());
    bombs.push([vec![0xba], (items / 2).to_be_bytes().to_vec(), vec![0; items as usize]].concat());
    bombs.push(
        [
            b"\xa2\x63sig\x80\x67payload\x9a".to_vec(),
            items.to_be_bytes().to_vec(),
            vec![0x80; items as usize],
        ]
        .concat(),
    );
    // Well-formed throughout: a payload that is itself a bomb.
    let inner = [vec![0x9a], 120_000_u32.to_be_bytes().to_vec(), vec![0x80; 120_000]].concat();
    for payload in [inner, vec![0x81; 120_000], vec![0x9f; 120_000], claim(4, u64::MAX), claim(3, 1 << 40)] {
        bombs.push(envelope(&[0; 64], &payload));
    }
    bombs
}

async fn cbor_bombs_as_manifests(attack: Attack) {
    let target = attack.begin(&[]).await;
    let bombs = cbor_bombs();
    let pod = Pod::named("bomb");
    let answers = many(bombs.len(), async |n| {
        let html = pod.html_around(&bombs[n]);
        target.upload("text/html", html.as_bytes()).await
    });
    for answer in answers.await {
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    target.lift().await;
}

async fn manifests_of_50_mb(attack: Attack) {
    let target = attack.begin(&[]).await;
    target.uploads_may_be_busy();
    let name = "__GEMMAPOD_MANIFEST_B64";
    let fill = |piece: &str| piece.repeat(MAX_BLOB / piece.len());
    let fit = |mut body: String| {
        body.truncate(MAX_BLOB);
        body
    };
    let cases = [
        // The whole body is base64, closed and not closed.
        (413, format!("{name}=\"{}\"", "A".repeat(MAX_BLOB - 100))),
        (400, format!("{name}=\"{}", "A".repeat(MAX_BLOB - 100))),
        (400, fill(name)),
        (400, fill(&format!("{name}=="))),
        (400, fill(&format!("{name}='\"]"))),
        (400, fill(&format!("window[\"{name}\"]"))),
        (400, fit(format!("{name}{}", fill(" \t")))),
        (400, fit(format!("{name}={}", fill("\n")))),
        (400, fit(fill(&format!("{name}{}", " ".repeat(500))))),
        (400, fill("\\s")),
        (400, fill("\u{2028}")),
        (400, fill("__GEMMAPOD_MANIFEST_B6")),
    ];
    for (status, body) in &cases {
        assert!(body.len() <= MAX_BLOB);
        let answer = target.upload("text/html", body.as_bytes()).await;
        assert_eq!(answer.status, *status, "{answer:?} to {:?}", &body[..60]);
    }
    // The same as JSON, which takes three times the memory, several at once.
    let json = json!({ "html": "\n".repeat(MAX_BLOB / 2 - 100) }).to_string();
    for answer in many(4, async |_| target.upload("application/json", json.as_bytes()).await).await {
        assert!([400, 503].contains(&answer.status), "{answer:?}");
    }
    target.lift().await;
}
