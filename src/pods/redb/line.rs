//! The line of jobs before the one writer.

use std::sync::Arc;

use tokio::sync::{
    Semaphore,
    mpsc::{Receiver, Sender, channel},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    store::closed,
    writer::{BATCH, Job},
};
use crate::pods::RegistryError;

/// Registrations of pod ids in the line at most. Anybody can cause any number of them; the others wait before the line, so
/// that an upload or what an owner asks for finds room in one of the next two batches.
const REGISTRATIONS: usize = BATCH / 2;

/// The way into the line, which is first come, first served.
#[derive(Clone, Debug)]
pub struct Line {
    jobs: Sender<Job>,
    registrations: Arc<Semaphore>,
}

impl Line {
    /// Returns a line with room for `places` jobs, and its other end.
    pub fn new(places: usize) -> (Self, Receiver<Job>) {
        let (jobs, queue) = channel(places);
        (Self { jobs, registrations: Arc::new(Semaphore::new(REGISTRATIONS)) }, queue)
    }

    /// Waits until `job` has a place. Dropping this gives it up.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry is closed.
    pub async fn join(self, job: Job) -> Result<(), RegistryError> {
        // In a task of its own: whoever stands in line is handed a place and has to use it, but a caller may not be polled
        // for as long as its client likes.
        let joined = AbortOnDropHandle::new(tokio::spawn(self.enter(job)));
        joined.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn enter(self, mut job: Job) -> Result<(), RegistryError> {
        if let Some(place) = job.registration_place() {
            *place = self.registrations.acquire_owned().await.ok();
        }
        self.jobs.send(job).await.map_err(|_| closed())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use futures_util::poll;
    use tokio::{sync::oneshot, task::yield_now, time::timeout};

    use super::*;
    use crate::pods::PodIdChange;

    fn numbered(n: u64) -> Job {
        let (hits, at) = (vec![], SystemTime::UNIX_EPOCH + Duration::from_secs(n));
        Job::Hits { hits, at, done: oneshot::channel().0 }
    }

    fn registration(n: usize) -> Job {
        let changes = vec![(n.to_string(), PodIdChange::Registered { proof: None, network: None })];
        Job::PodIds { changes, place: None, done: oneshot::channel().0 }
    }

    /// Lets all tasks go as far as they get.
    async fn settle() {
        for _ in 0..10 * BATCH {
            yield_now().await;
        }
    }

    async fn next(queue: &mut Receiver<Job>) -> u64 {
        let job = timeout(Duration::from_secs(1), queue.recv()).await.expect("the next job should have come");
        let Some(Job::Hits { at, .. }) = job else { panic!("not what was sent") };
        at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    /// As the caller's task writes to a peer that takes nothing.
    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_not_polled_while_it_stands_in_line_holds_up_nobody() {
        let (line, mut queue) = Line::new(1);
        line.clone().join(numbered(0)).await.unwrap();
        let mut stuck = Box::pin(line.clone().join(numbered(1)));
        assert!(poll!(&mut stuck).is_pending());
        settle().await;
        let other = tokio::spawn(line.clone().join(numbered(2)));
        settle().await;
        for n in 0..3 {
            assert_eq!(next(&mut queue).await, n);
        }
        other.await.unwrap().unwrap();
        stuck.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_takes_its_job_out_of_the_line() {
        let (line, mut queue) = Line::new(1);
        line.clone().join(numbered(0)).await.unwrap();
        let mut cancelled = Box::pin(line.clone().join(numbered(1)));
        assert!(poll!(&mut cancelled).is_pending());
        settle().await;
        drop(cancelled);
        tokio::spawn(line.clone().join(numbered(2)));
        assert_eq!(next(&mut queue).await, 0);
        assert_eq!(next(&mut queue).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn registrations_leave_room_in_the_line_and_take_turns_in_theirs() {
        let (line, mut queue) = Line::new(BATCH);
        for n in 0..10 * BATCH {
            tokio::spawn(line.clone().join(registration(n)));
        }
        settle().await;
        timeout(Duration::from_secs(1), line.clone().join(numbered(7)))
            .await
            .expect("there is room")
            .unwrap();
        assert_eq!(queue.len(), REGISTRATIONS + 1);
        let mut expected = 0;
        while expected < 10 * BATCH {
            match queue.recv().await.unwrap() {
                Job::PodIds { changes, place, .. } => {
                    assert_eq!(changes[0].0, expected.to_string());
                    expected += 1;
                    drop(place);
                }
                _ => assert_eq!(expected, REGISTRATIONS),
            }
        }
    }

    #[tokio::test]
    async fn a_line_that_nobody_serves_is_closed() {
        let (line, queue) = Line::new(1);
        drop(queue);
        assert!(line.join(numbered(0)).await.is_err());
    }
}
