//! Dumps a database server: one stream per database, and one for its global objects.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::format::body::Gap;
use crate::format::epoch::Parameters;
use crate::format::ids::ObjectHash;
use crate::format::name::Name;
use crate::pipeline::PipelineError;
use crate::pipeline::chunker::ChunkerParams;
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::piece::Piece;
use crate::plan::Glob;
use crate::report::error::causes;
use crate::report::event::Meter;
use crate::report::text::plural;
use crate::source::database::{
    DatabaseConfig, DatabaseError, DumpProof, Omission, PlannedDump, Recipe, SelectedDatabases, connect,
};

use super::item::{ItemResult, UnnamedStream};

/// The reason why a dump is not in the snapshot.
#[derive(Debug, thiserror::Error)]
pub enum DumpFailure {
    /// The database or its tool failed. The item has a gap; the run goes on.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Reading the dump failed. The item has a gap; the run goes on.
    #[error("the dump cannot be read to its end")]
    Read(#[source] std::io::Error),
    /// The store or the pipeline failed. The run ends.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

/// Dumps the databases of a server that match a pattern in `wanted`, or all if it is empty.
pub async fn write(
    config: &DatabaseConfig,
    wanted: &[Glob],
    domain: &Arc<DomainWriter>,
    parameters: &Parameters,
    meter: &Arc<Meter>,
) -> Result<ItemResult, DumpFailure> {
    let server = connect(config).await?;
    let selected = server.select(wanted).await?;
    let databases = &selected.databases;
    meter.add_total(databases.len() as u64);
    meter.add_bytes_total(databases.iter().map(|database| database.size).sum());
    let mut finished = ItemResult::new(Vec::new());
    finished.gaps = undumped(&selected);
    finished.notes = server.omissions().iter().map(gap_of).collect();
    let (mut proofs, mut dumped) = (Vec::new(), 0);
    for planned in server.plan_dumps(databases) {
        match store_dump(&*server, &planned, domain, parameters, meter).await {
            Ok((stream, proof)) => {
                finished.streams.push(stream);
                proofs.push(proof);
                dumped += planned.databases.len() as u64;
            }
            // A database that fails becomes a gap; the others are still dumped.
            Err(DumpFailure::Pipeline(error)) => return Err(error.into()),
            Err(error) => finished.gaps.push(gap("dump-failed", &planned.stream, &causes(&error))),
        }
        meter.add_done(1);
    }
    if databases.is_empty() && finished.gaps.is_empty() {
        let reason = "the server has no database of the names that the plan wants";
        finished.gaps.push(gap("no-database", &config.name, reason));
    }
    finished.summary = match dumped {
        0 => "no database is backed up".to_owned(),
        dumped => format!("{}, dumps proven complete", plural(dumped, "database", "databases")),
    };
    finished.fact("server_version", server.server_version());
    finished.fact("databases", databases);
    finished.fact("proofs", &proofs);
    Ok(finished)
}

/// Returns the gaps of wanted databases that cannot be dumped: those that exist, and those that the
/// plan names and the server lacks, perhaps because they were renamed.
fn undumped(selected: &SelectedDatabases) -> Vec<Gap> {
    let reason = "the server has no database of this name, which the plan wants";
    let absent = selected.absent.iter().map(|name| gap("absent", name, reason));
    selected.omissions.iter().map(gap_of).chain(absent).collect()
}

fn gap_of(omission: &Omission) -> Gap {
    gap(omission.code, &omission.object, &omission.reason)
}

fn gap(code: &str, object: &str, reason: &str) -> Gap {
    Gap { code: code.into(), object: Name::from(object), reason: reason.into() }
}

/// Takes and stores one dump. Returns the stream only with the proof that the dump is complete.
async fn store_dump(
    server: &dyn Recipe,
    planned: &PlannedDump,
    domain: &Arc<DomainWriter>,
    parameters: &Parameters,
    meter: &Arc<Meter>,
) -> Result<(UnnamedStream, DumpProof), DumpFailure> {
    let mut dump = server.start_dump(planned).await?;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let chunk = parameters.chunk;
    let cuts = ChunkerParams::new(size(chunk.min), size(chunk.average), size(chunk.max));
    let mut stream = domain.stream().with_meter(meter.clone());
    let mut hash = Sha256::new();
    let mut buffer = Vec::with_capacity(cuts.max() + 1);
    let mut is_at_end = false;
    while !is_at_end || !buffer.is_empty() {
        while !is_at_end && buffer.len() <= cuts.max() {
            let want = cuts.max() + 1 - buffer.len();
            let read = (&mut dump).take(want as u64).read_buf(&mut buffer).await;
            is_at_end = read.map_err(DumpFailure::Read)? == 0;
        }
        if buffer.is_empty() {
            break;
        }
        let length = cuts.chunk_length(domain.key().gear(), &buffer);
        let rest = buffer.split_off(length);
        let piece = std::mem::replace(&mut buffer, rest);
        hash.update(&piece);
        stream.push(Piece::of_bytes(piece, Vec::new())).await?;
    }
    let proof = dump.finish().await?;
    let pending = stream.finish().await?;
    let sha256 = Some(ObjectHash(hash.finalize().into()));
    let (name, format) = (planned.stream.clone(), planned.format.to_owned());
    Ok((UnnamedStream { name, format, pending, sha256 }, proof))
}
