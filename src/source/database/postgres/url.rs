//! PostgreSQL's URLs, and the defaults of a server's configuration.

use std::time::Duration;

use crate::plan::{DatabaseEngine, TlsMode};
use crate::source::database::{DatabaseConfig, DatabaseError};

/// Returns the configuration of a server with defaults: port 5432, user and maintenance database
/// `postgres`, certificates checked, 15 minutes without progress allowed.
#[must_use]
pub fn default_config(name: &str, host: &str) -> DatabaseConfig {
    DatabaseConfig {
        name: name.to_owned(),
        engine: DatabaseEngine::Postgresql,
        host: host.to_owned(),
        port: 5432,
        user: "postgres".to_owned(),
        password_file: None,
        password: None,
        maintenance_database: "postgres".to_owned(),
        tls: TlsMode::VerifyFull,
        ca_file: None,
        tools: None,
        idle_timeout: Duration::from_secs(900),
    }
}

/// Parses `postgresql://[user@]host[:port][/database][?sslmode=…&sslrootcert=…]`, or the URL of a
/// socket's folder: `postgresql:///database?host=/run/postgresql`. The item is named after the host,
/// or `postgresql` for a socket. See [`crate::source::database::parse_url`].
/// Fails with [`DatabaseError::Config`]. The message never quotes the URL.
pub fn parse_url(url: &str) -> Result<(DatabaseConfig, Option<String>), DatabaseError> {
    let wrong =
        |problem: &str| DatabaseError::Config { name: "of the URL".to_owned(), problem: problem.to_owned() };
    let with_password =
        || wrong("a password in a URL is seen by every user of this machine: use a password file");
    let rest = url.strip_prefix("postgresql://").or_else(|| url.strip_prefix("postgres://"));
    let rest = rest.ok_or_else(|| wrong("it does not begin with postgresql://"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, at)| (Some(user), at));
    if user.is_some_and(|user| user.contains(':')) {
        return Err(with_password());
    }
    let decode = |text: &str| percent_decode(text).ok_or_else(|| wrong("a %-escape in it is wrong"));
    let parse_port = |port: &str| port.parse().map_err(|_| wrong("its port is no number"));
    let (host, port) = match place.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':').unwrap_or("")),
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let mut config = default_config(host, &decode(host)?);
    if let Some(user) = user {
        config.user = decode(user)?;
    }
    if !port.is_empty() {
        config.port = parse_port(port)?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value)?;
        match (key, value.as_str()) {
            ("host", _) => config.host = value,
            ("port", _) => config.port = parse_port(&value)?,
            ("user", _) => config.user = value,
            ("sslrootcert", _) => config.ca_file = Some(value.into()),
            ("sslmode", "verify-full") => config.tls = TlsMode::VerifyFull,
            ("sslmode", "require") => config.tls = TlsMode::Require,
            ("sslmode", "prefer" | "allow" | "disable") => config.tls = TlsMode::AllowPlaintext,
            ("password" | "passfile", _) => return Err(with_password()),
            _ => return Err(wrong("it has a parameter that is not known here")),
        }
    }
    if config.host.is_empty() {
        config.host = "/run/postgresql".to_owned();
    }
    config.name = if config.is_socket() { "postgresql".to_owned() } else { config.host.clone() };
    let database = decode(path)?;
    Ok((config, (!database.is_empty()).then_some(database)))
}

/// Decodes `%xx` escapes; none if an escape is invalid or the result is not UTF-8 without NUL.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}
