//! Offers for a pod id that nobody holds: they wait where its origin may be on its way back, or where the registration of
//! one is being recorded.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Exchange, Phase, Refusal, Role, Session, Side, State, waiting_offers::WaitingOffer};
use crate::signal::{
    ids::{PodId, SessionId, SocketId},
    outbox::Pushed,
    queue::Share,
    wire,
};

/// How long after the start any pod id may be one whose origin is on its way back: so long, too, was the last broker
/// away at most if its hosts, which wait twice as long each time, still come within that time.
pub const AFTER_START: Duration = Duration::from_secs(30);

/// How long offers wait for a registration that is being recorded where they wait for no origin that is offline.
pub const RECORDING: Duration = Duration::from_secs(3);

/// What the settings say about offers for a pod id that nobody holds.
#[derive(Clone, Copy, Debug)]
pub struct OfflineRules {
    /// How long they wait.
    pub grace: Duration,
    /// Bytes that may wait for one pod id.
    pub max_per_pod: usize,
}

impl State {
    /// Has `offer` wait for the origin of `pod`, in the place of the one that waits in this session if there is one.
    /// Returns an error if it cannot be expected to come soon, or if there is no room.
    pub fn await_origin(
        &mut self,
        visitor: SocketId,
        session_id: &str,
        pod: PodId,
        offer: String,
        max_sessions: u32,
        rules: OfflineRules,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        let network = self.socket(visitor).network;
        let Role::Visitor { sessions, .. } = self.role(visitor) else { return Err(Refusal::WrongRole) };
        if let Some(Session { peer: Side::Awaited(number), .. }) = sessions.get(session_id) {
            let number = *number;
            if !self.waiting_offers.replace(number, offer, rules.max_per_pod) {
                self.drop_waiting(number);
                return Err(Refusal::OriginOffline);
            }
            return Ok(());
        }
        let full = sessions.len() >= max_sessions as usize;
        if self.phase != Phase::Running {
            return Err(Refusal::Restarting);
        }
        let is_registering = self.origins.contains_key(&pod);
        if !is_registering && (rules.grace.is_zero() || !self.may_return(&pod, now)) {
            return Err(Refusal::OriginOffline);
        }
        if full {
            return Err(Refusal::TooManySessions);
        }
        let session_id: SessionId = session_id.into();
        let grace = if rules.grace.is_zero() { RECORDING } else { rules.grace };
        let (expires, frames) = (now + grace, vec![offer]);
        let offer = WaitingOffer {
            pod: pod.clone(),
            visitor,
            session_id: session_id.clone(),
            network,
            expires,
            frames,
        };
        let number = self.waiting_offers.add(offer, rules.max_per_pod).ok_or(Refusal::OriginOffline)?;
        if let Role::Visitor { sessions, .. } = self.role(visitor) {
            let (peer, share) = (Side::Awaited(number), Share::in_turns(Arc::default()));
            sessions.insert(session_id, Session { pod, peer, share, exchange: Exchange::default() });
        }
        Ok(())
    }

    /// Has a frame wait behind the offer of its session. Without room for it the session ends.
    pub fn wait_behind(
        &mut self,
        visitor: SocketId,
        session_id: &str,
        frame: String,
        rules: OfflineRules,
    ) -> Result<(), Refusal> {
        let Role::Visitor { sessions, .. } = self.role(visitor) else { return Ok(()) };
        let Some(Session { peer: Side::Awaited(number), .. }) = sessions.get(session_id) else {
            return Ok(());
        };
        let number = *number;
        if self.waiting_offers.append(number, frame, rules.max_per_pod) {
            return Ok(());
        }
        self.drop_waiting(number);
        Err(Refusal::OriginOffline)
    }

    /// Tells the visitors whose offers have waited for long enough. Returns when the next one will have.
    pub fn expire_offers(&mut self, now: Instant) -> Option<Instant> {
        for offer in self.waiting_offers.take_expired(now) {
            self.refuse_offer(&offer, &Refusal::OriginOffline);
        }
        self.waiting_offers.next_expiry()
    }

    /// Hands all offers that wait for `pod` to its new origin.
    pub(super) fn deliver_offers(&mut self, origin: SocketId, pod: &PodId) {
        for offer in self.waiting_offers.take(pod) {
            let Some(share) = self.admit_visitor(origin, offer.visitor, &offer.session_id) else {
                self.refuse_offer(&offer, &Refusal::SessionTaken);
                continue;
            };
            if let Role::Visitor { sessions, .. } = self.role(offer.visitor)
                && let Some(session) = sessions.get_mut(&offer.session_id)
            {
                session.peer = Side::Origin(origin);
                session.share = share.clone();
            }
            let outbox = &self.sockets[&origin].outbox;
            outbox.credit().grant_offer();
            // What waits for one pod id takes half of a queue at most. Nothing follows a frame that has no room.
            let is_full = |frame| matches!(outbox.push(&share, frame), Pushed::Full(_));
            if offer.frames.into_iter().any(is_full) {
                let frame = wire::error(Some(&offer.session_id), &Refusal::PeerTooSlow.to_string());
                self.sockets[&offer.visitor].outbox.tell(frame);
            }
        }
    }

