//! What a client may send of a handshake.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    crypto::cipher::{OutboundChunks, OutboundPlainMessage},
    pki_types::ServerName,
};

use super::limits::broker;
use crate::support::{
    SOON,
    certs::Files,
    raw::UPGRADE,
    server::TestServer,
    tls_client::{Client, get},
};

/// Large hellos, of a first connection and of later ones, which bring a ticket.
#[tokio::test]
async fn a_large_hello_is_taken() {
    let (server, client, _files) = broker("").await;
    let names: Vec<_> = (0..600).map(|number| format!("protocol-{number:010}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).chain(["http/1.1"]).collect();
    let client = client.with_alpn(&names);
    for _ in 0..3 {
        let mut stream = client.connect(&server.address, "pods.example").await.unwrap();
        assert!(get(&mut stream, "pods.example", "/health").await.starts_with("HTTP/1.1 200"));
    }
}

/// A WebSocket over TLS 1.3, on which something other than plaintext can be sent.
struct OpenSocket {
    tcp: TcpStream,
    tls: ClientConnection,
}

impl OpenSocket {
    async fn to(server: &TestServer, client: &Client) -> Self {
        let mut config = client.0.clone();
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("pods.example").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = Self { tcp: TcpStream::connect(&server.address).await.unwrap(), tls };
        while socket.tls.is_handshaking() {
            socket.send().await;
            socket.receive().await;
        }
        let request = UPGRADE.replace('\n', "\r\n");
        std::io::Write::write_all(&mut socket.tls.writer(), request.as_bytes()).unwrap();
        socket.send().await;
        while socket.tls.process_new_packets().unwrap().plaintext_bytes_to_read() == 0 {
            socket.receive().await;
        }
        socket
    }

    async fn send(&mut self) {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        self.tcp.write_all(&bytes).await.unwrap();
    }

    async fn receive(&mut self) {
        if !self.tls.is_handshaking() || self.tls.wants_read() {
            let mut bytes = [0; 4096];
            let length = timeout(SOON, self.tcp.read(&mut bytes)).await.unwrap().unwrap();
            let mut bytes = &bytes[..length];
            while !bytes.is_empty() {
                self.tls.read_tls(&mut bytes).unwrap();
                self.tls.process_new_packets().unwrap();
            }
        }
    }
}

/// A frame of 200,000 bytes, all of which waits to be read at once.
#[tokio::test]
async fn plaintext_in_any_number_of_records_is_taken() {
    let (server, client, _files) = broker("").await;
    let length = 200_000_u64;
    let frame = [&b"\x81\xff"[..], &length.to_be_bytes(), &[0; 4], &vec![b'x'; length as usize]].concat();
    for record in [5, 1_000, 16_384] {
        let mut socket = OpenSocket::to(&server, &client).await;
        socket.tls.set_buffer_limit(None);
        let upgraded = socket.tls.process_new_packets().unwrap().plaintext_bytes_to_read();
        for part in frame.chunks(record) {
            std::io::Write::write_all(&mut socket.tls.writer(), part).unwrap();
        }
        socket.send().await;
        while socket.tls.process_new_packets().unwrap().plaintext_bytes_to_read() == upgraded {
            socket.receive().await;
        }
        let mut answer = vec![0; upgraded + 2];
        std::io::Read::read_exact(&mut socket.tls.reader(), &mut answer).unwrap();
        assert_eq!(answer[upgraded], 0x81, "records of {record} bytes");
    }
}

#[tokio::test]
async fn a_message_of_the_handshake_that_never_ends_ends_a_socket() {
    let (server, client, _files): (_, _, Files) = broker("").await;
    let OpenSocket { mut tcp, mut tls } = OpenSocket::to(&server, &client).await;
    tls.process_new_packets().unwrap();
    let Some(SupportedCipherSuite::Tls13(suite)) = tls.negotiated_cipher_suite() else {
        panic!("it should be TLS 1.3")
    };
    let plaintext = tls.process_new_packets().unwrap().plaintext_bytes_to_read();
    std::io::Read::read_exact(&mut tls.reader(), &mut vec![0; plaintext]).unwrap();
    let (first, secrets) = tls.dangerous_extract_secrets().unwrap().tx;
    let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
    | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
    | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
    else {
        panic!("another cipher suite")
    };
    let mut encrypter = suite.aead_alg.encrypter(key, iv);
    // A KeyUpdate that announces 65,520 bytes.
    let update = [&b"\x18\x00\xff\xf0"[..], &[b'k'; 48_000]].concat();
    for (part, number) in update.chunks(16_000).zip(first..) {
        let message = OutboundPlainMessage {
            typ: ContentType::Handshake,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(part),
        };
        let record = encrypter.encrypt(message, number).unwrap().encode();
        if tcp.write_all(&record).await.is_err() {
            return;
        }
    }
    let ended = async { while tcp.read(&mut [0; 4096]).await.is_ok_and(|length| length > 0) {} };
    timeout(SOON, ended).await.expect("the socket should have ended");
}
