//! The streams of one HTTP/2 connection: how many are open, and what ends one that makes no progress.
//!
//! hyper runs a task for each stream, and while that task waits for the client's flow-control window nothing else is
//! polled, not even the response body. So the deadline belongs to the task: [`Executor`] wraps each in one, and dropping
//! the task resets its stream and no other.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use salvo::hyper::rt;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

tokio::task_local! {
    /// What the task of a stream knows of its response.
    static PROGRESS: Arc<StreamProgress>;
}

/// The open streams of a connection.
#[derive(Clone, Default)]
pub struct Streams(watch::Sender<usize>);

impl Streams {
    /// Returns once no stream has been open for `limit`.
    pub async fn idle_for(&self, limit: Duration) {
        let mut open = self.0.subscribe();
        loop {
            // The sender is `self`, which is still there.
            let _ = open.wait_for(|open| *open == 0).await;
            // A stream that was opened and closed meanwhile counts too.
            if timeout(limit, open.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        *self.0.borrow() == 0
    }

    fn open(&self) -> OpenStream {
        self.0.send_modify(|open| *open += 1);
        OpenStream(self.0.clone())
    }
}

struct OpenStream(watch::Sender<usize>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Runs the tasks of a connection's streams.
#[derive(Clone)]
pub struct Executor {
    pub streams: Streams,
    /// How long a piece of a response may wait for the client.
    pub write_timeout: Duration,
}

impl<F> rt::Executor<F> for Executor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (open, limit) = (self.streams.open(), self.write_timeout);
        // An upgrade is a second task of the stream in whose task it is made.
        let progress = StreamProgress::of_stream();
        tokio::spawn(async move {
            let _open = open;
            PROGRESS.scope(progress.clone(), supervise(stream, &progress, limit)).await;
        });
    }
}

/// Runs the task of a stream until it is done, or until a piece of its response waited for longer than `limit`.
async fn supervise(stream: impl Future, progress: &StreamProgress, limit: Duration) {
    let mut stream = pin!(stream);
    let mut alarm = pin!(sleep_until(Instant::now() + limit));
    std::future::poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        progress.watch(cx);
        let Some(deadline) = progress.waiting_since().and_then(|since| since.checked_add(limit)) else {
            return Poll::Pending;
        };
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx).map(|()| tracing::debug!("a stream was reset: its client takes nothing"))
    })
    .await;
}

/// Since when a piece of a stream's response waits for the client.
#[derive(Debug, Default)]
pub struct StreamProgress(Mutex<PendingSince>);

#[derive(Debug, Default)]
struct PendingSince {
    since: Option<Instant>,
    /// Of the task of the stream.
    waker: Option<Waker>,
}

impl StreamProgress {
    /// Returns that of the stream in whose task this is called, or one that nobody looks at.
    pub fn of_stream() -> Arc<Self> {
        PROGRESS.try_with(Arc::clone).unwrap_or_default()
    }

    /// A piece was handed over to be sent, by the task of the stream.
    pub fn begin_waiting(&self) {
        self.lock().since = Some(Instant::now());
    }

    /// The piece has been taken.
    pub fn end_waiting(&self) {
        self.lock().since = None;
    }

    /// Nothing more is to be sent, says whatever task made it: what was handed over has its time from now on.
    pub fn end_sending(&self) {
        let mut waiting = self.lock();
        waiting.since.get_or_insert_with(Instant::now);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn waiting_since(&self) -> Option<Instant> {
        self.lock().since
    }

    /// Has the task of the stream woken by [`StreamProgress::end_sending`].
    fn watch(&self, cx: &Context<'_>) {
        let mut waiting = self.lock();
        match &mut waiting.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PendingSince> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use salvo::hyper::rt::Executor as _;
    use tokio::{sync::oneshot, time::sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_once_its_client_took_nothing_for_too_long() {
        let streams = Streams::default();
        let executor = Executor { streams: streams.clone(), write_timeout: LIMIT };
        let (ended, end) = oneshot::channel::<()>();
        executor.execute(async move {
            let _ended = ended;
            let progress = StreamProgress::of_stream();
            for _ in 0..3 {
                progress.begin_waiting();
                sleep(LIMIT / 2).await;
                progress.end_waiting();
                sleep(LIMIT * 2).await;
            }
            progress.begin_waiting();
            pending::<()>().await;
        });
        let begun = Instant::now();
        end.await.unwrap_err();
        assert_eq!(begun.elapsed(), LIMIT * 5 / 2 * 3 + LIMIT);
        tokio::task::yield_now().await;
        assert!(streams.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_no_stream_was_open_for_the_time() {
        let streams = Streams::default();
        let begun = Instant::now();
        let first = streams.open();
        let second = tokio::spawn({
            let streams = streams.clone();
            async move {
                sleep(LIMIT * 3).await;
                drop(first);
                sleep(LIMIT / 2).await;
                // Too short to be seen open.
                drop(streams.open());
            }
        });
        streams.idle_for(LIMIT).await;
        assert_eq!(begun.elapsed(), LIMIT * 9 / 2);
        second.await.unwrap();
    }
}
