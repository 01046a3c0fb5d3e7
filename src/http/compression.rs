//! Pods with `Content-Encoding: gzip` (RFC 9110, section 8.4.1.3): those that were asked for lately are kept compressed
//! in memory.
//!
//! A pod is compressed aside, one pod at a time, while whoever asked for it gets it as it is. So no answer waits for
//! the compressor, and what it may cost is bounded: one core, and `pods.compression_memory` bytes.

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use bytesize::ByteSize;
use flate2::{Compression as Level, write::GzEncoder};
use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use salvo::http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::PodSettings,
    pods::{Blob, Digest},
};

/// A smaller pod is few packets either way.
const SMALLEST: u64 = 4 * 1024;

/// Compressed pods.
pub struct Compression {
    /// Nothing stands for a pod that compressing makes hardly smaller.
    pods: Cache<Digest, Option<Bytes>, Weight>,
    /// A larger pod is sent as it is.
    largest: u64,
    /// Bytes that may yet be taken: by pods that are kept, that are kept no more but still on their way out, and by the
    /// one that is being compressed.
    memory: Arc<Semaphore>,
    turn: Arc<Semaphore>,
    /// `pods.compression_memory`.
    setting: ByteSize,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Digest, Option<Bytes>> for Weight {
    fn weight(&self, _: &Digest, pod: &Option<Bytes>) -> u64 {
        (size_of::<Digest>() + pod.as_ref().map_or(0, Bytes::len)) as u64
    }
}

/// A compressed pod; what it takes of the memory is free again once nobody reads it any more.
struct Held {
    bytes: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Compression {
    pub fn new(settings: &PodSettings) -> Self {
        let memory = settings.compression_memory.as_u64();
        let options = OptionsBuilder::new()
            // The weight is that of a shard, and there is one: a pod may take half of it.
            .shards(1)
            .estimated_items_capacity(64)
            .weight_capacity(memory / 2)
            .build()
            .expect("both capacities are given");
        Self {
            pods: Cache::with_options(options, Weight, Default::default(), DefaultLifecycle::default()),
            largest: (memory / 4).min(u64::from(u32::MAX / 2)),
            memory: Arc::new(Semaphore::new(memory as usize)),
            turn: Arc::new(Semaphore::new(1)),
            setting: settings.compression_memory,
        }
    }

    /// Whether it is as `settings` ask for.
    pub fn fits(&self, settings: &PodSettings) -> bool {
        self.setting == settings.compression_memory
    }

    /// A pod in compressed form, if that is at hand.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        self.pods.get(digest).flatten()
    }

    /// Compresses a pod for those who will ask for it later, unless another one is being compressed.
    pub fn begin(self: &Arc<Self>, digest: Digest, blob: &Blob) {
        if !(SMALLEST..=self.largest).contains(&blob.len()) {
            return;
        }
        let Ok(turn) = self.turn.clone().try_acquire_owned() else { return };
        if self.pods.contains_key(&digest) {
            return;
        }
        let (this, blob) = (self.clone(), blob.clone());
        tokio::spawn(async move {
            let _turn = turn;
            if let Err(error) = this.compress(digest, blob).await {
                tracing::warn!(%error, %digest, "a pod could not be compressed, it is sent as it is");
            }
        });
    }

    async fn compress(&self, digest: Digest, blob: Blob) -> io::Result<()> {
        // The pod itself, and what comes out.
        let most = 2 * blob.len() as u32;
        let Ok(mut memory) = self.memory.clone().try_acquire_many_owned(most) else { return Ok(()) };
        let blob = blob.read().await?;
        let length = blob.len();
        let bytes = tokio::task::spawn_blocking(move || gzip(&blob)).await??;
        let pod = (bytes.len() < length / 10 * 9).then(|| {
            let memory = memory.split(bytes.len()).expect("it is less than the pod");
            Bytes::from_owner(Held { bytes, _memory: memory })
        });
        self.pods.insert(digest, pod);
        Ok(())
    }
}

fn gzip(blob: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::default());
    encoder.write_all(blob)?;
    let mut bytes = encoder.finish()?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3). One that takes "anything" is not sent it: it may be a
