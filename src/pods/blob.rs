//! The bytes of a pod on their way out: all at once from memory, or piece by piece from a file, so that a reader that
//! does not read holds a piece and not a pod.

use std::{
    fs::{File, Metadata},
    io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{
    future::BoxFuture,
    stream::{self, Stream},
};
#[cfg(target_os = "linux")]
use rustix::io::{ReadWriteFlags, preadv2};

/// Bytes that are read from a file at a time where nothing is reserved for more.
const SMALL_PIECE: u64 = 8 * 1024;

/// A read that waits for the disk on a thread that is shared with others.
pub(crate) type DiskRead = BoxFuture<'static, io::Result<Vec<u8>>>;

/// A piece of a file, with what was reserved for it.
struct Piece<R> {
    bytes: Vec<u8>,
    _reserved: R,
}

impl<R> AsRef<[u8]> for Piece<R> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The HTML of a stored pod.
#[derive(Clone, Debug)]
pub struct Blob(Source);

#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    File { file: Arc<File>, content: Content },
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Memory(bytes))
    }
}

impl Blob {
    /// Bytes that are read from a file at a time.
    pub(crate) const PIECE: u64 = 64 * 1024;

    /// A blob that is all of `file`. Reading it fails once the file changes.
    ///
    /// # Errors
    ///
    /// The length of the file cannot be found out.
    pub fn from_file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self::from_version(file, &metadata))
    }

    /// A blob that is all of `file` as `metadata` told before.
    pub(super) fn from_version(file: File, metadata: &Metadata) -> Self {
        Self(Source::File { file: Arc::new(file), content: Content::of(metadata) })
    }

    /// Bytes in total.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File { content, .. } => content.length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in memory already.
    pub fn memory(&self) -> Option<&Bytes> {
        match &self.0 {
            Source::Memory(bytes) => Some(bytes),
            Source::File { .. } => None,
        }
    }

    /// All bytes at once.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub async fn read(self) -> io::Result<Bytes> {
        match self.0 {
            Source::Memory(bytes) => Ok(bytes),
            Source::File { file, content } => {
                read_at(file, content, 0..content.length, &|read| read).await.map(Bytes::from)
            }
        }
    }

    /// The bytes in `range`, which must lie within the blob, piece by piece. `reserve` is asked for memory for each large
    /// piece, of at most [`Blob::PIECE`] bytes; without it, the piece is small, and nobody waits. `in_turn` carries out
    /// those reads that the system cannot answer from memory.
    pub(crate) fn pieces<R: Send + 'static>(
        self,
        range: Range<u64>,
        reserve: impl Fn() -> Option<R> + Send + 'static,
        in_turn: impl Fn(DiskRead) -> DiskRead + Send + Sync + 'static,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::try_unfold((self.0, range, (reserve, in_turn)), async |(source, rest, (reserve, in_turn))| {
            if rest.is_empty() {
                return Ok(None);
            }
            let (piece, end) = match &source {
                Source::Memory(bytes) => (bytes.slice(rest.start as usize..rest.end as usize), rest.end),
                Source::File { file, content } => {
                    let reserved = reserve();
                    let length = if reserved.is_some() { Blob::PIECE } else { SMALL_PIECE };
                    let end = rest.end.min(rest.start + length);
                    let bytes = read_at(file.clone(), *content, rest.start..end, &in_turn).await?;
                    (Bytes::from_owner(Piece { bytes, _reserved: reserved }), end)
                }
            };
            Ok(Some((piece, (source, end..rest.end, (reserve, in_turn)))))
        })
    }
}

/// What changes when the bytes of a file do. Its other times change when it is renamed or removed, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    length: u64,
    modified: (i64, i64),
}

impl Content {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

async fn read_at(
    file: Arc<File>,
    content: Content,
    range: Range<u64>,
    in_turn: &(impl Fn(DiskRead) -> DiskRead + Sync),
) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; (range.end - range.start) as usize];
    let at_hand = range.end - range.start <= Blob::PIECE && read_cached(&file, &mut piece, range.start);
    let read = move || {
        if !at_hand {
            file.read_exact_at(&mut piece, range.start)?;
        }
        if Content::of(&file.metadata()?) != content {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a blob changed while it was read"));
        }
        Ok(piece)
    };
    // To hand over what is in memory would take longer than to copy it.
    if at_hand {
        return read();
    }
    in_turn(Box::pin(async { tokio::task::spawn_blocking(read).await.map_err(io::Error::other)? })).await
}

