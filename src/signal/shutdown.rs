//! How a stopping broker closes its sockets: negotiations are finished first, and the sockets are closed one after the
//! other, so that their clients, who wait alike long, do not all come back in one instant.
//!
//! The end of a negotiation is not visible here: browsers close their socket when the data channel is open, other clients
//! may keep it. So a negotiation counts as finished when it was answered and nothing was sent in it for [`QUIET`].

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{directory::Directory, ids::SocketId, state::stop::Talk};

/// The time between two closes, unless there are so many sockets that it must be less.
const APART: Duration = Duration::from_millis(2);
/// How often negotiations are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a negotiation with an answer is given for further candidates, each time.
const QUIET: Duration = Duration::from_millis(500);
/// How long a socket that has not sent a frame yet is given for one.
const FIRST_FRAME: Duration = Duration::from_secs(3);
/// How long an offer is given for its answer.
const ANSWER: Duration = Duration::from_secs(3);

/// How long closing all sockets may take.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// Over how long the closing of many sockets is spread.
    pub spread: Duration,
    /// How long negotiations have at most.
    pub negotiations: Duration,
}

/// What a socket was last seen to do, and since when.
struct Seen {
    talk: Talk,
    since: Instant,
}

impl Directory {
    /// Closes all sockets with 1012, those with a negotiation under way last. Visitors whose negotiation could not be
    /// finished are sent an error frame first. Sockets that come afterwards are closed at once.
    pub async fn close_all(&self, closing: Closing) {
        let end = Instant::now() + closing.negotiations;
        let spread_end = Instant::now() + closing.spread;
        let mut seen = HashMap::new();
        self.begin_stop();
        while let Some(open) = self.open_sockets(end <= Instant::now()) {
            let now = Instant::now();
            let finished = finished(open, &mut seen, now, end <= now);
            let pause = pause(finished.len(), spread_end.saturating_duration_since(now));
            for (number, id) in (0_u32..).zip(finished) {
                sleep_until(now + pause * number).await;
                // A negotiation may have begun while others were closed.
                if number > 0 && now.elapsed() >= LOOK {
                    break;
                }
                self.send_away(id);
            }
            sleep_until(now + LOOK).await;
        }
    }
}

/// The sockets that need not stay open any longer: visitors first, because an origin stays for as long as one of its
/// visitors does.
fn finished(
    open: Vec<(SocketId, Talk)>,
    seen: &mut HashMap<SocketId, Seen>,
    now: Instant,
    is_over: bool,
) -> Vec<SocketId> {
    let ids: HashSet<_> = open.iter().map(|(id, _)| *id).collect();
    seen.retain(|id, _| ids.contains(id));
    let mut awaited = HashSet::new();
    let (mut finished, mut origins) = (Vec::new(), Vec::new());
    for (id, talk) in open {
        if let Talk::Origin = talk {
            origins.push(id);
            continue;
        }
        let (time, peers) = match &talk {
            Talk::Origin | Talk::Nothing => (Duration::ZERO, [].as_slice()),
            Talk::NoFrame => (FIRST_FRAME, [].as_slice()),
            Talk::Unanswered(negotiations) => (ANSWER, negotiations.origins.as_slice()),
            Talk::Answered(negotiations) => (QUIET, negotiations.origins.as_slice()),
        };
        let last = seen.entry(id).or_insert_with(|| Seen { talk: talk.clone(), since: now });
        if last.talk != talk {
            *last = Seen { talk: talk.clone(), since: now };
        }
        if is_over || last.since + time <= now {
            finished.push(id);
        } else {
            awaited.extend(peers.iter().copied());
        }
    }
    // An offer may still come from a socket without a frame: for whichever origin.
    let may_offer = seen.values().any(|seen| seen.talk == Talk::NoFrame && now < seen.since + FIRST_FRAME);
    finished.extend(origins.into_iter().filter(|origin| is_over || !may_offer && !awaited.contains(origin)));
    finished
}

