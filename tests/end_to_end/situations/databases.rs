//! Databases: users and their rights, existing databases and roles, options.

use super::{Choices, compose, require_none};
use crate::support::postgres::PostgresServer;
use crate::support::postgres_repo::{
    PostgresRepo, SHOP_ROLES, create_users, globals, relations, shop_server, start_server,
};
use crate::support::program::Run;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Database {
    Absent,
    Empty,
    EmptyOfUser,
    NotEmpty,
    NotEmptyOfUser,
    Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roles {
    None,
    /// As an earlier restore made them.
    Same,
    /// With other options, settings and members.
    Different,
    /// Some of them.
    Some,
    /// As an earlier restore made them, and the user is a member of all.
    OfUser,
}

struct Situation {
    is_plain: bool,
    user: &'static str,
    shop: Database,
    roles: Roles,
    replace: bool,
    no_owner: bool,
    has_password: bool,
}

fn situation(choices: &mut Choices) -> Situation {
    use Database::{Absent, Empty, EmptyOfUser, NotEmpty, NotEmptyOfUser, Template};
    Situation {
        shop: choices.pick("shop", &[Absent, Empty, EmptyOfUser, NotEmpty, NotEmptyOfUser, Template]),
        user: choices.pick("user", &["kbak", "cloudadmin", "creator", "tenant", "nobody"]),
        roles: choices
            .pick("roles", &[Roles::None, Roles::Same, Roles::Different, Roles::Some, Roles::OfUser]),
        replace: choices.pick("replace", &[false, true]),
        no_owner: choices.pick("no owner", &[false, true]),
        is_plain: choices.pick("plain source", &[false, true]),
        has_password: choices.pick("password", &[true, false]),
    }
}

/// A server with a database of a role that every server here has, and no other roles.
fn plain_server() -> PostgresServer {
    let server = start_server();
    server.sql("postgres", "CREATE ROLE creator LOGIN CREATEDB PASSWORD 'secret'");
    server.sql("postgres", "CREATE DATABASE shop OWNER creator");
    server.sql("shop", "SET ROLE creator; CREATE SCHEMA sales; CREATE TABLE sales.orders (id int)");
    server
}

struct Fixture {
    shop: PostgresRepo,
    plain: PostgresRepo,
    target: PostgresServer,
}

impl Fixture {
    fn new() -> Self {
        let target = start_server();
        create_users(&target);
        target.sql("postgres", "CREATE ROLE tenant LOGIN PASSWORD 'secret'");
        Self { shop: PostgresRepo::of(shop_server()), plain: PostgresRepo::of(plain_server()), target }
    }

    /// Removes what earlier restores made, and prepares the state of a situation.
    fn prepare(&self, situation: &Situation) {
        let sql = |statements: &[&str]| {
            for statement in statements {
                self.target.sql("postgres", statement);
            }
        };
        if self.target.sql("postgres", "SELECT datistemplate FROM pg_database WHERE datname = 'shop'") == "t"
        {
            sql(&["ALTER DATABASE shop IS_TEMPLATE false"]);
        }
        sql(&[
            "DROP DATABASE IF EXISTS shop",
            "ALTER DATABASE postgres OWNER TO kbak",
            "ALTER ROLE ALL RESET ALL",
        ]);
        for role in ["shop", "auditor", "clerks"] {
            let exists =
                self.target.sql("postgres", &format!("SELECT 1 FROM pg_roles WHERE rolname = '{role}'"));
            if exists == "1" {
                sql(&[&format!("DROP OWNED BY {role}"), &format!("DROP ROLE {role}")]);
            }
        }
        match situation.roles {
            Roles::None => {}
            Roles::Same => sql(&SHOP_ROLES),
            Roles::Different => {
                sql(&SHOP_ROLES);
                sql(&[
                    "ALTER ROLE auditor NOBYPASSRLS",
                    "REVOKE clerks FROM shop",
                    "ALTER ROLE shop RESET work_mem",
                ]);
            }
            Roles::Some => sql(&SHOP_ROLES[..2]),
            Roles::OfUser => {
                sql(&SHOP_ROLES);
                let is_user = !matches!(situation.user, "nobody" | "kbak");
                if is_user {
                    sql(&[&format!("GRANT shop, auditor, clerks TO {}", situation.user)]);
                }
            }
        }
        let owner = match situation.shop {
            Database::EmptyOfUser | Database::NotEmptyOfUser if situation.user != "nobody" => situation.user,
            _ => "kbak",
        };
        if situation.shop != Database::Absent {
            sql(&[&format!("CREATE DATABASE shop OWNER {owner}")]);
        }
        if matches!(situation.shop, Database::NotEmpty | Database::NotEmptyOfUser) {
            self.target.sql("shop", "CREATE TABLE mine (id int)");
        }
        if situation.shop == Database::Template {
            sql(&["ALTER DATABASE shop IS_TEMPLATE true"]);
        }
    }

    fn check(&self, name: &str, situation: &Situation) -> Option<String> {
        self.prepare(situation);
        let mut more = Vec::new();
        if situation.replace {
            more.push("--replace-databases");
        }
        if situation.no_owner {
            more.push("--no-owner");
        }
        if !situation.has_password {
            more.extend(["--database-password-file", "/no-such-file"]);
        }
        let repo = if situation.is_plain { &self.plain } else { &self.shop };
        let state = || {
            let has_shop = situation.shop != Database::Absent;
            globals(&self.target) + &if has_shop { relations(&self.target, "shop") } else { String::new() }
        };
        let before = state();
        let dry = repo.restore(&self.target, situation.user, &[&more[..], &["--dry-run"]].concat());
        let is_unchanged = state() == before;
        let real = repo.restore(&self.target, situation.user, &more);
        let unforeseen = unforeseen_gaps(&dry, &real);
        if dry.code == real.code && is_unchanged && unforeseen.is_empty() {
            return None;
        }
        Some(format!(
            "{name}: dry run {}, restore {}, unchanged by the dry run: {is_unchanged}, unforeseen: {unforeseen:#?}\n{}{}\n{}",
            dry.code,
            real.code,
            dry.stdout,
            dry.stderr,
            real.all_output()
        ))
    }
}

/// Returns the gaps of a restore of databases that the dry run before it does not name.
pub fn unforeseen_gaps(dry: &Run, real: &Run) -> Vec<(String, String)> {
    let is_foreseen = |object: &str, reason: &str| {
        // A database that is not restored at all is named by its dump.
        if let Some(database) = object.strip_suffix(".dump") {
            return dry.stdout.contains(&format!("not restored   {database}: "));
        }
        // Rights of a role that is missing: the role itself is named.
        if reason.starts_with("ACL ") {
            return true;
        }
        // A database is named with an entry or a property of it.
        let of_entry = reason.split(": ").next().unwrap_or_default().replace("TABLE DATA", "TABLE");
        let is_of_database = object == "shop" || object == "postgres";
        let named = if is_of_database { format!("{object}: {of_entry}") } else { object.to_owned() };
        // Entries of one kind are named together.
        let group = named.split('.').next().unwrap_or_default();
        dry.stdout.contains(&named) || (is_of_database && dry.stdout.contains(group))
    };
    let gaps = real.gaps().into_iter().map(|(_, object, reason)| (object, reason));
    gaps.filter(|(object, reason)| !is_foreseen(object, reason)).collect()
}

#[test]
fn dry_runs_of_databases_agree_with_restores_in_generated_situations() {
    let fixture = Fixture::new();
    let situations = compose(10, situation);
    let check = |(_, name, situation): &(u64, String, Situation)| fixture.check(name, situation);
    let differences: Vec<String> = situations.iter().filter_map(check).collect();
    require_none("databases", &differences, situations.len());
}
