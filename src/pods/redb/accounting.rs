//! Whatever happens, in whatever order: the accounted bytes are those on disk, no quota is passed, and the janitor
//! deletes nothing within its grace time.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use proptest::{collection::vec, prelude::*};
use redb::{Database, StorageBackend};

use super::{
    RedbRegistry,
    file::Source,
    lives::{bytes_in, directory, files},
    schema,
};
use crate::pods::{
    Janitor, JanitorRules, Moment, OwnerKey, PodRecord, Quotas, Registry, RegistryError, Slug, Usage,
    VerifiedPod, signed,
};

/// A file in memory that outlives the database on it.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for Kept {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        out.copy_from_slice(&self.0.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap()[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

impl Kept {
    fn open(&self) -> Result<Database, redb::DatabaseError> {
        Database::builder().set_cache_size(1 << 20).create_with_backend(self.clone())
    }
}

const OWNERS: usize = 3;
const VERSIONS: usize = 4;

/// The HTML of some pods of some owners, of different lengths.
static PODS: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let of = |owner: usize| {
        let key = SigningKey::from_bytes(&[owner as u8 + 1; 32]);
        let pod = |version| signed::Pod::signed_by(key.clone(), "p").padded(100 + 300 * version).html();
        (0..VERSIONS).map(pod).collect()
    };
    (0..OWNERS).map(of).collect()
});

fn pod(owner: usize, version: usize, signed: bool) -> VerifiedPod {
    let pod = VerifiedPod::verify(PODS[owner][version].clone().into()).unwrap();
    let owner_key = pod.record().owner_key;
    if signed { pod.signed_by(owner_key).unwrap() } else { pod }
}

fn owner_key(owner: usize) -> OwnerKey {
    pod(owner, 0, false).record().owner_key
}

#[derive(Clone, Debug)]
enum Step {
    Upload {
        owner: usize,
        version: usize,
        signed: bool,
        lifetime: Option<u32>,
    },
    /// The same while the clock is wrong, which is set right at once.
    Misdated {
        owner: usize,
        wrong_by: i64,
    },
    Replace {
        nth: prop::sample::Index,
        version: usize,
        signed: bool,
    },
    Delete {
        nth: prop::sample::Index,
    },
    Hit {
        nth: prop::sample::Index,
    },
    Quotas(Quotas),
    Restart,
    /// Time goes by.
    Pass(u32),
    /// Somebody sets the clock.
    Set(i64),
    Round {
        dry: bool,
        unused_for: Option<u32>,
        water: Option<(u64, u64)>,
    },
    /// The same by a person at a terminal while the broker is stopped, and by a clock that is right.
    Tidy {
        unused_for: u32,
    },
}

const GRACE: u32 = 1000;
/// How many cases are drawn by default; `GEMMAPOD_ACCOUNTING_CASES` draws more.
const CASES: u32 = 300;

fn step() -> impl Strategy<Value = Step> {
    let seconds = || prop_oneof![1..GRACE, GRACE - 5..GRACE + 5, GRACE..100 * GRACE];
    let index = any::<prop::sample::Index>;
    let quota = |most: u64| prop::option::of(0..most);
    let quotas = (quota(8), quota(8_000), quota(4), quota(4_000)).prop_map(
        |(pods, bytes, pods_per_owner, bytes_per_owner)| Quotas {
            pods,
            bytes,
            pods_per_owner,
            bytes_per_owner,
        },
    );
    let water = (0..6_000_u64, 0..6_000_u64).prop_map(|(a, b)| (a.max(b), a.min(b)));
    prop_oneof![
        6 => (0..OWNERS, 0..VERSIONS, any::<bool>(), prop::option::weighted(0.2, seconds()))
            .prop_map(|(owner, version, signed, lifetime)| Step::Upload { owner, version, signed, lifetime }),
        2 => (0..OWNERS, -1_000_000_i64..1_000_000).prop_map(|(owner, wrong_by)| Step::Misdated { owner, wrong_by }),
        2 => (index(), 0..VERSIONS, any::<bool>())
            .prop_map(|(nth, version, signed)| Step::Replace { nth, version, signed }),
        2 => index().prop_map(|nth| Step::Delete { nth }),
        2 => index().prop_map(|nth| Step::Hit { nth }),
        1 => quotas.prop_map(Step::Quotas),
        1 => Just(Step::Quotas(Quotas::default())),
        1 => Just(Step::Restart),
        4 => seconds().prop_map(Step::Pass),
        2 => prop_oneof![-1_000_000_i64..1_000_000, -50_i64..50].prop_map(Step::Set),
        5 => (any::<bool>(), prop::option::of(0..2 * GRACE), prop::option::of(water))
            .prop_map(|(dry, unused_for, water)| Step::Round { dry, unused_for, water }),
        1 => (0..2 * GRACE).prop_map(|unused_for| Step::Tidy { unused_for }),
    ]
}

