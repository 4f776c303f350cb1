//! Restores PostgreSQL archives through `pg_restore`, and roles through statements of known shapes.
//!
//! An archive holds SQL that runs with the rights of the user who restores. Its author can do in the
//! target all that this user can (a superuser's `COPY … PROGRAM` included). That is in the nature of
//! the format; kbak adds the proof that the bytes are those that the writer signed. Roles are plain
//! SQL and are never piped to `psql` unchanged: see [`crate::source::database::postgres::split_globals`].

mod statements;

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::source::database::DatabaseError;
use crate::source::database::postgres::archive::{ArchiveError, ArchiveScanner, DatabaseTexts};
use crate::source::database::postgres::{
    DatabaseInfo, GlobalStatement, Postgres, Property, database_properties, split_globals,
};
use crate::source::database::tool::{Tool, connection};
use crate::target::database::postgres::statements::{apply, identifier, literal, run, run_script};

pub use crate::target::database::postgres::statements::NotApplied;

/// Longest text of roles that is read, in bytes: some 50,000 roles.
const GLOBALS: u64 = 16 << 20;
/// Bytes that are written to `pg_restore` at once.
const PIECE: usize = 256 << 10;

/// The treatment of the target database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The database exists and is empty.
    Existing,
    /// The database is created first; it may exist already if it is empty.
    Create,
    /// The database is dropped, with everything in it, and created anew.
    Replace,
}

/// The request to restore one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreDatabase {
    /// The database's name in the target.
    pub database: String,
    /// The treatment of the target database.
    pub target: Target,
    /// Encoding and collation from the backup; `None` for the server's defaults.
    pub like: Option<DatabaseInfo>,
    /// True if all objects go to the user who restores, without rights for others: for servers
    /// without the roles of the backup.
    pub no_owner: bool,
}

/// The result of restoring one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredDatabase {
    /// The database's name in the target.
    pub database: String,
    /// Length of the archive, in bytes.
    pub bytes: u64,
    /// True if kbak also found the archive complete; false if only `pg_restore` accepted it.
    pub proved: bool,
    /// Properties of the database itself in the archive that were not applied.
    pub missing: Vec<NotApplied>,
}

/// The result of restoring roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GlobalsReport {
    /// Roles that were created.
    pub created: Vec<String>,
    /// Roles that existed and were kept unchanged, their passwords too.
    pub existed: Vec<String>,
    /// Number of memberships granted.
    pub granted: u64,
    /// Number of statements of other shapes that were left out, by their first words.
    pub refused: BTreeMap<String, u64>,
    /// Properties that created roles lack.
    pub missing: Vec<NotApplied>,
}

/// Restores an archive from a stream.
///
/// # Errors
/// [`DatabaseError::NotEmpty`] before any change, if the target holds something and may not be
/// replaced; [`DatabaseError::Failed`] with the tool's message at its first error;
/// [`DatabaseError::NotWhole`] if the archive ends early, even if the tool accepts it.
pub async fn restore_database(
    server: &Postgres,
    wanted: &RestoreDatabase,
    archive: impl AsyncRead + Unpin,
) -> Result<RestoredDatabase, DatabaseError> {
    prepare(server, wanted).await?;
    let dbname = connection(&wanted.database);
    let mut arguments = vec!["--exit-on-error", "--no-password", "--dbname", &dbname];
    if wanted.no_owner {
        arguments.extend(["--no-owner", "--no-privileges"]);
    }
    let mut tool = Tool::start(server.config(), server.tools(), "pg_restore", arguments, true)?;
    let mut scanner = ArchiveScanner::new();
    let fed = feed(&mut tool, archive, &mut scanner).await;
    // If the tool ended early, its message says more than the broken pipe.
    match (&fed, fed.as_ref().is_err_and(Feeding::is_ours)) {
        (Err(_), true) => {}
        _ => {
            tool.succeed().await?;
        }
    }
    let bytes = fed.map_err(|feeding| feeding.into_error(server, &wanted.database))?;
    let about = scanner.about_database();
    let proved = match scanner.finish() {
        Ok(_) => true,
        Err(ArchiveError::Unknown(..)) => false,
        Err(error) => {
            return Err(DatabaseError::NotWhole {
                name: server.config().name.clone(),
                database: wanted.database.clone(),
                problem: error.to_string(),
            });
        }
    };
    let missing = if proved { complete(server, wanted, &about).await? } else { vec![unreadable()] };
    Ok(RestoredDatabase { database: wanted.database.clone(), bytes, proved, missing })
}

