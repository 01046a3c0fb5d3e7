//! A data directory that cannot be opened is refused with a sentence that helps, and is left as it is.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use gemmapod_signal::{OpenError, OwnerKey, RedbRegistry, Registry, Usage, VerifiedPod};
use redb::{Database, TableDefinition};

use crate::support::{
    mount::Tmpfs,
    pod::Pod,
    process::{Broker, command},
};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// A data directory with one pod, closed properly.
async fn directory_with_a_pod() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let registry = RedbRegistry::open(directory.path()).unwrap();
    let pod = VerifiedPod::verify(Pod::named("kept").html().into()).unwrap();
    registry.put_pod(pod).await.unwrap();
    registry.close().await.unwrap();
    directory
}

/// Every file below `directory` with its bytes.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    files
}

fn refusal(directory: &Path) -> String {
    RedbRegistry::open(directory).expect_err("it should not open").to_string()
}

/// Exit code and last line of the binary.
fn exit(directory: &Path) -> (Option<i32>, String) {
    let output = command().args(["-H", "127.0.0.1", "-p", "0", "-d"]).arg(directory).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr.lines().last().unwrap_or_default().to_owned())
}

/// `directory` is refused with `sentence`, by the library and the binary, and nothing in it is changed.
fn is_refused_and_left_alone(directory: &Path, sentence: &str) {
    let before = contents(directory);
    assert_eq!(refusal(directory), sentence);
    assert_eq!(exit(directory), (Some(1), format!("gemmapod-signal: {sentence}")));
    assert!(contents(directory) == before, "the files were changed");
}

#[test]
fn only_one_broker_uses_a_directory_until_it_ends_in_whatever_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut broker = Broker::start(&["-d", path.to_str().unwrap()]);
    let sentence = format!(
        "the data directory {} is in use by another broker; stop that one, or choose another with --data-dir",
        path.display()
    );
    assert!(matches!(RedbRegistry::open(path), Err(OpenError::InUse(_))));
    assert_eq!(refusal(path), sentence);
    assert_eq!(exit(path), (Some(1), format!("gemmapod-signal: {sentence}")));
    broker.kill();
    drop(RedbRegistry::open(path).unwrap());
}

#[tokio::test]
async fn one_process_does_not_open_a_directory_twice() {
    let directory = tempfile::tempdir().unwrap();
    let first = RedbRegistry::open(directory.path()).unwrap();
    assert!(matches!(RedbRegistry::open(directory.path()), Err(OpenError::InUse(_))));
    first.close().await.unwrap();
    RedbRegistry::open(directory.path()).unwrap();
}

/// Takes from a registry what only brokers of a later schema than `schema` keep.
fn make_older(file: &Path, schema: u64) {
    let database = Database::open(file).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut meta = txn.open_table(META).unwrap();
        meta.insert("schema", schema).unwrap();
        txn.delete_table(TableDefinition::<(&[u8; 32], &str), ()>::new("owned")).unwrap();
        txn.delete_table(TableDefinition::<(u64, &str), ()>::new("expiring")).unwrap();
        if schema < 2 {
            meta.remove("pods").unwrap();
            meta.remove("bytes").unwrap();
            txn.delete_table(TableDefinition::<&[u8; 32], (u64, u64)>::new("owners")).unwrap();
            txn.delete_table(TableDefinition::<&str, u64>::new("last_hits")).unwrap();
        } else {
            // What anybody uploaded counted for the owner in the manifest.
            let mut owners = txn.open_table(TableDefinition::<&[u8; 32], (u64, u64)>::new("owners")).unwrap();
            owners.insert(&[7; 32], (2, 1000)).unwrap();
        }
        txn.delete_table(TableDefinition::<&[u8; 32], u64>::new("signed_blobs")).unwrap();
    }
    txn.commit().unwrap();
}

