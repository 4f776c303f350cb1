//! Restores the databases of an item, and the objects that belong to none, such as roles.

use std::sync::Arc;

use super::error::{DatabaseStep, ItemError};
use super::job::{DatabaseResult, DatabaseTarget, DatabasesReport, RestoreJob};
use super::streams;
use crate::format::body::{Item, Stream};
use crate::report::event::Meter;
use crate::report::outcome::Outcome;
use crate::source::database::{DatabaseConfig, DatabaseInfo};
use crate::target::database::{
    DatabaseRestore, GlobalsReport, RestoreRecipe, RestoredDatabase, StreamContents, TargetDatabase,
    TargetState, connect,
};

/// Restores an item into a server: roles, then databases, then the settings of all roles. A dump that is
/// damaged or that the server refuses does not stop those after it.
pub(super) async fn restore(
    job: &RestoreJob<'_>,
    item: &Item,
    target: &DatabaseTarget,
    meter: &Arc<Meter>,
) -> Result<DatabasesReport, ItemError> {
    let failed = |step| move |source| ItemError::Database { step, source };
    let server = connect_to(item, target).await?;
    let mut report = DatabasesReport::default();
    let globals = globals_stream(&*server, item);
    if let Some(globals) = globals {
        let mut dump = streams::as_reader(&job.snapshot.read(globals)?, meter.clone());
        let result = server.restore_globals(&mut dump).await.map_err(failed(DatabaseStep::Globals));
        report.globals = Some(unless_run_ends(result)?);
    }
    for (stream, request) in requests(&*server, item, target) {
        let result = unless_run_ends(restore_stream(&*server, &request, job, stream, meter).await)?;
        let (database, stream) = (request.database, stream.name.clone());
        report.databases.push(DatabaseResult { database, stream, result });
    }
    if let (Some(stream), Some(Ok(globals))) = (globals, &mut report.globals) {
        let mut dump = streams::as_reader(&job.snapshot.read(stream)?, meter.clone());
        let settings = server.restore_settings(&mut dump).await.map_err(failed(DatabaseStep::Globals));
        match unless_run_ends(settings)? {
            Ok(not_applied) => globals.not_applied.extend(not_applied),
            Err(error) => report.globals = Some(Err(error)),
        }
    }
    Ok(report)
}

/// Returns the error of a result that concerns more than one part of the item.
fn unless_run_ends<T>(result: Result<T, ItemError>) -> Result<Result<T, ItemError>, ItemError> {
    match result {
        Err(error) if !matches!(error.outcome(), Outcome::Partial | Outcome::Damaged) => Err(error),
        result => Ok(result),
    }
}

/// Returns the databases of an item, each with its stream.
fn requests<'a>(
    server: &dyn RestoreRecipe,
    item: &'a Item,
    target: &DatabaseTarget,
) -> Vec<(&'a Stream, DatabaseRestore)> {
    let infos = item.facts.get("databases").cloned().unwrap_or_default();
    let infos: Vec<DatabaseInfo> = serde_json::from_value(infos).unwrap_or_default();
    let request = |stream: &'a Stream| {
        let contents = server.contents(&stream.name, &stream.format);
        let Some(StreamContents::Database(database)) = contents else { return None };
        let request = DatabaseRestore {
            target: if target.replace { TargetDatabase::Replace } else { TargetDatabase::Create },
            encoding_from: infos.iter().find(|info| info.name == database).cloned(),
            no_owner: target.no_owner,
            database,
        };
        Some((stream, request))
    };
    item.streams.iter().filter_map(request).collect()
}

/// The work of a restore on the databases of an item, and on the objects that belong to none.
#[derive(Debug, Default)]
pub struct DatabasesPreview {
    /// The roles and other objects that belong to no database, if the snapshot holds some.
    pub globals: Option<Result<GlobalsReport, ItemError>>,
    /// The databases.
    pub databases: Vec<DatabasePreview>,
}

