//! Runs a client tool: clean environment, password in a memory file, own process group, killed and
//! reaped when dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::{DatabaseConfig, DatabaseError, Password, TlsMode};

/// The file descriptor of the memory file with the password, in the tool.
const PASSWORD_FD: i32 = 9;
/// The number of bytes kept from the end of a tool's standard error, which holds the reason.
const SAID: usize = 16 << 10;
/// The longest accepted password, in bytes.
const LONGEST_PASSWORD: u64 = 4096;
/// Bundles of the system's certificate authorities, for client libraries before 16, which do not
/// know `sslrootcert=system`.
const SYSTEM_CERTIFICATES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A running client tool.
#[derive(Debug)]
pub struct Tool {
    name: String,
    tool: &'static str,
    version: String,
    child: Child,
    group: Option<Pid>,
    said: JoinHandle<Vec<u8>>,
    mask: Option<Password>,
    silence: Duration,
}

/// The client tools of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The folder that holds them.
    pub folder: PathBuf,
    /// The major version.
    pub major: u32,
    /// The version, such as `15.18`.
    pub version: String,
}

/// The result of a tool that exited.
#[derive(Debug)]
pub struct Ending {
    /// The exit status.
    pub status: ExitStatus,
    /// The end of its standard error, secrets masked.
    pub said: String,
}

/// Returns the password from the configuration or from its password file.
///
/// # Errors
/// [`DatabaseError`] when the file cannot be read, or the password is empty, too long, or holds
/// characters that a libpq password file cannot carry.
pub fn password(config: &DatabaseConfig) -> Result<Option<Password>, DatabaseError> {
    if let Some(password) = &config.password {
        return checked(config, password.clone()).map(Some);
    }
    let Some(path) = &config.password_file else { return Ok(None) };
    let operation = format!("read the password file {}", path.display());
    let failed =
        |source| DatabaseError::Io { name: config.name.clone(), operation: operation.clone(), source };
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        let problem =
            format!("{} is a pipe, and every tool reads the password anew: name a file", path.display());
        return Err(DatabaseError::Config { name: config.name.clone(), problem });
    }
    let mut text = Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(LONGEST_PASSWORD + 1).read_to_string(&mut text))
        .map_err(failed)?;
    let trimmed = text.strip_suffix('\n').unwrap_or(&text);
    let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
    checked(config, Password::new(trimmed.to_owned())).map(Some)
}

fn checked(config: &DatabaseConfig, password: Password) -> Result<Password, DatabaseError> {
    let text = password.reveal();
    let problem = if text.is_empty() {
        "the password is empty"
    } else if text.len() as u64 > LONGEST_PASSWORD {
        "the password is longer than 4096 bytes"
    } else if text.contains(['\n', '\r', '\0']) {
        "the password holds a line break or a zero byte, which no password file can carry"
    } else {
        return Ok(password);
    };
    Err(DatabaseError::Config { name: config.name.clone(), problem: problem.to_owned() })
}

