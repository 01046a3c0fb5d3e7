//! Which network holds how much of the memory for uploads, and whether all of them can still be completed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// The share of the memory that requests take at most: bodies find room however many uploads wait. What exceeds it is bounded as
/// connections are.
const REQUESTS: u64 = 3;

/// The share that uploads take at most which have one piece and have not arrived: whoever announces much and sends little leaves
/// as much as the largest upload needs.
const FIRST_PIECES: u64 = 3;

/// The share that is kept at most for the favoured upload.
const KEPT: u64 = 8;

/// What memory is counted for: a network, or an upload of a client without an address, which shares nothing with others but the
/// total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Payer {
    Network(IpAddr),
    Upload(u64),
}

/// Who holds how much.
pub struct Ledger {
    total: u64,
    /// What bodies have not taken.
    pub(super) left: u64,
    /// What requests have of that.
    pub(super) requests: u64,
    /// The most that they had since there was no upload: the heap keeps it for a while.
    most_requests: u64,
    pub(super) by_payer: HashMap<Payer, Account>,
    /// What uploads hold that have one piece and have not arrived.
    first_pieces: u64,
    /// What payers hold with uploads that have several pieces and need more, by their claims.
    claims: BTreeMap<(u64, Payer), u64>,
    /// The sum of that.
    growing: u64,
    /// The upload for which others leave what it needs, or an eighth of the memory if that is less.
    pub(super) favoured: Option<(Payer, u64)>,
}

/// The uploads of a payer.
#[derive(Default)]
pub(super) struct Account {
    uploads: HashMap<u64, Share>,
    held: u64,
    first_pieces: u64,
    growing: u64,
    /// How much has to be left so that those that grow can be completed one after the other.
    claim: u64,
}

/// What one upload holds, and needs beyond that to be complete.
#[derive(Clone, Copy, Default)]
struct Share {
    held: u64,
    need: u64,
    pieces: u64,
    has_arrived: bool,
}

impl Share {
    fn is_first_piece(&self) -> bool {
        self.pieces == 1 && !self.has_arrived
    }

    fn is_growing(&self) -> bool {
        self.pieces > 1 && self.need > 0
    }
}

/// Why an upload has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The others of its network hold as much as is left.
    ForItsNetwork,
    ForOthers,
}

impl Account {
    /// Adds up the uploads again. Of those that grow, the one that lacks least is completed first.
    fn update(&mut self) {
        let uploads = self.uploads.values();
        self.first_pieces = uploads.filter(|share| share.is_first_piece()).map(|share| share.held).sum();
        let mut growing: Vec<_> = self.uploads.values().filter(|share| share.is_growing()).collect();
        growing.sort_unstable_by_key(|share| i128::from(share.need) - i128::from(share.held));
        self.growing = growing.iter().map(|share| share.held).sum();
        let mut given_back = 0;
        let claims = growing.iter().map(|share| {
            // An upload takes a piece only if what the others of its network hold would be left.
            let others = self.growing - given_back - share.held;
            let claim = (share.need + others).saturating_sub(given_back);
            given_back += share.held;
            claim
        });
        self.claim = claims.max().unwrap_or_default();
    }
}

impl Ledger {
    pub fn new(total: u64) -> Self {
        let (by_payer, claims) = Default::default();
        let (first_pieces, growing) = (0, 0);
        Self {
            total,
            left: total,
            requests: 0,
            most_requests: 0,
            by_payer,
            first_pieces,
            claims,
            growing,
            favoured: None,
        }
    }

    /// Returns what the uploads of a payer hold together.
    pub fn held(&self, payer: Payer) -> u64 {
        self.by_payer.get(&payer).map_or(0, |account| account.held)
    }

    /// Returns what an upload holds.
    pub fn held_by(&self, payer: Payer, id: u64) -> u64 {
        self.share(payer, id).held
    }

    /// Returns how much has to be left so that the uploads of a payer that have several pieces can be completed.
    pub fn claim(&self, payer: Payer) -> u64 {
        self.by_payer.get(&payer).map_or(0, |account| account.claim)
    }

    fn share(&self, payer: Payer, id: u64) -> Share {
        self.by_payer.get(&payer).and_then(|account| account.uploads.get(&id)).copied().unwrap_or_default()
    }

    /// Returns what a payer holds on average.
    pub fn mean(&self) -> u64 {
        (self.total - self.left) / (self.by_payer.len() as u64).max(1)
    }

    /// Takes `bytes` for a request, or as much of it as there is for requests. Returns how much was taken.
    pub fn take_request(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min((self.total / REQUESTS).saturating_sub(self.requests));
        self.requests += taken;
        self.most_requests = self.most_requests.max(self.requests);
        taken
    }

    pub fn give_back_request(&mut self, bytes: u64) {
        self.requests -= bytes;
        if self.requests == 0 {
            self.most_requests = 0;
        }
    }

