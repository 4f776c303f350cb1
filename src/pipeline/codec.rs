//! Compresses chunks to zstd frames and back, with reused contexts. The only file that uses zstd.

use std::sync::{Arc, Mutex};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter};

use crate::format::pack::MAX_CHUNK;
use crate::runtime::lock;

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
    Unproven,
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
    prove: bool,
    spare: Arc<Mutex<Vec<Contexts>>>,
}

struct Contexts {
    compress: Compressor<'static>,
    decompress: Decompressor<'static>,
    copy: Vec<u8>,
    frame: Vec<u8>,
}

impl Codec {
    /// Creates a codec with the zstd compression level `level`. With `prove`, each frame is
    /// decompressed and compared with its source.
    #[must_use]
    pub fn new(level: i32, prove: bool) -> Self {
        Self { level, prove, spare: Arc::default() }
    }

    fn with<T>(&self, run: impl FnOnce(&mut Contexts) -> Result<T, CodecError>) -> Result<T, CodecError> {
        let spare = lock(&self.spare).pop();
        let mut contexts = match spare {
            Some(contexts) => contexts,
            None => self.contexts()?,
        };
        let result = run(&mut contexts);
        lock(&self.spare).push(contexts);
        result
    }

    fn contexts(&self) -> Result<Contexts, CodecError> {
        let mut compress = Compressor::new(self.level)?;
        for parameter in
            [CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(true), CParameter::DictIdFlag(false)]
        {
            compress.set_parameter(parameter)?;
        }
        let mut decompress = Decompressor::new()?;
        decompress.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Contexts { compress, decompress, copy: Vec::new(), frame: Vec::new() })
    }

    /// Compresses `plain` to one frame and, if set, verifies that it decodes to `plain`.
    pub fn encode(&self, plain: &[u8]) -> Result<Vec<u8>, CodecError> {
        self.with(|contexts| {
            let Contexts { compress, decompress, copy, frame } = contexts;
            frame.clear();
            frame.reserve_exact(zstd::zstd_safe::compress_bound(plain.len()));
            compress.compress_to_buffer(plain, frame)?;
            if self.prove {
                copy.clear();
                copy.reserve_exact(plain.len());
                decompress.decompress_to_buffer(frame, copy)?;
                if copy != plain {
                    return Err(CodecError::Unproven);
                }
            }
            // Copied to its exact length: zstd's bound is a third more than the frame takes.
            Ok(frame.to_vec())
        })
    }

    /// Decodes a frame into exactly `length` bytes. A frame that holds more or fewer is an error,
    /// and more than `length` bytes are never written.
    pub fn decode(&self, frame: &[u8], length: usize) -> Result<Vec<u8>, CodecError> {
        if length > MAX_CHUNK {
            return Err(CodecError::Length { wanted: MAX_CHUNK, found: length });
        }
        self.with(|contexts| {
            let mut plain = Vec::with_capacity(length);
            let found = contexts.decompress.decompress_to_buffer(frame, &mut plain)?;
            if found == length { Ok(plain) } else { Err(CodecError::Length { wanted: length, found }) }
        })
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codec(level {}, prove {})", self.level, self.prove)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_with_another_length_is_rejected() {
        let codec = Codec::new(3, true);
        let plain = b"kbak ".repeat(10_000);
        let frame = codec.encode(&plain).unwrap();
        assert!(frame.len() < plain.len() / 10);
        assert_eq!(codec.decode(&frame, plain.len()).unwrap(), plain);
        assert!(codec.decode(&frame, plain.len() - 1).is_err());
        assert!(codec.decode(&frame, plain.len() + 1).is_err());
        assert!(codec.decode(&frame, usize::MAX).is_err(), "absurd lengths allocate nothing");
        assert!(codec.decode(&frame[..frame.len() - 1], plain.len()).is_err());
    }
}
