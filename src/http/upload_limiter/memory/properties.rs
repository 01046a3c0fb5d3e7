use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::{ledger::KEPT, step},
    *,
};

/// As large as a body may be: a share of the memory that is kept.
const LARGEST: u64 = 1 << 20;
const TOTAL: u64 = KEPT * LARGEST + 12_345;

#[derive(Debug)]
struct Upload {
    network: Option<IpAddr>,
    length: u64,
    held: u64,
}

impl Upload {
    /// Takes as an upload does of which everything that fits has arrived.
    fn grow(&mut self, ledger: &mut Ledger) -> bool {
        let before = ledger.left;
        let step = step(self.held, self.held + 1, self.length);
        let need = self.length - self.held;
        let Some(taken) = ledger.take(self.network, step, need) else { return false };
        self.held += taken;
        assert!(self.held <= self.length);
        let held = ledger.held(self.network);
        assert!(self.network.is_none() || held <= before, "{held} are held, and {before} were left");
        true
    }
}

fn network(n: u8) -> Option<IpAddr> {
    (n > 0).then(|| [192, 0, 2, n].into())
}

fn uploads(count: usize) -> impl Strategy<Value = Vec<Upload>> {
    let upload =
        (0..5_u8, 1..=LARGEST).prop_map(|(n, length)| Upload { network: network(n), length, held: 0 });
    vec(upload, 1..count)
}

/// Nothing is lost, and nobody has more than all have.
fn check(ledger: &Ledger, uploads: &[Upload]) {
    assert_eq!(ledger.left + uploads.iter().map(|upload| upload.held).sum::<u64>(), TOTAL);
    for n in 0..5 {
        let of_network = uploads.iter().filter(|upload| upload.network == network(n));
        assert_eq!(ledger.held(network(n)), of_network.map(|upload| upload.held).sum::<u64>());
    }
    assert!(ledger.by_network.values().all(|held| *held > 0));
}

proptest! {
    #[test]
    fn any_order_of_taking_and_giving_back_adds_up(
        mut uploads in uploads(60),
        events in vec((any::<Index>(), 0..5_u8, any::<Index>()), 1..400),
    ) {
        let mut ledger = Ledger::new(TOTAL);
        for (which, what, part) in events {
            let at = which.index(uploads.len());
            let upload = &mut uploads[at];
            if what > 0 {
                if upload.held < upload.length {
                    upload.grow(&mut ledger);
                }
            } else {
                let bytes = part.index(upload.held as usize + 1) as u64;
                ledger.give_back(upload.network, bytes);
                upload.held -= bytes;
            }
            check(&ledger, &uploads);
        }
    }

    #[test]
    fn uploads_that_keep_arriving_are_all_completed(
        mut uploads in uploads(200),
        mut order in vec(any::<Index>(), 50..400),
        requests in vec(0..=TOTAL, 1..10),
    ) {
        let mut ledger = Ledger::new(TOTAL);
        let mut next = 0;
        while !uploads.is_empty() {
            next = (next + 1) % order.len();
            ledger.requests = 0;
            ledger.take_request(requests[next % requests.len()]);
            let first = order[next].index(uploads.len());
            let at = (first..uploads.len()).chain(0..first).find(|at| uploads[*at].grow(&mut ledger));
            let at = at.expect("all uploads wait for one another");
            if uploads[at].held == uploads[at].length {
                let upload = uploads.swap_remove(at);
                ledger.give_back(upload.network, upload.held);
                order.rotate_left(1);
            }
            check(&ledger, &uploads);
        }
    }
}
