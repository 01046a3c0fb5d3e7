//! A disk that is full, or gone: uploads are refused, everything else goes on, and all is well once there is room.

mod support;

use std::{fs, path::Path, time::Duration};

use gemmapod_signal::{RedbRegistry, Registry, RegistryError, VerifiedPod};
use serde_json::{Value, json};

use support::{SOON, mount::Tmpfs, pod::Pod, process::Broker, skipped, socket::Socket};

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
    tokio::time::timeout(SOON, poll).await.expect("/health should have been as it is");
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
        Tmpfs::mount("a_full_disk_refuses_uploads_and_nothing_else_until_there_is_room", 8 << 20)
    else {
        return;
    };
    let data = disk.path().join("data");
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

fn verified(name: usize, padding: usize) -> VerifiedPod {
    let html = Pod::named(&name.to_string()).padded(padding).html();
    VerifiedPod::verify(html.into(), 1 << 20).unwrap()
}

#[tokio::test]
async fn deleting_makes_room_on_a_full_disk() {
    let Some(disk) = Tmpfs::mount("deleting_makes_room_on_a_full_disk", 8 << 20) else { return };
    let registry = RedbRegistry::open(&disk.path().join("data")).unwrap();
    let mut stored = Vec::new();
    // Small pods too, so that the database is of some size.
    for n in 0.. {
        let pod = verified(n, if n < 200 { 10 } else { 700_000 });
        let slug = pod.record().slug;
        match registry.put_pod(pod).await {
            Ok(()) => stored.push(slug),
            Err(RegistryError::Full(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let _filler = disk.fill();
    assert!(matches!(registry.put_pod(verified(0, 100_000)).await, Err(RegistryError::Full(_))));
    assert!(registry.delete(stored.last().unwrap()).await.unwrap());
    registry.put_pod(verified(0, 100_000)).await.unwrap();
}

#[tokio::test]
async fn hits_that_find_no_room_change_nothing_and_can_be_written_later() {
    let Some(disk) = Tmpfs::mount("hits_that_find_no_room_change_nothing_and_can_be_written_later", 16 << 20)
    else {
        return;
    };
    let registry = RedbRegistry::open(&disk.path().join("data")).unwrap();
    let mut hits = Vec::new();
    for n in 0..1500 {
        let pod = verified(n, 0);
        hits.push((pod.record().slug, 1 + n as u64));
        registry.put_pod(pod).await.unwrap();
    }
    let filler = disk.fill();
    // The first hits of so many pods want pages that the file does not have yet; and once more after a failure.
    for _ in 0..3 {
        let refused = registry.bump_hits(&hits, std::time::SystemTime::now()).await;
        assert!(matches!(refused, Err(RegistryError::Full(_))), "{refused:?}");
        assert!(registry.list(None, 2000).await.unwrap().iter().all(|record| record.hits == 0));
        assert!(registry.get_blob(&hits[0].0).await.unwrap().is_some());
    }
    fs::remove_file(filler).unwrap();
    registry.bump_hits(&hits, std::time::SystemTime::now()).await.unwrap();
    registry.close().await.unwrap();
    let registry = RedbRegistry::open(&disk.path().join("data")).unwrap();
    for (slug, hits) in hits {
        assert_eq!(registry.get_record(&slug).await.unwrap().unwrap().hits, hits);
    }
}

/// What finds room on a full disk, such as a hit or a deletion, does not make it one with room for pods.
#[tokio::test]
async fn a_small_write_does_not_end_the_problem_of_a_full_disk() {
    let Some(disk) = Tmpfs::mount("a_small_write_does_not_end_the_problem_of_a_full_disk", 8 << 20) else {
        return;
    };
    let registry = RedbRegistry::open(&disk.path().join("data")).unwrap();
    let mut slugs = Vec::new();
    for n in 0..300 {
        let pod = verified(n, 10);
        slugs.push(pod.record().slug);
        registry.put_pod(pod).await.unwrap();
    }
    let hit = async || registry.bump_hits(&[(slugs[0], 1)], std::time::SystemTime::now()).await;
    // The database has pages to spare then.
    for slug in slugs.iter().skip(10).step_by(2) {
        assert!(registry.delete(slug).await.unwrap());
    }
    hit().await.unwrap();
    registry.check().await;
    assert_eq!(registry.problem(), None);
    let filler = disk.fill();
    registry.check().await;
    let mut written = 0;
    for slug in &slugs[1..6] {
        written += u32::from(hit().await.is_ok());
        written += u32::from(registry.delete(slug).await.is_ok());
        assert!(registry.problem().unwrap().contains("No space left on device"));
        registry.check().await;
        assert!(registry.problem().is_some(), "{slug} made little room");
        assert!(matches!(registry.put_pod(verified(0, 100_000)).await, Err(RegistryError::Full(_))));
    }
    if written == 0 {
        return skipped("the database had no page to spare for a small write");
    }
    fs::remove_file(filler).unwrap();
    registry.check().await;
    assert_eq!(registry.problem(), None);
    registry.put_pod(verified(0, 100_000)).await.unwrap();
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
