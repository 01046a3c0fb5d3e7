//! A disk in memory for redb, on which any one operation can fail, or the power with it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::{Database, DatabaseError, StorageBackend};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// What goes wrong from the operation (write, change of length or sync) of this number on, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub at: u64,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// This one operation fails, a write after half of it.
    Once(i32),
    /// Every operation fails in this way until the disk is healed.
    Every(i32),
    /// Whatever needs a block that the file does not have yet fails until the disk is healed, and while there is something in
    /// the file that [`Disk::with_reserve`] names.
    Full,
    /// The same for whatever is written, as on a file system that never writes in the place of what is there.
    FullForAll,
    /// The power fails after half of it.
    Torn,
}

pub const EIO: i32 = 5;
pub const ENOSPC: i32 = 28;
pub const EROFS: i32 = 30;

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is read.
    bytes: Vec<u8>,
    /// What is still there after a power cut, whatever happens.
    synced: Vec<u8>,
    /// What of the rest is there is a matter of luck.
    unsynced: Vec<Change>,
    /// Sectors that were written once.
    blocks: BTreeSet<usize>,
    operations: u64,
    fault: Option<Fault>,
    fired: bool,
    reads_to_fail: u64,
    openings: u64,
    off: bool,
    /// Its room is free for the database when it is empty.
    reserve: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Disk {
    /// Opens the database on it.
    pub fn open(&self) -> Result<Database, DatabaseError> {
        // Without a cache, so that what is read is read from the disk.
        Database::builder().set_cache_size(0).create_with_backend(self.clone())
    }

    /// Has the room of the file at `reserve`.
    pub fn with_reserve(&self, reserve: PathBuf) {
        self.state().reserve = Some(reserve);
    }

    /// Counts operations from here on.
    pub fn arm(&self, fault: Option<Fault>) {
        let mut state = self.state();
        (state.operations, state.fault, state.fired) = (0, fault, false);
    }

    /// Changes bytes behind the back of whoever uses it.
    pub fn damage(&self, damage: impl FnOnce(&mut Vec<u8>)) {
        damage(&mut self.state().bytes);
    }

    pub fn fail_reads(&self, reads: u64) {
        self.state().reads_to_fail = reads;
    }

    /// Reads that are still to fail.
    pub fn reads_to_fail(&self) -> u64 {
        self.state().reads_to_fail
    }

    /// How often a database was opened: its header is read then, and only then.
    pub fn openings(&self) -> u64 {
        self.state().openings
    }

    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the fault has come.
    pub fn fired(&self) -> bool {
        self.state().fired
    }

    /// Whether the fault has come and is still there.
    pub fn is_failing(&self) -> bool {
        let state = self.state();
        state.fired && state.fault.is_some()
    }

    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// The power comes back. Every sector that was not synced is there or not, as the dice fall; nothing of them if
    /// `luck` is 0, and all of them if it is 1.
    pub fn reboot(&self, luck: u64) {
        let mut state = self.state();
        let mut dice = luck;
        let mut kept = || match luck {
            0 => false,
            1 => true,
            _ => {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                dice >> 63 == 1
            }
        };
        let mut bytes = std::mem::take(&mut state.synced);
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                Change::Length(length) => {
                    if kept() {
                        bytes.resize(length, 0);
                    }
                }
                Change::Write(offset, data) => {
                    for (start, part) in sectors(offset, &data) {
                        if kept() && start + part.len() <= bytes.len() {
                            bytes[start..start + part.len()].copy_from_slice(part);
                        }
                    }
                }
            }
        }
        *state = State { synced: bytes.clone(), bytes, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

/// `data` at `offset`, cut where sectors end.
fn sectors(offset: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = offset;
    std::iter::from_fn(move || {
        let rest = &data[start - offset..];
        let part = &rest[..rest.len().min(SECTOR - start % SECTOR)];
        start += part.len();
        (!part.is_empty()).then(|| (start - part.len(), part))
    })
}

impl State {
    /// One operation; a sync has no change.
    fn operate(&mut self, change: Option<Change>) -> io::Result<()> {
        if self.off {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.operations += 1;
        let error = self.error(change.as_ref());
        match (change, error) {
            (Some(change), None) => self.apply(change),
            (None, None) => {
                self.unsynced.clear();
                self.synced.clone_from(&self.bytes);
            }
            (change, Some(error)) => {
                self.fired = true;
                if let Some(Change::Write(offset, mut data)) = change {
                    data.truncate(data.len() / 2);
                    self.apply(Change::Write(offset, data));
                }
                return Err(io::Error::from_raw_os_error(error));
            }
        }
        Ok(())
    }

    fn error(&mut self, change: Option<&Change>) -> Option<i32> {
        let Fault { at, kind } = self.fault?;
        match kind {
            Kind::Once(error) => (self.operations == at).then_some(error),
            Kind::Every(error) => (self.operations >= at).then_some(error),
            Kind::Full | Kind::FullForAll => {
                let Some(Change::Write(offset, data)) = change else { return None };
                let mut parts = sectors(*offset, data);
                let grows = matches!(kind, Kind::FullForAll)
                    || parts.any(|(start, _)| !self.blocks.contains(&(start / SECTOR)));
                let reserve = self.reserve.as_ref();
                let is_free =
                    reserve.is_some_and(|path| fs::metadata(path).is_ok_and(|file| file.len() == 0));
                (self.operations >= at && grows && !is_free).then_some(ENOSPC)
            }
            Kind::Torn => {
                self.off = self.operations == at;
                self.off.then_some(EIO)
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match &change {
            Change::Length(length) => self.bytes.resize(*length, 0),
            Change::Write(offset, data) => {
                self.blocks.extend(sectors(*offset, data).map(|(start, _)| start / SECTOR));
                self.bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
        self.unsynced.push(change);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.openings += u64::from(offset == 0);
        let fails = state.off || state.reads_to_fail > 0;
        state.reads_to_fail = state.reads_to_fail.saturating_sub(1);
        if fails {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let start = offset as usize;
        let part = state.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.state().operate(Some(Change::Length(length as usize)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state().operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state().operate(Some(Change::Write(offset as usize, data.to_vec())))
    }
}
