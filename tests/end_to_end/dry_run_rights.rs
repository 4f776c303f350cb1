//! Dry runs of databases foresee what the rights of the user who restores leave out: the same verdict, exit code
//! and names as the restore after it.

use super::situations::unforeseen_gaps;
use crate::support::postgres::PostgresServer;
use crate::support::postgres_repo::{PostgresRepo, create_users, shop_server, start_server};

/// Runs a restore without and with `--dry-run`, the dry run first, and compares their exit codes and the objects
/// that they name. Returns what the dry run says.
fn check(repo: &PostgresRepo, server: &PostgresServer, user: &str, more: &[&str], code: i32) -> String {
    let before = crate::support::postgres_repo::globals(server);
    let dry = repo.restore(server, user, &[more, &["--dry-run"]].concat());
    assert_eq!(dry.code, code, "{user} {more:?}: {}{}", dry.stdout, dry.stderr);
    assert_eq!(crate::support::postgres_repo::globals(server), before, "{user} {more:?}: it was changed");
    let real = repo.restore(server, user, more).ended(code);
    let unforeseen = unforeseen_gaps(&dry, &real);
    assert!(unforeseen.is_empty(), "{user} {more:?}: {unforeseen:#?}\n{}", dry.stdout);
    dry.stdout
}

/// Removes what a restore made, so that the next one begins anew.
fn reset(server: &PostgresServer) {
    server.sql("postgres", "DROP DATABASE IF EXISTS shop");
    for role in ["shop", "auditor", "clerks"] {
        server.sql("postgres", &format!("DROP ROLE IF EXISTS {role}"));
    }
    server.sql("postgres", "ALTER ROLE ALL RESET statement_timeout");
}

#[test]
fn dry_run_names_roles_and_settings_that_the_user_cannot_make() {
    let repo = PostgresRepo::of(shop_server());
    let target = start_server();
    create_users(&target);
    let said = check(&repo, &target, "cloudadmin", &[], 3);
    for line in [
        "BYPASSRLS of the role auditor: the user who restores may not do it (42501)",
        "the setting log_statement of the role shop: ",
        "the setting statement_timeout of all roles: ",
        "the grantor kbak of the membership of shop in clerks: ",
        "shop: its owner shop: ",
        "shop: TABLE public.orders: its owner shop: ",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    reset(&target);
    let said = check(&repo, &target, "cloudadmin", &["--no-owner"], 3);
    assert!(said.contains("BYPASSRLS of the role auditor") && !said.contains("its owner"), "{said}");
    reset(&target);
    let said = check(&repo, &target, "creator", &[], 3);
    for line in ["the role shop: ", "the role auditor: ", "the role clerks: ", "rights of clerks: "] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("of the role shop"), "a role that cannot be made is named once: {said}");
    reset(&target);
    check(&repo, &target, "creator", &["--no-owner"], 3);
    reset(&target);
    check(&repo, &target, "kbak", &[], 0);
    check(&repo, &target, "kbak", &["--replace-databases"], 0);
    target.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false");
    let said = check(&repo, &target, "kbak", &["--replace-databases"], 3);
    assert!(said.contains("it accepts no connections"), "{said}");
    target.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS true");
    let nowhere = "CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)";
    target.sql("shop", &format!("CREATE SUBSCRIPTION s {nowhere}"));
    let said = check(&repo, &target, "kbak", &["--replace-databases"], 3);
    assert!(said.contains("a subscription in it receives data"), "{said}");
    target.sql("shop", "DROP SUBSCRIPTION s");
    target.sql("postgres", "ALTER ROLE auditor NOBYPASSRLS; ALTER ROLE ALL SET statement_timeout = '78s'");
    let said = check(&repo, &target, "kbak", &["--replace-databases"], 3);
    assert!(
        said.contains("the role auditor: it exists and is not changed; the backup has BYPASSRLS"),
        "{said}"
    );
    assert!(
        said.contains("the setting statement_timeout of all roles: this server has another value"),
        "{said}"
    );
}

/// A server with a database that a user without any right could restore, and no roles beside.
fn plain_server() -> PostgresServer {
    let server = start_server();
    server.sql("postgres", "CREATE ROLE creator LOGIN CREATEDB PASSWORD 'secret'");
    server.sql("postgres", "CREATE ROLE tenant LOGIN PASSWORD 'secret'");
    server.sql("postgres", "CREATE DATABASE shop OWNER creator");
    server.sql("postgres", "ALTER DATABASE postgres OWNER TO creator");
    server.sql("shop", "SET ROLE creator; CREATE SCHEMA sales; CREATE TABLE sales.orders (id int)");
    server
}

#[test]
fn dry_run_foresees_rights_in_databases() {
    let repo = PostgresRepo::of(plain_server());
    let target = start_server();
    for user in ["creator LOGIN CREATEDB", "tenant LOGIN"] {
        target.sql("postgres", &format!("CREATE ROLE {user} PASSWORD 'secret'"));
    }
    // It is part of the backup, too.
    target.sql("postgres", "ALTER DATABASE postgres OWNER TO creator");
    let drop = || target.sql("postgres", "DROP DATABASE IF EXISTS shop");
    check(&repo, &target, "creator", &[], 0);
    check(&repo, &target, "creator", &["--replace-databases"], 0);
    check(&repo, &target, "tenant", &["--replace-databases"], 3);
    drop();
    check(&repo, &target, "tenant", &["--no-owner"], 3);
    target.sql("postgres", "CREATE DATABASE shop OWNER tenant");
    let said = check(&repo, &target, "tenant", &["--no-owner"], 3);
    assert!(!said.contains("not restored   shop: "), "all of it can be restored: {said}");
    drop();
    target.sql("postgres", "CREATE DATABASE shop OWNER tenant");
    let said = check(&repo, &target, "tenant", &[], 3);
    assert!(said.contains("shop: SCHEMA sales: its owner creator: "), "{said}");
    drop();
    target.sql("postgres", "CREATE DATABASE shop");
    let said = check(&repo, &target, "tenant", &["--no-owner"], 3);
    assert!(said.contains("shop: SCHEMA sales: the user who restores may not do it"), "{said}");
    target.sql("postgres", "GRANT creator TO tenant");
    drop();
    target.sql("postgres", "CREATE DATABASE shop OWNER tenant");
    let said = check(&repo, &target, "tenant", &[], 3);
    assert!(said.contains("its owner creator"), "only a user with CREATEDB may give a database away: {said}");
}

#[test]
fn dry_run_foresees_extensions_and_objects_of_superusers() {
    let server = start_server();
    server.sql("postgres", "CREATE ROLE creator LOGIN CREATEDB PASSWORD 'secret'");
    server.sql("postgres", "CREATE DATABASE shop OWNER creator");
    server.sql("shop", "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'");
    server.sql("shop", "ALTER FUNCTION note() OWNER TO creator");
    server.sql("shop", "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION note()");
    let repo = PostgresRepo::of(server);
    let target = start_server();
    target.sql("postgres", "CREATE ROLE creator LOGIN CREATEDB PASSWORD 'secret'");
    let said = check(&repo, &target, "creator", &["--no-owner"], 3);
    assert!(said.contains("shop: EVENT TRIGGER noted: the user who restores may not do it"), "{said}");
    target.sql("postgres", "DROP DATABASE shop");
    check(&repo, &target, "kbak", &[], 0);
}
