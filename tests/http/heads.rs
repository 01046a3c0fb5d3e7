//! How much of a head is read: bytes, not fields.

use crate::{
    client::{Ask, VERSIONS, Version},
    support::{pod::Pod, server::TestServer},
};

#[tokio::test]
async fn a_head_of_many_fields_is_served() {
    let server = TestServer::start().await;
    let slug = server.store(Pod::named("pod").html()).await;
    let path = format!("/{slug}");
    let names: Vec<_> = (0..2000).map(|n| format!("x{n}")).collect();
    for (fields, length) in [(99, 20), (100, 20), (101, 20), (200, 20), (300, 10), (400, 0)] {
        let value = "v".repeat(length);
        for version in VERSIONS {
            let mut ask = Ask::new("GET", &path);
            ask.fields = names[..fields].iter().map(|name| (&**name, &*value)).collect();
            let answer = ask.over(version, &server.address).await;
            assert_eq!(answer.status, 200, "{fields} fields of {length} bytes over {version:?}");
        }
    }
    // One name again and again.
    let mut ask = Ask::new("GET", &path);
    ask.fields = vec![("x", ""); 500];
    assert_eq!(ask.over(Version::One, &server.address).await.status, 200);
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
