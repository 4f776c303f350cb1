//! Restores into a real PostgreSQL server by users who are no superusers, as on most managed servers: the
//! data comes, and all that such a user may not do is named.

use crate::support::postgres_repo::{
    PostgresRepo, create_users, globals, relations, shop_server, start_server,
};

fn objects(gaps: &[(String, String, String)]) -> Vec<&str> {
    gaps.iter().map(|(_, object, _)| object.as_str()).collect()
}

#[test]
fn user_who_may_create_roles_restores_data_and_roles() {
    let repo = PostgresRepo::of(shop_server());
    let target = start_server();
    create_users(&target);
    let restored = repo.restore(&target, "cloudadmin", &[]).ended(3);
    assert_eq!(target.sql("shop", "SELECT count(*) FROM orders"), "30000");
    let gaps = restored.gaps();
    let named = objects(&gaps);
    for object in [
        "BYPASSRLS of the role auditor",
        "the setting log_statement of the role shop",
        "the grantor kbak of the membership of shop in clerks",
        "the setting statement_timeout of all roles",
    ] {
        assert!(named.contains(&object), "{object}: {gaps:?}");
    }
    for reason in ["TABLE public.orders: ERROR:  must be member of role \"shop\"", "its owner shop: "] {
        assert!(gaps.iter().any(|gap| gap.1 == "shop" && gap.2.starts_with(reason)), "{reason}: {gaps:?}");
    }
    let after = globals(&target);
    let is_same = |start: &str| {
        let before = globals(&repo.server);
        let line = before.lines().find(|line| line.starts_with(start)).expect("a line");
        assert!(after.lines().any(|one| one == line), "{line}: {after}");
    };
    is_same("role|shop|");
    is_same("role|clerks|");
    is_same("setting|shop|ALL|work_mem");
    assert!(after.contains("member|clerks|shop|t|"), "{after}");
    assert!(after.contains("role|auditor|f|t|f|t|t|f|f|"), "all but BYPASSRLS: {after}");

    // An administrator completes the database, and hears of the roles that are not as they were.
    let again = repo.restore(&target, "kbak", &["--replace-databases"]).ended(3);
    let gaps = again.gaps();
    let grantor = "the grantor kbak of the membership of shop in clerks";
    assert_eq!(objects(&gaps), ["the role auditor", "the role shop", grantor], "{gaps:?}");
    assert!(gaps[0].2.contains("BYPASSRLS") && gaps[1].2.contains("log_statement"), "{gaps:?}");
    assert_eq!(relations(&target, "shop"), relations(&repo.server, "shop"));
}

#[test]
fn user_who_may_create_databases_alone_restores_the_data() {
    let repo = PostgresRepo::of(shop_server());
    let target = start_server();
    create_users(&target);
    let restored = repo.restore(&target, "creator", &[]).ended(3);
    let gaps = restored.gaps();
    let named = objects(&gaps);
    for object in ["the role shop", "the role auditor", "the role clerks"] {
        assert!(named.contains(&object), "{object}: {gaps:?}");
    }
    let of_roles =
        |gap: &&(String, String, String)| gap.1.contains("of the role") || gap.1.contains("membership");
    assert_eq!(gaps.iter().find(of_roles), None, "a role that is missing is named once");
    assert_eq!(target.sql("shop", "SELECT count(*) FROM orders"), "30000");
    let limits =
        "SELECT datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'shop'";
    assert_eq!(target.sql("postgres", limits), "40|sells");

    // A later run by an administrator brings the roles, and with them all that the first could not.
    repo.restore(&target, "kbak", &["--replace-databases"]).ended(0);
    target.sql("postgres", "DROP ROLE cloudadmin; DROP ROLE creator");
    assert_eq!(globals(&target), globals(&repo.server));
    assert_eq!(relations(&target, "shop"), relations(&repo.server, "shop"));
}

#[test]
fn data_without_owners_is_restored_without_further_gaps() {
    let repo = PostgresRepo::of(shop_server());
    let target = start_server();
    create_users(&target);
    for user in ["cloudadmin", "creator"] {
        let restored = repo.restore(&target, user, &["--no-owner"]).ended(3);
        let gaps = restored.gaps();
        assert!(!objects(&gaps).contains(&"shop"), "the database itself is complete: {gaps:?}");
        let owners =
            "SELECT relname, relowner::regrole, relacl FROM pg_class WHERE relname IN ('orders', 'dear')";
        assert_eq!(target.sql("shop", owners), format!("orders|{user}|\ndear|{user}|"));
        assert_eq!(target.sql("shop", "SELECT count(*) FROM orders"), "30000");
        target.sql("postgres", "DROP DATABASE shop");
    }
}

#[test]
fn user_without_the_right_to_create_databases_fills_an_empty_one() {
    let repo = PostgresRepo::of(shop_server());
    let target = start_server();
    target.sql("postgres", "CREATE ROLE tenant LOGIN PASSWORD 'secret'");
    let refused = repo.restore(&target, "tenant", &["--no-owner"]).ended(3);
    let gaps = refused.gaps();
    let reason = "the server refuses to create shop: the user who restores may not do it (42501)";
    assert!(gaps.iter().any(|gap| gap.1 == "shop.dump" && gap.2.contains(reason)), "{gaps:?}");
    assert!(refused.stderr.contains("an empty database of this name is filled"), "{}", refused.stderr);
    target.sql("postgres", "CREATE DATABASE shop OWNER tenant");
    repo.restore(&target, "tenant", &["--no-owner"]).ended(3);
    assert_eq!(target.sql("shop", "SELECT count(*) FROM orders"), "30000");
}