    /// Whether the origin of a pod id that nobody holds may be on its way back.
    fn may_return(&self, pod: &str, now: Instant) -> bool {
        now < self.started + AFTER_START || self.recent_holders.contains(pod, now)
    }

    fn drop_waiting(&mut self, number: u64) {
        if let Some(offer) = self.waiting_offers.remove(number) {
            self.end_waiting_session(&offer);
        }
    }

    pub(super) fn refuse_offer(&mut self, offer: &WaitingOffer, refusal: &Refusal) {
        self.end_waiting_session(offer);
        let frame = wire::error(Some(&offer.session_id), &refusal.to_string());
        self.sockets[&offer.visitor].outbox.tell(frame);
    }

    fn end_waiting_session(&mut self, offer: &WaitingOffer) {
        if let Role::Visitor { sessions, .. } = self.role(offer.visitor) {
            sessions.remove(&offer.session_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::Arc,
        task::{Context, Waker},
    };

    use tokio::time::advance;

    use super::*;
    use crate::{
        config::SignalSettings,
        net::budget::Budget,
        signal::{
            admission::AdmitAll,
            directory::{Directory, handled::Handled, place::Place},
            entitlement::Entitlement,
            outbox::{Next, Outbox},
            state::recent_holders::REMEMBERED,
        },
    };

    const GRACE: Duration = Duration::from_secs(8);
    const OFFER: &[u8] = br#"{"t":"offer","podId":"pod","sessionId":"s","sdp":"SDP"}"#;
    const OFFLINE: &str = r#"{"t":"error","sessionId":"s","message":"origin offline"}"#;

    fn join(directory: &Arc<Directory>) -> (Place, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::new(10_000, Budget::new(10_000).of(None)));
        (directory.join(outbox.clone(), None), outbox)
    }

    /// The next frame, or `None` if there is none yet.
    fn waiting(outbox: &Outbox) -> Option<String> {
        let mut cx = Context::from_waker(Waker::noop());
        match outbox.poll_next(&mut cx) {
            std::task::Poll::Ready(Ok(Next::Frame(frame))) => Some(frame),
            _ => None,
        }
    }

    /// Whether an offer for a pod id without an origin waits.
    fn offer_waits(directory: &Arc<Directory>) -> bool {
        let (visitor, outbox) = join(directory);
        assert!(matches!(visitor.handle(OFFER, &AdmitAll), Handled::Done));
        waiting(&outbox).as_deref() != Some(OFFLINE)
    }

    #[tokio::test(start_paused = true)]
    async fn offers_wait_after_a_start_and_after_an_origin_left_and_at_no_other_time() {
        let directory = Directory::new(SignalSettings::default());
        advance(AFTER_START - Duration::from_millis(1)).await;
        assert!(offer_waits(&directory));
        advance(Duration::from_millis(1)).await;
        assert!(!offer_waits(&directory));
        let (origin, _outbox) = join(&directory);
        let Handled::Registers(registration) = origin.handle(br#"{"t":"register","podId":"pod"}"#, &AdmitAll)
        else {
            panic!()
        };
        origin.hold(&registration.pod, Entitlement::Open(None));
        drop(origin);
        advance(REMEMBERED - Duration::from_millis(1)).await;
        assert!(offer_waits(&directory));
        advance(Duration::from_millis(1)).await;
        assert!(!offer_waits(&directory));
    }

    #[tokio::test(start_paused = true)]
    async fn each_visitor_is_told_when_its_own_offer_has_waited_for_the_grace() {
        let directory = Directory::new(SignalSettings::default());
        let start = Instant::now();
        let visits = [0, 3, 7, 12].map(|second| {
            let directory = directory.clone();
            async move {
                let begin = start + Duration::from_secs(second);
                tokio::time::sleep_until(begin).await;
                let (visitor, outbox) = join(&directory);
                assert!(matches!(visitor.handle(OFFER, &AdmitAll), Handled::Done));
                assert_eq!(poll_fn(|cx| outbox.poll_next(cx)).await, Ok(Next::Frame(OFFLINE.into())));
                assert!((GRACE..GRACE + Duration::from_millis(5)).contains(&begin.elapsed()), "{second}");
            }
        });
        tokio::select! {
            _ = futures_util::future::join_all(visits) => {}
            () = directory.expire_waiting_offers() => {}
        }
    }
}
