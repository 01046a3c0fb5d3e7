//! Responses that their client asked for and does not take.

use futures_util::future::join_all;
use h2::Reason;
use http::{Method, StatusCode};
use tokio::net::TcpStream;

use super::{Scene, TRANSPORTS, until};
use crate::support::{
    http2::Http2,
    http2::{body, head, request, trickle},
    pod::Pod,
    server::TestServer,
};

const SHORT: &str = "[http.bounds]\nwrite_timeout = \"300ms\"";

/// A client that keeps its connection alive with PINGs, and opens no window for any response.
#[tokio::test]
async fn a_response_that_is_not_taken_ends_its_stream_and_no_other() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, SHORT).await;
        let slug = scene.store(&Pod::named("pod").padded(300_000).html()).await;
        let mut client = scene.http2(0).await;
        let mut stalled = Vec::new();
        for path in [&*format!("/{slug}"), "/health", "/nothing-there"].repeat(5) {
            stalled.push(client.get(path).await);
        }
        let ends = join_all(stalled.into_iter().map(body)).await;
        assert!(ends.iter().all(|end| *end == Err(Some(Reason::CANCEL))), "{transport:?}: {ends:?}");
        until("no pod is open", || scene.open_pods() == 0).await;
        // The connection goes on.
        assert_eq!(client.request(Method::HEAD, &format!("/{slug}")).await.status(), 200, "{transport:?}");
    }
}

/// What is left of a response in the buffers of HTTP/2 is not forgotten there.
#[tokio::test]
async fn a_response_that_is_taken_too_slowly_ends_its_stream() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, SHORT).await;
        for size in [200, 20_000, 300_000] {
            let slug = scene.store(&Pod::named("pod").padded(size).html()).await;
            let mut client = scene.http2(1).await;
            let stalled = client.get(&format!("/{slug}")).await;
            assert_eq!(trickle(stalled, 1).await, Some(Reason::CANCEL), "{transport:?}, {size} bytes");
            until("no pod is open", || scene.open_pods() == 0).await;
        }
    }
}

/// One that takes what it is sent, if slowly, gets all of it.
#[tokio::test]
async fn a_slow_client_that_goes_on_is_served() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "[http.bounds]\nwrite_timeout = \"2s\"").await;
        let html = Pod::named("pod").padded(1_000_000).html();
        let slug = scene.store(&html).await;
        let mut client = scene.http2(16 << 10).await;
        let response = client.get(&format!("/{slug}")).await;
        assert_eq!(response.headers()["content-length"], html.len().to_string());
        assert!(body(response).await.unwrap() == html.as_bytes(), "{transport:?}");
    }
}

#[tokio::test]
async fn a_client_has_as_many_downloads_as_it_may_have_connections() {
    for transport in TRANSPORTS {
        let settings = "[http]\nmax_connections_per_address = 3\n[http.bounds]\nwrite_timeout = \"1s\"";
        let scene = Scene::with(transport, settings).await;
        let slug = scene.store(&Pod::named("pod").padded(300_000).html()).await;
        let mut client = scene.http2(0).await;
        let mut answers = Vec::new();
        for _ in 0..10 {
            answers.push(client.get(&format!("/{slug}")).await);
        }
        let served = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
        let busy = answers.iter().filter(|answer| {
            answer.status() == StatusCode::SERVICE_UNAVAILABLE && answer.headers().contains_key("retry-after")
        });
        assert_eq!((served, busy.count()), (3, 7), "{transport:?}");
        assert!(scene.open_pods() <= 3);
        let head = client.request(Method::HEAD, &format!("/{slug}")).await;
        assert_eq!(head.status(), StatusCode::SERVICE_UNAVAILABLE, "{transport:?}: it opens the pod, too");
        let ends = join_all(answers.into_iter().map(body)).await;
        assert!(ends.iter().all(|end| *end == Err(Some(Reason::CANCEL))), "{transport:?}: {ends:?}");
        assert_eq!(client.get(&format!("/{slug}")).await.status(), 200, "{transport:?}");
    }
}