/// Creates a memory file in the format of `.pgpass` that matches every host and cannot be changed.
fn password_memory(password: &Password) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("kbak", flags)?;
    // libpq accepts a password file only if other users cannot read it.
    rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(file);
    let escaped = Zeroizing::new(password.reveal().replace('\\', "\\\\").replace(':', "\\:"));
    let line = Zeroizing::new(format!("*:*:*:*:{}\n", escaped.as_str()));
    file.write_all(line.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Returns the complete environment of a tool. It inherits none of kbak's own variables, neither
/// secrets nor a stray `PGOPTIONS`.
fn environment(config: &DatabaseConfig, major: u32) -> Result<Vec<(&'static str, OsString)>, DatabaseError> {
    let mut pairs: Vec<(&'static str, OsString)> = vec![
        ("LC_ALL", "C".into()),
        ("PATH", "/usr/bin:/bin".into()),
        // Ignores ~/.pgpass, ~/.postgresql and ~/.psqlrc of the user who runs kbak.
        ("HOME", "/nonexistent".into()),
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
    known.map(OsString::from).ok_or_else(|| DatabaseError::Config {
        name: config.name.clone(),
        problem: "no certificates of authorities on this machine: give a caFile".to_owned(),
    })
}

/// Returns a connection string with the database and keepalives; all other settings are in the
/// environment. A bare name that looks like a connection string would be parsed as one.
#[must_use]
pub fn connection(database: &str) -> String {
    let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
    format!("dbname='{quoted}' keepalives=1 keepalives_idle=60 keepalives_interval=15 keepalives_count=8")
}

impl Tool {
    /// Starts `tool` of `tools`. Its standard output is read through [`Self::stdout`]; if `input`
    /// is true, its standard input is written through [`Self::stdin`].
    ///
    /// # Errors
    /// [`DatabaseError`] when the password cannot be read or the tool cannot be started.
    pub fn start<I: AsRef<OsStr>>(
        config: &DatabaseConfig,
        tools: &Tools,
        tool: &'static str,
        arguments: impl IntoIterator<Item = I>,
        input: bool,
    ) -> Result<Self, DatabaseError> {
        let failed = |operation: &str, source| DatabaseError::Io {
            name: config.name.clone(),
            operation: operation.to_owned(),
            source,
        };
        let password = password(config)?;
        let mut command = Command::new(tools.folder.join(tool));
        command.args(arguments).env_clear().envs(environment(config, tools.major)?);
        command.stdin(if input { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        command.current_dir("/");
        if let Some(password) = &password {
            let memory = password_memory(password).map_err(|source| failed("make a memory file", source))?;
            command.env("PGPASSFILE", format!("/proc/self/fd/{PASSWORD_FD}"));
            let mapping = FdMapping { parent_fd: memory, child_fd: PASSWORD_FD };
            let mapped = command.as_std_mut().fd_mappings(vec![mapping]);
            mapped.map_err(|error| failed("pass on a memory file", std::io::Error::other(error)))?;
        }
        let mut child = command.spawn().map_err(|source| failed(&format!("start {tool}"), source))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let said = tokio::spawn(listen(child.stderr.take()));
        let name = config.name.clone();
        let version = tools.version.clone();
        Ok(Self { name, tool, version, child, group, said, mask: password, silence: config.silence })
    }

    /// Takes the standard output; none after the first call.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes the standard input; none after the first call.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Returns the longest time that the tool may be silent.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// Returns the tool and its version, such as `pg_dump 15.18`.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} {}", self.tool, self.version)
    }

    /// Returns the error for a tool that was silent for too long.
    #[must_use]
    pub fn stuck(&self) -> DatabaseError {
        DatabaseError::Stuck { name: self.name.clone(), tool: self.tool, silence: self.silence }
    }

    /// Returns the error for an operation on the tool that failed.
    #[must_use]
    pub fn broken(&self, operation: &str, source: std::io::Error) -> DatabaseError {
        let operation = format!("{operation} {}", self.tool);
        DatabaseError::Io { name: self.name.clone(), operation, source }
    }

    /// Waits until the tool exits.
    ///
    /// # Errors
    /// [`DatabaseError::Stuck`] when it does not exit, [`DatabaseError::Io`] when its status is unknown.
    pub async fn end(mut self) -> Result<Ending, DatabaseError> {
        let status = match tokio::time::timeout(self.silence, self.child.wait()).await {
            Ok(Ok(status)) => status,
            Ok(Err(source)) => return Err(self.broken("wait for", source)),
            Err(_) => return Err(self.stuck()),
        };
        let said = match tokio::time::timeout(self.silence, &mut self.said).await {
            Ok(Ok(said)) => said,
            _ => Vec::new(),
        };
        Ok(Ending { status, said: masked(&said, self.mask.as_ref()) })
    }

    /// Waits until the tool exits, and requires success.
    ///
    /// # Errors
    /// Also [`DatabaseError::Failed`], with the end of its standard error.
    pub async fn succeed(self) -> Result<Ending, DatabaseError> {
        let (name, tool) = (self.name.clone(), self.tool);
        let ending = self.end().await?;
        if ending.status.success() {
            return Ok(ending);
        }
        Err(DatabaseError::Failed { name, tool, status: ending.status.to_string(), said: ending.said })
    }

    /// Runs the tool to its end and returns its output, at most `limit` bytes.
    ///
    /// # Errors
    /// [`DatabaseError`], also for more output than `limit`.
    pub async fn output(mut self, limit: usize) -> Result<Vec<u8>, DatabaseError> {
        let mut written = Vec::new();
        if let Some(stdout) = self.stdout() {
            let mut stdout = stdout.take(limit as u64 + 1);
            match tokio::time::timeout(self.silence, stdout.read_to_end(&mut written)).await {
                Ok(Ok(_)) => {}
                Ok(Err(source)) => return Err(self.broken("read from", source)),
                Err(_) => return Err(self.stuck()),
            }
        }
        if written.len() > limit {
            let source = std::io::Error::other(format!("more than {limit} bytes of answer"));
            return Err(self.broken("read from", source));
        }
        self.succeed().await?;
        Ok(written)
    }
}

impl Drop for Tool {
    /// Kills the whole process group: a wrapper script's child must not survive and hold its locks.
    /// The runtime reaps the process (`kill_on_drop`).
    fn drop(&mut self) {
        self.said.abort();
        if let (Some(group), None) = (self.group, self.child.try_wait().ok().flatten()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads to the end and keeps at least the last [`SAID`] bytes, so that a full pipe never blocks the tool.
async fn listen(stderr: Option<ChildStderr>) -> Vec<u8> {
    async fn keep_end(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut piece = vec![0; 4096];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            kept.extend_from_slice(&piece[..count]);
            if kept.len() > 2 * SAID {
                kept.drain(..kept.len() - SAID);
            }
        }
        kept
    }
    match stderr {
        Some(stderr) => keep_end(stderr).await,
        None => Vec::new(),
    }
}

/// Returns the error lines of a tool's output, for display. All other lines are dropped, because
/// they quote rows (`CONTEXT: COPY …, line 7: "…"`) and statements. The password is masked in case
/// a server echoes it, and so are values that an error quotes at its end.
fn masked(said: &[u8], password: Option<&Password>) -> String {
    const STATEMENTS: &[&str] = &["pg_", "psql:", "ERROR:", "FATAL:", "PANIC:", "createdb:", "dropdb:"];
    let mut text = String::from_utf8_lossy(said).into_owned();
    if let Some(password) = password {
        text = text.replace(password.reveal(), "…");
    }
    let lines = text.lines().map(str::trim).filter(|line| STATEMENTS.iter().any(|s| line.starts_with(s)));
    let lines: Vec<String> = lines
        .filter(|line| !line.contains("Command was:"))
        .map(|line| line.split_once(": \"").map_or_else(|| line.to_owned(), |(head, _)| format!("{head}: …")))
        .collect();
    let joined = lines[lines.len().saturating_sub(6)..].join("; ");
    joined.chars().filter(|c| !c.is_control()).take(2048).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_values_and_passwords_are_masked() {
        let said = b"pg_restore: error: COPY failed for table \"t\": ERROR:  invalid input syntax for type integer: \"canary\"\n\
            CONTEXT:  COPY t, line 1, column a: \"canary\"\ncanary goes on\nDETAIL:  Key (a)=(canary)\n\
            pg_restore: error: server says hunter2\nCommand was: INSERT canary\n";
        let shown = masked(said, Some(&Password::new("hunter2".to_owned())));
        assert!(!shown.contains("canary") && !shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("invalid input syntax") && shown.contains("table \"t\""), "{shown}");
    }

    #[test]
    fn database_name_like_a_connection_string_is_quoted() {
        assert!(connection("host=evil 'x\\").starts_with("dbname='host=evil \\'x\\\\' keepalives"));
    }
}