/// program that cannot read it.
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip") && !is_zero(parameters)
    })
}

/// Whether the parameters are `q=0`, the way to say no.
fn is_zero(parameters: &str) -> bool {
    let weight = parameters.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.trim().strip_prefix('='));
    weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use salvo::http::HeaderValue;

    use super::*;

    fn compression(memory: u64) -> Arc<Compression> {
        let memory = ByteSize::b(memory);
        Arc::new(Compression::new(&PodSettings { compression_memory: memory, ..PodSettings::default() }))
    }

    /// Text of `length` bytes that gets smaller, another one for each `number`.
    fn text(number: u64, length: usize) -> Vec<u8> {
        let words = (number..).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string());
        words.flat_map(String::into_bytes).take(length).collect()
    }

    async fn compress(compression: &Compression, blob: &[u8]) -> Option<Bytes> {
        let digest = Digest::of(blob);
        compression.compress(digest, Bytes::copy_from_slice(blob).into()).await.unwrap();
        compression.get(&digest)
    }

    #[tokio::test]
    async fn what_is_kept_is_the_pod() {
        let blob = text(1, 100_000);
        let kept = compress(&compression(1 << 20), &blob).await.unwrap();
        let mut plain = Vec::new();
        GzDecoder::new(&kept[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == blob && kept.len() < blob.len() * 6 / 10, "{} bytes", kept.len());
    }

    #[tokio::test]
    async fn what_gets_no_smaller_is_sent_as_it_is_and_not_tried_again() {
        let compression = compression(1 << 20);
        let blob = gzip(&text(1, 100_000)).unwrap();
        assert_eq!(compress(&compression, &blob).await, None);
        assert!(compression.pods.contains_key(&Digest::of(&blob)));
        assert_eq!(compression.memory.available_permits(), 1 << 20);
    }

    #[tokio::test]
    async fn pods_in_the_cache_and_on_their_way_out_stay_within_the_memory() {
        let memory = 1 << 20;
        let compression = compression(memory);
        let (mut on_their_way, mut kept) = (Vec::new(), 0);
        for number in 0..60 {
            let pod = compress(&compression, &text(number, 100_000)).await;
            kept += usize::from(pod.is_some());
            on_their_way.extend(pod);
            let taken = on_their_way.iter().map(Bytes::len).sum::<usize>();
            assert!(taken + compression.memory.available_permits() <= memory as usize, "{taken} bytes");
        }
        assert!(kept > 15 && kept < 60, "{kept} pods were compressed");
        drop(on_their_way);
        assert!(compress(&compression, &text(60, 100_000)).await.is_some());
        let cached = memory as usize - compression.memory.available_permits();
        assert!(cached <= memory as usize / 2, "{cached} bytes are cached");
    }

    #[tokio::test]
    async fn small_pods_and_large_ones_are_left_alone() {
        let at = |memory, length| {
            let compression = compression(memory);
            compression.begin(Digest([0; 32]), &Bytes::from(vec![b'x'; length]).into());
            compression.turn.available_permits() == 0
        };
        assert!(at(1 << 20, 4096) && at(1 << 20, 1 << 18));
        assert!(!at(1 << 20, 4095) && !at(1 << 20, (1 << 18) + 1));
        assert!(at(16 << 10, 4096) && !at((16 << 10) - 1, 4096), "little memory turns it off");
    }

    #[test]
    fn accepted_codings() {
        for (fields, expected) in [
            (&["gzip"][..], true),
            (&["gzip, deflate, br, zstd"], true),
            (&["br;q=1.0, GZIP;q=0.5"], true),
            (&["br", "gzip"], true),
            (&["gzip ; q=0.001"], true),
            (&["gzip;q=0"], false),
            (&["gzip; Q = 0.000"], false),
            (&["*"], false),
            (&["identity"], false),
            (&["gzipped"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(field));
            }
            assert_eq!(is_accepted(&headers), expected, "{fields:?}");
        }
    }
}
