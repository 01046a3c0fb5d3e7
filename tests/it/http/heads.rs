//! How much of a head is read: bytes, not fields.

use super::client::{Ask, VERSIONS, Version};
use crate::support::{pod::Pod, server::TestServer};

#[tokio::test]
async fn a_head_of_many_fields_is_served() {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("pod").html()).await;
    let path = format!("/{slug}");
    let names: Vec<_> = (0..2000).map(|n| format!("x{n}")).collect();
    for (fields, length) in [(99, 20), (100, 20), (101, 20), (200, 20), (300, 10), (500, 0)] {
        let value = "v".repeat(length);
        for version in VERSIONS {
            let mut ask = Ask::new("GET", &path);
            ask.fields = names[..fields].iter().map(|name| (&**name, &*value)).collect();
            let answer = ask.over(version, &server.address).await;
            assert_eq!(answer.status, 200, "{fields} fields of {length} bytes over {version:?}");
        }
    }
    server.stop().await;
}

/// The largest heads that are read, and what is just too large, are the same over either version.
#[tokio::test]
async fn as_much_is_read_over_either_version() {
    let server = TestServer::start().await;
    let names: Vec<_> = (0..600).map(|n| format!("x{n:03}")).collect();
    let status = async |version, fields: usize, length: usize| {
        let value = "v".repeat(length);
        let mut ask = Ask::new("GET", "/health");
        ask.fields = names[..fields].iter().map(|name| (&**name, &*value)).collect();
        ask.over(version, &server.address).await.status.as_u16()
    };
    // "GET /health HTTP/1.1", "host: broker", and an empty line.
    let room = 16 * 1024 - 22 - 14 - 2;
    let field = |length: usize| "x000: \r\n".len() + length;
    for version in VERSIONS {
        assert_eq!(status(version, 511, 0).await, 200, "{version:?}");
        assert_eq!(status(version, 512, 0).await, 431, "{version:?}");
        for length in [20, 100, 1_000, 16_000] {
            let fields = (room / field(length)).min(511);
            assert_eq!(status(version, fields, length).await, 200, "{version:?}: {fields} of {length} bytes");
            assert_eq!(
                status(version, fields + 1, length).await,
                431,
                "{version:?}: {fields} + 1 of {length} bytes"
            );
        }
        assert_eq!(status(version, 1, room - field(0)).await, 200, "{version:?}");
        assert_eq!(status(version, 1, room - field(0) + 1).await, 431, "{version:?}");
        // One name again and again.
        let mut ask = Ask::new("GET", "/health");
        ask.fields = vec![("x", ""); 500];
        assert_eq!(ask.over(version, &server.address).await.status, 200, "{version:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = TestServer::start().await;
    for (fields, length) in [(1, 17_000), (150, 150), (3000, 0)] {
        let mut ask = Ask::new("GET", "/health");
        let (names, value): (Vec<_>, _) =
            ((0..fields).map(|n| format!("x{n}")).collect(), "v".repeat(length));
        ask.fields = names.iter().map(|name| (&**name, &*value)).collect();
        let answer = ask.over(Version::One, &server.address).await;
        assert_eq!(answer.status, 431, "{fields} fields of {length} bytes");
    }
    server.stop().await;
}
