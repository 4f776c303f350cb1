//! Dumps a database server: one stream per database, and one for its global objects.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::format::body::Gap;
use crate::format::epoch::Parameters;
use crate::format::ids::ObjectHash;
use crate::format::name::Name;
use crate::pipeline::PipelineError;
use crate::pipeline::chunker::Cuts;
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::piece::Piece;
use crate::plan::Glob;
use crate::report::event::Meter;
use crate::report::text::plural;
use crate::source::database::postgres::{Chosen, Postgres};
use crate::source::database::{DatabaseConfig, DatabaseError, Dump, DumpProof};

use super::item::{Finished, StreamDraft};

/// Code of the note on a dump whose roles have no passwords.
pub const NO_PASSWORDS: &str = "no-role-passwords";

/// The reason why a dump is not in the snapshot.
#[derive(Debug, thiserror::Error)]
pub enum DumpFailure {
    /// The database or its tool failed. The item has a gap; the run goes on.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Reading the dump failed. The item has a gap; the run goes on.
    #[error("the dump broke off")]
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
) -> Result<Finished, DumpFailure> {
    let server = Postgres::connect(config).await?;
    let Chosen { open: databases, closed, absent } = server.choose(wanted).await?;
    meter.add_total(databases.len() as u64);
    meter.add_bytes_total(databases.iter().map(|database| database.size).sum());
    let mut finished = Finished::new(Vec::new());
    finished.gaps = undumped(closed, absent);
    if !server.reads_passwords() {
        finished.notes.push(Gap {
            code: NO_PASSWORDS.into(),
            object: Name::from("globals.sql"),
            reason: format!(
                "{} may not read the passwords of roles: they are not in this backup",
                config.user
            ),
        });
    }
    let mut proofs: Vec<DumpProof> = Vec::new();
    let globals = server.dump_globals().map(|dump| ("globals.sql".to_owned(), "sql", dump));
    let dumps = databases.iter().map(|database| {
        let dump = server.dump(&database.name);
        dump.map(|dump| (format!("{}.dump", database.name), "pgdump", dump))
    });
    for dump in std::iter::once(globals).chain(dumps) {
        let name = dump.as_ref().map(|(name, ..)| name.clone()).unwrap_or_default();
        let written = match dump {
            Ok((name, format, dump)) => one(dump, name, format, domain, parameters, meter).await,
            Err(error) => Err(error.into()),
        };
        match written {
            Ok((stream, proof)) => {
                finished.streams.push(stream);
                proofs.push(proof);
            }
            // A database that fails becomes a gap; the others are still dumped.
            Err(DumpFailure::Pipeline(error)) => return Err(error.into()),
            Err(error) => finished.gaps.push(Gap {
                code: "dump-failed".into(),
                object: Name::from(name.as_str()),
                reason: chain(&error),
            }),
        }
        meter.add_done(1);
    }
    if databases.is_empty() && finished.gaps.is_empty() {
        finished.gaps.push(Gap {
            code: "no-database".into(),
            object: Name::from(config.name.as_str()),
            reason: "the server has no database of the names that the plan wants".into(),
        });
    }
    finished.summary = match finished.streams.iter().filter(|stream| stream.format == "pgdump").count() {
        0 => "no database is backed up".to_owned(),
        whole => format!("{}, dumps proven complete", plural(whole as u64, "database", "databases")),
    };
    finished.fact("server_version", server.server_version());
    finished.fact("databases", &databases);
    finished.fact("proofs", &proofs);
    Ok(finished)
}

/// Returns the gaps of wanted databases that cannot be dumped: those that take no connections, and
/// those that the plan names and the server lacks, perhaps because they were renamed.
fn undumped(closed: Vec<String>, absent: Vec<String>) -> Vec<Gap> {
    let gap = |code: &str, reason: &str, name: String| Gap {
        code: code.into(),
        object: Name::from(name.as_str()),
        reason: reason.into(),
    };
    let shut = "it takes no connections (ALTER DATABASE … ALLOW_CONNECTIONS), so it cannot be dumped";
    let closed = closed.into_iter().map(|name| gap("no-connections", shut, name));
    let nowhere = "the server has no database of this name, which the plan wants";
    closed.chain(absent.into_iter().map(|name| gap("absent", nowhere, name))).collect()
}

/// Returns an error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// Stores one dump. Returns the stream only with the proof that the dump is complete.
async fn one(
    mut dump: Dump,
    name: String,
    format: &str,
    domain: &Arc<DomainWriter>,
    parameters: &Parameters,
    meter: &Arc<Meter>,
) -> Result<(StreamDraft, DumpProof), DumpFailure> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let chunk = parameters.chunk;
    let cuts = Cuts::new(size(chunk.min), size(chunk.average), size(chunk.max));
    let mut stream = domain.stream().with_meter(meter.clone());
    let mut hash = Sha256::new();
    let mut buffer = Vec::with_capacity(cuts.max() + 1);
    let mut over = false;
    while !over || !buffer.is_empty() {
        while !over && buffer.len() <= cuts.max() {
            let want = cuts.max() + 1 - buffer.len();
            let read = (&mut dump).take(want as u64).read_buf(&mut buffer).await;
            over = read.map_err(DumpFailure::Read)? == 0;
        }
        if buffer.is_empty() {
            break;
        }
        let length = cuts.find(domain.key().gear(), &buffer);
        let rest = buffer.split_off(length);
        let piece = std::mem::replace(&mut buffer, rest);
        hash.update(&piece);
        stream.push(Piece::of_bytes(piece, Vec::new())).await?;
    }
    let proof = dump.finish().await?;
    let pending = stream.finish().await?;
    let sha256 = Some(ObjectHash(hash.finalize().into()));
    Ok((StreamDraft { name, format: format.to_owned(), pending, sha256 }, proof))
}
