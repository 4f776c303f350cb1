//! The objects of a kind in a snapshot, one after the other.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::{CompareError, Result};
use crate::format::{catalog::CatalogLine, name::Name};
use crate::pipeline::reader::StreamReader;

/// Reads the objects of a stream along its catalog.
pub struct SnapshotObjects {
    pieces: BoxStream<'static, Result<Bytes>>,
    lines: BoxStream<'static, Result<CatalogLine>>,
    held: BytesMut,
}

impl SnapshotObjects {
    /// Starts at the stream's beginning.
    #[must_use]
    pub fn new(reader: &StreamReader) -> Self {
        let pieces = reader.bytes().map(|piece| piece.map_err(CompareError::from)).boxed();
        let lines = reader.catalog().map(|line| Ok(line.map_err(CompareError::from)?.1)).boxed();
        Self { pieces, lines, held: BytesMut::new() }
    }

    /// Returns the next object: its path and its bytes. Fails if the stream cannot be read, or if its catalog
    /// contradicts it.
    pub async fn next(&mut self) -> Result<Option<(Name, Bytes)>> {
        let Some(line) = self.lines.next().await.transpose()? else { return Ok(None) };
        let length = usize::try_from(line.len).unwrap_or(usize::MAX);
        while self.held.len() < length {
            let Some(piece) = self.pieces.next().await else {
                return Err(CompareError::Catalog("the catalog names objects past the end of their stream"));
            };
            self.held.extend_from_slice(&piece?);
        }
        Ok(Some((line.path, self.held.split_to(length).freeze())))
    }
}
