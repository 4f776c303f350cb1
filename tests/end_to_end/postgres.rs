//! Dumps of a real PostgreSQL server, and their restores.

use kbak::plan::{Glob, TlsMode};
use kbak::source::database::postgres::Postgres;
use kbak::source::database::postgres::archive::ArchiveScanner;
use kbak::source::database::{
    DatabaseConfig, DatabaseError, Dump, DumpProof, Proof, Recipe as _, SelectedDatabases, parse_url,
};
use kbak::target::database::{DatabaseRestore, RestoreRecipe as _, TargetDatabase};
use tokio::io::AsyncReadExt as _;

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::postgres::PostgresServer;
use crate::support::program::{beneath, command};

/// A database with tables, keys, a sequence, a view, a large object, and a name that looks like a
/// connection string.
const NAME: &str = "host=elsewhere 'shop\\";

fn create_database(server: &PostgresServer) {
    server.sql("postgres", &format!("CREATE DATABASE \"{NAME}\""));
    server.sql(
        NAME,
        "CREATE TABLE orders (id serial PRIMARY KEY, what text NOT NULL, at timestamptz DEFAULT now(), raw bytea);
         INSERT INTO orders (what, raw) SELECT 'order ' || n, sha256(n::text::bytea) FROM generate_series(1, 20000) n;
         CREATE TABLE empty (a int);
         CREATE VIEW dear AS SELECT * FROM orders WHERE id > 19990;
         CREATE INDEX ON orders (what);
         SELECT lo_from_bytea(4242, decode(repeat('00ff', 50000), 'hex'));",
    );
}

/// Returns a database's contents, read without kbak.
fn read_contents(server: &PostgresServer, database: &str) -> String {
    server.sql(
        database,
        "SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o;
         SELECT count(*) FROM dear; SELECT count(*) FROM empty; SELECT nextval('orders_id_seq');
         SELECT md5(lo_get(4242)); SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    )
}

async fn read(mut dump: Dump) -> (Vec<u8>, Result<DumpProof, DatabaseError>) {
    let mut bytes = Vec::new();
    dump.read_to_end(&mut bytes).await.expect("a dump");
    (bytes, dump.finish().await)
}

fn restore_job(database: &str, target: TargetDatabase) -> DatabaseRestore {
    DatabaseRestore { database: database.to_owned(), target, encoding_from: None, no_owner: false }
}

#[tokio::test]
async fn database_is_dumped_and_restored() {
    let server = PostgresServer::start("secret", &[]);
    create_database(&server);
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    let all = postgres.databases().await.expect("databases");
    let info = all.iter().find(|info| info.name == NAME).expect("listed").clone();
    assert!(info.size > 1 << 20 && info.properties["encoding"] == "UTF8", "{info:?}");
    let (bytes, proof) = read(postgres.dump(NAME).expect("a dump")).await;
    let proof = proof.expect("complete");
    let Proof::Archive(archive) = &proof.proof else { panic!("{proof:?}") };
    // Two tables and the large objects.
    assert_eq!((archive.blocks, proof.bytes), (3, bytes.len() as u64), "{proof:?}");

    let mut job = restore_job("back", TargetDatabase::Create);
    job.encoding_from = Some(info);
    let restored = postgres.restore_database(&job, &mut bytes.as_slice()).await.expect("restored");
    assert!(restored.is_verified_complete);
    assert_eq!(read_contents(&server, "back"), read_contents(&server, NAME));

    let error = postgres.restore_database(&job, &mut bytes.as_slice()).await.expect_err("not empty");
    assert!(matches!(error, DatabaseError::NotEmpty { objects: 4.., .. }), "{error}");
    let replaced =
        postgres.restore_database(&restore_job("back", TargetDatabase::Replace), &mut bytes.as_slice()).await;
    replaced.expect("replaced on request");

    let cut = postgres
        .restore_database(&restore_job("cut", TargetDatabase::Create), &mut &bytes[..bytes.len() - 1])
        .await;
    cut.expect_err("a cut archive is never restored with success");
}

