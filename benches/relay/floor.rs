//! The floor: what relaying costs when tokio-tungstenite is all there is. No limits, no JSON, no second pod id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use tokio_tungstenite::{
    accept_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use super::client::session_of;

/// tokio-tungstenite's own 128 KiB are no floor: each socket fills them with zeros first.
const READ_BUFFER: usize = 2 * 1024;

/// Who gets the frames of a session, and, under the empty name, the origin.
type Peers = Arc<Mutex<HashMap<String, UnboundedSender<Message>>>>;

/// Serves on the port that follows `-p`.
pub async fn serve(args: impl Iterator<Item = String>) {
    let port = args.skip_while(|arg| arg != "-p").nth(1).and_then(|port| port.parse().ok()).expect("-p PORT");
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    rlimit::increase_nofile_limit(u64::MAX).expect("Linux");
    let peers = Peers::default();
    loop {
        let (tcp, _) = listener.accept().await.expect("a connection");
        tokio::spawn(socket(tcp, peers.clone()));
    }
}

async fn socket(tcp: TcpStream, peers: Peers) {
    tcp.set_nodelay(true).expect("TCP");
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let Ok(mut socket) = accept_async_with_config(tcp, Some(config)).await else { return };
    let (outbox, mut waiting) = unbounded_channel();
    let (mut is_origin, mut session) = (false, String::new());
    loop {
        tokio::select! {
            Some(message) = waiting.recv() => {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
            message = socket.next() => {
                let Some(Ok(Message::Text(frame))) = message else { break };
                let peers = &mut *peers.lock().expect("no panic");
                match session_of(&frame) {
                    None => {
                        is_origin = true;
                        peers.insert(String::new(), outbox.clone());
                        let _ = outbox.send(Message::text(r#"{"t":"registered","podId":"pod"}"#));
                    }
                    Some(to) if is_origin => {
                        peers.get(to).map(|visitor| visitor.send(Message::Text(frame)));
                    }
                    Some(from) => {
                        if session.is_empty() {
                            session = from.to_owned();
                            peers.insert(session.clone(), outbox.clone());
                        }
                        peers.get("").map(|origin| origin.send(Message::Text(frame)));
                    }
                }
            }
        }
    }
    if !session.is_empty() {
        peers.lock().expect("no panic").remove(&session);
    }
    // Answers the close frame.
    let _ = socket.close(None).await;
}
