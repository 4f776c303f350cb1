//! Stores a folder as one stream: walks, groups, compares with the last run, reads changed members.

mod findings;
mod groups;
mod large_file;
mod piece;
mod piece_builder;
mod scan_cache;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use findings::CountByCode;
use findings::VolumeFindings;
use piece::VolumeContext;
use piece_builder::PieceBuilder;
pub use scan_cache::ScanCacheReader;

use crate::format::body::Gap;
use crate::format::epoch::Parameters;
use crate::pipeline::PipelineError;
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::stream::PendingStream;
use crate::report::event::Meter;
use crate::source::volume::VolumeReader;

/// A volume's stream and its gaps and notes.
#[derive(Debug)]
pub struct WrittenVolume {
    /// The stream of tar members.
    pub stream: PendingStream,
    /// Entries that could not be stored.
    pub gaps: Vec<Gap>,
    /// Entries left out by rule.
    pub notes: Vec<Gap>,
    /// Number of entries left out, by code.
    pub left_out: CountByCode,
}

/// Stores a volume as one stream in `domain`.
pub async fn write(
    volume: VolumeReader,
    domain: &Arc<DomainWriter>,
    parameters: &Parameters,
    scan_cache: ScanCacheReader,
    meter: Arc<Meter>,
) -> Result<WrittenVolume, PipelineError> {
    let findings = VolumeFindings::default();
    let key = domain.key().clone();
    let context = VolumeContext {
        key: key.clone(),
        volume: volume.with_digest(move |seen| key.member(seen)),
        findings: findings.clone(),
        meter,
    };
    let (sender, mut groups) = mpsc::channel(1);
    let workers = domain.context().runtime().workers;
    let walk = groups::send_groups(context.clone(), parameters.segment, sender, workers);
    let mut builder = PieceBuilder::new(context, domain.clone(), parameters, scan_cache);
    // This future owns the receiver. When it ends early, the walk finds the channel closed and ends too.
    let build = async move {
        while let Some(group) = groups.recv().await {
            builder.add_group(group).await?;
        }
        builder.end().await
    };
    let ((), stream) = futures::join!(walk, build);
    let (gaps, notes, left_out) = findings.finish();
    Ok(WrittenVolume { stream: stream?, gaps, notes, left_out })
}