/// What a broker of an older schema wrote is counted and indexed when it is opened.
#[tokio::test]
async fn tables_of_an_older_broker_are_brought_up_to_date() {
    for schema in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let registry = RedbRegistry::open(directory.path()).unwrap();
        let twin = Pod::named("a").html();
        let pods = [&twin, &twin, &Pod::named("b").html()]
            .map(|html| VerifiedPod::verify(html.clone().into()).unwrap());
        let signed = |pod: &VerifiedPod| pod.clone().signed_by(pod.record().owner_key).unwrap();
        for pod in &pods {
            registry.put_pod(pod.clone()).await.unwrap();
        }
        registry.bump_hits(&[(pods[0].record().slug, 3)], UNIX_EPOCH).await.unwrap();
        let owner = pods[0].record().owner_key;
        let all = registry.usage(None).await.unwrap();
        assert_eq!(all.pods, 3);
        let mut owned = [pods[0].record().slug, pods[1].record().slug];
        owned.sort();
        registry.close().await.unwrap();
        make_older(&directory.path().join("registry.redb"), schema);
        for _ in 0..2 {
            let registry = RedbRegistry::open(directory.path()).unwrap();
            assert_eq!(registry.usage(None).await.unwrap(), all);
            for key in [owner, OwnerKey([7; 32])] {
                assert_eq!(
                    registry.usage(Some(&key)).await.unwrap(),
                    Usage::default(),
                    "no upload was signed"
                );
            }
            let listed = registry.list_owned(&owner, None, 9).await.unwrap();
            assert_eq!(listed.iter().map(|record| record.slug).collect::<Vec<_>>(), owned);
            let hit = registry.get_record(&pods[0].record().slug).await.unwrap().unwrap();
            let since_hit = hit.last_hit.expect("it was fetched").elapsed().unwrap();
            // In schema 1 it is not known when, and it counts as fetched now.
            assert_eq!(since_hit < Duration::from_secs(60), schema == 1, "{hit:?}");
            assert_eq!(hit.hits, 3);
            assert_eq!(registry.get_record(&pods[1].record().slug).await.unwrap().unwrap().last_hit, None);
            registry.close().await.unwrap();
        }
        let registry = RedbRegistry::open(directory.path()).unwrap();
        assert!(registry.replace_pod(signed(&pods[0])).await.unwrap());
        let of_owner = Usage { pods: 1, bytes: twin.len() as u64 };
        assert_eq!(registry.usage(Some(&owner)).await.unwrap(), of_owner);
        assert!(registry.delete(&pods[1].record().slug).await.unwrap());
        assert_eq!(registry.usage(Some(&owner)).await.unwrap(), of_owner);
        assert!(registry.delete(&pods[0].record().slug).await.unwrap());
        assert_eq!(registry.usage(Some(&owner)).await.unwrap(), Usage::default());
        registry.close().await.unwrap();
    }
}

#[tokio::test]
async fn tables_of_a_newer_broker_are_left_alone() {
    let directory = directory_with_a_pod().await;
    let file = directory.path().join("registry.redb");
    {
        let database = Database::open(&file).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(META).unwrap().insert("schema", 4).unwrap();
        txn.commit().unwrap();
    }
    fs::write(
        directory.path().join("blobs/.upload-newer"),
        "what the newer one makes of this is its own affair",
    )
    .unwrap();
    assert!(matches!(RedbRegistry::open(directory.path()), Err(OpenError::Newer { .. })));
    is_refused_and_left_alone(
        directory.path(),
        &format!(
            "{} was written by a newer broker (schema 4, this one knows 3); start that version again, or restore a backup",
            file.display()
        ),
    );
}

#[tokio::test]
async fn a_file_format_of_a_newer_redb_is_left_alone() {
    let directory = directory_with_a_pod().await;
    let file = directory.path().join("registry.redb");
    let mut bytes = fs::read(&file).unwrap();
    // The version in either commit slot.
    (bytes[64], bytes[192]) = (4, 4);
    fs::write(&file, bytes).unwrap();
    assert!(matches!(RedbRegistry::open(directory.path()), Err(OpenError::Newer { .. })));
    is_refused_and_left_alone(
        directory.path(),
        &format!(
            "{} was written by a newer broker (file format 4, this one knows 3); start that version again, or restore a backup",
            file.display()
        ),
    );
}

#[tokio::test]
async fn a_file_that_is_no_registry_is_left_alone() {
    for (what, bytes) in [
        ("text", b"#!/bin/sh\necho this is something else\n".repeat(1000)),
        ("zeros", vec![0; 1 << 20]),
        ("nothing", Vec::new()),
        ("a letter", b"r".to_vec()),
    ] {
        let directory = directory_with_a_pod().await;
        let file = directory.path().join("registry.redb");
        fs::write(&file, bytes).unwrap();
        let before = contents(directory.path());
        let error = RedbRegistry::open(directory.path()).expect_err(what);
        assert!(matches!(error, OpenError::Unreadable { .. }), "{what}: {error:?}");
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(&format!("{} cannot be read as a registry: ", file.display())),
            "{sentence}"
        );
        assert!(
            sentence.ends_with("; restore a backup of the data directory, or choose another with --data-dir"),
            "{sentence}"
        );
        assert_eq!(exit(directory.path()), (Some(1), format!("gemmapod-signal: {sentence}")));
        assert!(contents(directory.path()) == before, "{what}: the files were changed");
    }
}

#[tokio::test]
async fn a_truncated_file_is_refused_and_costs_no_blob() {
    let whole = directory_with_a_pod().await;
    let bytes = fs::read(whole.path().join("registry.redb")).unwrap();
    for length in [1, 9, 64, 319, 320, 4096, bytes.len() / 2, bytes.len() - 1] {
        let directory = directory_with_a_pod().await;
        let file = directory.path().join("registry.redb");
        let blobs = contents(&directory.path().join("blobs"));
        fs::write(&file, &bytes[..length]).unwrap();
        let error = RedbRegistry::open(directory.path()).expect_err("it is cut off");
        assert!(matches!(error, OpenError::Unreadable { .. }), "cut to {length}: {error:?}");
        assert!(contents(&directory.path().join("blobs")) == blobs, "cut to {length}: a blob is gone");
    }
}

