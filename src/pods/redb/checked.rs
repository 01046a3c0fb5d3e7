//! Notices what a disk gives back that is not what it was given: redb compares checksums when it opens a database, and
//! ends with a panic, or with the process, when it meets a page later that was damaged meanwhile.

use std::{
    hash::{DefaultHasher, Hasher},
    io,
    ops::{Bound, Range},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{BackendError, StorageBackend};

/// What is hashed at a time: redb reads and writes pages of this size, or several of them.
const BLOCK: usize = 4096;

/// A block is not what it was.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the bytes at {0} are not those that were written there")]
pub struct Changed(u64);

/// Refuses every write once it is sealed. Clones are the same seal.
#[derive(Clone, Debug, Default)]
pub struct Seal(Arc<AtomicBool>);

impl Seal {
    /// Lets nothing be written from now on, not even by the `Drop` of a database.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::Acquire) {
            true => Err(io::Error::other("a damaged registry is not written any more")),
            false => Ok(()),
        }
    }
}

/// Storage that refuses to give back other bytes than those that were written, or read at first. Clones are the same.
#[derive(Clone, Debug)]
pub struct Checked<B> {
    inner: B,
    /// Of each block its hash, and zero where that is not known: eight bytes for 4 KiB.
    hashes: Arc<RwLock<Vec<u64>>>,
    seal: Seal,
}

impl<B: StorageBackend> Checked<B> {
    pub fn new(inner: B) -> Self {
        Self { inner, hashes: Arc::default(), seal: Seal::default() }
    }

    /// Returns what stops its writes.
    pub fn seal(&self) -> Seal {
        self.seal.clone()
    }

    /// Takes blocks of these hashes for right.
    fn learn(&self, blocks: &[(usize, u64)]) {
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        for &(block, hash) in blocks {
            if hashes.len() <= block {
                hashes.resize(block + 1, 0);
            }
            hashes[block] = hash;
        }
    }

    /// Forgets the blocks that `range` touches.
    fn forget(&self, range: Range<u64>) {
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        let (first, end) = (range.start as usize / BLOCK, (range.end as usize).div_ceil(BLOCK));
        let end = end.min(hashes.len());
        if first < end {
            hashes[first..end].fill(0);
        }
    }

    /// Compares blocks that were read. Returns whether all of them were known.
    fn compare(&self, blocks: &[(usize, u64)]) -> Result<bool, Changed> {
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        let mut all_known = true;
        for (block, hash) in blocks {
            match hashes.get(*block) {
                Some(&known) if known != 0 => {
                    if known != *hash {
                        return Err(Changed((block * BLOCK) as u64));
                    }
                }
                _ => all_known = false,
            }
        }
        Ok(all_known)
    }
}

/// Returns the numbers and hashes of the blocks that lie wholly in `data` at `offset`.
fn hashes_of(offset: u64, data: &[u8]) -> Vec<(usize, u64)> {
    whole_blocks(offset, data).map(|(block, part)| (block, hash(part))).collect()
}

/// The blocks that lie wholly in `data` at `offset`, with their numbers.
fn whole_blocks(offset: u64, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (offset as usize).div_ceil(BLOCK);
    let skipped = (first * BLOCK - offset as usize).min(data.len());
    data[skipped..].chunks_exact(BLOCK).enumerate().map(move |(n, part)| (first + n, part))
}

/// Never zero.
fn hash(block: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(block);
    hasher.finish().max(1)
}

impl<B: StorageBackend> StorageBackend for Checked<B> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)?;
        let blocks = hashes_of(offset, out);
        match self.compare(&blocks) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.learn(&blocks);
                Ok(())
            }
            Err(changed) => Err(io::Error::new(io::ErrorKind::InvalidData, changed)),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.seal.check()?;
        self.inner.set_len(length)?;
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.truncate(length as usize / BLOCK);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.seal.check()?;
        // What was written since the last time may be there or not.
        self.inner.sync_data().inspect_err(|_| self.forget(0..u64::MAX))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.seal.check()?;
        let blocks = hashes_of(offset, data);
        // A block that is not written whole, or whose writing fails, is not known.
        self.forget(offset..offset + data.len() as u64);
        self.inner.write(offset, data)?;
        self.learn(&blocks);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