/// Fills `piece` from `offset` if the system has all of it in memory, without waiting for the disk.
#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: &mut [u8], _: u64) -> bool {
    false
}

/// Fills `piece` from `offset` if the system has all of it in memory, without waiting for the disk.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, piece: &mut [u8], offset: u64) -> bool {
    let length = piece.len();
    let read = preadv2(file, &mut [io::IoSliceMut::new(piece)], offset, ReadWriteFlags::NOWAIT);
    read == Ok(length)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_util::TryStreamExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_file_gives_the_same_bytes_as_memory() {
        let bytes: Bytes = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let (memory, file) = (Blob::from(bytes.clone()), Blob::from_file(file).unwrap());
        assert_eq!(file.len(), 800_000);
        assert_eq!(file.clone().read().await.unwrap(), bytes);
        for range in [0..800_000, 0..1, 799_999..800_000, 65_535..65_537, 5..5, 100..131_172] {
            let whole = async |blob: &Blob| {
                let pieces = blob.clone().pieces(range.clone(), || Some(()), |read| read);
                let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
                assert!(pieces.iter().all(|piece| !piece.is_empty()));
                pieces.concat()
            };
            assert_eq!(whole(&file).await, bytes[range.start as usize..range.end as usize], "{range:?}");
            assert_eq!(whole(&memory).await, whole(&file).await, "{range:?}");
        }
    }

    #[tokio::test]
    async fn pieces_get_small_once_their_memory_is_used_up() {
        let bytes = vec![7; 3 * Blob::PIECE as usize];
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let (blob, memory) = (Blob::from_file(file).unwrap(), Arc::new(Semaphore::new(3)));
        let lengths = async || {
            let memory = memory.clone();
            let reserve = move || memory.clone().try_acquire_owned().ok();
            let pieces: Vec<Bytes> =
                blob.clone().pieces(0..blob.len(), reserve, |read| read).try_collect().await.unwrap();
            pieces.iter().map(|piece| piece.len() as u64).collect::<Vec<_>>()
        };
        assert_eq!(lengths().await, [Blob::PIECE; 3]);
        let spent = memory.clone().acquire_many_owned(3).await.unwrap();
        assert_eq!(lengths().await, [SMALL_PIECE; 24]);
        drop(spent);
        assert_eq!(lengths().await, [Blob::PIECE; 3], "dropped pieces give their memory back");
    }

    #[tokio::test]
    async fn what_is_not_at_hand_is_read_in_turn() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(b"on disk", 0).unwrap();
        // Of a file that is open for writing alone, nothing is at hand.
        let blob = Blob::from_file(File::options().write(true).open(file.path()).unwrap()).unwrap();
        let in_turn = |_: DiskRead| -> DiskRead { Box::pin(async { Ok(b"in turn".to_vec()) }) };
        let pieces: Vec<Bytes> = blob.clone().pieces(0..7, || Some(()), in_turn).try_collect().await.unwrap();
        assert_eq!(pieces, ["in turn"]);
        assert!(blob.read().await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_changes_while_it_is_read_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[1; 200_000], 0).unwrap();
        let blob = Blob::from_file(file.reopen().unwrap()).unwrap();
        let mut pieces = Box::pin(blob.clone().pieces(0..200_000, || Some(()), |read| read));
        assert_eq!(pieces.try_next().await.unwrap().unwrap().len() as u64, Blob::PIECE);
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        file.as_file().write_all_at(&[2], 150_000).unwrap();
        // The kernel's clock for files is a coarse one.
        file.as_file().set_modified(modified + std::time::Duration::from_millis(10)).unwrap();
        assert!(pieces.try_next().await.is_err());
        assert!(blob.read().await.is_err());
    }
}
