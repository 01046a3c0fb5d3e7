//! The broker inside a program of one's own, with a route beside its own and an orderly end.
//!
//! Run it with `cargo run --example embed`; it fetches its own two pages once and stops.

use gemmapod_signal::{
    Config, MemoryRegistry, SignalServer,
    salvo::{Router, handler},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[handler]
async fn about() -> &'static str {
    "this broker is part of a larger program"
}

/// Starts the broker, asks it for two pages and stops it.
#[tokio::main]
pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config =
        Config::from_toml("port = 0\nhostname = \"127.0.0.1\"").map_err(|errors| errors[0].to_string())?;
    let server = SignalServer::builder()
        .config(config)
        .registry(MemoryRegistry::new(64 << 20))
        .routes(Router::with_path("about").get(about))
        .bind()
        .await?;
    let address = server.local_addrs()[0];
    let handle = server.handle();
    let serving = tokio::spawn(server.serve());

    for path in ["/about", "/health"] {
        let mut client = TcpStream::connect(address).await?;
        client
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        println!("{path}: {}", answer.lines().last().unwrap_or_default());
    }

    handle.shutdown();
    serving.await??;
    Ok(())
}
