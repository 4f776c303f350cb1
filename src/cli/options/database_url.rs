//! Reads `--database URL`.

use std::path::Path;

use crate::cli::failure::Failure;
use crate::plan::{self, DatabaseSpec, Glob};
use crate::source::database::{DatabaseConfig, parse_url};

/// Parses `--database URL` into a database as plans declare it.
pub(crate) fn parse_database_url(url: &str, password_file: Option<&Path>) -> Result<DatabaseSpec, Failure> {
    let (config, name) = parse_server_url(url)?;
    let item =
        name.as_deref().and_then(plan::sanitize_item_name).unwrap_or_else(|| config.engine.name().into());
    let mut database = DatabaseSpec::at(item, config.engine, config.host);
    database.port = Some(config.port);
    database.user = Some(config.user);
    database.databases = name.map_or_else(|| vec!["*".into()], |name| vec![Glob::escape(&name)]);
    database.password_file = password_file.map(Path::to_owned);
    database.tls = config.tls;
    database.ca_file = config.ca_file;
    Ok(database)
}

/// Parses the URL of a database server. Errors never quote the URL, which may hold a secret.
pub(crate) fn parse_server_url(url: &str) -> Result<(DatabaseConfig, Option<String>), Failure> {
    parse_url(url).map_err(|error| {
        Failure::usage("--database: invalid address").because(error).remedy(
            "write postgresql://user@host:5432/name?sslmode=verify-full, with --database-password-file",
        )
    })
}
