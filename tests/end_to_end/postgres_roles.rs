//! Roles, settings and comments of a real PostgreSQL server come back on another one as they were.

use crate::support::postgres::PostgresServer;
use crate::support::postgres_repo::{PASSWORD, PostgresRepo, globals, relations, start_server};

/// Runs statements one by one: some cannot be in a transaction.
fn run(server: &PostgresServer, statements: &[&str]) {
    for statement in statements {
        server.sql("postgres", statement);
    }
}

#[test]
fn settings_of_every_scope_are_restored() {
    let server = start_server();
    run(
        &server,
        &[
            "CREATE ROLE clerk LOGIN",
            "CREATE DATABASE shop",
            "ALTER ROLE ALL SET statement_timeout = '77s'",
            "ALTER ROLE ALL SET search_path = 'a b', \"$user\", \"c,\"\"d\", public",
            "ALTER ROLE ALL SET DateStyle = 'SQL, DMY'",
            "ALTER ROLE ALL SET my.path = 'C:\\data\\x; it''s'",
            "ALTER ROLE ALL SET my.empty = ''",
            "ALTER ROLE clerk SET work_mem = '9MB'",
            "ALTER ROLE clerk IN DATABASE shop SET temp_tablespaces = ''",
            "ALTER ROLE clerk IN DATABASE shop SET my.regex = '^\\d+$'",
            "ALTER ROLE clerk IN DATABASE template1 SET work_mem = '8MB'",
            "ALTER DATABASE shop SET my.regex = '^\\w+\\''$'",
            "ALTER DATABASE template1 SET work_mem = '7MB'",
        ],
    );
    server.sql("shop", "CREATE TABLE t AS SELECT 1 AS x");
    // Last: from here on nothing is written without switching it off.
    run(&server, &["ALTER ROLE ALL SET default_transaction_read_only = on"]);
    let before = globals(&server);
    assert_eq!(before.lines().filter(|line| line.starts_with("setting")).count(), 12, "{before}");
    let repo = PostgresRepo::of(server);
    let target = start_server();
    repo.restore(&target, "kbak", &[]).ended(0);
    assert_eq!(globals(&target), before);
    // The restored settings apply to this restore, too.
    repo.restore(&target, "kbak", &["--replace-databases"]).ended(0);
    assert_eq!(globals(&target), before);
    assert_eq!(relations(&target, "shop"), relations(&repo.server, "shop"));
}

#[test]
fn libraries_for_every_session_are_named_and_not_set() {
    let server = start_server();
    run(&server, &["ALTER ROLE ALL SET session_preload_libraries = 'auto_explain'"]);
    let repo = PostgresRepo::of(server);
    let target = start_server();
    let restored = repo.restore(&target, "kbak", &[]).ended(3);
    let gaps = restored.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].1, "the setting session_preload_libraries of all roles");
}

/// Roles, databases and comments whose names and texts hold everything that SQL quotes.
const ODD_TEXTS: &[&str] = &[
    "CREATE ROLE \"immich-user\" LOGIN PASSWORD 'p\\w''\"' CONNECTION LIMIT 3 VALID UNTIL '2031-01-01'",
    "CREATE ROLE \"two\nlines\"",
    "CREATE ROLE \"Q\"\"uote\" BYPASSRLS CREATEDB NOINHERIT",
    "CREATE ROLE \"ünï cödé ☃\"",
    "CREATE ROLE \"1digit\" VALID UNTIL 'infinity'",
    "CREATE ROLE \"a;b--c\"",
    "CREATE ROLE \"back\\slash\\\"",
    "CREATE ROLE \"ALL\"",
    "CREATE ROLE \"all\"",
    "CREATE ROLE \"E\"",
    "CREATE ROLE \"it's\"",
    "GRANT \"Q\"\"uote\" TO \"immich-user\" WITH ADMIN OPTION",
    "GRANT \"back\\slash\\\" TO \"two\nlines\"",
    "GRANT \"ALL\" TO \"E\"",
    "COMMENT ON ROLE \"immich-user\" IS 'path C:\\temp; it''s \"mine\"'",
    "COMMENT ON ROLE \"two\nlines\" IS 'two\n\\! lines\\'",
    "COMMENT ON ROLE \"back\\slash\\\" IS '\\'",
    "COMMENT ON ROLE \"ünï cödé ☃\" IS E'tab\\t\u{1f600} ''\\\\'''",
    "ALTER ROLE \"immich-user\" SET search_path = 'a b', \"$user\", \"q\\\"\"q\", public",
    "ALTER ROLE \"immich-user\" SET my.path = 'C:\\data\\x'",
    "ALTER ROLE \"ALL\" SET work_mem = '5MB'",
    "ALTER ROLE \"a;b--c\" SET my.text = 'a''b\\''c; -- d'",
    "ALTER ROLE \"it's\" SET my.\"ünï\" = '\n'",
    "CREATE DATABASE \"shop-1\" OWNER \"immich-user\"",
    "CREATE DATABASE \"back\\slash\"",
    "CREATE DATABASE \"Q\"\"uote\"",
    "CREATE DATABASE \"ünï ☃\"",
    "ALTER DATABASE \"back\\slash\" SET my.regex = '^\\d+$'",
    "ALTER DATABASE \"shop-1\" SET default_transaction_read_only = on",
    "ALTER ROLE \"it's\" IN DATABASE \"Q\"\"uote\" SET my.path = '\\\\host\\share'",
    "COMMENT ON DATABASE \"shop-1\" IS 'back\\slash'",
    "COMMENT ON DATABASE \"Q\"\"uote\" IS 'two\nlines, ''quoted'' \\'",
    "GRANT CONNECT ON DATABASE \"back\\slash\" TO \"two\nlines\"",
];

