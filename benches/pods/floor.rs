//! The floor of a download: bare hyper that returns what was last uploaded, from memory.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures_util::StreamExt;
use gemmapod_signal::{
    Bytes,
    salvo::{
        http::{Method, ReqBody, ResBody},
        hyper::{self, Request, Response, body::Incoming, server::conn::http1, service::service_fn},
        rt::tokio::TokioIo,
    },
};
use tokio::net::TcpListener;

/// Serves on the port that follows `-p`.
pub async fn serve(args: impl Iterator<Item = String>) {
    let port = args.skip_while(|arg| arg != "-p").nth(1).and_then(|port| port.parse().ok()).expect("-p PORT");
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    let pod = Arc::new(Mutex::new(Bytes::new()));
    loop {
        let (tcp, _) = listener.accept().await.expect("a connection");
        tcp.set_nodelay(true).expect("TCP");
        let pod = pod.clone();
        let service = service_fn(move |request| answer(request, pod.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    pod: Arc<Mutex<Bytes>>,
) -> Result<hyper::Response<ResBody>, Infallible> {
    if request.method() == Method::GET {
        return Ok(Response::new(ResBody::Once(pod.lock().expect("no panic").clone())));
    }
    let (mut body, mut html) = (ReqBody::from(request.into_body()), Vec::new());
    while let Some(Ok(frame)) = body.next().await {
        html.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    *pod.lock().expect("no panic") = html.into();
    Ok(Response::new(ResBody::Once(r#"{"id":"pod"}"#.into())))
}
