//! The check agrees with a slow one that follows the grammar of RFC 8949 item by item, and holds no memory.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// Bytes that begin items of all kinds, with and without arguments, and what is not well-formed.
const HEADS: &[u8] = &[
    0x00, 0x17, 0x18, 0x19, 0x1b, 0x1c, 0x20, 0x38, 0x40, 0x41, 0x58, 0x5f, 0x60, 0x62, 0x7b, 0x7f, 0x80,
    0x81, 0x82, 0x83, 0x98, 0x9b, 0x9f, 0xa0, 0xa1, 0xa2, 0xb8, 0xbb, 0xbf, 0xc0, 0xc1, 0xd8, 0xdb, 0xdf,
    0xe0, 0xf4, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xff,
];

/// The first thing that is wrong with `bytes`, in the order in which they are read.
fn slow_check(bytes: &[u8], max_items: usize) -> Result<(), CborError> {
    let mut items = 0;
    match slow_item(bytes, 0, &mut items, max_items)? {
        [] => Ok(()),
        _ => Err(CborError::Trailing),
    }
}

/// Reads the item at the start of `bytes`, which stands within `depth` others; what is behind it.
fn slow_item<'a>(
    bytes: &'a [u8],
    depth: usize,
    items: &mut usize,
    max: usize,
) -> Result<&'a [u8], CborError> {
    *items += 1;
    if *items > max {
        return Err(CborError::TooMany);
    }
    let (&head, rest) = bytes.split_first().ok_or(CborError::Malformed)?;
    let (major, info) = (head >> 5, head & 31);
    let (argument, mut rest) = match info {
        0..24 => (Some(u64::from(info)), rest),
        24..28 => {
            let (bytes, rest) = rest.split_at_checked(1 << (info - 24)).ok_or(CborError::Malformed)?;
            (Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))), rest)
        }
        28..31 => return Err(CborError::Malformed),
        _ => (None, rest),
    };
    let children = match (major, argument) {
        // An integer or a tag of no value, or a break where nothing is open.
        (0 | 1 | 6 | 7, None) => return Err(CborError::Malformed),
        (_, None) => return Err(CborError::Indefinite),
        // A simple value below 32 has one byte.
        (7, Some(..32)) if info == 24 => return Err(CborError::Malformed),
        (0 | 1 | 7, Some(_)) => 0,
        (2 | 3, Some(length)) => {
            let length = usize::try_from(length).map_err(|_| CborError::Malformed)?;
            rest = rest.get(length..).ok_or(CborError::Malformed)?;
            0
        }
        (4, Some(length)) => u128::from(length),
        (5, Some(pairs)) => 2 * u128::from(pairs),
        (_, Some(_)) => 1,
    };
    if children > u128::from(u64::MAX) {
        return Err(CborError::TooMany);
    }
    if children > 0 && depth == MAX_DEPTH {
        return Err(CborError::TooDeep);
    }
    for _ in 0..children {
        rest = slow_item(rest, depth + 1, items, max)?;
    }
    Ok(rest)
}

/// One item as it may be written: how many items it is in total, how deep it nests, and its bytes.
#[derive(Clone, Debug)]
struct Item {
    items: usize,
    depth: usize,
    bytes: Vec<u8>,
}

/// A head with the argument in any of the widths that hold it.
fn head(major: u8, argument: u64, width: u8) -> Vec<u8> {
    let least = match argument {
        0..24 => 0,
        24..0x100 => 1,
        0x100..0x1_0000 => 2,
        0x1_0000..0x1_0000_0000 => 3,
        _ => 4,
    };
    match width.max(least) {
        0 => vec![major << 5 | argument as u8],
        width => {
            let bytes = argument.to_be_bytes();
            [&[major << 5 | (23 + width)], &bytes[8 - (1 << (width - 1))..]].concat()
        }
    }
}

