//! Restores PostgreSQL archives through `pg_restore`, and roles through statements of known shapes.
//!
//! An archive holds SQL that runs with the rights of the user who restores. Its author can do in the
//! target all that this user can (a superuser's `COPY … PROGRAM` included). That is in the nature of
//! the format; kbak adds the proof that the bytes are those that the writer signed. Roles are plain
//! SQL and are never piped to `psql` unchanged: see `split_globals`.

mod preview;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    DatabaseRestore, DumpReader, GlobalsReport, NotApplied, RestoreRecipe, RestoredDatabase, StreamContents,
    TargetDatabase, TargetState,
};
use crate::source::database::postgres::archive::{ArchiveError, ArchiveScanner, DatabaseStatements};
use crate::source::database::postgres::client::{connection, start};
use crate::source::database::postgres::globals::{GlobalStatement, split_globals};
use crate::source::database::postgres::properties::{Property, database_properties};
use crate::source::database::postgres::tokens::{quote_identifier, quote_literal};
use crate::source::database::postgres::{
    ARCHIVE_ENDING, ARCHIVE_FORMAT, GLOBALS_STREAM, PSQL_OPTIONS, Postgres,
};
use crate::source::database::tool::Tool;
use crate::source::database::{DatabaseError, DatabaseInfo};

/// The longest text of roles that is read, in bytes: some 50,000 roles.
const MAX_GLOBALS: u64 = 16 << 20;
/// The number of bytes that are written to `pg_restore` at once.
const WRITE_SIZE: usize = 256 << 10;

#[async_trait]
impl RestoreRecipe for Postgres {
    fn contents(&self, stream: &str, format: &str) -> Option<StreamContents> {
        if stream == GLOBALS_STREAM {
            return Some(StreamContents::Globals);
        }
        let name = stream.strip_suffix(ARCHIVE_ENDING).unwrap_or(stream);
        (format == ARCHIVE_FORMAT).then(|| StreamContents::Database(name.to_owned()))
    }

    /// Creates the roles that do not exist, and grants the memberships. New roles also get their
    /// settings, comments and rights; existing ones keep theirs.
    async fn restore_globals(&self, dump: &mut DumpReader<'_>) -> Result<GlobalsReport, DatabaseError> {
        let failed = |source| self.config.io_error("read the roles of the backup", source);
        let mut text = String::new();
        dump.take(MAX_GLOBALS + 1).read_to_string(&mut text).await.map_err(failed)?;
        if text.len() as u64 > MAX_GLOBALS {
            return Err(failed(std::io::Error::other(format!("they are longer than {MAX_GLOBALS} bytes"))));
        }
        let globals = split_globals(&text);
        let maintenance = &self.config.maintenance_database;
        let roles = "SELECT coalesce(json_agg(rolname), '[]') FROM pg_catalog.pg_roles";
        let known: Vec<String> = self.query(maintenance, roles).await?;
        let mut report = GlobalsReport { refused: globals.refused, ..GlobalsReport::default() };
        let mut script = String::new();
        for GlobalStatement { role, creates_role, sql } in &globals.statements {
            let exists = known.contains(role);
            if *creates_role {
                let roles = if exists { &mut report.existed } else { &mut report.created };
                roles.push(role.clone());
            }
            if !exists || sql.starts_with("GRANT") {
                script.push_str(sql);
                script.push('\n');
            }
        }
        if !script.is_empty() {
            run_script(self, maintenance, &script).await?;
        }
        let new = globals.properties.iter().filter(|(role, _)| !known.contains(role));
        let new: Vec<&Property> = new.map(|(_, property)| property).collect();
        report.not_applied = apply(self, &new).await?;
        Ok(report)
    }