#[tokio::test]
async fn archive_is_complete_only_at_its_last_byte() {
    let server = PostgresServer::start("secret", &[]);
    server.sql(
        "postgres",
        "CREATE TABLE t (a text); INSERT INTO t VALUES ('x'), ('y'); SELECT lo_from_bytea(7, 'abc'); CREATE TABLE u (b int)",
    );
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    let (bytes, proof) = read(postgres.dump("postgres").expect("a dump")).await;
    proof.expect("complete");
    let whole = |bytes: &[u8]| {
        let mut scanner = ArchiveScanner::default();
        // Pieces of changing size, so that every field is cut somewhere.
        let mut rest = bytes;
        for size in (1..=7).cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at(size.min(rest.len()));
            scanner.feed(piece);
            rest = tail;
        }
        scanner.finish()
    };
    whole(&bytes).expect("all of it");
    for length in 0..bytes.len() {
        assert!(whole(&bytes[..length]).is_err(), "cut after {length} of {} bytes", bytes.len());
    }
    let longer = [bytes.as_slice(), b"\x01"].concat();
    assert!(whole(&longer).is_err(), "no byte may follow");
}

#[tokio::test]
async fn dump_fails_when_the_connection_dies_midway() {
    let server = PostgresServer::start("secret", &[]);
    create_database(&server);
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    let mut dump = postgres.dump(NAME).expect("a dump");
    let mut first = [0; 4096];
    dump.read_exact(&mut first).await.expect("its first bytes");
    server.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kbak'",
    );
    let mut rest = Vec::new();
    dump.read_to_end(&mut rest).await.expect("what was in the pipe");
    let error = dump.finish().await.expect_err("incomplete");
    assert!(matches!(error, DatabaseError::ToolFailed { tool: "pg_dump", .. }), "{error}");
}

/// Returns the descendants of this process that concern `server`: command line and environment of each.
fn descendants(server: &PostgresServer) -> Vec<(u32, Vec<u8>)> {
    let mut known = vec![std::process::id()];
    let mut found = Vec::new();
    let mut at = 0;
    while at < known.len() {
        for task in std::fs::read_dir(format!("/proc/{}/task", known[at])).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let mut seen = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                seen.extend(std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default());
                known.push(pid);
                found.push((pid, seen));
            }
        }
        at += 1;
    }
    found.retain(|(_, seen)| contains(seen, &server.socket().display().to_string()));
    found
}

fn contains(bytes: &[u8], canary: &str) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary.as_bytes())
}

#[tokio::test]
async fn password_appears_in_no_argument_environment_or_error() {
    // With the characters that a password file escapes.
    let canary = "ca:na\\ry:2f6e";
    let server = PostgresServer::start(canary, &[]);
    create_database(&server);
    let mut config = server.config();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{canary}\n")).expect("a password file");
    (config.password, config.password_file) = (None, Some(file));
    let postgres = Postgres::connect(&config).await.expect("the password is right");
    let mut dump = postgres.dump(NAME).expect("a dump");
    let mut first = [0; 4096];
    // The dump is larger than the pipe, so the tool waits while it is inspected.
    dump.read_exact(&mut first).await.expect("its first bytes");
    let seen = descendants(&server);
    let tool = seen.iter().find(|(_, seen)| contains(seen, "pg_dump")).expect("the tool runs");
    assert!(contains(&tool.1, "PGPASSFILE=/proc/self/fd/"), "and has its password file");
    for (pid, seen) in &seen {
        assert!(!contains(seen, "2f6e") && !contains(seen, "PGPASSWORD"), "process {pid}");
    }
    assert!(!format!("{config:?}{postgres:?}{dump:?}").contains("2f6e"));

    let pid = tool.0;
    drop(dump);
    for _ in 0..200 {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await
            }
            _ => break,
        }
    }
    assert!(
        !descendants(&server).iter().any(|(_, seen)| contains(seen, "pg_dump")),
        "a dropped dump ends its tool"
    );

    config.user = "nobody".to_owned();
    let error = Postgres::connect(&config).await.expect_err("no such user");
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("password authentication failed") && !shown.contains("2f6e"), "{shown}");
}

#[tokio::test]
async fn globals_dump_restores_only_roles() {
    let server = PostgresServer::start("secret", &[]);
    server.sql(
        "postgres",
        "CREATE ROLE clerks; CREATE ROLE \"odd \"\"one\" LOGIN PASSWORD 'pw' CONNECTION LIMIT 3; GRANT clerks TO \"odd \"\"one\" WITH ADMIN OPTION",
    );
    let roles = "SELECT rolname, rolcanlogin, rolconnlimit, rolpassword FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1;
         SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members WHERE roleid = 'clerks'::regrole";
    let before = server.sql("postgres", roles);
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    let (mut text, proof) = read(postgres.dump_globals().await.expect("a dump")).await;
    assert_eq!(proof.expect("complete").proof, Proof::LastLine);
    server.sql("postgres", "DROP ROLE \"odd \"\"one\"; DROP ROLE clerks");
    text.extend_from_slice(
        b"\n\\! touch /tmp/never\nALTER ROLE kbak WITH NOSUPERUSER;\nCOPY x FROM PROGRAM 'id';\n",
    );
    let report = postgres.restore_globals(&mut text.as_slice()).await.expect("restored");
    assert_eq!(server.sql("postgres", roles), before);
    assert_eq!(report.created, ["clerks", "odd \"one"]);
    assert_eq!(report.existed, ["kbak"]);
    assert_eq!(report.refused.get("COPY x"), Some(&1), "{report:?}");
    let again = postgres.restore_globals(&mut text.as_slice()).await.expect("again");
    assert_eq!((again.created.len(), again.existed.len()), (0, 3));
}