    /// Takes `step` bytes for the upload `id`, which needs `need` to be complete.
    ///
    /// What is announced takes nothing. First pieces are taken while those that have not arrived are less than a third of the
    /// memory. Any piece is taken only if those that have several could all be completed then, one after the
    /// other and however many requests come, each with what is left and what those before it have given back: so uploads that
    /// keep arriving never all wait for one another. However slow the uploads of a network are, an upload takes only what
    /// leaves as much as the others of its network hold.
    ///
    /// # Errors
    ///
    /// Returns why the upload has to wait.
    pub fn take(&mut self, payer: Payer, id: u64, step: u64, need: u64) -> Result<(), Refused> {
        let before = self.share(payer, id);
        let after =
            Share { held: before.held + step, need: need - step, pieces: before.pieces + 1, ..before };
        let left = self.left.saturating_sub(self.most_requests);
        if step > left || after.is_first_piece() && !self.has_room_for_first_piece(step) {
            return Err(Refused::ForOthers);
        }
        if step > left.saturating_sub(self.held_by_others(payer, before)) {
            return Err(Refused::ForItsNetwork);
        }
        self.set(payer, id, after);
        if self.can_all_be_completed() && self.leaves_enough_for_favoured(id) {
            return Ok(());
        }
        self.set(payer, id, before);
        Err(Refused::ForOthers)
    }

    /// Returns whether a first piece of `step` bytes may be taken. Most uploads that have to wait are refused here, where it
    /// costs little.
    fn has_room_for_first_piece(&self, step: u64) -> bool {
        let least = self.claims.first_key_value().map_or(0, |((claim, _), _)| *claim);
        self.first_pieces + step <= self.total / FIRST_PIECES && self.room() >= step + least
    }

    /// Returns what the uploads of a payer hold beside one that holds `share`. First pieces do not keep others of their network
    /// from growing: those have to be completed before them.
    fn held_by_others(&self, payer: Payer, share: Share) -> u64 {
        let Some(account) = self.by_payer.get(&payer) else { return 0 };
        let first_pieces = if share.held > 0 { account.first_pieces } else { 0 };
        let own = if share.is_first_piece() { 0 } else { share.held };
        account.held - first_pieces - own
    }

    /// Returns whether what the upload `id` has taken leaves what the favoured one needs.
    fn leaves_enough_for_favoured(&self, id: u64) -> bool {
        let Some((payer, favoured)) = self.favoured.filter(|(_, favoured)| *favoured != id) else {
            return true;
        };
        let share = self.share(payer, favoured);
        share.need.min(self.total / KEPT) <= self.available(share.held)
    }

    /// The banker's algorithm, with networks for customers.
    fn can_all_be_completed(&self) -> bool {
        let mut left = self.room();
        let largest = self.claims.last_key_value().map_or(0, |((claim, _), _)| *claim);
        for ((claim, _), held) in &self.claims {
            if largest <= left {
                return true;
            }
            if *claim > left {
                return false;
            }
            left += held;
        }
        true
    }

    /// Returns what is left, however many requests come, once the uploads that need no more have given theirs back.
    fn room(&self) -> u64 {
        (self.total - self.total / REQUESTS).saturating_sub(self.first_pieces + self.growing)
    }

    /// Returns how much there is at once for an upload that holds `held`.
    pub fn available(&self, held: u64) -> u64 {
        let for_first = if held == 0 { self.total / FIRST_PIECES } else { u64::MAX };
        let left = self.left.saturating_sub(self.most_requests);
        left.min(self.room()).min(for_first.saturating_sub(self.first_pieces))
    }

    /// Notes that an upload has arrived and needs no more.
    pub fn complete(&mut self, payer: Payer, id: u64) {
        self.set(payer, id, Share { need: 0, has_arrived: true, ..self.share(payer, id) });
    }

    pub fn give_back(&mut self, payer: Payer, id: u64, bytes: u64) {
        let share = self.share(payer, id);
        self.set(payer, id, Share { held: share.held - bytes, ..share });
    }

    fn set(&mut self, payer: Payer, id: u64, share: Share) {
        let account = self.by_payer.entry(payer).or_default();
        self.claims.remove(&(account.claim, payer));
        self.first_pieces -= account.first_pieces;
        self.growing -= account.growing;
        let before =
            if share.held > 0 { account.uploads.insert(id, share) } else { account.uploads.remove(&id) };
        let before = before.unwrap_or_default().held;
        account.held = account.held + share.held - before;
        self.left = self.left + before - share.held;
        account.update();
        self.first_pieces += account.first_pieces;
        self.growing += account.growing;
        if account.growing > 0 {
            self.claims.insert((account.claim, payer), account.growing);
        }
        if account.uploads.is_empty() {
            self.by_payer.remove(&payer);
        }
    }
}
