//! Chunks to zstd frames and back, with contexts that are used again. The only place that names
//! zstd.

use std::sync::{Arc, Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, DParameter};

use crate::format::pack::MAX_CHUNK;

/// The window that stock `zstd -d` accepts without `--long` is larger; kbak promises 2^23.
const WINDOW_LOG: u32 = 23;

/// Why a chunk was not encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// zstd failed.
    #[error("zstd: {0}")]
    Zstd(#[from] std::io::Error),
    /// The frame does not decode to what was encoded: a fault of memory, processor or library.
    /// Nothing of it was stored.
    #[error("a compressed chunk does not decode to its source; this machine's memory or processor is faulty")]
    Unproven,
    /// The frame holds another number of bytes than the list says.
    #[error("a chunk has {found} bytes, not {wanted}")]
    Length {
        /// What the list says.
        wanted: usize,
        /// What the frame holds.
        found: usize,
    },
}

/// Compresses and decompresses; keeps contexts for the next chunk. Cheap to clone.
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
    /// `level` as zstd counts it; `prove` decompresses each frame and compares it with its source.
    #[must_use]
    pub fn new(level: i32, prove: bool) -> Self {
        Self { level, prove, spare: Arc::default() }
    }

    fn with<T>(&self, run: impl FnOnce(&mut Contexts) -> Result<T, CodecError>) -> Result<T, CodecError> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut contexts = match spare {
            Some(contexts) => contexts,
            None => self.contexts()?,
        };
        let result = run(&mut contexts);
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(contexts);
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

    /// One frame of `plain`, proven to decode to it.
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
            // A copy of its own length: the bound that zstd wants is a third more than it takes.
            Ok(frame.to_vec())
        })
    }

    /// Decodes a frame into exactly `length` bytes; a frame that holds more or fewer is an error,
    /// and no more than `length` bytes are ever written.
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
    fn frames_hold_exactly_what_is_listed() {
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
