//! An HTTP client that costs as little as it can: one connection, every body whole and of a known length.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

pub struct Client {
    connection: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        Ok(Self { connection: BufReader::with_capacity(64 << 10, connection), body: Vec::new() })
    }

    /// Gets `path`; the length of the body.
    pub fn get(&mut self, path: &str) -> io::Result<usize> {
        let head = format!("GET /{path} HTTP/1.1\r\nhost: bench\r\n\r\n");
        self.connection.get_mut().write_all(head.as_bytes())?;
        self.answer()
    }

    /// Uploads a pod; its slug.
    pub fn post(&mut self, html: &str) -> io::Result<String> {
        let length = html.len();
        let head = format!(
            "POST /pods HTTP/1.1\r\nhost: bench\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n"
        );
        self.connection.get_mut().write_all(head.as_bytes())?;
        self.connection.get_mut().write_all(html.as_bytes())?;
        self.answer()?;
        let answer: serde_json::Value = serde_json::from_slice(&self.body)?;
        Ok(answer["id"].as_str().expect("a slug").to_owned())
    }

    fn answer(&mut self) -> io::Result<usize> {
        let (mut status, mut length) = (String::new(), 0);
        self.connection.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            self.connection.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().map_err(io::Error::other)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        if !status.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(status));
        }
        self.body.resize(length, 0);
        self.connection.read_exact(&mut self.body)?;
        Ok(length)
    }
}
