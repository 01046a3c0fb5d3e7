//! Why an upload is not a pod: the sentence for each of `InvalidPod`.

use ciborium::Value as Cbor;
use ed25519_dalek::Signer;
use serde_json::{Value, json};

use crate::support::{
    pod::{Pod, encode, envelope},
    server::TestServer,
};

async fn refused(html: impl Into<reqwest::Body>, sentence: &str) {
    let server = TestServer::start().await;
    let answer = server.upload(html).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    let status = answer.status();
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "error": sentence }));
    assert_eq!(status, 400);
}

/// A pod whose payload is some other bytes, properly signed.
fn signing(payload: &[u8]) -> String {
    let pod = Pod::named("pod");
    pod.html_around(&envelope(&pod.key.sign(payload).to_bytes(), payload))
}

fn around(signed_manifest: &[u8]) -> String {
    Pod::named("pod").html_around(signed_manifest)
}

#[tokio::test]
async fn not_utf8() {
    let html = [Pod::named("pod").html().as_bytes(), b"\xff"].concat();
    refused(html, "the pod is not valid UTF-8").await;
}

#[tokio::test]
async fn no_manifest() {
    for html in
        ["", "<p>hello</p>", "atob(window.__GEMMAPOD_MANIFEST_B64)", "__GEMMAPOD_MANIFEST_B64 == \"AAAA\""]
    {
        refused(html, "blob is missing __GEMMAPOD_MANIFEST_B64").await;
    }
}

#[tokio::test]
async fn several_manifests() {
    let html = Pod::named("pod").html();
    for second in [
        Pod::named("other").html(),
        html.clone(),
        "<script>window.__GEMMAPOD_MANIFEST_B64 = null</script>".into(),
        "<script>window['__GEMMAPOD_MANIFEST_B64'] = other</script>".into(),
    ] {
        let sentence =
            "the pod assigns __GEMMAPOD_MANIFEST_B64 more than once; expected exactly one manifest";
        refused(format!("{html}{second}"), sentence).await;
        refused(format!("{second}{html}"), sentence).await;
    }
}

#[tokio::test]
async fn not_base64() {
    let sentence =
        "the manifest is not valid base64: expected the standard alphabet with padding, in double quotes";
    let html = Pod::named("pod").html();
    refused(html.replace('"', "'"), sentence).await;
    refused("window.__GEMMAPOD_MANIFEST_B64 = manifest", sentence).await;
    refused("window.__GEMMAPOD_MANIFEST_B64 = \"oWNz", sentence).await;
    for base64 in ["!!!!", "AAA", "AA=A", "AAAA=", "AB==", "AA A", "AA\nAA", "-_-_", "AAAA AAAA", "äAAA"] {
        refused(format!("window.__GEMMAPOD_MANIFEST_B64 = \"{base64}\""), sentence).await;
    }
}

