//! Notices what a disk gives back that is not what it was given: redb compares checksums when it opens a database, and
//! ends with a panic, or with the process, when it meets a page later that was damaged meanwhile.

use std::{
    hash::{DefaultHasher, Hasher},
    io,
    ops::{Bound, Range},
    sync::{Arc, PoisonError, RwLock},
};

use redb::{BackendError, StorageBackend};

/// What is hashed at a time: redb reads and writes pages of this size, or several of them.
const BLOCK: usize = 4096;

/// A block is not what it was.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the bytes at {0} are not those that were written there")]
pub struct Changed(u64);

/// Storage that refuses to give back other bytes than those that were written, or read at first. Clones are the same.
#[derive(Clone, Debug)]
pub struct Checked<B> {
    inner: B,
    /// Of each block its hash, and zero where that is not known: eight bytes for 4 KiB.
    hashes: Arc<RwLock<Vec<u64>>>,
}

impl<B: StorageBackend> Checked<B> {
    pub fn new(inner: B) -> Self {
        Self { inner, hashes: Arc::default() }
    }

    /// Takes what was written at `offset` for right.
    fn learn(&self, offset: u64, data: &[u8]) {
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        for (block, part) in whole_blocks(offset, data) {
            if hashes.len() <= block {
                hashes.resize(block + 1, 0);
            }
            hashes[block] = hash(part);
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

    /// Compares what was read. Returns whether all of it was known.
    fn compare(&self, offset: u64, data: &[u8]) -> Result<bool, Changed> {
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        let mut all_known = true;
        for (block, part) in whole_blocks(offset, data) {
            match hashes.get(block) {
                Some(&known) if known != 0 => {
                    if known != hash(part) {
                        return Err(Changed((block * BLOCK) as u64));
                    }
                }
                _ => all_known = false,
            }
        }
        Ok(all_known)
    }
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
        match self.compare(offset, out) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.learn(offset, out);
                Ok(())
            }
            Err(changed) => Err(io::Error::new(io::ErrorKind::InvalidData, changed)),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)?;
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.truncate(length as usize / BLOCK);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // What was written since the last time may be there or not.
        self.inner.sync_data().inspect_err(|_| self.forget(0..u64::MAX))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A block that is not written whole, or whose writing fails, is not known.
        self.forget(offset..offset + data.len() as u64);
        self.inner.write(offset, data)?;
        self.learn(offset, data);
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
