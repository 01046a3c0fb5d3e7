use std::collections::HashMap;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{super::step, *};

/// As large as a body may be: a third of the memory.
const LARGEST: u64 = 1 << 20;
const TOTAL: u64 = 3 * LARGEST + 12_345;

#[derive(Debug)]
struct Upload {
    id: u64,
    payer: Payer,
    length: u64,
    held: u64,
    pieces: u64,
}

impl Upload {
    fn is_first_piece(&self) -> bool {
        self.pieces == 1
    }
}

/// Takes for one of `uploads` as an upload does of which everything that fits has arrived.
fn grow(uploads: &mut [Upload], at: usize, ledger: &mut Ledger) -> bool {
    let before = ledger.left;
    let Upload { id, payer, length, held, pieces } = uploads[at];
    let step = step(held, held + 1, length);
    if ledger.take(payer, id, step, length - held).is_err() {
        return false;
    }
    let others = uploads.iter().filter(|other| other.payer == payer && other.id != id);
    let others = others.filter(|other| pieces == 0 || !other.is_first_piece());
    let others = others.map(|other| other.held).sum::<u64>();
    assert!(others + step <= before, "others of the network hold {others}, and {before} were left");
    uploads[at].held += step;
    uploads[at].pieces += 1;
    assert!(uploads[at].held <= length);
    true
}

fn payer(n: u8, id: u64) -> Payer {
    if n > 0 { Payer::Network([192, 0, 2, n].into()) } else { Payer::Upload(id) }
}

fn uploads(count: usize) -> impl Strategy<Value = Vec<Upload>> {
    vec((0..5_u8, 1..=LARGEST), 1..count).prop_map(|uploads| {
        let upload = |(id, (n, length))| Upload { id, payer: payer(n, id), length, held: 0, pieces: 0 };
        (0..).zip(uploads).map(upload).collect()
    })
}

/// Nothing is lost, and nobody has more than all have.
fn check(ledger: &Ledger, uploads: &[Upload]) {
    assert_eq!(ledger.left + uploads.iter().map(|upload| upload.held).sum::<u64>(), TOTAL);
    let mut held: HashMap<_, u64> = HashMap::new();
    for upload in uploads {
        assert_eq!(ledger.held_by(upload.payer, upload.id), upload.held);
        *held.entry(upload.payer).or_default() += upload.held;
    }
    assert!(held.iter().all(|(payer, held)| ledger.held(*payer) == *held));
    assert!(ledger.by_payer.keys().all(|payer| ledger.held(*payer) > 0));
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
            if what > 0 {
                if uploads[at].held < uploads[at].length {
                    grow(&mut uploads, at, &mut ledger);
                }
            } else {
                let upload = &mut uploads[at];
                let bytes = part.index(upload.held as usize + 1) as u64;
                ledger.give_back(upload.payer, upload.id, bytes);
                upload.held -= bytes;
                if upload.held == 0 {
                    upload.pieces = 0;
                }
            }
            check(&ledger, &uploads);
        }
    }

    #[test]
    fn uploads_that_keep_arriving_are_all_completed(
        mut uploads in uploads(80),
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
            let at = (first..uploads.len()).chain(0..first).find(|at| grow(&mut uploads, *at, &mut ledger));
            let at = at.expect("all uploads wait for one another");
            if uploads[at].held == uploads[at].length {
                let upload = uploads.swap_remove(at);
                ledger.give_back(upload.payer, upload.id, upload.held);
                order.rotate_left(1);
            }
            check(&ledger, &uploads);
        }
    }

    /// The same for those that wait in line, which looks at the first few.
    #[test]
    fn uploads_that_stand_in_line_are_all_completed(
        lengths in vec((0..30_u8, 1..=LARGEST), 1..200),
        order in vec(any::<Index>(), 50..400),
    ) {
        let memory = UploadMemory::new(TOTAL, Duration::from_secs(1));
        let begin = |(n, length): (u8, u64)| {
            let client = (n > 0).then(|| [192, 0, 2, n].into());
            (memory.reservation(client), length)
        };
        let mut uploads: Vec<_> = lengths.into_iter().map(begin).collect();
        let mut order = order.iter().cycle();
        while !uploads.is_empty() {
            let first = order.next().unwrap().index(uploads.len());
            let is_waiting = |upload: &Reservation| memory.lock().line.contains(upload.payer, upload.id);
            let at = (first..uploads.len()).chain(0..first).find(|at| !is_waiting(&uploads[*at].0));
            let at = at.expect("all uploads wait for one another");
            let (upload, length) = &mut uploads[at];
            let held = upload.bytes();
            if held == *length {
                uploads.swap_remove(at);
            } else {
                upload.wait(step(held, held + 1, *length), *length - held);
            }
        }
    }
}