/// What is there, and when it really came.
struct Model {
    pods: BTreeMap<Slug, (PodRecord, u64)>,
    quotas: Quotas,
}

impl Model {
    fn usage(&self, owner: Option<&OwnerKey>) -> Usage {
        usage(self.pods.values().map(|(record, _)| record), owner)
    }

    /// Whether `record` may come in the place of what is under its slug.
    fn has_room(&self, record: &PodRecord) -> bool {
        let usages = |pods: &BTreeMap<Slug, PodRecord>| {
            [None, Some(&record.owner_key)].map(|owner| usage(pods.values(), owner))
        };
        let mut pods: BTreeMap<_, _> =
            self.pods.iter().map(|(slug, (record, _))| (*slug, record.clone())).collect();
        let before = usages(&pods);
        pods.insert(record.slug, record.clone());
        self.quotas.check(before, usages(&pods)).is_ok()
    }

    fn nth(&self, nth: &prop::sample::Index) -> Option<PodRecord> {
        let pods: Vec<_> = self.pods.values().collect();
        (!pods.is_empty()).then(|| nth.get(&pods).0.clone())
    }
}

/// Pods with the same bytes count once, and those whose upload was not signed for nobody.
fn usage<'a>(pods: impl Iterator<Item = &'a PodRecord>, owner: Option<&OwnerKey>) -> Usage {
    let counts =
        |record: &&PodRecord| owner.is_none_or(|key| record.upload_signed && *key == record.owner_key);
    let pods: Vec<_> = pods.filter(counts).collect();
    let blobs: BTreeMap<_, _> = pods.iter().map(|record| (record.digest, record.blob_size)).collect();
    Usage { pods: pods.len() as u64, bytes: blobs.values().sum() }
}

/// A broker's registry and janitor through restarts, in a world with a time of its own.
struct World {
    directory: tempfile::TempDir,
    disk: Kept,
    registry: RedbRegistry,
    janitor: Janitor,
    model: Model,
    /// Seconds that really went by.
    time: u64,
    /// Since when the process runs.
    started: u64,
    /// By how much the date is wrong.
    wrong_by: i64,
}

impl World {
    fn new() -> Self {
        let (directory, disk) = (directory(), Kept::default());
        schema::create(disk.open().unwrap()).unwrap();
        let registry = open(&directory, &disk);
        let model = Model { pods: BTreeMap::new(), quotas: Quotas::default() };
        Self {
            directory,
            disk,
            registry,
            janitor: Janitor::default(),
            model,
            time: 0,
            started: 0,
            wrong_by: 0,
        }
    }

