//! A real PostgreSQL server for one test. It refuses to run as root, so root runs it as the account
//! of Debian's package. The kernel ends it with the thread that started it.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kbak::source::database::postgres::default_config;
use kbak::source::database::{DatabaseConfig, Password};

/// A server that listens on a socket, and on TCP if the settings say so.
#[derive(Debug)]
pub struct PostgresServer {
    child: Child,
    dir: tempfile::TempDir,
    bin: PathBuf,
    password: String,
    port: u16,
}

/// Returns the folder with the server's programs.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("KBAK_TEST_PG_BIN") {
        return folder.into();
    }
    let root = Path::new("/usr/lib/postgresql");
    let mut versions: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("PostgreSQL: eval \"$(scripts/tools --need postgresql)\"")
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop().expect("initdb")
}

fn as_its_user(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        return command;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"])
        .arg(program);
    command
}

/// True if a server accepts connections.
pub fn is_ready(host: &str, port: u16) -> bool {
    let mut command = Command::new(programs().join("pg_isready"));
    command.args(["-q", "-h", host, "-p", &port.to_string()]).status().expect("pg_isready").success()
}

impl PostgresServer {
    /// Starts a server whose administrator `kbak` has this password; `settings` are `name=value`.
    pub fn start(password: &str, settings: &[&str]) -> Self {
        let bin = programs();
        let dir = tempfile::Builder::new().prefix("pg").tempdir().expect("a folder");
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).expect("its mode");
        let home = dir.path().join("pg");
        std::fs::create_dir(&home).expect("its home");
        std::fs::write(home.join("password"), password).expect("a password file");
        if rustix::process::geteuid().is_root() {
            let ids = std::fs::read_to_string("/etc/passwd").expect("accounts");
            let line = ids.lines().find(|line| line.starts_with("postgres:")).expect("the account postgres");
            let mut ids = line.split(':').skip(2).map(|id| id.parse::<u32>().expect("an id"));
            let (user, group) = (ids.next(), ids.next());
            for path in [home.clone(), home.join("password")] {
                chown(path, user, group).expect("its owner");
            }
        }
        let made = as_its_user(&bin.join("initdb"))
            .arg("-D")
            .arg(home.join("data"))
            .args(["-U", "kbak", "--auth=scram-sha-256", "--no-sync", "--no-instructions", "-E", "UTF8"])
            .arg(format!("--pwfile={}", home.join("password").display()))
            .arg("--locale=C")
            .current_dir(&home)
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb").success());
        let mut command = as_its_user(&bin.join("postgres"));
        command.arg("-D").arg(home.join("data")).arg("-k").arg(&home).current_dir(&home);
        for setting in ["listen_addresses=", "fsync=off", "full_page_writes=off", "synchronous_commit=off"]
            .iter()
            .chain(settings)
        {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("postgres");
        let port =
            settings.iter().find_map(|setting| setting.strip_prefix("port=")?.parse().ok()).unwrap_or(5432);
        let server = Self { child, dir, bin, password: password.to_owned(), port };
        server.wait();
        server
    }

    fn wait(&self) {
        for _ in 0..600 {
            if is_ready(&self.socket().display().to_string(), self.port) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
    }

    /// Returns the folder of its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("pg")
    }

    /// Returns kbak's configuration for it, as its administrator.
    pub fn config(&self) -> DatabaseConfig {
        let mut config = default_config("shop", &self.socket().display().to_string());
        config.port = self.port;
        config.user = "kbak".to_owned();
        config.password = Some(Password::new(self.password.clone()));
        config.tools = Some(self.bin.clone());
        config
    }

    /// Restores a dump into an empty database, without kbak.
    pub fn restore(&self, database: &str, dump: &std::path::Path) {
        let output = Command::new(self.bin.join("pg_restore"))
            .args(["--exit-on-error", "-U", "kbak", "-p", &self.port.to_string(), "-d", database, "-h"])
            .args([self.socket().as_path(), dump])
            .env("PGPASSWORD", &self.password)
            .output()
            .expect("pg_restore runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs SQL without kbak and returns its output.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let host = self.socket().display().to_string();
        SqlLogin { host: &host, port: self.port, user: "kbak", password: &self.password }.run(database, sql)
    }
}

/// A server's address, a user and their password.
#[derive(Debug, Clone, Copy)]
pub struct SqlLogin<'a> {
    pub host: &'a str,
    pub port: u16,
    pub user: &'a str,
    pub password: &'a str,
}

impl SqlLogin<'_> {
    /// Runs SQL without kbak and returns its output.
    pub fn run(&self, database: &str, sql: &str) -> String {
        let output = Command::new(programs().join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", self.user, "-h", self.host])
            .args(["-p", &self.port.to_string(), "-c", sql])
            // As an argument a name could be taken for a connection string.
            .env("PGDATABASE", database)
            .env("PGPASSWORD", self.password)
            .output()
            .expect("psql");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.child.wait();
    }
}