/// The properties of a database and its roles, read without kbak.
const PROPERTIES: &str = "SELECT datname, datdba::regrole, datconnlimit, datistemplate, \
        (SELECT string_agg(concat_ws(' ', grantor::regrole, grantee::regrole, privilege_type, is_grantable), ',' \
         ORDER BY grantee::regrole::text, privilege_type) FROM aclexplode(datacl)), shobj_description(oid, 'pg_database') \
        FROM pg_database WHERE datname = 'shop';
     SELECT setrole::regrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2;
     SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1";

#[tokio::test]
async fn database_owner_grants_limits_settings_and_comments_are_restored() {
    let server = PostgresServer::start("secret", &[]);
    server.sql("postgres", "CREATE ROLE keeper; CREATE ROLE clerk LOGIN");
    server.sql("postgres", "CREATE DATABASE shop OWNER keeper");
    server.sql(
        "postgres",
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO clerk WITH GRANT OPTION;
         ALTER DATABASE shop CONNECTION LIMIT 7; ALTER DATABASE shop IS_TEMPLATE true;
         COMMENT ON DATABASE shop IS 'it''s \\! the shop'; COMMENT ON ROLE clerk IS 'writes';
         ALTER DATABASE shop SET search_path TO a, \"b c\"; ALTER ROLE clerk SET work_mem TO '64MB';
         ALTER ROLE clerk IN DATABASE shop SET statement_timeout TO '5s'",
    );
    server.sql("shop", "CREATE TABLE public.t (a int)");
    let before = server.sql("postgres", PROPERTIES);
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    let (roles, proof) = read(postgres.dump_globals().await.expect("a dump")).await;
    proof.expect("complete");
    let (archive, proof) = read(postgres.dump("shop").expect("a dump")).await;
    proof.expect("complete");
    let replaced = postgres
        .restore_database(&restore_job("shop", TargetDatabase::Replace), &mut archive.as_slice())
        .await;
    assert_eq!(replaced.expect("a template is replaced").not_applied, []);
    assert_eq!(server.sql("postgres", PROPERTIES), before);

    // As in a new server.
    let drop = "ALTER DATABASE shop IS_TEMPLATE false; DROP DATABASE shop; DROP ROLE keeper; DROP ROLE clerk";
    for statement in drop.split("; ") {
        server.sql("postgres", statement);
    }
    let report = postgres.restore_globals(&mut roles.as_slice()).await.expect("restored");
    assert!(report.not_applied.is_empty() && report.refused.is_empty(), "{report:?}");
    let restored = postgres
        .restore_database(&restore_job("shop", TargetDatabase::Create), &mut archive.as_slice())
        .await;
    assert_eq!(restored.expect("restored").not_applied, []);
    assert_eq!(server.sql("postgres", PROPERTIES), before);

    let mut without = restore_job("other", TargetDatabase::Create);
    without.no_owner = true;
    let restored = postgres.restore_database(&without, &mut archive.as_slice()).await.expect("restored");
    assert_eq!(restored.not_applied, []);
    let other = "SELECT datdba::regrole, datacl, datconnlimit FROM pg_database WHERE datname = 'other'";
    assert_eq!(server.sql("postgres", other), "kbak||7");

    for statement in ["ALTER DATABASE shop IS_TEMPLATE false", "DROP DATABASE shop"] {
        server.sql("postgres", statement);
    }
    server.sql("other", "DROP OWNED BY clerk; DROP OWNED BY keeper");
    server.sql("postgres", "DROP ROLE clerk");
    let mut lacking = restore_job("shop", TargetDatabase::Create);
    lacking.no_owner = false;
    let restored = postgres.restore_database(&lacking, &mut archive.as_slice()).await.expect("restored");
    let mut missing: Vec<&str> = restored.not_applied.iter().map(|one| one.property.as_str()).collect();
    missing.sort_unstable();
    assert_eq!(missing, ["rights of clerk", "the setting statement_timeout of the role clerk"]);
}

