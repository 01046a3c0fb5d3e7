//! `:authority` names a valid host, as `Host` does with HTTP/1.

use http::{Request, StatusCode, Version};

use super::http2::{broker, connect, head};

/// A request whose `:authority` and `Host` are these.
fn request(method: &str, path: &str, authority: &str, host: Option<&str>) -> Request<()> {
    let uri = format!("https://{authority}{path}");
    let request = Request::builder().method(method).uri(uri).version(Version::HTTP_2);
    match host {
        Some(host) => request.header("host", host),
        None => request,
    }
    .body(())
    .unwrap()
}

#[tokio::test]
async fn an_authority_that_is_no_host_is_refused_on_every_route() {
    let (server, client, _files) = broker().await;
    let mut sender = connect(&client, &server.address).await;
    let routes = [
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("GET", "/signal"),
        ("POST", "/pods"),
        ("OPTIONS", "/pods"),
        ("GET", "/aaaaaaaaaaaa"),
        ("PUT", "/aaaaaaaaaaaa"),
        ("DELETE", "/aaaaaaaaaaaa"),
        ("GET", "/aaaaaaaaaaaa/meta"),
        ("GET", "/not/there"),
    ];
    for (method, path) in routes {
        for (authority, host) in [
            ("'", None),
            ("x:99999", None),
            ("user@pods.example", None),
            ("999.1.1.1", None),
            ("pods.example", Some("'")),
            ("pods.example", Some("x:99999")),
            ("pods.example", Some("other.example")),
        ] {
            let request = request(method, path, authority, host);
            let (answer, _) = sender.send_request(request, true).unwrap();
            let status = head(answer).await.status();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{method} {path} {authority} {host:?}");
        }
    }
    for (authority, host) in
        [("pods.example", None), ("pods.example:8443", None), ("pods.example", Some("Pods.Example"))]
    {
        let (answer, _) = sender.send_request(request("GET", "/health", authority, host), true).unwrap();
        assert_eq!(head(answer).await.status(), StatusCode::OK, "{authority} {host:?}");
    }
}
