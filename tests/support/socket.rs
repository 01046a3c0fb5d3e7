//! A WebSocket client that says what it expects.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};

use super::SOON;

pub struct Socket {
    pub stream: WebSocketStream<TcpStream>,
}

impl Socket {
    pub async fn connect(address: &str) -> Self {
        Self::try_connect(address, "/signal").await.unwrap()
    }

    pub async fn try_connect(address: &str, path: &str) -> Result<Self, Error> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let (stream, _) = client_async(format!("ws://{address}{path}"), tcp).await?;
        Ok(Self { stream })
    }

    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// The text of the next frame; pings are answered on the way.
    pub async fn receive_text(&mut self) -> String {
        match timeout(SOON, self.next()).await.expect("a frame should have come") {
            Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    pub async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.receive_text().await).unwrap()
    }

    /// The code and reason with which the broker closes, after frames that are passed over.
    pub async fn closed(&mut self) -> (u16, String) {
        let close = async {
            loop {
                match self.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return (frame.code.into(), frame.reason.as_str().to_owned());
                    }
                    Some(Ok(Message::Text(_))) => {}
                    other => panic!("expected a close frame, got {other:?}"),
                }
            }
        };
        timeout(SOON, close).await.expect("the broker should have closed the socket")
    }

    /// Proves that nothing is on its way to this socket: the answer to a frame sent now is the next to come.
    pub async fn nothing(&mut self) {
        self.send_text("{").await;
        assert_eq!(self.receive().await, json!({ "t": "error", "message": "invalid json" }));
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    }
}

pub fn offer(pod_id: &str, session_id: &str, sdp: &str) -> Value {
    json!({ "t": "offer", "podId": pod_id, "sessionId": session_id, "sdp": sdp })
}
