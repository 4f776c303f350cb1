//! Restores the streams of an opened snapshot into targets: folders, archives, resources.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::format::body::{Item, Stream};
use crate::format::catalog::CatalogLine;
use crate::format::list::Part;
use crate::format::name::Name;
use crate::format::tar::order;
use crate::kubernetes::KindInfo;
use crate::pipeline::ReadError;
use crate::pipeline::reader::StreamReader;
use crate::report::event::Meter;
use crate::repository::read::snapshot::OpenSnapshot;
use crate::source::kubernetes::KindReport;

use super::error::RestoreStreamError;
use crate::target::kubernetes::{ResourceStreams, StreamError};

/// Returns the offset of a member in its stream, and its catalog line.
pub async fn member(reader: &StreamReader, path: &Name) -> Result<Option<(u64, CatalogLine)>, ReadError> {
    let stream = reader.body();
    let mut lines = reader.catalog_from(catalog_start(stream, path.bytes()));
    while let Some(line) = lines.next().await {
        let (at, line) = line?;
        if line.path == *path {
            return Ok(Some((at, line)));
        }
        if is_ordered(stream) && order::compare(line.path.bytes(), path.bytes()).is_gt() {
            break;
        }
    }
    Ok(None)
}

/// Returns the number of the catalog chunk that holds `path`, if any does: the last that begins at or
/// before it. Only folders have a known order; the objects of a kind are in the server's.
pub fn catalog_start(stream: &Stream, path: &[u8]) -> usize {
    if path.is_empty() || !is_ordered(stream) {
        return 0;
    }
    let before =
        |part: &Part| part.first.as_ref().is_none_or(|first| order::compare(first.bytes(), path).is_le());
    stream.catalog.partition_point(before).saturating_sub(1)
}

/// True if the members of a stream are in the order of their paths.
pub(super) fn is_ordered(stream: &Stream) -> bool {
    stream.format == "tar"
}

/// Writes a stream's bytes to `out`.
pub async fn into_writer(
    reader: &StreamReader,
    out: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
) -> Result<(), RestoreStreamError> {
    meter.add_bytes_total(reader.body().length);
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        out.write_all(&piece).await.map_err(RestoreStreamError::Output)?;
        meter.add_bytes(piece.len() as u64);
    }
    out.flush().await.map_err(RestoreStreamError::Output)
}

/// Returns a stream's bytes as a reader, for a database's tool.
pub fn as_reader(reader: &StreamReader, meter: Arc<Meter>) -> impl AsyncRead + Unpin + Send + use<> {
    meter.add_bytes_total(reader.body().length);
    let bytes = reader.bytes().map(move |piece| {
        let piece = piece.map_err(std::io::Error::other)?;
        meter.add_bytes(piece.len() as u64);
        Ok::<_, std::io::Error>(piece)
    });
    tokio_util::io::StreamReader::new(bytes)
}

/// Reads a stream to its end, which proves that all of it is present and intact.
///
/// # Errors
/// [`ReadError`] if it is not, or cannot be read.
pub async fn prove(reader: &StreamReader, meter: &Meter) -> Result<(), ReadError> {
    meter.add_bytes_total(reader.body().length);
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        meter.add_bytes(piece?.len() as u64);
    }
    Ok(())
}

/// The resources of a snapshot, kind by kind.
#[derive(Debug)]
pub struct SnapshotResources {
    kinds: Vec<(KindInfo, StreamReader)>,
}

impl SnapshotResources {
    /// Returns the resources of `item`. Kinds without objects have no stream.
    pub fn new(snapshot: &OpenSnapshot, item: &Item) -> Result<Self, RestoreStreamError> {
        let Some(kinds) = item.facts.get("kinds").cloned() else {
            let why = item.gaps.first().map_or_else(String::new, |gap| gap.reason.clone());
            return Err(RestoreStreamError::NoResources { item: item.name.clone(), why });
        };
        let kinds: Vec<KindReport> = serde_json::from_value(kinds).map_err(RestoreStreamError::Kinds)?;
        let mut found = Vec::new();
        for KindReport { kind, objects, .. } in kinds {
            let name = kind.stream_name();
            match item.streams.iter().find(|stream| stream.name == name) {
                Some(stream) => found.push((kind, snapshot.read(stream)?)),
                None if objects > 0 && item.gaps.is_empty() => {
                    return Err(RestoreStreamError::KindMissing { item: item.name.clone(), stream: name });
                }
                None => {}
            }
        }
        Ok(Self { kinds: found })
    }
}

#[async_trait]
impl ResourceStreams for SnapshotResources {
    fn kinds(&self) -> Vec<KindInfo> {
        self.kinds.iter().map(|(kind, _)| kind.clone()).collect()
    }

    async fn open(&self, kind: &KindInfo) -> Result<BoxStream<'_, Result<Bytes, StreamError>>, StreamError> {
        let (_, reader) =
            self.kinds.iter().find(|(have, _)| have == kind).ok_or("a kind that is not there")?;
        Ok(reader.bytes().map(|piece| piece.map_err(StreamError::from)).boxed())
    }
}

/// Returns the stream of an item that has exactly one.
pub fn only_stream(item: &Item) -> Result<&Stream, RestoreStreamError> {
    match item.streams.as_slice() {
        [stream] => Ok(stream),
        [] => Err(RestoreStreamError::NoData { item: item.name.clone(), state: item.state }),
        several => Err(RestoreStreamError::SeveralStreams { item: item.name.clone(), count: several.len() }),
    }
}
