//! A disk that is full, or gone: uploads are refused, everything else goes on, and all is well once there is room.

mod commands;
mod freeing;
mod room;

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::support::{SOON, mount::Tmpfs, pod::Pod, process::Broker, socket::Socket};

async fn upload(broker: &Broker, html: String) -> (u16, Value) {
    let request =
        reqwest::Client::new().post(broker.url("/pods")).header("content-type", "text/html").body(html);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn get(broker: &Broker, path: &str) -> (u16, String) {
    let answer = reqwest::get(broker.url(path)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Waits until `/health` is as it should be.
async fn until_health(broker: &Broker, status: u16, fits: impl Fn(&Value) -> bool) {
    let poll = async {
        loop {
            let (found, body) = get(broker, "/health").await;
            if found == status && fits(&serde_json::from_str(&body).unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(SOON, poll).await.is_err() {
        panic!("/health is {:?}", get(broker, "/health").await);
    }
}

/// Names in the directory of blobs.
fn blobs(data: &Path) -> Vec<String> {
    let files = fs::read_dir(data.join("blobs")).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// An origin and a visitor find each other.
async fn signalling_works(broker: &Broker) {
    let (mut origin, mut visitor) =
        (Socket::connect(&broker.address).await, Socket::connect(&broker.address).await);
    origin.send(json!({ "t": "register", "podId": "p" })).await;
    assert_eq!(origin.receive().await, json!({ "t": "registered", "podId": "p" }));
    visitor
        .send(
            json!({ "t": "offer", "podId": "p", "sessionId": "s", "sdp": { "type": "offer", "sdp": "v=0" } }),
        )
        .await;
    assert_eq!(origin.receive().await["t"], "offer");
    origin.send(json!({ "t": "answer", "sessionId": "s", "sdp": { "type": "answer", "sdp": "v=0" } })).await;
    assert_eq!(visitor.receive().await["t"], "answer");
}

async fn hits(broker: &Broker, slug: &str) -> u64 {
    let (_, meta) = get(broker, &format!("/{slug}/meta")).await;
    serde_json::from_str::<Value>(&meta).unwrap()["hits"].as_u64().unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_nothing_else_until_there_is_room() {
    let Some(disk) =
        Tmpfs::mount("a_full_disk_refuses_uploads_and_nothing_else_until_there_is_room", 11 << 20)
    else {
        return;
    };
    let data = disk.path().join("data");
    let others = disk.path().join("others");
    fs::write(&others, vec![0; 1 << 20]).unwrap();
    let mut broker = Broker::start(&["-d", data.to_str().unwrap()]);
    let mut stored = Vec::new();
    let refused = loop {
        let html = Pod::named(&stored.len().to_string()).padded(700_000).html();
        match upload(&broker, html.clone()).await {
            (200, answer) => stored.push((answer["id"].as_str().unwrap().to_owned(), html)),
            refused => break refused,
        }
        assert!(stored.len() < 12, "that is more than the disk holds");
    };
    assert_eq!(refused, (507, json!({ "error": "this broker has no room left for the pod" })));
    assert!(stored.len() > 8, "only {} pods", stored.len());
    assert_eq!(blobs(&data).len(), stored.len(), "something half-written is left: {:?}", blobs(&data));

    // Now to the last byte, so that neither pods of any size nor hits can be written.
    let filler = disk.fill();
    for size in [0, 5_000, 700_000] {
        let (status, answer) = upload(&broker, Pod::named("late").padded(size).html()).await;
        assert_eq!(
            (status, &answer["error"]),
            (507, &json!("this broker has no room left for the pod")),
            "{size}"
        );
    }
    assert_eq!(blobs(&data).len(), stored.len(), "something half-written is left: {:?}", blobs(&data));
    until_health(&broker, 503, |health| {
        let problem = "the registry cannot be written: No space left on device (os error 28)";
        *health
            == json!({ "ok": false, "problem": problem, "origins": [], "sessions": 0, "registry": "redb" })
    })
    .await;
    signalling_works(&broker).await;
    for (slug, html) in &stored {
        assert!(
            get(&broker, &format!("/{slug}")).await == (200, html.clone()),
            "{slug} is not served any more"
        );
        assert_eq!(hits(&broker, slug).await, 1, "hits count although they cannot be written");
    }

    fs::remove_file(filler).unwrap();
    fs::remove_file(others).unwrap();
    let is_well = json!({ "ok": true, "origins": [], "sessions": 0, "registry": "redb" });
    until_health(&broker, 200, |health| *health == is_well).await;
    let html = Pod::named("after").padded(1000).html();
    let (status, answer) = upload(&broker, html.clone()).await;
    assert_eq!(status, 200, "{answer}");
    stored.push((answer["id"].as_str().unwrap().to_owned(), html));
    assert!(broker.terminate().success());

    // Another process finds all of it.
    let broker = Broker::start(&["-d", data.to_str().unwrap()]);
    for (slug, html) in &stored {
        assert_eq!(hits(&broker, slug).await, u64::from(*slug != stored.last().unwrap().0), "hits of {slug}");
        assert!(get(&broker, &format!("/{slug}")).await == (200, html.clone()), "{slug} is gone");
    }
    assert_eq!(blobs(&data).len(), stored.len());
}

/// Whatever happens to the directory of blobs, the broker answers; once it is back, so are the pods.
#[tokio::test]
async fn a_directory_of_blobs_that_vanishes_fails_uploads_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let broker = Broker::start(&["-d", data.to_str().unwrap()]);
    let kept = Pod::named("kept").html();
    let (_, answer) = upload(&broker, kept.clone()).await;
    let slug = answer["id"].as_str().unwrap();

    for in_its_place in [None, Some("a file")] {
        fs::rename(data.join("blobs"), data.join("elsewhere")).unwrap();
        if let Some(text) = in_its_place {
            fs::write(data.join("blobs"), text).unwrap();
        }
        let refused = upload(&broker, Pod::named("lost").html()).await;
        assert_eq!(refused, (500, json!({ "error": "this broker could not reach its registry" })));
        until_health(&broker, 503, |health| {
            health["problem"]
                .as_str()
                .is_some_and(|problem| problem.starts_with("the registry cannot be written: "))
        })
        .await;
        signalling_works(&broker).await;
        if in_its_place.is_some() {
            fs::remove_file(data.join("blobs")).unwrap();
        }
        fs::rename(data.join("elsewhere"), data.join("blobs")).unwrap();

        assert!(get(&broker, &format!("/{slug}")).await == (200, kept.clone()));
        assert_eq!(upload(&broker, kept.clone()).await.0, 200);
        assert_eq!(blobs(data).len(), 1);
        until_health(&broker, 200, |health| health["ok"] == true).await;
    }
}
