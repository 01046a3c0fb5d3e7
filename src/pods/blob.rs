//! The bytes of a pod on their way out: all at once from memory, or piece by piece from a file, so that a reader that
//! does not read holds a piece and not a pod.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures_util::stream::{self, Stream};

/// Bytes that are read from a file at a time.
const PIECE: u64 = 64 * 1024;

/// The HTML of a stored pod.
#[derive(Clone, Debug)]
pub struct Blob(Source);

#[derive(Clone, Debug)]
enum Source {
    Memory(Bytes),
    File { file: Arc<File>, length: u64 },
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Memory(bytes))
    }
}

impl Blob {
    /// A blob that is all of `file`, which must not change any more.
    ///
    /// # Errors
    ///
    /// The length of the file cannot be found out.
    pub fn from_file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self(Source::File { file: Arc::new(file), length }))
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File { length, .. } => *length,
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
            Source::File { file, length } => read_at(file, 0..length).await,
        }
    }

    /// The bytes in `range`, which must lie within the blob, piece by piece.
    pub fn pieces(self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::try_unfold((self.0, range), async |(source, rest)| {
            if rest.is_empty() {
                return Ok(None);
            }
            let (piece, end) = match &source {
                Source::Memory(bytes) => (bytes.slice(rest.start as usize..rest.end as usize), rest.end),
                Source::File { file, .. } => {
                    let end = rest.end.min(rest.start + PIECE);
                    (read_at(file.clone(), rest.start..end).await?, end)
                }
            };
            Ok(Some((piece, (source, end..rest.end))))
        })
    }
}

async fn read_at(file: Arc<File>, range: Range<u64>) -> io::Result<Bytes> {
    let read = move || {
        let mut piece = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut piece, range.start)?;
        Ok(piece.into())
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_util::TryStreamExt;

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
                let pieces: Vec<Bytes> = blob.clone().pieces(range.clone()).try_collect().await.unwrap();
                assert!(pieces.iter().all(|piece| !piece.is_empty()));
                pieces.concat()
            };
            assert_eq!(whole(&file).await, bytes[range.start as usize..range.end as usize], "{range:?}");
            assert_eq!(whole(&memory).await, whole(&file).await, "{range:?}");
        }
    }
}