/// The time between two closes when so many sockets are closed within `at_most`.
fn pause(sockets: usize, at_most: Duration) -> Duration {
    u32::try_from(sockets).map_or(Duration::ZERO, |sockets| APART.min(at_most / sockets.max(1)))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use tokio::time::sleep;

    use super::*;
    use crate::{
        config::SignalSettings,
        net::{budget::Budget, network::ClientNetwork},
        signal::{
            admission::AdmitAll,
            close::Close,
            directory::{handled::Handled, place::Place},
            entitlement::Entitlement,
            outbox::Outbox,
        },
    };

    const SPREAD: Duration = Duration::from_secs(3);
    const CLOSING: Closing = Closing { spread: SPREAD, negotiations: Duration::from_secs(5) };

    fn join(directory: &Arc<Directory>) -> (Place, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::new(10_000, Budget::new(0).of(None)));
        (directory.join(outbox.clone(), None), outbox)
    }

    fn origin(directory: &Arc<Directory>, pod: &str) -> (Place, Arc<Outbox>) {
        let (place, outbox) = join(directory);
        place.hold(&pod.into(), Entitlement::Open(None));
        (place, outbox)
    }

    fn visitor(directory: &Arc<Directory>, pod: &str, session: &str) -> (Place, Arc<Outbox>) {
        let (place, outbox) = join(directory);
        let offer = format!(r#"{{"t":"offer","podId":"{pod}","sessionId":"{session}","sdp":"SDP"}}"#);
        assert!(matches!(place.handle(offer.as_bytes(), &AdmitAll), Handled::Done));
        (place, outbox)
    }

    /// The frames that a socket is sent until it is asked to close with 1012.
    async fn until_closed(outbox: &Outbox) -> Vec<String> {
        let mut frames = Vec::new();
        loop {
            match poll_fn(|cx| outbox.poll_next(cx)).await {
                Ok(frame) => frames.push(format!("{frame:?}")),
                Err(close) => {
                    assert_eq!(close, Close::RESTART);
                    return frames;
                }
            }
        }
    }

    /// When each of so many origins is asked to close, in order.
    async fn closings(sockets: usize) -> Vec<Duration> {
        let directory = Directory::new(SignalSettings::default());
        let origins: Vec<_> = (0..sockets).map(|number| origin(&directory, &number.to_string())).collect();
        let begin = Instant::now();
        let watch = origins.iter().map(async |(_, outbox)| {
            until_closed(outbox).await;
            begin.elapsed()
        });
        let (mut closings, ()) =
            tokio::join!(futures_util::future::join_all(watch), directory.close_all(CLOSING));
        closings.sort_unstable();
        closings
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_sockets_are_closed_at_once_and_many_over_a_while() {
        assert!(closings(0).await.is_empty());
        assert!(*closings(10).await.last().unwrap() <= Duration::from_millis(30));
        let many = closings(10_000).await;
        assert!((SPREAD - Duration::from_millis(10)..=SPREAD).contains(many.last().unwrap()), "{many:?}");
        for tenth in 0..10 {
            let (from, to) = (SPREAD / 10 * tenth, SPREAD / 10 * (tenth + 1));
            let closed = many.iter().filter(|at| (from..to).contains(*at)).count();
            assert!((800..1200).contains(&closed), "{closed} between {from:?} and {to:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_stands_by_holds_nobody_up() {
        let directory = Directory::new(SignalSettings::default());
        let [holder, newcomer] = [(); 2].map(|()| {
            let (place, outbox) = join(&directory);
            let _ = place.admit("pod".into(), Ok(Entitlement::Owner([1; 32])), ClientNetwork::default());
            (place, outbox)
        });
        let begin = Instant::now();
        tokio::join!(until_closed(&holder.1), until_closed(&newcomer.1), directory.close_all(CLOSING));
        assert!(begin.elapsed() < FIRST_FRAME / 10, "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn sockets_that_keep_coming_do_not_put_the_end_off() {
        let directory = Directory::new(SignalSettings::default());
        let begin = Instant::now();
        let mut joined = Vec::new();
        let join_on = async {
            loop {
                joined.push(visitor(&directory, "pod", "s"));
                sleep(LOOK / 2).await;
            }
        };
        tokio::select! {
            () = directory.close_all(CLOSING) => {}
            () = join_on => {}
        }
        assert!(begin.elapsed() < CLOSING.negotiations + 10 * LOOK, "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_after_the_stop_is_told_and_closed_at_once() {
        let directory = Directory::new(SignalSettings::default());
        directory.close_all(CLOSING).await;
        let (_place, outbox) = join(&directory);
        assert_eq!(until_closed(&outbox).await.len(), 1);
    }

    /// An origin, a visitor whose offer has no answer, and when they were closed if `answered` after so long.
    async fn negotiation(answered: Option<Duration>) -> [Duration; 2] {
        let directory = Directory::new(SignalSettings::default());
        let (origin, of_origin) = origin(&directory, "pod");
        let (_visitor, of_visitor) = visitor(&directory, "pod", "s");
        let begin = Instant::now();
        let close_of = async |outbox: &Outbox| {
            let frames = until_closed(outbox).await;
            (begin.elapsed(), frames)
        };
        let answer = async {
            if let Some(after) = answered {
                sleep(after).await;
                assert!(matches!(
                    origin.handle(br#"{"t":"answer","sessionId":"s","sdp":"SDP"}"#, &AdmitAll),
                    Handled::Done
                ));
            }
        };
        let (visitor, origin, (), ()) =
            tokio::join!(close_of(&of_visitor), close_of(&of_origin), answer, directory.close_all(CLOSING));
        assert_eq!(visitor.1.len(), 1, "{visitor:?}");
        assert_eq!(visitor.1[0].contains("restarting"), answered.is_none(), "{visitor:?}");
        [visitor.0, origin.0]
    }

    #[tokio::test(start_paused = true)]
    async fn a_negotiation_has_time_for_its_answer_and_its_candidates() {
        let about = |at: Duration| at..at + 3 * LOOK;
        for after in [10, 1_000, 2_900].map(Duration::from_millis) {
            let [visitor, origin] = negotiation(Some(after)).await;
            assert!(about(after + QUIET).contains(&visitor), "{visitor:?} for an answer after {after:?}");
            assert!((visitor..visitor + 2 * LOOK).contains(&origin), "{origin:?} after {visitor:?}");
        }
        let [visitor, origin] = negotiation(None).await;
        assert!(about(ANSWER).contains(&visitor), "{visitor:?}");
        assert!((visitor..visitor + 2 * LOOK).contains(&origin), "{origin:?} after {visitor:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_goes_on_all_ends_in_time() {
        let directory = Directory::new(SignalSettings::default());
        let (_origin, of_origin) = origin(&directory, "pod");
        let (place, of_visitor) = visitor(&directory, "pod", "s");
        let begin = Instant::now();
        let chatter = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                let _ = place.handle(br#"{"t":"candidate","sessionId":"s","candidate":{}}"#, &AdmitAll);
            }
        };
        let closed = async {
            tokio::join!(until_closed(&of_visitor), until_closed(&of_origin), directory.close_all(CLOSING));
        };
        tokio::select! {
            () = closed => {}
            () = chatter => {}
        }
        assert!((CLOSING.negotiations..CLOSING.negotiations + 3 * LOOK).contains(&begin.elapsed()));
    }
}