#[tokio::test]
async fn databases_left_out_are_always_reported() {
    let server = PostgresServer::start("secret", &[]);
    for statement in [
        "CREATE DATABASE mould IS_TEMPLATE true",
        "CREATE DATABASE shut ALLOW_CONNECTIONS false",
        "CREATE ROLE reader LOGIN PASSWORD 'secret'",
        "CREATE DATABASE \"x//y 50% a*\"",
        "CREATE DATABASE \"../../tmp/x\"",
    ] {
        server.sql("postgres", statement);
    }
    let cli = CliRepo::new();
    let url = |database: &str| {
        let socket = server.socket();
        format!("postgresql://reader@/{database}?host={}", socket.display())
    };
    let backup = |url: &str, more: &[&str]| {
        let writer = cli.writer_args();
        let args = [&["backup", "--database", url], &as_strs(&writer)[..], more, &["-o", "json"]].concat();
        let output = command(&args).env("PGPASSWORD", "secret").output().expect("it runs");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), report, String::from_utf8(output.stderr).expect("text"))
    };
    let (code, report, err) = backup(&url(""), &[]);
    assert_eq!(code, Some(3), "{err}");
    assert_eq!(report["items"][0]["gaps"][0]["object"], "shut", "{report}");
    assert!(err.contains("passwords of roles"), "{err}");
    let shown = cli.read_json(&["show"]);
    assert_eq!(shown["items"][0]["notes"][0]["code"], "no-role-passwords", "{shown}");
    let streams: Vec<&str> = shown["items"][0]["streams"]
        .as_array()
        .expect("streams")
        .iter()
        .map(|stream| stream["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        streams,
        ["globals.sql", "../../tmp/x.dump", "mould.dump", "postgres.dump", "x//y 50% a*.dump"]
    );

    let out = cli.text("out");
    let (code, _, err) = cli.run_reader(&["export", "--to", &out]);
    assert_eq!(code, 3, "the gap: {err}");
    let folder = cli.at("out/postgresql");
    for name in ["%2E.%2F..%2Ftmp%2Fx.dump", "x%2F%2Fy 50%25 a*.dump", "globals.sql", "mould.dump"] {
        assert!(folder.join(name).is_file(), "{name}: {:?}", beneath(&folder));
    }
    // By name, with characters that a pattern or a URL would interpret.
    let (code, report, err) = backup(&url("x%2F%2Fy%2050%25%20a*"), &[]);
    assert_eq!(code, Some(0), "{report}{err}");
    let (code, report, _) = backup(&url("nosuch"), &[]);
    assert_eq!((code, report["items"][0]["gaps"][0]["code"].as_str()), (Some(3), Some("absent")));
    let (code, report, _) = backup(&url("shut"), &[]);
    assert_eq!((code, report["items"][0]["gaps"][0]["code"].as_str()), (Some(3), Some("no-connections")));
}

