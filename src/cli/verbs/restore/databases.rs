//! Restores the databases of an item and the objects that belong to none, such as roles.

use std::sync::Arc;

use super::RestoreArgs;
use super::targets::Done;
use crate::cli::failure::{Exit, Failure, reading_outcome};
use crate::cli::options::{reading::OpenedSnapshot, sources};
use crate::format::body::{Item, Stream};
use crate::report::error::causes;
use crate::report::event::Meter;
use crate::report::run::GapReport;
use crate::report::text::plural;
use crate::restore::streams;
use crate::source::database::{DatabaseError, DatabaseInfo};
use crate::target::database::{
    DatabaseRestore, GlobalsReport, RestoreRecipe, StreamContents, TargetDatabase, connect,
};

/// Restores an item into the server of `--database`.
pub(crate) async fn restore(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    item: &Item,
    meter: &Arc<Meter>,
) -> Result<Done, Failure> {
    let failed = |what: &str, error: DatabaseError| {
        let exit = if error.is_unreachable() { Exit::Unreachable } else { Exit::Usage };
        Failure::new(reading_outcome(&error).unwrap_or(exit), what).because(error)
    };
    let (mut config, _) = sources::parse_server_url(args.database.as_deref().unwrap_or_default())?;
    config.name.clone_from(&item.name);
    config.password_file.clone_from(&args.database_password_file);
    config.password = sources::environment_password(config.engine, &args.database_password_file);
    let server =
        connect(&config).await.map_err(|error| failed("the server of --database cannot be used", error))?;
    let (mut gaps, mut roles) = (Vec::new(), String::new());
    let contents = |stream: &Stream| server.contents(&stream.name, &stream.format);
    let is_globals = |stream: &&Stream| contents(stream) == Some(StreamContents::Globals);
    if let Some(globals) = item.streams.iter().find(is_globals) {
        let mut dump = streams::as_reader(&opened.snapshot.read(globals)?, meter.clone());
        let report = server
            .restore_globals(&mut dump)
            .await
            .map_err(|error| failed("the roles cannot be restored", error))?;
        roles = describe_roles(&report);
        gaps.extend(globals_gaps(report));
    }
    let infos = item.facts.get("databases").cloned().unwrap_or_default();
    let infos: Vec<DatabaseInfo> = serde_json::from_value(infos).unwrap_or_default();
    let (mut restored, mut damaged, mut remedy) = (0u64, false, None);
    for stream in &item.streams {
        let Some(StreamContents::Database(database)) = contents(stream) else { continue };
        let wanted = DatabaseRestore {
            target: if args.replace_databases { TargetDatabase::Replace } else { TargetDatabase::Create },
            encoding_from: infos.iter().find(|info| info.name == database).cloned(),
            no_owner: args.no_owner,
            database,
        };
        match restore_stream(&*server, &wanted, opened, stream, meter).await {
            Ok(not_applied) => {
                restored += 1;
                gaps.extend(not_applied);
            }
            Err(failure) if matches!(failure.exit, Exit::Partial | Exit::Damaged) => {
                damaged |= failure.exit == Exit::Damaged;
                let (code, object) = ("not-restored".into(), stream.name.clone());
                gaps.push(GapReport { code, object, reason: causes(&failure) });
                remedy = remedy.or(failure.remedy);
            }
            Err(failure) => return Err(failure),
        }
    }
    let summary = format!("{} restored{roles}", plural(restored, "database", "databases"));
    let mut done = Done::new(item, summary, gaps);
    done.damaged = damaged;
    done.remedy = remedy.or(done.remedy);
    Ok(done)
}

/// Restores one database. Returns the gaps of its properties.
async fn restore_stream(
    server: &dyn RestoreRecipe,
    wanted: &DatabaseRestore,
    opened: &OpenedSnapshot,
    stream: &Stream,
    meter: &Arc<Meter>,
) -> Result<Vec<GapReport>, Failure> {
    let reader = opened.snapshot.read(stream)?;
    if wanted.target == TargetDatabase::Replace {
        // An existing database is dropped only for a dump that is read to its end and not damaged.
        streams::prove(&reader, meter).await?;
    }
    let mut dump = streams::as_reader(&reader, meter.clone());
    match server.restore_database(wanted, &mut dump).await {
        Ok(restored) => Ok(restored
            .not_applied
            .into_iter()
            .map(|one| gap(wanted.database.clone(), format!("{}: {}", one.property, one.reason)))
            .collect()),
        Err(error) => {
            let exit = reading_outcome(&error).unwrap_or(Exit::Partial);
            let failure = Failure::new(exit, format!("{} is not restored", wanted.database));
            let failure = match &error {
                DatabaseError::NotEmpty { .. } => {
                    failure.remedy("an existing database is replaced only with --replace-databases")
                }
                _ if exit == Exit::Damaged => failure.remedy(
                    "drop the incomplete database; kbak verify --read-all lists the intact snapshots",
                ),
                _ => failure,
            };
            Err(failure.because(error))
        }
    }
}

/// Describes the result for roles as the end of a line. Existing roles keep their passwords and settings,
/// whatever the backup says of them.
fn describe_roles(report: &GlobalsReport) -> String {
    let mut text = String::new();
    if !report.created.is_empty() {
        text.push_str(&format!(", {} created", plural(report.created.len() as u64, "role", "roles")));
    }
    if !report.existed.is_empty() {
        text.push_str(&format!("; existing roles kept, with their settings: {}", report.existed.join(", ")));
    }
    text
}

/// Returns the gaps of roles. An existing role that is kept has no gap.
fn globals_gaps(report: GlobalsReport) -> Vec<GapReport> {
    let refused = report.refused.into_iter().map(|(words, times)| {
        let times = plural(times, "statement", "statements");
        gap(words, format!("{times} of the backup's globals.sql that kbak does not run"))
    });
    let not_applied = report.not_applied.into_iter().map(|one| gap(one.property, one.reason));
    refused.chain(not_applied).collect()
}

fn gap(object: String, reason: String) -> GapReport {
    GapReport { code: "not-applied".into(), object, reason }
}
