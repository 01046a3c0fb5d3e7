//! `If-Match` and `If-None-Match` of reads (RFC 9110, section 13). Those of changes are in `tests/ownership`.

use super::client::{Ask, VERSIONS, Version};
use crate::support::{pod::Pod, server::TestServer};

/// A broker with a pod that is also kept in gzip.
async fn stored() -> (TestServer, String, String) {
    let server = TestServer::start().await;
    let html = Pod::named("pod").padded(10_000).html();
    let slug = server.store(html.clone()).await;
    drop(server.compressed(&server.url(&format!("/{slug}")), &html).await);
    (server, format!("/{slug}"), html)
}

#[tokio::test]
async fn conditions_are_checked_in_their_order() {
    let (server, path, _) = stored().await;
    let etag =
        Ask::new("GET", &path).over(Version::One, &server.address).await.header("etag").unwrap().to_owned();
    let gzip = format!("{}-gzip\"", etag.trim_end_matches('"'));
    let (list, weak, other_list) =
        (format!("\"a\", {etag} , \"b\""), format!("W/{etag}"), format!("\"a\", W/{etag}"));
    let bare = etag.trim_matches('"').to_owned();
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    type Row<'a> = (&'a [(&'a str, &'a str)], u16);
    let rows: &[Row<'_>] = &[
        (&[("if-match", &etag)], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", &list)], 200),
        (&[("if-match", "\"a\""), ("if-match", &etag)], 200),
        // A weak tag is never strongly equal to another.
        (&[("if-match", &weak)], 412),
        (&[("if-match", &other_list)], 412),
        (&[("if-match", "\"a\"")], 412),
        (&[("if-match", &bare)], 412),
        (&[("if-match", "")], 412),
        // Without `Accept-Encoding`, the pod in gzip is not what would be sent.
        (&[("if-match", &gzip)], 412),
        (&[("if-match", &gzip), ("accept-encoding", "gzip")], 200),
        (&[("if-match", &etag), ("accept-encoding", "gzip")], 200),
        (&[("if-match", &gzip), ("accept-encoding", "gzip"), ("range", "bytes=0-9")], 412),
        // If-Match comes first, then If-None-Match, then Range.
        (&[("if-match", "\"a\""), ("if-none-match", &etag)], 412),
        (&[("if-match", &etag), ("if-none-match", &etag)], 304),
        (&[("if-match", &etag), ("if-none-match", "\"a\"")], 200),
        (&[("if-match", "\"a\""), ("range", "bytes=0-9")], 412),
        (&[("if-match", "\"a\""), ("range", "bytes=9999999-")], 412),
        (&[("if-none-match", &weak)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", &other_list)], 304),
        (&[("if-none-match", &etag), ("range", "bytes=0-9")], 304),
        (&[("if-none-match", &etag), ("range", "bytes=9999999-")], 304),
        (&[("if-none-match", &gzip)], 200),
        (&[("if-none-match", &gzip), ("accept-encoding", "gzip")], 304),
        // There is no date to compare with.
        (&[("if-unmodified-since", past)], 200),
        (&[("if-modified-since", past)], 200),
        (&[("if-match", &etag), ("if-unmodified-since", past)], 200),
    ];
    for (fields, status) in rows {
        for version in VERSIONS {
            for method in ["GET", "HEAD"] {
                let ask = Ask { fields: fields.to_vec(), ..Ask::new(method, &path) };
                let answer = ask.over(version, &server.address).await;
                assert_eq!(answer.status, *status, "{ask:?} {version:?}");
                let expected = match status {
                    412 => None,
                    _ if fields.contains(&("accept-encoding", "gzip"))
                        && !fields.contains(&("if-match", &etag)) =>
                    {
                        Some(&*gzip)
                    }
                    _ => Some(&*etag),
                };
                assert_eq!(answer.header("etag"), expected, "{ask:?} {version:?}");
            }
        }
    }
    server.stop().await;
}