#[test]
fn names_and_texts_with_backslashes_quotes_and_line_breaks_are_restored() {
    // Servers that read a backslash in a plain string as an escape write their dumps so.
    for conforming in ["on", "off"] {
        let setting = format!("standard_conforming_strings={conforming}");
        let server = PostgresServer::start(PASSWORD, &[&setting]);
        run(&server, &["ALTER ROLE kbak SET standard_conforming_strings = on"]);
        run(&server, ODD_TEXTS);
        run(&server, &["ALTER ROLE kbak RESET standard_conforming_strings"]);
        server.sql("back\\slash", "CREATE TABLE t AS SELECT 1 AS x");
        let before = globals(&server);
        let repo = PostgresRepo::of(server);
        let target = PostgresServer::start(PASSWORD, &[&setting]);
        repo.restore(&target, "kbak", &[]).ended(0);
        assert_eq!(globals(&target), before, "standard_conforming_strings {conforming}");
        // Nothing of it differs in a second run, which is refused for the database that is not empty.
        let again = repo.restore(&target, "kbak", &[]).ended(3);
        let gaps = again.gaps();
        assert!(gaps.len() == 1 && gaps[0].1 == "back\\slash.dump", "{gaps:?}");
    }
}

#[test]
fn differences_of_existing_roles_and_settings_are_named_and_kept() {
    let server = start_server();
    run(
        &server,
        &[
            "CREATE ROLE shop LOGIN PASSWORD 'secret' CONNECTION LIMIT 3 VALID UNTIL '2031-01-01 12:00:00+01'",
            "ALTER ROLE shop SET work_mem = '9MB'",
            "COMMENT ON ROLE shop IS 'sells'",
            "CREATE ROLE same LOGIN PASSWORD 'one' VALID UNTIL '2031-01-01 12:00:00+01'",
            "ALTER ROLE ALL SET statement_timeout = '77s'",
        ],
    );
    let repo = PostgresRepo::of(server);
    let target = PostgresServer::start(PASSWORD, &["timezone=Asia/Tokyo", "datestyle=German"]);
    run(
        &target,
        &[
            "CREATE ROLE shop CONNECTION LIMIT 4",
            "CREATE ROLE same LOGIN PASSWORD 'another' VALID UNTIL '2031-01-01 11:00:00+00'",
            "ALTER ROLE ALL SET statement_timeout = '5s'",
        ],
    );
    let before = globals(&target);
    let restored = repo.restore(&target, "kbak", &[]).ended(3);
    assert_eq!(globals(&target), before);
    let gaps = restored.gaps();
    let objects: Vec<&str> = gaps.iter().map(|(_, object, _)| object.as_str()).collect();
    assert_eq!(objects, ["the role shop", "the setting statement_timeout of all roles"], "{gaps:?}");
    for part in ["CONNECTION LIMIT 3", "LOGIN", "a password", "VALID UNTIL", "work_mem", "the comment"] {
        assert!(gaps[0].2.contains(part), "{part}: {gaps:?}");
    }
}
