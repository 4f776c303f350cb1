//! A restore of a database server is killed at every named point, and run again: the server is as after one
//! run, or the difference is named.

use crate::support::postgres::PostgresServer;
use crate::support::postgres_repo::{
    PostgresRepo, create_users, globals, relations, shop_server, start_server,
};

/// In a restore of a server, in the order of their first pass.
pub const RESTORE_SERVER: &[&str] = &[
    "restore.roles.compared",
    // In the transaction of the roles, and when its end is sent.
    "restore.script.written",
    "restore.script.written:2",
    "restore.roles.restored",
    // Of the first database, which exists and is empty; later passes are of the second.
    "restore.archive.restored",
    "restore.database.created",
    "restore.archive.part.written:2",
    "restore.archive.part.written:4",
    "restore.archive.written:2",
    "restore.archive.restored:2",
    // In the transaction of its properties: two parts of the roles', two of the first database's, one to
    // create it.
    "restore.script.written:6",
    "restore.properties.applied:2",
    "restore.settings.restored",
];

/// In a restore that replaces databases: without the one in which it connects, and without the other.
pub const REPLACE_DATABASES: &[&str] = &["restore.database.dropped", "restore.database.dropped:2"];

/// Removes everything that a restore made.
fn reset(server: &PostgresServer) {
    server.sql("postgres", "DROP DATABASE IF EXISTS shop");
    server.sql(
        "postgres",
        "DROP ROLE IF EXISTS shop; DROP ROLE IF EXISTS auditor; DROP ROLE IF EXISTS clerks; ALTER ROLE ALL RESET ALL",
    );
}

fn state(server: &PostgresServer) -> (String, String) {
    (globals(server), relations(server, "shop"))
}

/// A server to restore into, and its state after a restore that nothing interrupted.
struct KilledRestores<'a> {
    user: &'a str,
    repo: PostgresRepo,
    target: PostgresServer,
    code: i32,
    truth: (String, String),
    gaps: Vec<(String, String, String)>,
}

impl<'a> KilledRestores<'a> {
    fn of(user: &'a str) -> Self {
        let repo = PostgresRepo::of(shop_server());
        let target = start_server();
        create_users(&target);
        let code = if user == "kbak" { 0 } else { 3 };
        let whole = repo.restore(&target, user, &[]).ended(code);
        let (truth, gaps) = (state(&target), of_the_shop(whole.gaps()));
        Self { user, repo, target, code, truth, gaps }
    }

    /// Kills a restore at a point and runs it again, until nothing that is incomplete is named.
    fn kill(&self, more: &[&str], point: &str) {
        self.repo.kill_restore(&self.target, self.user, more, point);
        let mut last = self.repo.restore(&self.target, self.user, &[]);
        let is_refused =
            last.gaps().iter().any(|gap| gap.1 == "shop.dump" && gap.2.contains("exists and holds"));
        if is_refused {
            last.ended(3);
            last = self.repo.restore(&self.target, self.user, &["--replace-databases"]);
        }
        assert_eq!(state(&self.target), self.truth, "after a kill at {point}");
        let last = last.ended(self.code);
        assert_eq!(of_the_shop(last.gaps()), self.gaps, "after a kill at {point}");
    }
}

fn of_the_shop(mut gaps: Vec<(String, String, String)>) -> Vec<(String, String, String)> {
    gaps.retain(|gap| gap.1 == "shop");
    gaps.sort();
    gaps
}

/// The number of points before data is written into the second database.
const BEFORE_DATA: usize = 6;

/// Kills the restore of `user` at points of roles and of the creation of databases, and runs it again.
fn kill_before_data(user: &str) {
    let restores = KilledRestores::of(user);
    for point in &RESTORE_SERVER[..BEFORE_DATA] {
        reset(&restores.target);
        restores.kill(&[], point);
    }
    // Only a superuser may drop the first database.
    let points = if user == "kbak" { REPLACE_DATABASES } else { &REPLACE_DATABASES[..1] };
    for point in points {
        restores.kill(&["--replace-databases"], point);
    }
}

/// Kills the restore of `user` at points of the data and of what comes after it, and runs it again.
fn kill_in_data(user: &str) {
    let restores = KilledRestores::of(user);
    for point in &RESTORE_SERVER[BEFORE_DATA..] {
        reset(&restores.target);
        restores.kill(&[], point);
    }
}

#[test]
fn restore_by_a_superuser_is_completed_after_a_kill_before_its_data() {
    kill_before_data("kbak");
}

#[test]
fn restore_by_a_superuser_is_completed_after_a_kill_in_its_data() {
    kill_in_data("kbak");
}

#[test]
fn restore_by_a_creator_of_roles_is_completed_after_a_kill_before_its_data() {
    kill_before_data("cloudadmin");
}

#[test]
fn restore_by_a_creator_of_roles_is_completed_after_a_kill_in_its_data() {
    kill_in_data("cloudadmin");
}

#[test]
fn restore_by_a_creator_of_databases_is_completed_after_a_kill_before_its_data() {
    kill_before_data("creator");
}

#[test]
fn restore_by_a_creator_of_databases_is_completed_after_a_kill_in_its_data() {
    kill_in_data("creator");
}