/// Answers that are not taken wait in memory, on however many streams and connections.
#[tokio::test]
async fn a_client_has_as_many_answers_to_take_as_it_may_have_connections() {
    for transport in TRANSPORTS {
        let settings = "[http]\nmax_connections_per_address = 40\n[http.bounds]\nwrite_timeout = \"2s\"";
        let scene = Scene::with(transport, settings).await;
        let mut answers = Vec::new();
        for _ in 0..2 {
            let client = scene.http2(0).await;
            let asked = (0..32).map(async |_| {
                let request = request(Method::GET, "/health").body(()).unwrap();
                let mut sender = client.sender.clone().ready().await.unwrap();
                head(sender.send_request(request, true).unwrap().0).await
            });
            answers.extend(join_all(asked).await);
        }
        let count = |status| answers.iter().filter(|answer| answer.status() == status).count();
        assert_eq!(
            (count(StatusCode::OK), count(StatusCode::SERVICE_UNAVAILABLE)),
            (40, 24),
            "{transport:?}"
        );
        let ends = join_all(answers.into_iter().map(body)).await;
        assert!(ends.iter().all(|end| *end == Err(Some(Reason::CANCEL))), "{transport:?}: {ends:?}");
        assert_eq!(scene.http2(0).await.get("/health").await.status(), 200, "{transport:?}");
    }
}

#[tokio::test]
async fn streams_are_few() {
    for transport in TRANSPORTS {
        let scene = Scene::with(transport, "").await;
        let client = scene.http2(0).await;
        assert_eq!(client.sender.current_max_send_streams(), 32, "{transport:?}");
    }
}

/// Pods in memory are held for as long as they are sent, whatever has taken their place meanwhile.
#[tokio::test]
async fn downloads_from_memory_count_too() {
    let settings = "[http]\nmax_connections_per_address = 2\n[http.bounds]\nwrite_timeout = \"1s\"";
    let server = TestServer::with(settings).await;
    let path = format!("/{}", server.store(Pod::named("pod").padded(300_000).html()).await);
    let mut client = Http2::on(TcpStream::connect(&server.address).await.unwrap(), 0).await;
    let stalled = [client.get(&path).await, client.get(&path).await];
    assert!(stalled.iter().all(|answer| answer.status() == StatusCode::OK));
    assert_eq!(client.get(&path).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ends = join_all(stalled.into_iter().map(body)).await;
    assert!(ends.iter().all(|end| *end == Err(Some(Reason::CANCEL))), "{ends:?}");
    assert_eq!(client.get(&path).await.status(), StatusCode::OK);
}

/// So are those in gzip.
#[tokio::test]
async fn compressed_downloads_count_too() {
    let settings = "[http]\nmax_connections_per_address = 3\n[http.bounds]\nwrite_timeout = \"1s\"";
    let server = TestServer::with(settings).await;
    let html = Pod::named("pod").padded(300_000).html();
    let path = format!("/{}", server.store(html.clone()).await);
    server.compressed(&server.url(&path), &html).await.bytes().await.unwrap();
    let client = Http2::on(TcpStream::connect(&server.address).await.unwrap(), 0).await;
    let get = async || {
        let request = request(Method::GET, &path).header("accept-encoding", "gzip").body(()).unwrap();
        let mut sender = client.sender.clone().ready().await.unwrap();
        head(sender.send_request(request, true).unwrap().0).await
    };
    let stalled = [get().await, get().await, get().await];
    assert!(stalled.iter().all(|answer| answer.headers()["content-encoding"] == "gzip"));
    assert_eq!(get().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ends = join_all(stalled.into_iter().map(body)).await;
    assert!(ends.iter().all(|end| *end == Err(Some(Reason::CANCEL))), "{ends:?}");
    assert_eq!(get().await.status(), StatusCode::OK);
}
