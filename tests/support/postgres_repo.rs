//! Backups of a real PostgreSQL server, and restores into others by users of different rights.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use serde_json::Value;

use super::cli_repo::{CliRepo, as_strs};
use super::postgres::PostgresServer;
use super::program::{Run, command};

/// The password of every user.
pub const PASSWORD: &str = "secret";

/// A server, and a repository with a backup of it.
pub struct PostgresRepo {
    cli: CliRepo,
    pub server: PostgresServer,
}

/// Starts a server whose users all have the same password.
pub fn start_server() -> PostgresServer {
    PostgresServer::start(PASSWORD, &[])
}

impl PostgresRepo {
    /// Backs up all of a server, which must succeed.
    pub fn of(server: PostgresServer) -> Self {
        let repo = Self { cli: CliRepo::new(), server };
        repo.backup();
        repo
    }

    /// Makes a further backup, which must succeed.
    pub fn backup(&self) {
        let writer = self.cli.writer_args();
        // Without a database: all of them.
        let url = url(&self.server, "kbak", "");
        self.run(&[&["backup", "--database", &url], &as_strs(&writer)[..]].concat(), None).ended(0);
    }

    /// Restores the newest snapshot into a server, as this user.
    pub fn restore(&self, server: &PostgresServer, user: &str, more: &[&str]) -> Run {
        self.run(&as_strs(&self.restore_args(server, user, more)), None)
    }

    /// Restores as [`Self::restore`] does, and kills the program at a point. Returns when the server has no
    /// session of it any more.
    pub fn kill_restore(&self, server: &PostgresServer, user: &str, more: &[&str], point: &str) {
        let args = self.restore_args(server, user, more);
        let mut run = command(&args);
        let output = run.env("PGPASSWORD", PASSWORD).env("KBAK_KILL_AT", point).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(9), "{point}: {:?} {said}", output.status);
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kbak'";
        for _ in 0..1200 {
            if server.sql("template1", sessions) == "0" {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{point}: a session stays");
    }

    fn restore_args(&self, server: &PostgresServer, user: &str, more: &[&str]) -> Vec<String> {
        let mut args: Vec<String> =
            ["restore", "latest", "--item", "postgresql", "--database"].map(str::to_owned).to_vec();
        args.push(url(server, user, "postgres"));
        args.extend(self.cli.reader_args());
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    fn run(&self, args: &[&str], kill_at: Option<&str>) -> Run {
        let report = self.cli.text("report.json");
        let mut run = command(&[args, &["--report-file", &report, "--progress", "none"]].concat());
        run.env("PGPASSWORD", PASSWORD).envs(kill_at.map(|point| ("KBAK_KILL_AT", point)));
        let output = run.output().expect("it runs");
        let text = std::fs::read(&report).ok();
        Run {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: text.map_or(Value::Null, |text| serde_json::from_slice(&text).expect("JSON")),
        }
    }
}

fn url(server: &PostgresServer, user: &str, database: &str) -> String {
    format!("postgresql://{user}@/{database}?host={}", server.socket().display())
}

/// Roles, memberships, settings and databases of a server, one a line, read without kbak.
pub fn globals(server: &PostgresServer) -> String {
    server.sql(
        "postgres",
        "SELECT 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, \
             rolbypassrls, rolconnlimit, rolvaliduntil, \
             CASE WHEN rolname <> 'kbak' THEN md5(rolpassword) END, shobj_description(oid, 'pg_authid') \
             FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 2;
         SELECT 'member', roleid::regrole::text, member::regrole::text, admin_option, grantor::regrole \
             FROM pg_auth_members WHERE member <> 10 AND roleid >= 16384 ORDER BY 2, 3;
         SELECT 'setting', coalesce(rolname, 'ALL'), coalesce(datname, 'ALL'), unnest(setconfig) \
             FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole \
             LEFT JOIN pg_database d ON d.oid = setdatabase ORDER BY 2, 3, 4;
         SELECT 'database', datname, datdba::regrole, datconnlimit, \
             (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(datacl) acl), \
             shobj_description(oid, 'pg_database') \
             FROM pg_database WHERE datname !~ '^template' ORDER BY 2",
    )
}

/// The relations of a database with owners, rights and numbers of rows, one a line, read without kbak.
pub fn relations(server: &PostgresServer, database: &str) -> String {
    server.sql(
        database,
        "SELECT relkind, relname, relowner::regrole, \
             (SELECT string_agg(acl::text, ',' ORDER BY acl::text) FROM unnest(relacl) acl), relispopulated, CASE WHEN relkind IN ('r', 'm') \
             AND relispopulated THEN (xpath('/row/n/text()', query_to_xml( \
             format('SELECT count(*) AS n FROM %s', c.oid::regclass), false, true, '')))[1]::text END \
             FROM pg_class c WHERE relnamespace = 'public'::regnamespace ORDER BY 1, 2;
         SELECT 'constraint', conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 2",
    )
}

/// Makes the roles of [`shop_server`].
pub const SHOP_ROLES: [&str; 7] = [
    "CREATE ROLE clerks",
    "CREATE ROLE shop LOGIN PASSWORD 'x' CONNECTION LIMIT 30",
    "CREATE ROLE auditor LOGIN PASSWORD 'y' BYPASSRLS CREATEDB",
    "GRANT clerks TO shop WITH ADMIN OPTION",
    "ALTER ROLE shop SET work_mem = '9MB'",
    "ALTER ROLE shop SET log_statement = 'all'",
    "COMMENT ON ROLE clerks IS 'write'",
];

/// Creates a server with a database whose owner is a role of its own, beside roles with rights that only a
/// superuser may give.
pub fn shop_server() -> PostgresServer {
    let server = start_server();
    for statement in SHOP_ROLES.iter().chain(&[
        "CREATE DATABASE shop OWNER shop CONNECTION LIMIT 40",
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC",
        "GRANT CONNECT ON DATABASE shop TO clerks",
        "ALTER DATABASE shop SET work_mem = '8MB'",
        "COMMENT ON DATABASE shop IS 'sells'",
        "ALTER ROLE ALL SET statement_timeout = '77s'",
    ]) {
        server.sql("postgres", statement);
    }
    server.sql(
        "shop",
        "CREATE TABLE orders (id int PRIMARY KEY, what text);
         INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 30000) n;
         ALTER TABLE orders OWNER TO shop; GRANT SELECT ON orders TO clerks;
         CREATE VIEW dear AS SELECT * FROM orders WHERE id > 9990",
    );
    server
}

/// Creates the users that restore, without superuser.
pub fn create_users(server: &PostgresServer) {
    server.sql("postgres", "CREATE ROLE cloudadmin LOGIN CREATEDB CREATEROLE PASSWORD 'secret'");
    server.sql("postgres", "CREATE ROLE creator LOGIN CREATEDB PASSWORD 'secret'");
}
