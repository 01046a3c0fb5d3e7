//! A file with changes that stay in memory.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    ops::{Bound, Range},
    sync::{PoisonError, RwLock},
};

use redb::{BackendError, StorageBackend};

use super::damage::failed_read;

/// What is held in memory at a time.
const BLOCK: u64 = 4096;
/// How many blocks may change: recovery of a database changes a few.
const MAX_BLOCKS: usize = 4096;

/// A file with changes that stay in memory.
#[derive(Debug)]
pub struct Overlay<B> {
    base: B,
    base_length: u64,
    changes: RwLock<Changes>,
}

#[derive(Debug)]
struct Changes {
    length: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl<B: StorageBackend> Overlay<B> {
    pub fn new(base: B) -> io::Result<Self> {
        let base_length = base.len()?;
        let changes = RwLock::new(Changes { length: base_length, blocks: BTreeMap::new() });
        Ok(Self { base, base_length, changes })
    }

    /// Reads from the file as it was changed.
    fn read_changed(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        let end = offset + out.len() as u64;
        if end > changes.length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if changes.blocks.range(offset / BLOCK..end.div_ceil(BLOCK)).next().is_none() {
            return self.read_base(offset, out);
        }
        for (block, part) in blocks(offset..end) {
            let target = &mut out[(part.start - offset) as usize..(part.end - offset) as usize];
            match changes.blocks.get(&block) {
                Some(bytes) => {
                    let start = block * BLOCK;
                    target
                        .copy_from_slice(&bytes[(part.start - start) as usize..(part.end - start) as usize]);
                }
                None => self.read_base(part.start, target)?,
            }
        }
        Ok(())
    }

    /// Reads from the file, which has zeros where it is too short.
    fn read_base(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = self.base_length.saturating_sub(offset).min(out.len() as u64) as usize;
        let (file, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        if file.is_empty() { Ok(()) } else { self.base.read(offset, file) }
    }
}

/// The blocks in which `range` lies: of each its number, and the part of the range that is in it.
fn blocks(range: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    (range.start / BLOCK..range.end.div_ceil(BLOCK)).map(move |block| {
        let start = block * BLOCK;
        (block, range.start.max(start)..range.end.min(start + BLOCK))
    })
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    /// The file is locked as if it were to be written: who writes it must be no other process.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.unlock_range(start, end)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.changes.read().unwrap_or_else(PoisonError::into_inner).length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_changed(offset, out).map_err(failed_read)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        if length < changes.length {
            // Nothing that opens a database makes it shorter.
            return Err(ErrorKind::Unsupported.into());
        }
        changes.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        for (block, part) in blocks(offset..offset + data.len() as u64) {
            let start = block * BLOCK;
            if !changes.blocks.contains_key(&block) {
                if changes.blocks.len() >= MAX_BLOCKS {
                    return Err(ErrorKind::OutOfMemory.into());
                }
                let mut bytes = vec![0; BLOCK as usize];
                self.read_base(start, &mut bytes)?;
                changes.blocks.insert(block, bytes);
            }
            let bytes = changes.blocks.get_mut(&block).expect("it was put there");
            bytes[(part.start - start) as usize..(part.end - start) as usize]
                .copy_from_slice(&data[(part.start - offset) as usize..(part.end - offset) as usize]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that cannot be written.
    #[derive(Debug)]
    struct Fixed(Vec<u8>);

    impl StorageBackend for Fixed {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            out.copy_from_slice(&self.0[offset as usize..offset as usize + out.len()]);
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(ErrorKind::ReadOnlyFilesystem.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Err(ErrorKind::ReadOnlyFilesystem.into())
        }

        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(ErrorKind::ReadOnlyFilesystem.into())
        }
    }

    proptest::proptest! {
        #[test]
        fn it_reads_as_a_file_that_was_written(
            length in 1..20_000_usize,
            changes in proptest::collection::vec((0..30_000_u64, 0..9000_usize, 1..=255_u8), 0..8),
        ) {
            let mut truth: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let overlay = Overlay::new(Fixed(truth.clone())).unwrap();
            for (offset, written, byte) in changes {
                let end = offset as usize + written;
                if end > truth.len() {
                    truth.resize(end, 0);
                    overlay.set_len(end as u64).unwrap();
                }
                truth[offset as usize..end].fill(byte);
                overlay.write(offset, &vec![byte; written]).unwrap();
                for from in [0, offset as usize, end / 2] {
                    let mut read = vec![0; truth.len() - from];
                    overlay.read(from as u64, &mut read).unwrap();
                    assert!(read == truth[from..]);
                }
            }
            assert!(overlay.read(1, &mut vec![0; truth.len()]).is_err());
        }
    }
}