/// Applies the archive's properties to the database: `pg_restore` does that only for one that it
/// created. This comes last, because a limit or a setting may block the data.
async fn complete(
    server: &Postgres,
    wanted: &RestoreDatabase,
    about: &DatabaseTexts,
) -> Result<Vec<NotApplied>, DatabaseError> {
    let properties = database_properties(&about.statements, &wanted.database);
    let owner = about.owner.iter().map(|owner| Property {
        what: format!("its owner {owner}"),
        rights: true,
        sql: format!("ALTER DATABASE {} OWNER TO {};", identifier(&wanted.database), identifier(owner)),
    });
    let all: Vec<Property> = owner.chain(properties.known).collect();
    let mut missing = apply(server, all.iter().filter(|one| !(one.rights && wanted.no_owner))).await?;
    missing.extend(properties.refused.into_iter().map(left_out));
    Ok(missing)
}

/// Reports a statement that was not run.
fn left_out(what: String) -> NotApplied {
    NotApplied { what, reason: "kbak does not restore this; it is in the archive".into() }
}

/// Reports an archive of a newer format than this version knows.
fn unreadable() -> NotApplied {
    NotApplied {
        what: "owner, rights, limits, settings and comment of the database".into(),
        reason: "the archive's format is newer than this version of kbak knows".into(),
    }
}

/// The reason why the archive did not reach the tool.
enum Feeding {
    /// Reading the source failed.
    Source(std::io::Error),
    /// Writing to the tool failed.
    Tool(std::io::Error),
    /// The tool read no input for too long.
    Stuck(DatabaseError),
}

impl Feeding {
    /// True if the tool still waits for input and must be ended.
    fn is_ours(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Stuck(_))
    }

    fn into_error(self, server: &Postgres, database: &str) -> DatabaseError {
        let (operation, source) = match self {
            Self::Source(source) => (format!("read the archive of {database}"), source),
            Self::Tool(source) => (format!("write the archive of {database} to pg_restore"), source),
            Self::Stuck(error) => return error,
        };
        DatabaseError::Io { name: server.config().name.clone(), operation, source }
    }
}

/// Writes the archive to the tool and closes its input. Returns the number of bytes.
async fn feed(
    tool: &mut Tool,
    mut archive: impl AsyncRead + Unpin,
    scanner: &mut ArchiveScanner,
) -> Result<u64, Feeding> {
    let Some(mut stdin) = tool.stdin() else { return Ok(0) };
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        let count = archive.read(&mut piece).await.map_err(Feeding::Source)?;
        if count == 0 {
            break;
        }
        scanner.feed(&piece[..count]);
        bytes += count as u64;
        // Building an index may take longer than anything else; meanwhile the tool reads nothing.
        match tokio::time::timeout(tool.silence(), stdin.write_all(&piece[..count])).await {
            Ok(written) => written.map_err(Feeding::Tool)?,
            Err(_) => return Err(Feeding::Stuck(tool.stuck())),
        }
    }
    stdin.shutdown().await.map_err(Feeding::Tool)?;
    Ok(bytes)
}