/// Beginning anew beside the blobs of a lost registry would sweep them away.
#[tokio::test]
async fn blobs_without_their_registry_are_left_alone() {
    let directory = directory_with_a_pod().await;
    let file = directory.path().join("registry.redb");
    fs::remove_file(&file).unwrap();
    is_refused_and_left_alone(
        directory.path(),
        &format!(
            "{} cannot be read as a registry: it is missing, but its blobs are there; restore a backup of the data directory, or choose another with --data-dir",
            file.display()
        ),
    );
}

#[test]
fn a_file_in_place_of_the_directory_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("data");
    fs::write(&file, "notes").unwrap();
    for (path, problem) in [(file.clone(), "not a directory"), (file.join("below"), "not a directory")] {
        let sentence = refusal(&path);
        assert_eq!(
            sentence,
            format!(
                "cannot use the data directory {}: {problem}; make it writable for this user, or choose another with --data-dir",
                path.display()
            )
        );
        assert_eq!(exit(&path), (Some(1), format!("gemmapod-signal: {sentence}")));
    }
    assert_eq!(fs::read(&file).unwrap(), b"notes");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let path = Path::new("/proc/no-such-place/data");
    let sentence = refusal(path);
    assert!(sentence.starts_with("cannot use the data directory /proc/no-such-place/data: "), "{sentence}");
    assert_eq!(exit(path), (Some(1), format!("gemmapod-signal: {sentence}")));
}

#[tokio::test]
async fn a_read_only_directory_is_named() {
    const TEST: &str = "a_read_only_directory_is_named";
    let Some(disk) = Tmpfs::mount(TEST, 8 << 20) else { return };
    // Once with nothing in it, once with a registry.
    fs::create_dir(disk.path().join("empty")).unwrap();
    RedbRegistry::open(&disk.path().join("used")).unwrap().close().await.unwrap();
    disk.make_read_only();
    for name in ["empty", "used", "missing"] {
        let path = disk.path().join(name);
        let sentence = refusal(&path);
        assert!(
            sentence.starts_with(&format!("cannot use the data directory {}", path.display())),
            "{sentence}"
        );
        assert!(sentence.to_ascii_lowercase().contains(": read-only file"), "{sentence}");
        assert!(sentence.ends_with("; make it writable for this user, or choose another with --data-dir"));
        assert_eq!(exit(&path), (Some(1), format!("gemmapod-signal: {sentence}")));
    }
}

/// What it needs to open is room for a file: the sentence must not advise to move the registry away.
#[tokio::test]
async fn a_full_disk_is_named() {
    const TEST: &str = "a_full_disk_is_named";
    let Some(disk) = Tmpfs::mount(TEST, 1 << 20) else { return };
    fs::create_dir(disk.path().join("data")).unwrap();
    let filler = disk.fill();
    let path = disk.path().join("data");
    let sentence = refusal(&path);
    assert!(sentence.starts_with(&format!("cannot use the data directory {}", path.display())), "{sentence}");
    assert!(sentence.contains("No space left on device (os error 28)"), "{sentence}");
    assert_eq!(exit(&path), (Some(1), format!("gemmapod-signal: {sentence}")));
    fs::remove_file(filler).unwrap();
    RedbRegistry::open(&path).unwrap();
}

/// A command that looks after a data directory makes none: a mistyped path is told.
#[test]
fn maintenance_of_a_directory_that_is_not_there_makes_nothing() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("empty")).unwrap();
    fs::create_dir(place.path().join("other")).unwrap();
    fs::write(place.path().join("other/notes"), "not a broker's").unwrap();
    let before = contents(place.path());
    for name in ["missing", "missing/below", "empty", "other"] {
        let path = place.path().join(name);
        for args in [&["janitor"][..], &["janitor", "--dry-run"], &["reset-clock"], &["unbind", "pod"]] {
            let output = command().args(args).arg("--data-dir").arg(&path).output().unwrap();
            let said = format!("{} {}", args[0], String::from_utf8(output.stderr).unwrap());
            assert_eq!(output.status.code(), Some(2), "{said}");
            let sentence = format!(
                "gemmapod-signal: there is no registry in {}; name the data directory of a broker with --data-dir or data_dir\n",
                path.display()
            );
            assert!(args[0] == "unbind" || said.ends_with(&sentence), "{said}");
        }
    }
    assert!(contents(place.path()) == before);
    assert!(!place.path().join("missing").exists());
    assert_eq!(fs::read_dir(place.path().join("empty")).unwrap().count(), 0);
}
