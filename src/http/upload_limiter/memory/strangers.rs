//! Uploads of strangers that announce much, send next to nothing, leave, and come again.

use futures_util::{StreamExt, stream::FuturesUnordered};
use proptest::{collection::vec, prelude::*};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::super::{ArrivingUpload, UploadLimiter};
use crate::config::PodSettings;

use super::*;

const WAIT: Duration = Duration::from_secs(20);
const MEMORY: u64 = 30 << 20;
const LARGEST: u64 = MEMORY / 3 - (64 << 10);
/// What comes of a body at a time.
const FRAME: u64 = 64 << 10;

/// How the uploads of one stranger come and go.
#[derive(Clone, Debug)]
struct Stranger {
    uploads: usize,
    announced: u64,
    sent: u64,
    /// How long each stays, and how long its client is away then.
    stays: Duration,
    pauses: Duration,
}

fn limiter(memory: u64) -> Arc<UploadLimiter> {
    let settings = PodSettings { upload_memory: bytesize::ByteSize(memory), ..PodSettings::default() };
    assert_eq!(settings.upload_wait, WAIT);
    Arc::new(UploadLimiter::new(&settings))
}

fn host(network: u8, host: usize) -> IpAddr {
    [198, network, 0, host as u8].into()
}

impl Stranger {
    async fn upload(&self, limiter: &UploadLimiter, client: IpAddr) {
        let Ok(mut upload) = limiter.begin(Some(client)).await else { return };
        if upload.grow(1, self.announced).await.is_ok()
            && upload.grow(self.sent, self.announced).await.is_ok()
        {
            let ended = upload.ended();
            let _ = timeout(self.stays, ended.cancelled()).await;
        }
    }

    /// Comes again and again.
    async fn go_on(self, limiter: Arc<UploadLimiter>, client: IpAddr) {
        loop {
            self.upload(&limiter, client).await;
            sleep(self.pauses).await;
        }
    }
}

/// Sends a body of `length` bytes, at 4 MB a second. Returns how long it takes, or `None` if it is refused.
async fn honest(limiter: &UploadLimiter, client: IpAddr, length: u64) -> Option<Duration> {
    let began = Instant::now();
    let mut upload = limiter.begin(Some(client)).await.ok()?;
    let ended = upload.ended();
    let sent = tokio::select! {
        sent = send(&mut upload, length) => sent,
        () = ended.cancelled() => None,
    };
    sent?;
    upload.arrived().await.ok()?;
    Some(began.elapsed())
}

async fn send(upload: &mut ArrivingUpload, length: u64) -> Option<()> {
    upload.grow(1, length).await.ok()?;
    for arrived in (FRAME..length).step_by(FRAME as usize).chain([length]) {
        sleep(Duration::from_millis(16)).await;
        upload.grow(arrived, length).await.ok()?;
    }
    Some(())
}

/// Fills the memory at first with uploads that stand still for `stays`, and lets `strangers` come meanwhile. Returns how long
/// each honest upload of `lengths` takes beyond what it would take alone.
async fn run(strangers: Vec<Stranger>, stays: Duration, lengths: &[u64]) -> Vec<Option<Duration>> {
    let limiter = limiter(MEMORY);
    let mut tasks = JoinSet::new();
    let fill = Stranger { uploads: 1, announced: LARGEST, sent: 2 << 20, stays, pauses: Duration::ZERO };
    for n in 0..16 {
        let (fill, limiter) = (fill.clone(), limiter.clone());
        tasks.spawn(async move { fill.upload(&limiter, host(18, n)).await });
    }
    sleep(Duration::from_secs(3)).await;
    for (n, stranger) in strangers.into_iter().enumerate() {
        for _ in 0..stranger.uploads {
            tasks.spawn(stranger.clone().go_on(limiter.clone(), host(51, n)));
        }
    }
    sleep(2 * WAIT).await;
    let uploads = lengths.iter().enumerate().map(async |(n, length)| {
        sleep(Duration::from_secs(n as u64)).await;
        let alone = Duration::from_millis(16 * length.div_ceil(FRAME));
        honest(&limiter, host(113, n), *length).await.map(|took| took.saturating_sub(alone))
    });
    uploads.collect::<FuturesUnordered<_>>().collect().await
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

/// Sixty addresses send two heads each, wait for 100, and leave before they are slow.
#[test]
fn heads_alone_keep_no_upload_out() {
    let stays = Duration::from_millis(4300);
    let stranger = Stranger { uploads: 2, announced: 800_000, sent: 1, stays, pauses: Duration::ZERO };
    let waited = block_on(run(vec![stranger; 60], Duration::from_secs(12), &[1_000_000, 9_000_000]));
    assert!(waited.iter().all(|waited| waited.is_some_and(|waited| waited < WAIT / 20)), "{waited:?}");
}

/// Sixty addresses announce up to 25 MB in each of their uploads, send a few bytes of them, and come back when they are ended.
#[test]
fn announced_megabytes_keep_no_upload_out() {
    const HONEST: usize = 29;
    let waited = block_on(async {
        let limiter = limiter(PodSettings::default().upload_memory.as_u64());
        let mut tasks = JoinSet::new();
        for n in 0..60 {
            let (stays, pauses) = (2 * WAIT, Duration::ZERO);
            let announced = 12_000_000 + n as u64 * 220_000;
            let stranger = Stranger { uploads: 8, announced, sent: 1 + n as u64 * 10, stays, pauses };
            for _ in 0..stranger.uploads {
                tasks.spawn(stranger.clone().go_on(limiter.clone(), host(51, n)));
            }
        }
        sleep(WAIT).await;
        let uploads = (0..HONEST).map(async |n| honest(&limiter, host(113, n), 12_000_000).await);
        futures_util::stream::iter(uploads).buffer_unordered(4).collect::<Vec<_>>().await
    });
    assert_eq!(waited.len(), HONEST);
    assert!(waited.iter().all(|took| took.is_some_and(|took| took < WAIT / 2)), "{waited:?}");
}

fn strangers() -> impl Strategy<Value = Vec<Stranger>> {
    let stranger = (1..=8_usize, FRAME..LARGEST, 1..FRAME / 2, 500..12_000_u64, 0..3000_u64);
    let stranger = stranger.prop_map(|(uploads, announced, sent, stays, pauses)| Stranger {
        uploads,
        announced,
        sent,
        stays: Duration::from_millis(stays),
        pauses: Duration::from_millis(pauses),
    });
    prop_oneof![vec(stranger.clone(), 1..=100), (stranger, 1..=100_usize).prop_map(|(one, n)| vec![one; n])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// In whatever rhythm strangers announce and leave: none of a hundred networks keeps an upload out that comes steadily.
    #[test]
    fn uploads_that_come_steadily_are_completed(
        strangers in strangers(),
        fill_stays in 0..60_u64,
        lengths in vec(1..LARGEST, 1..4),
    ) {
        let waited = block_on(run(strangers, Duration::from_secs(fill_stays), &lengths));
        prop_assert!(waited.iter().all(|waited| waited.is_some_and(|waited| waited < WAIT)), "{:?}", waited);
    }
}