/// Prepares the target database as requested, or refuses.
async fn prepare(server: &Postgres, wanted: &RestoreDatabase) -> Result<(), DatabaseError> {
    let mut maintenance = server.config().maintenance.clone();
    if maintenance == wanted.database {
        // A session cannot drop the database that it is connected to.
        maintenance = if wanted.database == "template1" { "postgres" } else { "template1" }.to_owned();
    }
    // One element if the database exists: true if it is a template.
    let asked = format!(
        "SELECT coalesce(json_agg(datistemplate), '[]') FROM pg_catalog.pg_database WHERE datname = {}",
        literal(&wanted.database)
    );
    let found: Vec<bool> = server.ask(&maintenance, &asked).await?;
    let there = !found.is_empty();
    let name = identifier(&wanted.database);
    if there && wanted.target != Target::Replace {
        let objects: u64 = server
            .ask(
                &wanted.database,
                "SELECT to_json(count(*)) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                 ON n.oid = c.relnamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') \
                 AND n.nspname !~ '^pg_(toast|temp)' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')",
            )
            .await?;
        if objects > 0 {
            let (name, database) = (server.config().name.clone(), wanted.database.clone());
            return Err(DatabaseError::NotEmpty { name, database, objects });
        }
        return Ok(());
    }
    if there {
        if found.contains(&true) {
            // A template cannot be dropped.
            run(server, &maintenance, &format!("ALTER DATABASE {name} IS_TEMPLATE false")).await?;
        }
        let force = if server.server_major() >= 13 { " WITH (FORCE)" } else { "" };
        run(server, &maintenance, &format!("DROP DATABASE {name}{force}")).await?;
    } else if wanted.target == Target::Existing {
        let problem = format!("there is no database {}", wanted.database);
        return Err(DatabaseError::Config { name: server.config().name.clone(), problem });
    }
    let like = wanted.like.as_ref().map_or_else(String::new, |like| {
        format!(
            " ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            literal(&like.encoding),
            literal(&like.collate),
            literal(&like.ctype)
        )
    });
    run(server, &maintenance, &format!("CREATE DATABASE {name} TEMPLATE template0{like}")).await
}

/// Creates the roles of a `pg_dumpall --globals-only` text that do not exist, and grants the
/// memberships. New roles also get their settings, comments and rights; existing ones keep theirs.
///
/// # Errors
/// [`DatabaseError`] if the text cannot be read or the server refuses.
pub async fn restore_globals(
    server: &Postgres,
    text: impl AsyncRead + Unpin,
) -> Result<GlobalsReport, DatabaseError> {
    let name = server.config().name.clone();
    let failed = |source| {
        let operation = "read the roles of the backup".to_owned();
        DatabaseError::Io { name: name.clone(), operation, source }
    };
    let mut whole = String::new();
    text.take(GLOBALS + 1).read_to_string(&mut whole).await.map_err(failed)?;
    if whole.len() as u64 > GLOBALS {
        return Err(failed(std::io::Error::other(format!("they are longer than {GLOBALS} bytes"))));
    }
    let globals = split_globals(&whole);
    let maintenance = server.config().maintenance.clone();
    let roles = "SELECT coalesce(json_agg(rolname), '[]') FROM pg_catalog.pg_roles";
    let known: Vec<String> = server.ask(&maintenance, roles).await?;
    let mut report = GlobalsReport { refused: globals.refused, ..GlobalsReport::default() };
    let mut script = String::new();
    for GlobalStatement { role, creates, sql } in &globals.statements {
        let is_grant = sql.starts_with("GRANT");
        if known.contains(role) && !is_grant {
            if *creates {
                report.existed.push(role.clone());
            }
            continue;
        }
        if *creates {
            report.created.push(role.clone());
        }
        report.granted += u64::from(is_grant);
        script.push_str(sql);
        script.push('\n');
    }
    if !script.is_empty() {
        run_script(server, &maintenance, &script).await?;
    }
    let new = globals.properties.iter().filter(|(role, _)| !known.contains(role));
    report.missing = apply(server, new.map(|(_, property)| property)).await?;
    Ok(report)
}