#[tokio::test]
async fn envelope_out_of_bounds() {
    let signed = Pod::named("pod").signed_manifest();
    let trailing = [&signed[..], b"\x00"].concat();
    let deep = [[0x81; 40].as_slice(), b"\x00"].concat();
    for (cbor, problem) in [
        (&b""[..], "it is not well-formed CBOR"),
        (b"\xff", "it is not well-formed CBOR"),
        (&signed[..signed.len() - 1], "it is not well-formed CBOR"),
        (b"\xbf\xff", "it has an item of indefinite length"),
        (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", "it has too many items"),
        (&deep, "it nests too deeply"),
        (&trailing, "bytes follow its end"),
    ] {
        refused(around(cbor), &format!("the signed manifest is refused: {problem}")).await;
    }
}

#[tokio::test]
async fn payload_out_of_bounds() {
    let pod = Pod::named("pod");
    let payload = pod.payload();
    // A map of fewer than 24 fields begins with one byte; 0xbf begins one of indefinite length, 0xff ends it.
    let indefinite = [b"\xbf", &payload[1..], b"\xff"].concat();
    let many = pod.clone().with("tools", Some(Cbor::Array(vec![Cbor::Null; 10_000]))).payload();
    let deep = (0..40).fold(Cbor::Null, |inner, _| Cbor::Array(vec![inner]));
    let deep = pod.with("tools", Some(deep)).payload();
    for (payload, problem) in [
        (&payload[..payload.len() - 1], "it is not well-formed CBOR"),
        (&indefinite, "it has an item of indefinite length"),
        (&many, "it has too many items"),
        (&deep, "it nests too deeply"),
        (&[&payload[..], b"\x00"].concat(), "bytes follow its end"),
    ] {
        refused(signing(payload), &format!("the manifest's payload is refused: {problem}")).await;
    }
}

#[tokio::test]
async fn envelope_of_another_shape() {
    let part = "the signed manifest is not as expected";
    refused(around(b"\xa0"), &format!("{part}: missing field `sig`")).await;
    refused(around(b"\x80"), &format!("{part}: invalid type: sequence, expected map")).await;
    let only_sig = encode(&Cbor::Map(vec![("sig".into(), Cbor::Array(Vec::new()))]));
    refused(around(&only_sig), &format!("{part}: missing field `payload`")).await;
}

#[tokio::test]
async fn payload_without_a_field_or_with_one_of_another_type() {
    let pod = Pod::named("pod");
    let part = "the manifest's payload is not as expected";
    for field in ["v", "id", "name", "persona", "system_prompt", "owner_pubkey", "transport"] {
        let without = pod.clone().with(field, None);
        refused(without.html(), &format!("{part}: missing field `{field}`")).await;
    }
    let number = pod.clone().with("name", Some(7.into()));
    refused(number.html(), &format!("{part}: invalid type: integer `7`, expected string")).await;
    refused(signing(b"\x80"), &format!("{part}: invalid type: sequence, expected map")).await;
}

#[tokio::test]
async fn bad_owner_key() {
    let pod = Pod::named("pod");
    let key = |digits: String| pod.clone().with("owner_pubkey", Some(digits.into())).html();
    for digits in [
        String::new(),
        "not hex".into(),
        pod.owner()[1..].into(),
        pod.owner() + "00",
        "zz".repeat(32),
        "ä".repeat(32),
        // No point of the curve has this y.
        format!("02{}", "00".repeat(31)),
        // Points of small order: whoever signs for them can sign for anything.
        format!("01{}", "00".repeat(31)),
        "00".repeat(32),
        format!("ec{}7f", "ff".repeat(30)),
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a".into(),
    ] {
        refused(key(digits), "invalid public key in manifest").await;
    }
}

#[tokio::test]
async fn bad_signature() {
    let sentence = "signature verification failed";
    let pod = Pod::named("pod");
    let payload = pod.payload();
    let signature = pod.key.sign(&payload).to_bytes();
    let mut flipped = signature;
    flipped[0] ^= 1;
    let other = Pod::named("other").key.sign(&payload).to_bytes();
    for signature in [&flipped[..], &other, &signature[..63], &[&signature[..], &[0]].concat(), &[0; 64], &[]]
    {
        refused(pod.html_around(&envelope(signature, &payload)), sentence).await;
    }
    let renamed = pod.clone().with("name", Some("renamed".into())).payload();
    refused(pod.html_around(&envelope(&signature, &renamed)), sentence).await;
}

#[tokio::test]
async fn name_too_long() {
    let pod = Pod::named("pod").with("name", Some("x".repeat(1025).into()));
    refused(pod.html(), "the manifest's name is longer than 1024 bytes").await;
}

/// A secret in a `signal_url` would be published. Today's pods have it under `dartc`, older ones under `webrtc`.
#[tokio::test]
async fn a_credential_in_a_signal_url() {
    let text = |text: &str| Cbor::Text(text.into());
    let sentence = "the manifest's signal_url holds a name and a secret (NAME:SECRET@), which everybody who opens the \
                    pod could read: build the pod with a signal_url without them; only the pod.toml of the host has \
                    them";
    for by in ["dartc", "webrtc"] {
        for url in ["wss://home:secret@pods.example.org/signal", "https://secret@pods.example.org"] {
            let at = vec![(text("signal_url"), text(url)), (text("pod_id"), text("pod"))];
            let transport = Cbor::Map(vec![(text(by), Cbor::Map(at))]);
            refused(Pod::named("pod").with("transport", Some(transport)).html(), sentence).await;
        }
    }
}