    fn right_date(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + self.time)
    }

    fn moment(&self) -> Moment {
        let since = (1_700_000_000 + self.time).checked_add_signed(self.wrong_by).unwrap();
        Moment {
            date: UNIX_EPOCH + Duration::from_secs(since),
            running: Duration::from_secs(self.time - self.started),
        }
    }

    async fn restart(&mut self) {
        self.registry.close().await.unwrap();
        self.registry = open(&self.directory, &self.disk);
        self.registry.set_quotas(self.model.quotas);
        self.janitor = Janitor::default();
        self.started = self.time;
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Upload { owner, version, signed, lifetime } => {
                let mut pod = pod(owner, version, signed).at(self.moment().date);
                if let Some(lifetime) = lifetime {
                    pod = pod.with_lifetime(Duration::from_secs(lifetime.into()));
                }
                let record = pod.record().clone();
                self.janitor.uploads(record.slug, self.moment().running);
                let has_room = self.model.has_room(&record);
                match self.registry.put_pod(pod).await {
                    Ok(()) => assert!(has_room, "a quota was passed"),
                    Err(RegistryError::Quota(_)) => return assert!(!has_room, "a pod with room was refused"),
                    Err(error) => panic!("{error}"),
                }
                self.model.pods.insert(record.slug, (record, self.time));
            }
            Step::Misdated { owner, wrong_by } => {
                let before = std::mem::replace(&mut self.wrong_by, wrong_by);
                let upload = Step::Upload { owner, version: 0, signed: true, lifetime: None };
                Box::pin(self.take(upload)).await;
                self.wrong_by = before;
            }
            Step::Replace { nth, version, signed } => {
                let Some(before) = self.model.nth(&nth) else { return };
                let owner = (0..OWNERS).find(|owner| owner_key(*owner) == before.owner_key).unwrap();
                let pod = pod(owner, version, signed).at(self.moment().date).with_slug(before.slug);
                let record = pod.record().clone().in_place_of(&before).unwrap();
                self.janitor.uploads(record.slug, self.moment().running);
                let has_room = self.model.has_room(&record);
                match self.registry.replace_pod(pod).await {
                    Ok(true) => assert!(has_room, "a quota was passed"),
                    Err(RegistryError::Quota(_)) => return assert!(!has_room, "a pod with room was refused"),
                    other => panic!("{other:?}"),
                }
                self.model.pods.insert(record.slug, (record, self.time));
            }
            Step::Delete { nth } => {
                if let Some(record) = self.model.nth(&nth) {
                    assert!(self.registry.delete(&record.slug).await.unwrap());
                    self.model.pods.remove(&record.slug);
                }
            }
            Step::Hit { nth } => {
                if let Some(record) = self.model.nth(&nth) {
                    self.registry.bump_hits(&[(record.slug, 1)], self.moment().date).await.unwrap();
                }
            }
            Step::Quotas(quotas) => {
                self.model.quotas = quotas;
                self.registry.set_quotas(quotas);
            }
            Step::Restart => self.restart().await,
            Step::Pass(seconds) => self.time += u64::from(seconds),
            Step::Set(wrong_by) => self.wrong_by = wrong_by,
            Step::Round { dry, unused_for, water } => {
                let rules = rules(unused_for, water);
                let before = self.old_bytes();
                let report = self.janitor.round(&self.registry, &rules, self.moment(), dry).await.unwrap();
                self.is_forgiven(report.deleted(), dry).await;
                if let (false, Some((high, low))) = (dry, water) {
                    // What is new costs the others nothing.
                    assert!(report.for_room == 0 || before > high, "{before} bytes were old: {report}");
                    let left = self.old_bytes();
                    assert!(report.for_room == 0 || left + 3_000 > low, "{left} bytes are old: {report}");
                }
            }
            Step::Tidy { unused_for } => {
                self.wrong_by = 0;
                self.restart().await;
                // Dates of a clock that was wrong are beyond what dates alone can tell.
                if self.model.pods.values().all(|(record, came)| is_right(record, *came)) {
                    let rules = rules(Some(unused_for), None);
                    let date = self.right_date();
                    let report = Janitor::round_by_dates(&self.registry, &rules, date, false).await.unwrap();
                    self.is_forgiven(report.deleted(), false).await;
                }
            }
        }
    }

    /// What all pods take that really came longer ago than the grace time.
    fn old_bytes(&self) -> u64 {
        let is_old = |came: &u64| self.time - came >= GRACE.into();
        let old = self.model.pods.values().filter(|(_, came)| is_old(came));
        usage(old.map(|(record, _)| record), None).bytes
    }

    /// What the janitor deleted was out of its grace time.
    async fn is_forgiven(&mut self, deleted: u64, dry: bool) {
        let left = self.registry.list(None, usize::MAX).await.unwrap();
        let gone: Vec<_> = self
            .model
            .pods
            .keys()
            .filter(|slug| left.iter().all(|record| record.slug != **slug))
            .copied()
            .collect();
        assert_eq!(gone.len() as u64, if dry { 0 } else { deleted });
        for slug in gone {
            let (record, came) = self.model.pods.remove(&slug).unwrap();
            let age = self.time - came;
            assert!(age >= GRACE.into(), "a pod is gone {age} seconds after it came: {record:?}");
        }
    }

    async fn check(&self) {
        let accounted = self.registry.usage(None).await.unwrap();
        assert_eq!(accounted, self.model.usage(None));
        assert_eq!(accounted.bytes, bytes_in(self.directory.path()), "accounted and on disk");
        for owner in 0..OWNERS {
            let key = owner_key(owner);
            assert_eq!(self.registry.usage(Some(&key)).await.unwrap(), self.model.usage(Some(&key)));
            let listed = self.registry.list_owned(&key, None, usize::MAX).await.unwrap();
            let listed: Vec<_> = listed.iter().map(|record| record.slug).collect();
            let owned = self.model.pods.iter().filter(|(_, (record, _))| record.owner_key == key);
            assert_eq!(listed, owned.map(|(slug, _)| *slug).collect::<Vec<_>>());
        }
        let date = self.moment().date;
        let mut expired: Vec<_> = self
            .model
            .pods
            .values()
            .map(|(record, _)| record)
            .filter(|record| record.is_over(date))
            .collect();
        expired.sort_by_key(|record| (record.expires, record.slug));
        let mut listed: Vec<PodRecord> = Vec::new();
        loop {
            let page = self.registry.list_expired(date, listed.last(), 2).await.unwrap();
            let is_last = page.len() < 2;
            listed.extend(page);
            if is_last {
                break;
            }
        }
        let slugs = |records: &mut dyn Iterator<Item = &PodRecord>| -> Vec<Slug> {
            records.map(|record| record.slug).collect()
        };
        assert_eq!(slugs(&mut listed.iter()), slugs(&mut expired.into_iter()));
        let digests = self.model.pods.values().map(|(record, _)| record.digest.to_string()).collect();
        assert_eq!(files(self.directory.path()), digests);
    }
}

fn open(directory: &tempfile::TempDir, disk: &Kept) -> RedbRegistry {
    let source = Source::new(disk.clone(), 1 << 20);
    RedbRegistry::open_with(directory.path(), &directory.path().join("registry.redb"), source).unwrap()
}

fn rules(unused_for: Option<u32>, water: Option<(u64, u64)>) -> JanitorRules {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    JanitorRules { grace: seconds(GRACE), unused_for: unused_for.map(seconds), water }
}

fn cases() -> u32 {
    let cases = std::env::var("GEMMAPOD_ACCOUNTING_CASES").ok();
    cases.map_or(CASES, |cases| cases.parse().expect("GEMMAPOD_ACCOUNTING_CASES is a number"))
}

fn is_right(record: &PodRecord, came: u64) -> bool {
    let date = UNIX_EPOCH + Duration::from_secs(1_700_000_000 + came);
    record.updated_at.unwrap_or(record.created_at) == date
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accounts_are_right_and_grace_is_kept(steps in vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.restart().await;
            world.check().await;
        });
    }
}