fn container(major: u8, count: usize, children: &[Item], width: u8) -> Item {
    Item {
        items: 1 + children.iter().map(|child| child.items).sum::<usize>(),
        depth: children.iter().map(|child| child.depth + 1).max().unwrap_or(0),
        bytes: children.iter().fold(head(major, count as u64, width), |mut bytes, child| {
            bytes.extend(&child.bytes);
            bytes
        }),
    }
}

/// Well-formed CBOR of known length.
fn item() -> impl Strategy<Value = Item> {
    let width = 0..5_u8;
    let leaf = |bytes| Item { items: 1, depth: 0, bytes };
    let leaves = prop_oneof![
        (0..2_u8, any::<u64>(), 0..64_u32, width.clone()).prop_map(|(major, n, bits, w)| head(
            major,
            n >> bits,
            w
        )),
        (2..4_u8, vec(any::<u8>(), 0..40), width.clone()).prop_map(|(major, text, w)| [
            head(major, text.len() as u64, w),
            text
        ]
        .concat()),
        (0..24_u8).prop_map(|simple| vec![0xe0 | simple]),
        (32..=255_u8).prop_map(|simple| vec![0xf8, simple]),
        (1..4_u32, any::<[u8; 8]>()).prop_map(|(w, float)| [&[0xf8 + w as u8], &float[..1 << w]].concat()),
    ]
    .prop_map(leaf);
    let tree = leaves.prop_recursive(5, 24, 4, move |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..5), 0..5_u8).prop_map(|(items, w)| container(4, items.len(), &items, w)),
            (vec((inner.clone(), inner.clone()), 0..3), 0..5_u8).prop_map(|(pairs, w)| {
                let count = pairs.len();
                let items: Vec<_> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
                container(5, count, &items, w)
            }),
            (inner, any::<u32>(), 0..5_u8).prop_map(|(inner, tag, w)| container(
                6,
                tag as usize,
                &[inner],
                w
            )),
        ]
    });
    // Around most trees there is nothing, around some enough to reach the limit.
    (tree, prop_oneof![4 => Just(0), 1 => 8..24_usize])
        .prop_map(|(tree, around)| (0..around).fold(tree, |inner, _| container(4, 1, &[inner], 0)))
}

/// CBOR, what is nearly CBOR, and anything else.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let mutated = (item(), any::<Index>(), prop_oneof![any::<u8>(), prop::sample::select(HEADS)], 0..4_u8)
        .prop_map(|(item, at, byte, how)| {
            let mut bytes = item.bytes;
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes.truncate(at),
                _ => bytes.push(byte),
            }
            bytes
        });
    prop_oneof![
        1 => vec(any::<u8>(), 0..40),
        2 => vec(prop::sample::select(HEADS), 0..40),
        1 => vec(prop_oneof![Just(0x81_u8), Just(0xc1), Just(0xa1), Just(0x00)], 0..40),
        2 => item().prop_map(|item| item.bytes),
        3 => mutated,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_check_finds_what_the_slow_one_finds(bytes in bytes(), max_items in prop_oneof![1..12_usize, Just(10_000)]) {
        prop_assert_eq!(check(&bytes, max_items), slow_check(&bytes, max_items));
    }

    #[test]
    fn well_formed_cbor_passes_within_its_bounds(item in item(), behind in vec(any::<u8>(), 1..3)) {
        let expected = if item.depth > MAX_DEPTH { Err(CborError::TooDeep) } else { Ok(()) };
        prop_assert_eq!(check(&item.bytes, item.items), expected);
        if expected.is_ok() {
            prop_assert_eq!(check(&item.bytes, item.items - 1), Err(CborError::TooMany));
            prop_assert_eq!(check(&[item.bytes, behind].concat(), item.items), Err(CborError::Trailing));
        }
    }

    #[test]
    fn the_check_holds_no_memory_but_one_number_for_each_level(bytes in bytes()) {
        let taken = allocation_counter::measure(|| {
            let _ = check(&bytes, bytes.len());
        });
        // A growing vector holds its old and its new place for a moment.
        let levels = (MAX_DEPTH as u64 + 1).next_power_of_two();
        prop_assert!(taken.bytes_max <= 2 * levels * 8, "{:?}", taken);
    }
}