#[test]
fn damaged_dump_does_not_drop_the_existing_database() {
    let server = PostgresServer::start("secret", &[]);
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", "CREATE TABLE orders AS SELECT n, md5(n::text) FROM generate_series(1, 10000) n");
    let cli = CliRepo::new();
    let packs = || beneath(&cli.at("store")).into_iter().filter(|path| path.is_file()).collect::<Vec<_>>();
    let url = format!("postgresql://kbak@/shop?host={}", server.socket().display());
    let run = |args: &[&str]| {
        let output = command(args).env("PGPASSWORD", "secret").output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (data, writer, reader) = (cli.text("data"), cli.writer_args(), cli.reader_args());
    let backup = [&["backup", "--path", &data, "--database", &url], &as_strs(&writer)[..]].concat();
    let (code, err) = run(&backup);
    assert_eq!(code, Some(0), "{err}");
    let before = packs();
    // The roles and the folder are in the earlier packs.
    server.sql("shop", "INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(10000, 20000) n");
    let (code, err) = run(&backup);
    assert_eq!(code, Some(0), "{err}");
    let new = packs().into_iter().filter(|path| !before.contains(path));
    let sized = new.filter(|path| path.to_string_lossy().contains("/packs/"));
    let pack = sized.max_by_key(|path| path.metadata().expect("its size").len()).expect("a new pack");
    let mut bytes = std::fs::read(&pack).expect("a pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).expect("damaged");

    server.sql("shop", "CREATE TABLE newer (a int)");
    let back = cli.text("back");
    let restore = ["restore", "latest", "--database", &url, "--to", &back];
    let (code, err) = run(&[&restore[..], &["--replace-databases"], &as_strs(&reader)].concat());
    assert!(code == Some(4) && err.contains("shop.dump") && err.contains("the backup is damaged"), "{err}");
    assert_eq!(server.sql("shop", "SELECT count(*) FROM newer").trim(), "0", "the existing database stays");
    assert!(cli.at("back/one.txt").is_file() || cli.at(&format!("back{data}/one.txt")).is_file(), "{err}");

    let (code, err) =
        run(&[&["restore", "latest", "--item", "shop", "--database", &url], &as_strs(&reader)[..]].concat());
    assert!(code == Some(3) && err.contains("only with --replace-databases"), "{err}");
    server.sql("postgres", "DROP DATABASE shop");
    let (code, err) =
        run(&[&["restore", "latest", "--item", "shop", "--database", &url], &as_strs(&reader)[..]].concat());
    assert!(code == Some(4) && err.contains("drop the incomplete database"), "{err}");
}

#[tokio::test]
async fn unmatched_names_are_absent_and_only_nonempty_templates_are_chosen() {
    let server = PostgresServer::start("secret", &[]);
    server.sql("postgres", "CREATE DATABASE shop");
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    let chosen = async |patterns: &[&str]| {
        let globs: Vec<Glob> =
            patterns.iter().map(|one| Glob::with_escapes(one).expect("a pattern")).collect();
        let SelectedDatabases { databases, omissions, absent } =
            postgres.select(&globs).await.expect("an answer");
        let closed: Vec<String> = omissions.into_iter().map(|one| one.object).collect();
        (databases.into_iter().map(|one| one.name).collect::<Vec<_>>().join(" "), closed, absent)
    };
    let none = Vec::<String>::new;
    assert_eq!(chosen(&[]).await, ("postgres shop".to_owned(), none(), none()));
    assert_eq!(
        chosen(&["shop", "shpo", "sho*", "x*"]).await,
        ("shop".to_owned(), none(), vec!["shpo".to_owned()])
    );
    assert_eq!(
        chosen(&["template0", "template1"]).await,
        ("template1".to_owned(), vec!["template0".to_owned()], none())
    );
    server.sql("template1", "CREATE FUNCTION everywhere() RETURNS int LANGUAGE sql AS 'SELECT 7'");
    assert_eq!(chosen(&["*"]).await, ("postgres shop template1".to_owned(), none(), none()));

    // A nonempty template is restored into another server's, and new databases contain it again.
    let (bytes, proof) = read(postgres.dump("template1").expect("a dump")).await;
    proof.expect("complete");
    let other = PostgresServer::start("secret", &[]);
    let target = Postgres::connect(&other.config()).await.expect("a server");
    let restored = target
        .restore_database(&restore_job("template1", TargetDatabase::Create), &mut bytes.as_slice())
        .await;
    restored.expect("restored");
    other.sql("postgres", "CREATE DATABASE new");
    assert_eq!(other.sql("new", "SELECT everywhere()").trim(), "7");
}

#[tokio::test]
async fn plaintext_connection_needs_explicit_permission() {
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let server = PostgresServer::start("secret", &["listen_addresses=127.0.0.1", &format!("port={port}")]);
    let clear = DatabaseConfig { host: "127.0.0.1".to_owned(), port, ..server.config() };
    for tls in [TlsMode::VerifyFull, TlsMode::Require] {
        let error = Postgres::connect(&DatabaseConfig { tls, ..clear.clone() }).await.expect_err("no TLS");
        assert!(error.to_string().contains("SSL"), "{error}");
    }
    Postgres::connect(&DatabaseConfig { tls: TlsMode::AllowPlaintext, ..clear }).await.expect("allowed");
}

#[test]
fn database_url_with_a_password_is_refused() {
    let (config, database) =
        parse_url("postgresql://me@db.example:5433/shop%20one?sslmode=require").expect("a URL");
    assert_eq!((config.host.as_str(), config.port, config.user.as_str()), ("db.example", 5433, "me"));
    assert_eq!((database.as_deref(), config.tls), (Some("shop one"), TlsMode::Require));
    let (config, _) = parse_url("postgresql:///?host=/run/pg&port=1").expect("a URL");
    assert!(config.is_socket());
    for bad in [
        "postgresql://me:canary@db/x",
        "postgresql://db/x?password=canary",
        "mysql://canary",
        "postgresql://d%zz/canary",
    ] {
        let error = parse_url(bad).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}