/// A database of an item, and what a restore would do with its target.
#[derive(Debug)]
pub struct DatabasePreview {
    /// The database's name.
    pub database: String,
    /// The state of the target, and what the server would refuse of the dump; or the reason why it would not be
    /// restored.
    pub target: Result<(TargetState, RestoredDatabase), ItemError>,
}

/// Looks at the server, and changes nothing. Fails as [`restore`] does.
pub(super) async fn preview(
    job: &RestoreJob<'_>,
    item: &Item,
    target: &DatabaseTarget,
) -> Result<DatabasesPreview, ItemError> {
    let failed = |step| move |source| ItemError::Database { step, source };
    let server = connect_to(item, target).await?;
    // The run counts the bytes, not the preview.
    let meter = Arc::new(Meter::default());
    let mut preview = DatabasesPreview::default();
    let mut roles = None;
    if let Some(globals) = globals_stream(&*server, item) {
        let mut dump = streams::as_reader(&job.snapshot.read(globals)?, meter.clone());
        let foreseen = server.preview_globals(&mut dump).await.map_err(failed(DatabaseStep::Globals));
        preview.globals = Some(unless_run_ends(foreseen)?.map(|foreseen| {
            let report = foreseen.report.clone();
            roles = Some(foreseen);
            report
        }));
    }
    for (stream, request) in requests(&*server, item, target) {
        let step = || failed(DatabaseStep::Dump(request.database.clone()));
        let target = match unless_run_ends(server.preview_database(&request).await.map_err(step()))? {
            Ok(state) => {
                let mut dump = streams::as_reader(&job.snapshot.read(stream)?, meter.clone());
                let contents = server.preview_contents(&request, state, roles.as_ref(), &mut dump).await;
                unless_run_ends(contents.map_err(step()))?.map(|contents| (state, contents))
            }
            Err(error) => Err(error),
        };
        preview.databases.push(DatabasePreview { database: request.database, target });
    }
    Ok(preview)
}

/// Returns the databases that a restore would drop, each with the number of objects in it. Fails as [`restore`]
/// does.
pub(super) async fn dropped(item: &Item, target: &DatabaseTarget) -> Result<Vec<(String, u64)>, ItemError> {
    let server = connect_to(item, target).await?;
    let mut dropped = Vec::new();
    for (_, request) in requests(&*server, item, target) {
        if let Ok(TargetState::Dropped(objects)) = server.preview_database(&request).await {
            dropped.push((request.database, objects));
        }
    }
    Ok(dropped)
}

async fn connect_to(item: &Item, target: &DatabaseTarget) -> Result<Box<dyn RestoreRecipe>, ItemError> {
    let config = DatabaseConfig { name: item.name.clone(), ..target.config.clone() };
    connect(&config).await.map_err(|source| ItemError::Database { step: DatabaseStep::Connect, source })
}

/// Returns the stream of the roles and other objects that belong to no database.
fn globals_stream<'a>(server: &dyn RestoreRecipe, item: &'a Item) -> Option<&'a Stream> {
    let is_globals =
        |stream: &&Stream| server.contents(&stream.name, &stream.format) == Some(StreamContents::Globals);
    item.streams.iter().find(is_globals)
}

async fn restore_stream(
    server: &dyn RestoreRecipe,
    request: &DatabaseRestore,
    job: &RestoreJob<'_>,
    stream: &Stream,
    meter: &Arc<Meter>,
) -> Result<RestoredDatabase, ItemError> {
    let reader = job.snapshot.read(stream)?;
    if request.target == TargetDatabase::Replace {
        // An existing database is dropped only for a dump that is read to its end and not damaged.
        streams::prove(&reader, meter).await?;
    }
    let mut dump = streams::as_reader(&reader, meter.clone());
    server
        .restore_database(request, &mut dump)
        .await
        .map_err(|source| ItemError::Database { step: DatabaseStep::Dump(request.database.clone()), source })
}
