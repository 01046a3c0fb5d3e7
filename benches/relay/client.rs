//! Peers of a broker that cost as little as they can: they know the frames that they will get.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig},
};

use crate::support::server::Server;

pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub async fn connect(server: &Server) -> Self {
        Self::over(TcpStream::connect(server.address).await.expect("the server accepts"), server).await
    }

    /// One whose own address is `client`: anything in 127.0.0.0/8 is this host.
    pub async fn connect_from(client: Ipv4Addr, server: &Server) -> Self {
        let socket = TcpSocket::new_v4().expect("TCP");
        socket.bind((client, 0).into()).expect("a free port");
        Self::over(socket.connect(server.address).await.expect("the server accepts"), server).await
    }

    async fn over(tcp: TcpStream, server: &Server) -> Self {
        tcp.set_nodelay(true).expect("TCP");
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let url = format!("ws://{}/signal", server.address);
        let (socket, _) = client_async_with_config(url, tcp, Some(config)).await.expect("an upgrade");
        Self(socket)
    }

    pub async fn send(&mut self, frame: &str) {
        self.0.send(Message::text(frame)).await.expect("the server reads");
    }

    pub async fn receive(&mut self) -> Utf8Bytes {
        match self.0.next().await {
            Some(Ok(Message::Text(frame))) => frame,
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    pub async fn register(&mut self, pod_id: &str) {
        self.send(&format!(r#"{{"t":"register","podId":"{pod_id}"}}"#)).await;
        assert!(self.receive().await.contains("registered"));
    }

    /// Offers to the pod id `pod`.
    pub async fn offer(&mut self, session: &str) {
        let sdp = filler(900);
        self.send(&format!(r#"{{"t":"offer","podId":"pod","sessionId":"{session}","sdp":"{sdp}"}}"#)).await;
    }

    /// Closes and waits until the server has closed too.
    pub async fn close(mut self) {
        self.0.close(None).await.expect("the server reads");
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

/// An origin that holds the pod id `pod` and answers each frame with others; dropping it ends it.
pub struct Origin(JoinHandle<()>);

impl Origin {
    pub async fn register(server: &Server, answers: fn(&str) -> Vec<String>) -> Self {
        let mut socket = Socket::connect(server).await;
        socket.register("pod").await;
        Self(tokio::spawn(async move {
            while let Some(Ok(Message::Text(frame))) = socket.0.next().await {
                for answer in answers(&frame) {
                    socket.send(&answer).await;
                }
            }
        }))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn candidate(session: &str, bytes: usize) -> String {
    let text = filler(bytes);
    format!(
        r#"{{"t":"candidate","sessionId":"{session}","candidate":{{"candidate":"{text}","sdpMid":"0"}}}}"#
    )
}

pub fn filler(bytes: usize) -> String {
    "candidate:1 1 udp 2122260223 192.0.2.7 54321 typ host ".chars().cycle().take(bytes).collect()
}

/// The session id in a frame.
pub fn session_of(frame: &str) -> Option<&str> {
    frame.split_once(r#""sessionId":""#)?.1.split_once('"').map(|(session, _)| session)
}

pub fn is_offer(frame: &str) -> bool {
    frame.contains(r#""t":"offer""#)
}

/// A session id that no other session of this run has.
pub fn new_session() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("session-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