    async fn restore_database(
        &self,
        request: &DatabaseRestore,
        dump: &mut DumpReader<'_>,
    ) -> Result<RestoredDatabase, DatabaseError> {
        prepare(self, request).await?;
        let dbname = connection(&request.database);
        let mut arguments = vec!["--exit-on-error", "--no-password", "--dbname", &dbname];
        if request.no_owner {
            arguments.extend(["--no-owner", "--no-privileges"]);
        }
        let mut tool = start(&self.config, &self.tools, "pg_restore", arguments, true)?;
        let mut scanner = ArchiveScanner::default();
        let written = write_archive(self, &request.database, &mut tool, dump, &mut scanner).await?;
        tool.wait_success().await?;
        written.map_err(|source| {
            self.config.io_error(format!("write the archive of {} to pg_restore", request.database), source)
        })?;
        let statements = scanner.take_database_statements();
        let is_verified_complete = match scanner.finish() {
            Ok(_) => true,
            Err(ArchiveError::UnknownVersion(..)) => false,
            Err(error) => {
                return Err(DatabaseError::IncompleteDump {
                    name: self.config.name.clone(),
                    database: request.database.clone(),
                    problem: error.to_string(),
                });
            }
        };
        let not_applied = if is_verified_complete {
            apply_properties(self, request, &statements).await?
        } else {
            vec![NotApplied {
                property: "owner, rights, limits, settings and comment of the database".into(),
                reason: "the archive's format is newer than this version of kbak knows".into(),
            }]
        };
        Ok(RestoredDatabase { is_verified_complete, not_applied })
    }

    async fn preview_database(&self, request: &DatabaseRestore) -> Result<TargetState, DatabaseError> {
        preview::database(self, request).await
    }

    /// Counts tables, views, sequences and foreign tables.
    async fn count_objects(&self, database: &str) -> Result<u64, DatabaseError> {
        let question = "SELECT to_json(count(*)) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
             ON n.oid = c.relnamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') \
             AND n.nspname !~ '^pg_(toast|temp)' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')";
        self.query(database, question).await
    }
}

/// Applies the archive's properties to the database: `pg_restore` does that only for one that it
/// created. This comes last, because a limit or a setting may block the data.
async fn apply_properties(
    server: &Postgres,
    request: &DatabaseRestore,
    statements: &DatabaseStatements,
) -> Result<Vec<NotApplied>, DatabaseError> {
    let properties = database_properties(&statements.statements, &request.database);
    let owner = statements.owner.iter().map(|owner| Property {
        description: format!("its owner {owner}"),
        changes_rights: true,
        sql: format!(
            "ALTER DATABASE {} OWNER TO {};",
            quote_identifier(&request.database),
            quote_identifier(owner)
        ),
    });
    let all: Vec<Property> = owner.chain(properties.known).collect();
    let kept = all.iter().filter(|property| !(property.changes_rights && request.no_owner));
    let mut not_applied = apply(server, &kept.collect::<Vec<_>>()).await?;
    not_applied.extend(properties.refused.into_iter().map(|property| NotApplied {
        property,
        reason: "kbak does not restore this; it is in the archive".into(),
    }));
    Ok(not_applied)
}

/// Writes the archive to the tool and closes its input. Returns the tool's end of the pipe as an inner
/// error: a tool that ends early gives a better reason itself.
async fn write_archive(
    server: &Postgres,
    database: &str,
    tool: &mut Tool,
    archive: &mut DumpReader<'_>,
    scanner: &mut ArchiveScanner,
) -> Result<std::io::Result<()>, DatabaseError> {
    let Some(mut stdin) = tool.stdin() else { return Ok(Ok(())) };
    let mut buffer = vec![0; WRITE_SIZE];
    loop {
        let read = archive.read(&mut buffer).await;
        let count =
            read.map_err(|source| server.config.io_error(format!("read the archive of {database}"), source))?;
        if count == 0 {
            return Ok(stdin.shutdown().await);
        }
        scanner.feed(&buffer[..count]);
        // Building an index may take longer than anything else; meanwhile the tool reads nothing.
        match tokio::time::timeout(tool.idle_timeout(), stdin.write_all(&buffer[..count])).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => return Err(tool.timeout_error()),
        }
    }
}

/// Returns the database for queries and statements about the target database.
fn maintenance_database<'a>(server: &'a Postgres, request: &DatabaseRestore) -> &'a str {
    match server.config.maintenance_database.as_str() {
        // A session cannot drop the database that it is connected to.
        same if same == request.database && same == "template1" => "postgres",
        same if same == request.database => "template1",
        other => other,
    }
}

