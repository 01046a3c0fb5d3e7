//! The memory that the bodies of uploads are written to.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memmap2::MmapMut;

/// The length of the mappings that are kept, in bytes. A pod that the CLI makes fits into one, as JSON too.
const KEPT_LENGTH: usize = 2 * 1024 * 1024;
/// How many are kept at most.
const MAX_KEPT: usize = 8;
/// What they take beyond the bodies in them comes on top of `pods.upload_memory`: at most this share of it.
const SHARE: u64 = 10;

/// A few mappings that serve one body after the other: a new one costs a page fault for each 4 KiB of a body.
pub struct KeptMappings(Mutex<Vec<Option<MmapMut>>>);

impl KeptMappings {
    /// Returns as many as suit a broker whose uploads have `memory` bytes.
    pub fn new(memory: u64) -> Arc<Self> {
        let kept = (memory / SHARE / KEPT_LENGTH as u64).min(MAX_KEPT as u64);
        Arc::new(Self(Mutex::new((0..kept).map(|_| None).collect())))
    }

    /// Returns a mapping with room for `length` bytes. What is in it is anything.
    pub fn get(self: &Arc<Self>, length: usize) -> io::Result<Mapping> {
        let free = if length <= KEPT_LENGTH { self.lock().pop() } else { None };
        let Some(kept) = free else {
            return Ok(Mapping { map: Some(map(length)?), home: None });
        };
        let mut mapping = Mapping { map: kept, home: Some(self.clone()) };
        if mapping.map.is_none() {
            mapping.map = Some(map(KEPT_LENGTH)?);
        }
        Ok(mapping)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<MmapMut>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a new mapping, the pages of which are small: with a huge one, a body of one byte would take 2 MiB.
fn map(length: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(length)?;
    // A kernel without huge pages refuses it.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::NoHugePage);
    Ok(map)
}

/// A mapping of its own, of which the pages that were written take memory. Dropping it gives all of them back to the system
/// at once, unless it is kept: the heap would keep what lies between other allocations, beyond what `pods.upload_memory`
/// accounts for.
pub struct Mapping {
    /// Nothing while it is made or given back.
    map: Option<MmapMut>,
    home: Option<Arc<KeptMappings>>,
}

const MADE: &str = "it is there until it is dropped";

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_ref().expect(MADE)
    }
}

impl DerefMut for Mapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.as_mut().expect(MADE)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.lock().push(self.map.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many bodies there are, no more mappings are kept, and a large one never is.
    #[test]
    fn a_few_mappings_are_kept() {
        let kept = KeptMappings::new(u64::MAX);
        let lengths = || (0..3 * MAX_KEPT).map(|n| if n % 3 == 0 { KEPT_LENGTH + 1 } else { 1000 });
        for _ in 0..2 {
            let mut bodies: Vec<_> = lengths().map(|length| kept.get(length).unwrap()).collect();
            assert!(lengths().zip(&bodies).all(|(length, body)| body.len() >= length));
            assert!(kept.lock().is_empty(), "all of them serve a body");
            bodies.iter_mut().for_each(|body| body.fill(1));
            drop(bodies);
            let free = kept.lock();
            assert_eq!(free.len(), MAX_KEPT);
            assert!(free.iter().all(|map| map.as_ref().is_some_and(|map| map.len() == KEPT_LENGTH)));
        }
    }

    /// A body takes the pages that were written, also where the system makes huge ones of all that it can.
    #[cfg(target_os = "linux")]
    #[test]
    fn no_mapping_has_huge_pages() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            eprintln!("skipped: this kernel has no huge pages");
            return;
        }
        let kept = KeptMappings::new(u64::MAX);
        for length in [1, KEPT_LENGTH, 64 * 1024 * 1024] {
            let mapping = kept.get(length).unwrap();
            assert!(flags(&mapping).contains(" nh"), "{length}: {}", flags(&mapping));
        }
    }

    /// What the system says of the memory at the start of `mapping`.
    #[cfg(target_os = "linux")]
    fn flags(mapping: &[u8]) -> String {
        let start = mapping.as_ptr() as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_it = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                is_it = (from..to).contains(&start);
            }
            if is_it && line.starts_with("VmFlags") {
                return line.to_owned();
            }
        }
        panic!("no mapping at {start:x}");
    }
}
