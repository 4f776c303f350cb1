//! PostgreSQL's client tools: finds them and starts them with libpq's environment and password file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::messages::{OF_PSQL, OF_ROW_TOOLS};
use crate::plan::TlsMode;
use crate::source::database::tool::{ClientTools, LineObserver, PASSWORD_PATH, Tool, ToolCommand};
use crate::source::database::{DatabaseConfig, DatabaseError, Password};

/// Folders in which distributions keep client tools, one per major version.
const INSTALLED: &[(&str, &str)] = &[("/usr/lib/postgresql", "bin"), ("/usr/libexec/postgresql", "")];
/// The system's certificate authorities, for libraries before 16, without `sslrootcert=system`.
const SYSTEM_CERTIFICATES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Starts a tool with the connection settings in its environment, and `has_input` to write to it.
pub(crate) fn start<I: AsRef<OsStr>>(
    config: &DatabaseConfig,
    tools: &ClientTools,
    program: &'static str,
    arguments: impl IntoIterator<Item = I>,
    has_input: bool,
) -> Result<Tool, DatabaseError> {
    start_observed(config, tools, program, arguments, has_input, None)
}

/// Starts a tool as [`start`] does; `observer` receives its messages.
pub(crate) fn start_observed<I: AsRef<OsStr>>(
    config: &DatabaseConfig,
    tools: &ClientTools,
    program: &'static str,
    arguments: impl IntoIterator<Item = I>,
    has_input: bool,
    observer: Option<LineObserver>,
) -> Result<Tool, DatabaseError> {
    let password = config.read_password()?;
    let mut environment = environment(config, tools.major)?;
    if password.is_some() {
        environment.push(("PGPASSFILE", PASSWORD_PATH.into()));
    }
    if program == "pg_dumpall" {
        // Otherwise the server's own settings would decide how the times of roles are written.
        // The one zone that a server knows without files of time zones.
        environment.extend([("PGTZ", "GMT".into()), ("PGDATESTYLE", "ISO, YMD".into())]);
    }
    let password = password.map(|password| (password.clone(), password_file(&password)));
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let messages = if program == "psql" { &OF_PSQL } else { &OF_ROW_TOOLS };
    let command = ToolCommand { program, arguments, environment, password, has_input, messages, observer };
    Tool::start(config, tools, command)
}

/// Returns a text in the format of `.pgpass` that matches every host.
fn password_file(password: &Password) -> Zeroizing<String> {
    let escaped = Zeroizing::new(password.reveal().replace('\\', "\\\\").replace(':', "\\:"));
    Zeroizing::new(format!("*:*:*:*:{}\n", escaped.as_str()))
}

fn environment(config: &DatabaseConfig, major: u32) -> Result<Vec<(&'static str, OsString)>, DatabaseError> {
    let mut pairs: Vec<(&'static str, OsString)> = vec![
        ("PGAPPNAME", "kbak".into()),
        ("PGCLIENTENCODING", "UTF8".into()),
        ("PGCONNECT_TIMEOUT", "15".into()),
        ("PGHOST", config.host.clone().into()),
        ("PGPORT", config.port.to_string().into()),
        ("PGUSER", config.user.clone().into()),
    ];
    if config.is_socket() {
        return Ok(pairs);
    }
    let mode = match config.tls {
        TlsMode::VerifyFull => "verify-full",
        TlsMode::Require => "require",
        TlsMode::AllowPlaintext => "prefer",
    };
    pairs.push(("PGSSLMODE", mode.into()));
    if config.tls == TlsMode::VerifyFull {
        pairs.push(("PGSSLROOTCERT", authorities(config, major)?));
    }
    Ok(pairs)
}

fn authorities(config: &DatabaseConfig, major: u32) -> Result<OsString, DatabaseError> {
    if let Some(path) = &config.ca_file {
        return Ok(path.clone().into());
    }
    if major >= 16 {
        return Ok("system".into());
    }
    let known = SYSTEM_CERTIFICATES.iter().find(|path| Path::new(path).is_file());
    let problem = "no certificates of authorities on this machine: give a caFile";
    known.map(OsString::from).ok_or_else(|| config.invalid(problem))
}

/// Returns a connection string with the database and keepalives; all other settings are in the
/// environment. A bare name that looks like a connection string would be parsed as one.
#[must_use]
pub(crate) fn connection(database: &str) -> String {
    let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
    format!("dbname='{quoted}' keepalives=1 keepalives_idle=60 keepalives_interval=15 keepalives_count=8")
}

/// Returns the installed client tools, oldest first.
pub(super) async fn installed(config: &DatabaseConfig) -> Vec<ClientTools> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(folder) = &config.tools {
        folders.push(folder.clone());
    } else {
        for (root, bin) in INSTALLED {
            let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path().join(bin)));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        folders.extend(std::env::split_paths(&path));
    }
    let mut found: Vec<ClientTools> = Vec::new();
    for folder in folders.into_iter().filter(|folder| folder.is_absolute()) {
        let needed = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];
        if !needed.iter().all(|tool| folder.join(tool).is_file()) {
            continue;
        }
        let Some((major, version)) = version(&folder).await else { continue };
        // A distribution's wrappers in PATH come after the tools that they wrap.
        if !found.iter().any(|tools| tools.version == version) {
            found.push(ClientTools { folder, major, version });
        }
    }
    found.sort_by_key(|tools| tools.major);
    found
}

/// Returns the version in the output of `pg_dump --version`: "pg_dump (PostgreSQL) 15.18 (Debian …)".
async fn version(folder: &Path) -> Option<(u32, String)> {
    let mut command = tokio::process::Command::new(folder.join("pg_dump"));
    command.arg("--version").env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(10), command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text.split_whitespace().nth(2)?.to_owned();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_name_like_a_connection_string_is_quoted() {
        assert!(connection("host=evil 'x\\").starts_with("dbname='host=evil \\'x\\\\' keepalives"));
    }
}
