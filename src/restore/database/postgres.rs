//! PostgreSQL archives through `pg_restore`, roles through statements of known shapes.
//!
//! An archive holds SQL that runs with the rights of the user who restores: whoever can write a
//! dump can do in the target what that user can (a superuser's `COPY … PROGRAM` included). That
//! is in the nature of the format; what kbak adds is that the bytes are proven to be those that
//! the writer signed. Roles are plain SQL and never piped to `psql` as they are: see
//! [`crate::source::database::split_globals`].

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::run::{apply, identifier, literal, run, run_script};
use crate::source::database::archive::{ArchiveError, ArchiveScanner, DatabaseTexts};
use crate::source::database::tool::{Tool, connection};
use crate::source::database::{
    DatabaseError, DatabaseInfo, GlobalStatement, Postgres, Property, database_properties, split_globals,
};

pub use super::run::NotApplied;

/// The longest text of roles that is read: some 50,000 roles.
const GLOBALS: u64 = 16 << 20;
/// What goes to `pg_restore` at once.
const PIECE: usize = 256 << 10;

/// What to do with the database that is restored into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// It is there and empty.
    Existing,
    /// It is made first; it may be there already, empty.
    Create,
    /// It is dropped, with everything in it, and made anew.
    Replace,
}

/// A restore of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreDatabase {
    /// Its name in the target.
    pub database: String,
    /// What to do with it.
    pub target: Target,
    /// Its encoding and collation, as the backup has them; else the server's defaults.
    pub like: Option<DatabaseInfo>,
    /// Give everything to the user who restores, and no rights to others: for servers without
    /// the roles of the backup.
    pub no_owner: bool,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredDatabase {
    /// Its name in the target.
    pub database: String,
    /// The bytes of the archive.
    pub bytes: u64,
    /// Whether the archive was also seen to be whole, not only taken by `pg_restore`.
    pub proved: bool,
    /// What the archive says of the database itself and the server did not take.
    pub missing: Vec<NotApplied>,
}

/// What became of roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GlobalsReport {
    /// Roles made.
    pub created: Vec<String>,
    /// Roles that were there and were left as they are, their passwords too.
    pub existed: Vec<String>,
    /// Memberships granted.
    pub granted: u64,
    /// Statements of other shapes that were left out, by their first words.
    pub refused: BTreeMap<String, u64>,
    /// What roles that were made lack.
    pub missing: Vec<NotApplied>,
}

/// Restores an archive from a stream.
///
/// # Errors
/// [`DatabaseError::NotEmpty`] before anything is changed, when the target holds something and
/// may not be replaced; [`DatabaseError::Failed`] with the tool's words at its first error;
/// [`DatabaseError::NotWhole`] when the archive ends early, whatever the tool says of it.
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
    // If the tool ended early its own words say more than the broken pipe.
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

/// Gives the database what its archive says of it: `pg_restore` does that only for one that it
/// made itself. Last, because a limit or a setting may stand in the way of the data.
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

/// A statement that was not run.
fn left_out(what: String) -> NotApplied {
    NotApplied { what, reason: "kbak does not restore this; it is in the archive".into() }
}

/// What to say of an archive that is newer than what is known here.
fn unreadable() -> NotApplied {
    NotApplied {
        what: "owner, rights, limits, settings and comment of the database".into(),
        reason: "the archive's format is newer than this version of kbak knows".into(),
    }
}

/// Why the archive did not reach the tool.
enum Feeding {
    /// The source failed.
    Source(std::io::Error),
    /// The tool takes nothing any more.
    Tool(std::io::Error),
    /// The tool took nothing for too long.
    Stuck(DatabaseError),
}

impl Feeding {
    /// Whether the tool still waits for more, and must be ended.
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

/// Gives the archive to the tool, and closes its input.
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
        // Building an index may take longer than anything else; then nothing is read.
        match tokio::time::timeout(tool.silence(), stdin.write_all(&piece[..count])).await {
            Ok(written) => written.map_err(Feeding::Tool)?,
            Err(_) => return Err(Feeding::Stuck(tool.stuck())),
        }
    }
    stdin.shutdown().await.map_err(Feeding::Tool)?;
    Ok(bytes)
}

/// Makes the target as it is wanted, or refuses.
async fn prepare(server: &Postgres, wanted: &RestoreDatabase) -> Result<(), DatabaseError> {
    let mut maintenance = server.config().maintenance.clone();
    if maintenance == wanted.database {
        // No database can be dropped by who is in it.
        maintenance = if wanted.database == "template1" { "postgres" } else { "template1" }.to_owned();
    }
    // Whether it is there, and whether it is a template.
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

/// Makes the roles of a `pg_dumpall --globals-only` text that are not there yet, and grants their
/// memberships; the new ones get their settings, comments and rights. Roles that are there stay as
/// they are.
///
/// # Errors
/// [`DatabaseError`] when the text cannot be read or the server refuses.
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
