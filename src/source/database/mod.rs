//! Database dumps as streams of bytes, each with a proof that it is complete.
//!
//! [`connect`] picks the engine's [`Recipe`], which lists databases and starts dumps. A [`Dump`] is
//! read like a file. [`Dump::finish`] then checks that it is complete: the tool's exit status is not
//! enough, the stream itself must end where the format says ([`CompletenessCheck`]).
//!
//! All that an engine needs is in its folder ([`postgres`]). Passwords reach a tool only through a
//! memory file that it inherits ([`tool`]), never through argv, the environment or the disk.

mod config;
mod dump;
mod error;
pub mod postgres;
mod recipe;
pub mod tool;

pub use config::{DatabaseConfig, Password};
pub use dump::{ArchiveProof, CompletenessCheck, Dump, DumpProof, LastLineCheck, Proof};
pub use error::DatabaseError;
pub use recipe::{DatabaseInfo, Omission, PlannedDump, Recipe, SelectedDatabases};

use crate::plan::DatabaseEngine;

/// Connects to a server with the recipe of its engine. Fails also for an engine without a recipe.
pub async fn connect(config: &DatabaseConfig) -> Result<Box<dyn Recipe>, DatabaseError> {
    match config.engine {
        DatabaseEngine::Postgresql => Ok(Box::new(postgres::Postgres::connect(config).await?)),
        engine => Err(unsupported(&config.name, engine)),
    }
}

/// Returns the configuration of a server with the engine's defaults: certificates checked, the
/// engine's port, administrator and maintenance database.
/// Fails with [`DatabaseError::Config`] for an engine without a recipe.
pub fn default_config(
    engine: DatabaseEngine,
    name: &str,
    host: &str,
) -> Result<DatabaseConfig, DatabaseError> {
    match engine {
        DatabaseEngine::Postgresql => Ok(postgres::default_config(name, host)),
        engine => Err(unsupported(name, engine)),
    }
}

/// Parses the URL of a server, as the engine's own tools take it. Also returns the database, if the URL names
/// one. Fails also for a password in the URL, which every user of the machine could see among kbak's
/// arguments. The message never quotes the URL.
pub fn parse_url(url: &str) -> Result<(DatabaseConfig, Option<String>), DatabaseError> {
    postgres::parse_url(url)
}

/// Returns the password from the environment variable of the engine's own tools; a password file takes
/// precedence. An empty variable counts as unset. Fails if the variable is not UTF-8.
pub fn environment_password(config: &DatabaseConfig) -> Result<Option<Password>, DatabaseError> {
    let variable = match config.engine {
        DatabaseEngine::Postgresql if config.password_file.is_none() => postgres::PASSWORD_VARIABLE,
        _ => return Ok(None),
    };
    let Some(value) = std::env::var_os(variable) else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| config.invalid(format!("{variable} is not UTF-8")))?;
    let trimmed = value.trim_end_matches(['\n', '\r']);
    Ok((!trimmed.is_empty()).then(|| Password::new(trimmed.to_owned())))
}

/// True for the format of streams that hold one database, of any engine.
#[must_use]
pub fn is_database_dump(format: &str) -> bool {
    format == postgres::ARCHIVE_FORMAT
}

/// Returns the error for an engine without a recipe.
pub(crate) fn unsupported(name: &str, engine: DatabaseEngine) -> DatabaseError {
    let problem = format!("this version does not support the engine {}", engine.name());
    DatabaseError::Config { name: name.to_owned(), problem }
}
