//! A disk that hangs: what a client wants of it holds up nobody else.

use std::{fs, net::IpAddr, path::Path, process::Command};

use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{
    SOON,
    http2_frames::{END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, frame},
    pod::Pod,
    process::Broker,
    raw::Raw,
    socket::Socket,
};

/// More than there are threads for all that waits for a disk.
const FLOOD: usize = 700;
/// Downloads of a client that a broker opens at a time.
const AT_A_TIME: u32 = 4;

const MARK: &[u8] = b"all read";

/// A broker on whose disk one pod hangs for whoever opens it.
struct Scene {
    broker: Broker,
    http: reqwest::Client,
    hanging: String,
    _data: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let broker = Broker::start(&["-d", data.path().to_str().unwrap()]);
        let http = reqwest::Client::builder().timeout(SOON).build().unwrap();
        let mut scene = Self { broker, http, hanging: String::new(), _data: data };
        scene.hanging = scene.store("hangs").await;
        let blob = fs::read_dir(scene._data.path().join("blobs")).unwrap().next().unwrap().unwrap().path();
        hang(&blob);
        scene
    }

    async fn store(&self, name: &str) -> String {
        let upload = self.http.post(self.broker.url("/pods")).header("content-type", "text/html");
        let stored: Value = answer(upload.body(Pod::named(name).html())).await.json().await.unwrap();
        format!("/{}", stored["id"].as_str().unwrap())
    }

    /// Registers, uploads and downloads, which must be answered soon.
    async fn others_are_served(&self) {
        let mut origin = Socket::connect(&self.broker.address).await;
        origin.register("pod").await;
        let slug = self.store("other").await;
        for path in [slug.clone(), slug + "/meta"] {
            answer(self.http.get(self.broker.url(&path))).await;
        }
    }
}

/// Makes opening `file` wait for ever: for somebody who writes into a pipe.
fn hang(file: &Path) {
    fs::remove_file(file).unwrap();
    assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
}

async fn answer(request: RequestBuilder) -> reqwest::Response {
    let answer = request.send().await.expect("others should be served");
    answer.error_for_status().unwrap()
}

fn flooder() -> IpAddr {
    [127, 0, 0, 2].into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_that_hang_hold_up_nobody_else() {
    let scene = Scene::new().await;
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        let mut raw = Raw::open_from(flooder(), &scene.broker.address).await;
        raw.send(&format!("GET {} HTTP/1.1\nHost: pods.example\n\n", scene.hanging)).await;
        flood.push(raw);
    }
    scene.others_are_served().await;
}

/// A thread that waits for a disk goes on waiting when nobody wants the answer any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_that_hang_and_are_given_up_hold_up_nobody_else() {
    let scene = Scene::new().await;
    for _ in 0..FLOOD / AT_A_TIME as usize {
        let mut raw = Raw::open_from(flooder(), &scene.broker.address).await;
        raw.send_bytes(PREFACE).await;
        for stream in (0..AT_A_TIME).map(|n| 2 * n + 1) {
            raw.send_bytes(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(&scene.hanging))).await;
        }
        raw.send_bytes(&frame(PING, 0, 0, MARK)).await;
        // The broker has read what came before the PING when it answers that.
        let (mut answered, mut buffer) = (Vec::<u8>::new(), [0; 1024]);
        while !answered.windows(MARK.len()).any(|bytes| bytes == MARK) {
            let length = timeout(SOON, raw.read(&mut buffer)).await.unwrap().unwrap();
            assert!(length > 0, "the broker closed the connection: {answered:?}");
            answered.extend(&buffer[..length]);
        }
    }
    scene.others_are_served().await;
}

/// Returns the fields of a request for `path` (RFC 7541).
fn get(path: &str) -> Vec<u8> {
    let (get, http, path_field, host_field) = (0x82, 0x86, 0x04, 0x01);
    let path = [&[path_field, path.len() as u8], path.as_bytes()].concat();
    [&[get, http][..], &path, &[host_field, 1, b'x']].concat()
}
