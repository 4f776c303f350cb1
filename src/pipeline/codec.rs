//! Compresses chunks to zstd frames and back, with reused contexts. The only file that uses zstd.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter};

use crate::format::pack::MAX_CHUNK;
use crate::runtime::{Buffer, BufferPool, lock};

/// The log2 of the largest window, 8 MiB. Stock `zstd -d` accepts larger ones without
/// `--long`; kbak promises 2^23.
const WINDOW_LOG: u32 = 23;

/// An error while encoding or decoding a chunk.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// zstd failed.
    #[error("zstd: {0}")]
    Zstd(#[from] std::io::Error),
    /// The frame does not decode to its source: a fault of memory, processor or library. Nothing
    /// of it was stored.
    #[error("a compressed chunk does not decode to its source; this machine's memory or processor is faulty")]
    VerifyFailed,
    /// The frame holds another number of bytes than the list says.
    #[error("a chunk has {found} bytes, not {wanted}")]
    Length {
        /// The number of bytes in the list.
        wanted: usize,
        /// The number of bytes in the frame.
        found: usize,
    },
}

/// Compresses and decompresses chunks, and reuses its contexts. Cheap to clone.
#[derive(Clone)]
pub struct Codec {
    level: i32,
    verify: bool,
    buffers: BufferPool,
    contexts: Arc<(Mutex<ContextStock>, Condvar)>,
}

/// The contexts that exist: at most one for each processor. More would only divide its caches.
struct ContextStock {
    spare: Vec<Contexts>,
    left: usize,
}

/// Returns contexts to the stock, also if their user panics: otherwise others wait for ever.
struct BorrowedContexts<'a> {
    contexts: Option<Contexts>,
    owner: &'a (Mutex<ContextStock>, Condvar),
}

impl Drop for BorrowedContexts<'_> {
    fn drop(&mut self) {
        let mut stock = lock(&self.owner.0);
        stock.spare.extend(self.contexts.take());
        stock.left += 1;
        drop(stock);
        self.owner.1.notify_one();
    }
}

struct Contexts {
    compress: Compressor<'static>,
    decompress: Decompressor<'static>,
    copy: Vec<u8>,
}

impl Codec {
    /// Creates a codec with the zstd compression level `level`, whose results are in buffers of `buffers`.
    /// With `verify`, each frame is decompressed and compared with its source.
    #[must_use]
    pub fn new(level: i32, verify: bool, buffers: BufferPool) -> Self {
        let left = std::thread::available_parallelism().map_or(2, usize::from);
        let stock = ContextStock { spare: Vec::new(), left };
        Self { level, verify, buffers, contexts: Arc::new((Mutex::new(stock), Condvar::new())) }
    }

    /// Runs `run` with contexts, and waits while all are in use: each user computes, and waits for nothing.
    fn with_contexts<T>(
        &self,
        run: impl FnOnce(&mut Contexts) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        let (stock, returned) = &*self.contexts;
        let contexts = {
            let mut stock = lock(stock);
            while stock.left == 0 {
                stock = returned.wait(stock).unwrap_or_else(PoisonError::into_inner);
            }
            stock.left -= 1;
            stock.spare.pop()
        };
        let mut borrowed = BorrowedContexts { contexts, owner: &self.contexts };
        let contexts = match borrowed.contexts.take() {
            Some(contexts) => contexts,
            None => self.create_contexts()?,
        };
        run(borrowed.contexts.insert(contexts))
    }

    fn create_contexts(&self) -> Result<Contexts, CodecError> {
        let mut compress = Compressor::new(self.level)?;
        for parameter in
            [CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(true), CParameter::DictIdFlag(false)]
        {
            compress.set_parameter(parameter)?;
        }
        let mut decompress = Decompressor::new()?;
        decompress.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Contexts { compress, decompress, copy: Vec::new() })
    }

    /// Compresses `plain` to one frame and, if set, verifies that it decodes to `plain`.
    pub fn encode(&self, plain: &[u8]) -> Result<Buffer, CodecError> {
        self.with_contexts(|Contexts { compress, decompress, copy }| {
            // The kernel provides memory when it is written: a frame takes what it is long, not zstd's bound.
            let mut frame = self.buffers.take(zstd::zstd_safe::compress_bound(plain.len()));
            compress.compress_to_buffer(plain, &mut *frame)?;
            if self.verify {
                copy.clear();
                copy.reserve_exact(plain.len());
                decompress.decompress_to_buffer(&frame, copy)?;
                if copy != plain {
                    return Err(CodecError::VerifyFailed);
                }
            }
            Ok(frame)
        })
    }

    /// Decodes a frame into exactly `length` bytes. A frame that holds more or fewer is an error,
    /// and nothing is written past the buffer for `length` bytes.
    pub fn decode(&self, frame: &[u8], length: usize) -> Result<Buffer, CodecError> {
        if length > MAX_CHUNK {
            return Err(CodecError::Length { wanted: MAX_CHUNK, found: length });
        }
        self.with_contexts(|contexts| {
            let mut plain = self.buffers.take(length);
            let found = contexts.decompress.decompress_to_buffer(frame, &mut *plain)?;
            if found == length { Ok(plain) } else { Err(CodecError::Length { wanted: length, found }) }
        })
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codec(level {}, verify {})", self.level, self.verify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_with_another_length_is_rejected() {
        let codec = Codec::new(3, true, BufferPool::new(0));
        let plain = b"kbak ".repeat(10_000);
        let frame = codec.encode(&plain).unwrap();
        assert!(frame.len() < plain.len() / 10);
        assert_eq!(*codec.decode(&frame, plain.len()).unwrap(), plain);
        assert!(codec.decode(&frame, plain.len() - 1).is_err());
        assert!(codec.decode(&frame, plain.len() + 1).is_err());
        assert!(codec.decode(&frame, usize::MAX).is_err(), "absurd lengths allocate nothing");
        assert!(codec.decode(&frame[..frame.len() - 1], plain.len()).is_err());
    }
}
