//! What attacks are made of.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::support::{
    SOON,
    bytes::{Answer, connect},
};

/// The default of `signal.max_frame`.
pub const MAX_FRAME: usize = 256 << 10;
/// The default of `pods.max_blob`.
pub const MAX_BLOB: usize = 50 << 20;

/// Makes `count` of something, some at a time.
pub async fn many<F: Future>(count: usize, make: impl FnMut(usize) -> F) -> Vec<F::Output> {
    stream::iter(0..count).map(make).buffer_unordered(100).collect().await
}

/// Writes until it is done, the broker breaks the connection, or the broker takes no more for a while.
pub async fn push(stream: &mut TcpStream, bytes: &[u8]) {
    // Whichever it is: the broker need not like it.
    let _ = timeout(Duration::from_secs(2), stream.write_all(bytes)).await;
}

/// `POST /pods` of a body of known length.
pub fn upload_head(content_type: &str, length: usize) -> String {
    format!(
        "POST /pods HTTP/1.1\r\nHost: hostile\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
}

pub const CHUNKED_UPLOAD: &str =
    "POST /pods HTTP/1.1\r\nHost: hostile\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Uploads `body`, reading the answer all the while.
pub async fn upload(address: &str, content_type: &str, body: &[u8]) -> Answer {
    let mut stream = connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let head = upload_head(content_type, body.len());
    let write = async {
        writer.write_all(head.as_bytes()).await?;
        writer.write_all(body).await
    };
    let read = timeout(SOON * 3, Answer::read(&mut reader));
    let (_, answer) = tokio::join!(write, read);
    answer.expect("the upload should have been answered").expect("the answer should be readable")
}
