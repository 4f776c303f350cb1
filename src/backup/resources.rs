//! Backs up a cluster's resources: one stream per kind.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::format::body::Gap;
use crate::format::catalog::{CatalogLine, MemberType};
use crate::format::epoch::Sizes;
use crate::format::ids::ObjectHash;
use crate::format::name::Name;
use crate::kubernetes::{Cluster, KindInfo, RecordedSelection};
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::piece::{Piece, StreamMember};
use crate::pipeline::stream::StreamWriter;
use crate::plan::ConsistencyPolicy;
use crate::report::event::Meter;
use crate::runtime::panic_point;
use crate::source::kubernetes::{
    GapReason, KindConsistency, ResourceGap, ResourceSink, ResourcesConfig, ResourcesError, ResourcesReport,
    SinkError, read_resources,
};

use super::boundary::{Boundary, BoundaryChooser};
use super::item::{ItemResult, UnnamedStream};

/// Sizes of the pieces of resource streams. They are cut at line ends, by a hash of (namespace, name).
const SIZES: Sizes = Sizes { min: 256 << 10, average: 512 << 10, max: 1 << 20 };

/// Reads the resources of `cluster` into `domain`.
pub async fn write(
    cluster: &Cluster,
    config: &ResourcesConfig,
    domain: &Arc<DomainWriter>,
    meter: &Arc<Meter>,
) -> Result<ItemResult, ResourcesError> {
    let mut sink = Sink { domain: domain.clone(), open: None, streams: Vec::new() };
    let report = read_resources(cluster, config, &mut sink, domain.context().reporter(), meter).await?;
    let mut finished = ItemResult::new(sink.streams);
    finished.summary = summary(&report);
    finished.fact("revision", &report.revision);
    finished.fact("cluster_uid", &report.cluster_uid);
    finished.fact("server_version", &report.server_version);
    finished.fact("restarts", report.restarts);
    finished.fact("kinds", &report.kinds);
    let kinds = report.kinds.iter().map(|one| &one.kind);
    finished.fact("selection", RecordedSelection::of(&config.selection, kinds));
    finished.fact("computed", &report.computed);
    finished.fact("repeated", &report.repeated);
    let best_effort = config.consistency == ConsistencyPolicy::BestEffort;
    let moments = |gap: &ResourceGap| matches!(gap.reason, GapReason::NotAtRevision { .. });
    let (told, gaps): (Vec<_>, Vec<_>) = report.gaps.into_iter().partition(|gap| best_effort && moments(gap));
    finished.gaps = gaps.iter().map(gap).collect();
    finished.notes = told.iter().chain(&report.notes).map(gap).collect();
    Ok(finished)
}

/// Code of the gap of resources whose cluster did not answer.
pub const UNREACHABLE: &str = "cluster-unreachable";

/// Returns the code of the gap for all resources of a cluster that could not be read.
#[must_use]
pub fn failed(error: &ResourcesError) -> &'static str {
    match error {
        ResourcesError::Api(error) if error.is_transient() => UNREACHABLE,
        _ => "cluster-unreadable",
    }
}

fn gap(gap: &ResourceGap) -> Gap {
    let (code, reason) = (code(&gap.reason).into(), gap.reason.to_string());
    Gap { code, object: Name::from(gap.object.as_str()), reason }
}

fn summary(report: &ResourcesReport) -> String {
    let objects: u64 = report.kinds.iter().map(|kind| kind.objects).sum();
    let apart = report.kinds.iter().filter(|kind| kind.consistency != KindConsistency::AtRevision).count();
    match apart {
        0 => format!("{objects} objects at revision {}", report.revision),
        _ if apart == report.kinds.len() => format!("{objects} objects, each kind at a moment of its own"),
        _ => format!("{objects} objects at revision {}, {apart} kinds of them not", report.revision),
    }
}

fn code(reason: &GapReason) -> &'static str {
    match reason {
        GapReason::Forbidden { .. } => "forbidden",
        GapReason::Unavailable { .. } => "unavailable",
        GapReason::Gone => "gone",
        GapReason::Absent(_) => "absent",
        GapReason::Expired { .. } => "expired",
        GapReason::Stale => "stale",
        GapReason::NotAtRevision { .. } => "not-at-revision",
        GapReason::TooLarge { .. } => "too-large",
        GapReason::TooDeep { .. } => "too-deep",
        GapReason::Malformed(_) => "malformed",
    }
}

/// Receives objects line by line and cuts them into pieces.
struct Sink {
    domain: Arc<DomainWriter>,
    open: Option<Open>,
    streams: Vec<UnnamedStream>,
}

/// The open stream of one kind.
struct Open {
    kind: KindInfo,
    stream: StreamWriter,
    boundaries: BoundaryChooser,
    hash: Sha256,
    piece: Vec<u8>,
    members: Vec<StreamMember>,
    starts_group: bool,
}

impl Open {
    async fn flush(&mut self) -> Result<(), SinkError> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let mut piece = Piece::of_bytes(std::mem::take(&mut self.piece), std::mem::take(&mut self.members));
        piece.starts_group = std::mem::take(&mut self.starts_group);
        Ok(self.stream.push(piece).await?)
    }
}

#[async_trait]
impl ResourceSink for Sink {
    async fn begin(&mut self, kind: &KindInfo) -> Result<(), SinkError> {
        self.open = Some(Open {
            kind: kind.clone(),
            stream: self.domain.stream(),
            boundaries: BoundaryChooser::new(SIZES),
            hash: Sha256::new(),
            piece: Vec::new(),
            members: Vec::new(),
            starts_group: false,
        });
        Ok(())
    }

    async fn object(&mut self, namespace: &str, name: &str, line: Bytes) -> Result<(), SinkError> {
        let open = self.open.as_mut().ok_or("an object outside of its kind")?;
        panic_point("backup.resources.object", &open.kind.plural, &line);
        let path = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        let length = line.len() as u64;
        let boundary = open.boundaries.boundary_before(self.domain.key(), path.as_bytes(), length, 0);
        if boundary > Boundary::None {
            open.flush().await?;
        }
        open.starts_group |= boundary == Boundary::Group;
        let at = i64::try_from(open.piece.len())?;
        let catalog = CatalogLine {
            path: Name(path.into_bytes()),
            kind: MemberType::Object,
            at: 0,
            len: 0,
            size: None,
            mode: None,
            uid: None,
            gid: None,
            mtime: None,
            link: None,
        };
        open.members.push(StreamMember::uncached(at, length, Some(catalog)));
        open.hash.update(&line);
        open.piece.extend_from_slice(&line);
        Ok(())
    }

    async fn end(&mut self) -> Result<(), SinkError> {
        let mut open = self.open.take().ok_or("the end of a kind that has not begun")?;
        open.flush().await?;
        let sha256 = ObjectHash(open.hash.finalize().into());
        let pending = open.stream.finish().await?;
        self.streams.push(UnnamedStream {
            name: open.kind.stream_name(),
            format: "jsonl".into(),
            pending,
            sha256: Some(sha256),
        });
        Ok(())
    }

    async fn discard(&mut self) -> Result<(), SinkError> {
        self.open = None;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.open = None;
        self.streams.clear();
        Ok(())
    }
}
