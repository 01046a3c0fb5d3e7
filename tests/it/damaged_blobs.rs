//! A blob is never served wrong: whatever happens to its file, the answer is the pod or a failure, by every way that leads
//! to it, and the log says which blob it is.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use reqwest::{Method, Version};

use crate::support::{pod::Pod, process::Broker};

/// The name of a harm, and what it does to a file.
type Harm = (&'static str, fn(&Path));

/// What somebody, or a disk, does to a file.
const HARMS: &[Harm] = &[
    ("removed", |file| fs::remove_file(file).unwrap()),
    ("empty", |file| File::create(file).map(drop).unwrap()),
    ("cut off", |file| File::options().write(true).open(file).unwrap().set_len(5_000).unwrap()),
    ("longer", |file| {
        let end = fs::metadata(file).unwrap().len();
        File::options().write(true).open(file).unwrap().write_all_at(b"x", end).unwrap();
    }),
    ("changed in place", |file| {
        File::options().write(true).open(file).unwrap().write_all_at(b"#", 9).unwrap()
    }),
    ("another file of the same length", |file| {
        let new = file.with_extension("new");
        fs::write(&new, vec![b'x'; fs::metadata(file).unwrap().len() as usize]).unwrap();
        fs::rename(new, file).unwrap();
    }),
    ("a directory", |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
];

/// A method, header fields, and the status of the answer where all is well.
type Way = (Method, &'static [(&'static str, &'static str)], u16);

/// Ways to ask for a pod.
const WAYS: &[Way] = &[
    (Method::GET, &[], 200),
    (Method::HEAD, &[], 200),
    (Method::GET, &[("range", "bytes=100-199")], 206),
    (Method::GET, &[("accept-encoding", "gzip")], 200),
    (Method::HEAD, &[("accept-encoding", "gzip")], 200),
];

struct Data {
    _directory: tempfile::TempDir,
    blob: PathBuf,
    whole: Vec<u8>,
    url: String,
    broker: Broker,
}

/// A broker with one pod, which was read already if `is_read`.
async fn data(is_read: bool) -> Data {
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(&["-d", directory.path().to_str().unwrap()]);
    let html = Pod::named("p").padded(200_000).html();
    let request = reqwest::Client::new().post(broker.url("/pods")).header("content-type", "text/html");
    let answer = request.body(html.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.unwrap();
    let path = format!("/{}", answer["id"].as_str().unwrap());
    if is_read {
        assert_eq!(reqwest::get(broker.url(&path)).await.unwrap().text().await.unwrap(), html);
    } else {
        assert!(broker.terminate().success());
        broker = Broker::start(&["-d", directory.path().to_str().unwrap()]);
    }
    let blob = fs::read_dir(directory.path().join("blobs")).unwrap().next().unwrap().unwrap().path();
    let url = broker.url(&path);
    Data { _directory: directory, blob, whole: html.into_bytes(), url, broker }
}

fn clients() -> [reqwest::Client; 2] {
    [reqwest::Client::builder(), reqwest::Client::builder().http2_prior_knowledge()]
        .map(|builder| builder.build().unwrap())
}

#[tokio::test]
async fn a_damaged_blob_is_a_failure_by_every_way_until_it_is_put_right() {
    for is_read in [false, true] {
        for (harm, damage) in HARMS {
            let mut data = data(is_read).await;
            let context = format!("{harm}, read before: {is_read}");
            damage(&data.blob);
            for client in clients() {
                for (method, headers, _) in WAYS {
                    let context = format!("{context}, {method} {headers:?}");
                    let request = client.request(method.clone(), &data.url);
                    let request =
                        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                    let answer = request.send().await.unwrap();
                    assert_eq!(answer.status(), 500, "{context}");
                    assert_eq!(answer.headers().get("etag"), None, "{context}");
                    if method == Method::GET {
                        let body = answer.text().await.unwrap();
                        assert_eq!(
                            body, r#"{"error":"this broker could not reach its registry"}"#,
                            "{context}"
                        );
                    }
                    let said = data.broker.wait_for("ERROR");
                    assert!(said.contains("the registry could not serve a request"), "{context}: {said}");
                }
                let meta = client.get(format!("{}/meta", data.url)).send().await.unwrap();
                assert_eq!(meta.status(), 200, "{context}: what is known of it is not damaged");
            }
            if data.blob.is_dir() {
                fs::remove_dir(&data.blob).unwrap();
            }
            fs::write(&data.blob, &data.whole).unwrap();
            for client in clients() {
                for (method, headers, status) in WAYS {
                    let request = client.request(method.clone(), &data.url);
                    let request =
                        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                    let answer = request.send().await.unwrap();
                    assert!([Version::HTTP_11, Version::HTTP_2].contains(&answer.version()));
                    assert_eq!(answer.status(), *status, "{context}, restored, {method} {headers:?}");
                }
                let answer = client.get(&data.url).send().await.unwrap();
                assert!(answer.bytes().await.unwrap() == data.whole, "{context}, restored");
            }
        }
    }
}

/// Of a damaged blob that another pod brings again, there is a whole one.
#[tokio::test]
async fn an_upload_of_the_same_bytes_puts_a_blob_right() {
    let data = data(true).await;
    HARMS[4].1(&data.blob);
    assert_eq!(reqwest::get(&data.url).await.unwrap().status(), 500);
    let request = reqwest::Client::new().post(data.broker.url("/pods")).header("content-type", "text/html");
    assert_eq!(request.body(data.whole.clone()).send().await.unwrap().status(), 200);
    assert!(reqwest::get(&data.url).await.unwrap().bytes().await.unwrap() == data.whole);
}