/// Prepares the target database as requested, or refuses.
async fn prepare(server: &Postgres, request: &DatabaseRestore) -> Result<(), DatabaseError> {
    let maintenance = maintenance_database(server, request);
    // One element if the database exists: true if it is a template.
    let question = format!(
        "SELECT coalesce(json_agg(datistemplate), '[]') FROM pg_catalog.pg_database WHERE datname = {}",
        quote_literal(&request.database)
    );
    let found: Vec<bool> = server.query(maintenance, &question).await?;
    let exists = !found.is_empty();
    let name = quote_identifier(&request.database);
    if exists && request.target != TargetDatabase::Replace {
        let objects = server.count_objects(&request.database).await?;
        if objects > 0 {
            let (name, database) = (server.config.name.clone(), request.database.clone());
            return Err(DatabaseError::NotEmpty { name, database, objects });
        }
        return Ok(());
    }
    if exists {
        if found.contains(&true) {
            // A template cannot be dropped.
            run(server, maintenance, &format!("ALTER DATABASE {name} IS_TEMPLATE false")).await?;
        }
        let force = if server.server_major >= 13 { " WITH (FORCE)" } else { "" };
        run(server, maintenance, &format!("DROP DATABASE {name}{force}")).await?;
    }
    let encoding = request.encoding_from.as_ref().and_then(encoding_clause).unwrap_or_default();
    run(server, maintenance, &format!("CREATE DATABASE {name} TEMPLATE template0{encoding}")).await
}

/// Returns the encoding and collation of the backup's database, as `CREATE DATABASE` takes them.
fn encoding_clause(info: &DatabaseInfo) -> Option<String> {
    let value = |property: &str| info.properties.get(property)?.as_str().map(quote_literal);
    let (encoding, collate, ctype) = (value("encoding")?, value("collate")?, value("ctype")?);
    Some(format!(" ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}"))
}

/// Runs statements one by one. Returns those that the server refuses; the others still run.
async fn apply(server: &Postgres, properties: &[&Property]) -> Result<Vec<NotApplied>, DatabaseError> {
    let mut not_applied = Vec::new();
    for property in properties {
        match run_script(server, &server.config.maintenance_database, &format!("{}\n", property.sql)).await {
            Ok(()) => {}
            Err(error @ DatabaseError::ToolFailed { .. }) if !error.is_unreachable() => {
                let reason = explain(&error.to_string());
                not_applied.push(NotApplied { property: property.description.clone(), reason });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(not_applied)
}

/// Explains a server error. Errors carry only codes, so that no value is repeated.
fn explain(error: &str) -> String {
    let known = [
        ("42704", "this server lacks the role or setting"),
        ("42501", "the user who restores may not set it"),
        ("22023", "this server refuses the value"),
    ];
    match known.iter().find(|(code, _)| error.contains(code)) {
        Some((code, reason)) => format!("{reason} ({code})"),
        None => error.to_owned(),
    }
}

async fn run(server: &Postgres, database: &str, statement: &str) -> Result<(), DatabaseError> {
    run_script(server, database, &format!("{statement};\n")).await
}

/// Runs statements that kbak made. They go through the tool's input, because they may hold password
/// hashes, and stop at the first error. Errors give the SQLSTATE and no text of the statement.
async fn run_script(server: &Postgres, database: &str, script: &str) -> Result<(), DatabaseError> {
    let dbname = connection(database);
    let arguments = ["--set=VERBOSITY=sqlstate", "--dbname", &dbname, "--file=-"];
    let arguments = PSQL_OPTIONS.iter().copied().chain(arguments);
    let mut tool = start(&server.config, &server.tools, "psql", arguments, true)?;
    if let Some(mut stdin) = tool.stdin() {
        let written = tokio::time::timeout(tool.idle_timeout(), async {
            // If it is off, a backslash could end a string early.
            stdin.write_all(b"SET standard_conforming_strings = on;\n").await?;
            stdin.write_all(script.as_bytes()).await?;
            stdin.shutdown().await
        });
        match written.await {
            // A tool that ended early reports the reason itself.
            Ok(_) => {}
            Err(_) => return Err(tool.timeout_error()),
        }
    }
    tool.wait_success().await
}
