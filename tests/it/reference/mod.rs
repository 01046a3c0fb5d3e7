//! Every case that was observed on the reference broker, @gemmapod/signal 0.2.1, held against this one.
//!
//! `tests/reference-behaviour.json` is what the reference does. The table says of each of its rows whether this
//! broker does the same or mends a fault; the test of that name shows it.

mod downloads;
mod row;
mod sockets;
mod uploads;

use std::collections::BTreeSet;

use row::{Judged, Outcome, Outcome::Match, Row};

/// All test functions; which of them a row has is checked by the compiler, in both directions.
mod cases {
    pub use super::{downloads::*, sockets::*, uploads::*};
}

/// The table. A row's test is named after its key: lower case, and `_` for all that is no letter or digit.
macro_rules! rows {
    ($( $test:ident: $key:literal => $outcome:expr; )*) => {
        const ROWS: &[(&str, Outcome)] = &[$( ($key, $outcome) ),*];

        const TESTS: &[&str] = &[$( stringify!($test) ),*];

        $(
            #[tokio::test]
            async fn $test() {
                let Judged = cases::$test(Row::of($key)).await;
            }
        )*
    };
}

const fn mended(fault: &'static str) -> Outcome {
    Outcome::Mended(fault)
}

rows! {
    health_shape: "health.shape" => Match;
    post_html: "post.html" => Match;
    post_plain: "post.plain" => Match;
    post_json: "post.json" => Match;
    post_json_nohtml: "post.json.nohtml" => Match;
    post_json_broken: "post.json.broken" => mended("broken JSON: 500, here 400 with a plain sentence");
    post_json_html_number: "post.json.html-number" => mended("broken JSON: 500, here 400 with a plain sentence");
    post_ctype_none: "post.ctype.none" => mended("wrong content type: 400, here 415");
    post_ctype_other: "post.ctype.other" => mended("wrong content type: 400, here 415");
    post_empty: "post.empty" => mended("missing manifest: 500, here 400");
    post_nomanifest: "post.nomanifest" => mended("missing manifest: 500, here 400");
    post_b64_bad: "post.b64.bad" => mended("malformed manifest: 500, here 400 with a plain sentence");
    post_b64_padding: "post.b64.padding" => mended("malformed manifest: 500, here 400 with a plain sentence");
    post_cbor_bad: "post.cbor.bad" => mended("malformed manifest: 500, here 400 with a plain sentence");
    post_cbor_empty_map: "post.cbor.empty-map" => mended("malformed manifest: 500, here 400 with a plain sentence");
    post_cbor_nested: "post.cbor.nested" => mended("malformed manifest: 500, here 400 with a plain sentence");
    post_sig_tampered: "post.sig.tampered" => Match;
    post_owner_not_signer: "post.owner.not-signer" => Match;
    post_owner_not_hex: "post.owner.not-hex" => Match;
    post_extra_fields: "post.extra-fields" => Match;
    post_two_manifests: "post.two-manifests" => mended("two manifests in one blob: accepted, here 400");
    post_nonascii_blobsize: "post.nonascii.blobSize" => mended("`blobSize` of the reply counts UTF-16 units, here bytes");
    post_51mb: "post.51MB" => mended("over 50 MB: read whole, then 400; here 413 before the body is read");
    post_forwarded: "post.forwarded" => mended("`url` ignores a proxy, here `public_url` names it");
    options_pods: "options.pods" => Match;
    get_pods: "get.pods" => Match;
    get_pod: "get.pod" => mended("no ETag, and a policy that blocks the model in the browser; here there is one, and it starts");
    get_pod_304: "get.pod.304" => mended("no 304, here there is one");
    get_pod_range: "get.pod.range" => mended("no Range, here there is one");
    get_pod_encoding: "get.pod.encoding" => mended("no compression, here there is gzip");
    head_pod: "head.pod" => Match;
    get_meta: "get.meta" => Match;
    hits_counted: "hits.counted" => Match;
    get: "get /" => Match;
    get_aaaaaaaaaaaa: "get /aaaaaaaaaaaa" => Match;
    get_short: "get /short" => Match;
    get_aaaaaaaaaaaa_meta: "get /aaaaaaaaaaaa/meta" => Match;
    get_id: "get /:id/" => Match;
    get_favicon_ico: "get /favicon.ico" => Match;
    get_etc_passwd: "get /../etc/passwd" => Match;
    get_2e_2e_x: "get /%2e%2e/x" => Match;
    delete_pod_anonymous: "delete.pod.anonymous" => mended("nobody can delete a pod: 404, here its owner can and others are told how: 401");
    get_signal_plain: "get.signal.plain" => mended("a plain GET of the endpoint is answered with 426, which says what it is for");
    ws_register: "ws.register" => Match;
    ws_registered_frame: "ws.registered.frame" => Match;
    ws_register_twice: "ws.register.twice" => Match;
    ws_register_replace: "ws.register.replace" => mended("a live origin is replaced, here it keeps its pod id");
    ws_register_nopod: "ws.register.nopod" => mended("registered under `undefined`, here `podId required`");
    ws_register_pod_number: "ws.register.pod-number" => mended("registered under 7, here `podId must be text`");
    ws_offer_offline: "ws.offer.offline" => Match;
    ws_offer_nopod: "ws.offer.nopod" => Match;
    ws_offer_nosdp: "ws.offer.nosdp" => mended("the whole process dies, here an error frame");
    ws_full: "ws.full" => mended("the origin goes away: the visitor waits 20 s, here `origin offline` at once");
    ws_candidate_before_offer: "ws.candidate.before-offer" => Match;
    ws_answer_by_visitor: "ws.answer.by-visitor" => Match;
    ws_answer_unknown: "ws.answer.unknown" => Match;
    ws_offer_by_origin: "ws.offer.by-origin" => Match;
    ws_invalid_json: "ws.invalid-json" => mended("the frame `null`: the whole process dies, here `invalid json`");
    ws_unknown_t: "ws.unknown-t" => Match;
    ws_binary: "ws.binary" => Match;
    ws_query: "ws.query" => Match;
    ws_wrong_path: "ws.wrong-path" => Match;
    ws_deflate: "ws.deflate" => Match;
    ws_ping: "ws.ping" => Match;
    ws_offer_1mb: "ws.offer.1MB" => mended("any frame up to 100 MiB, here a limit and the close code 1009");
    hole_cross_pod_answer: "hole.cross-pod-answer" => mended("delivered, the visitor is hijacked; here dropped");
    hole_session_overwrite: "hole.session-overwrite" => mended("a second visitor takes the first one's answers, here it is refused");
    hole_visitor_close_frees_other: "hole.visitor-close-frees-other" => mended("its close ends the first one's session, here it does not");
}

#[test]
fn every_row_has_its_test_and_every_test_its_row() {
    let observed: BTreeSet<_> = row::reference().keys().cloned().collect();
    let judged: BTreeSet<_> = ROWS.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(observed, judged);
    assert_eq!(ROWS.len(), judged.len(), "a row stands twice");
}

#[test]
fn tests_are_named_after_their_rows() {
    for ((key, _), test) in ROWS.iter().zip(TESTS) {
        let key = key.to_ascii_lowercase();
        let words: Vec<_> =
            key.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        assert_eq!(words.join("_"), *test);
    }
}
