//! The address of a database server, and its password.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::environment_password;
use super::error::DatabaseError;
use crate::plan::{DatabaseEngine, DatabaseSpec, TlsMode};
use crate::report::text::{opaque_debug, without_bom};

/// The largest file with a user's name that is read whole, in bytes.
const MAX_USER: u64 = 64 << 10;
/// The longest accepted password, in bytes.
const MAX_PASSWORD: u64 = 4096;

/// The address of a database server and the access to it. Plain values; the plan maps to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The item's name in the plan.
    pub name: String,
    /// The database engine.
    pub engine: DatabaseEngine,
    /// A host name, an address, or the absolute path of a folder with a socket.
    pub host: String,
    /// The port; also part of a socket's name.
    pub port: u16,
    /// The user that connects.
    pub user: String,
    /// A file that holds the password; line breaks at its end are ignored. Without it and without
    /// [`Self::password`], the server must trust the connection (a socket with peer authentication).
    pub password_file: Option<PathBuf>,
    /// The password itself, if it came from a Secret and not from a file.
    pub password: Option<Password>,
    /// The database for queries about the server.
    pub maintenance_database: String,
    /// The protection of a TCP connection. Sockets need none.
    pub tls: TlsMode,
    /// PEM certificates of authorities for [`TlsMode::VerifyFull`]; by default the system's.
    pub ca_file: Option<PathBuf>,
    /// A folder with client tools; by default the installed version nearest to the server's.
    pub tools: Option<PathBuf>,
    /// The longest time without progress before a tool counts as stuck. Reading the catalog of a
    /// large database writes nothing for minutes.
    pub idle_timeout: Duration,
}

impl DatabaseConfig {
    /// Returns the connection that a plan declares. The plan's check has already refused settings that this
    /// version of kbak does not support. Without a password file, the password comes from the environment
    /// variable of the engine's own tools.
    ///
    /// # Errors
    /// [`DatabaseError::Config`] for an engine without a recipe, or a user's name that cannot be read.
    pub fn of(database: &DatabaseSpec) -> Result<Self, DatabaseError> {
        let host = database.host.clone().unwrap_or_default();
        let mut config = super::default_config(database.engine, &database.name, &host)?;
        config.port = database.port.unwrap_or(config.port);
        match (&database.user, &database.user_file) {
            (Some(user), _) => config.user.clone_from(user),
            (None, Some(file)) => config.user = config.read_user(file)?,
            (None, None) => {}
        }
        config.password_file.clone_from(&database.password_file);
        config.password = environment_password(&config)?;
        config.tls = database.tls;
        config.ca_file.clone_from(&database.ca_file);
        Ok(config)
    }

    fn read_user(&self, file: &Path) -> Result<String, DatabaseError> {
        let mut text = String::new();
        File::open(file).and_then(|open| open.take(MAX_USER).read_to_string(&mut text)).map_err(|error| {
            self.invalid(format!("{}: the user's name cannot be read: {error}", file.display()))
        })?;
        let user = without_bom(&text).lines().next().unwrap_or_default().trim();
        if user.is_empty() {
            return Err(self.invalid(format!("{}: the user's name is empty", file.display())));
        }
        Ok(user.to_owned())
    }

    /// Returns true if the connection is a socket on this machine.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Returns the server's address and the user, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { host, port, user, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}, as {user}"),
            false => format!("{host}:{port}, as {user}"),
        }
    }

    /// Returns the password from the configuration or from its password file. Fails when the file cannot be
    /// read, or the password is empty, too long, or holds characters that a password file cannot carry.
    pub fn read_password(&self) -> Result<Option<Password>, DatabaseError> {
        if let Some(password) = &self.password {
            return self.check_password(password.clone(), "the password from the environment").map(Some);
        }
        let Some(path) = &self.password_file else { return Ok(None) };
        if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            let problem =
                format!("{} is a pipe, and every tool reads the password anew: name a file", path.display());
            return Err(self.invalid(problem));
        }
        let mut text = Zeroizing::new(String::new());
        File::open(path).and_then(|file| file.take(MAX_PASSWORD + 1).read_to_string(&mut text)).map_err(
            |error| self.invalid(format!("{}: the password cannot be read: {error}", path.display())),
        )?;
        let trimmed = without_bom(&text).trim_end_matches(['\n', '\r']);
        let place = format!("the password in {}", path.display());
        self.check_password(Password::new(trimmed.to_owned()), &place).map(Some)
    }

    /// Checks a password; `place` names it, without its text.
    fn check_password(&self, password: Password, place: &str) -> Result<Password, DatabaseError> {
        let text = password.reveal();
        let problem = if text.is_empty() {
            "is empty"
        } else if text.len() as u64 > MAX_PASSWORD {
            "is longer than 4096 bytes"
        } else if text.contains(['\n', '\r', '\0']) {
            "holds a line break or a zero byte, which no password file can carry"
        } else {
            return Ok(password);
        };
        Err(self.invalid(format!("{place} {problem}")))
    }

    /// Returns the error for an unusable configuration.
    pub(crate) fn invalid(&self, problem: impl Into<String>) -> DatabaseError {
        DatabaseError::Config { name: self.name.clone(), problem: problem.into() }
    }

    /// Returns the error for a failed operation.
    pub(crate) fn io_error(&self, operation: impl Into<String>, source: std::io::Error) -> DatabaseError {
        DatabaseError::Io { name: self.name.clone(), operation: operation.into(), source }
    }
}

/// A password. Its `Debug` output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Wraps a password.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

opaque_debug!(Password: "Password(…)");
