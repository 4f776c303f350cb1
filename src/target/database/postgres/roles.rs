//! Restores roles: those that do not exist, and memberships. All in one transaction, so that a role exists
//! with everything that belongs to it or not at all.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::super::{DumpReader, GlobalsReport, NotApplied};
use super::script::{Transaction, explain};
use crate::runtime::kill_point;
use crate::source::database::DatabaseError;
use crate::source::database::postgres::Postgres;
use crate::source::database::postgres::globals::{
    CONNECTION_LIMIT, Globals, Membership, PASSWORD, Role, VALID_UNTIL, split_globals,
};
use crate::source::database::postgres::properties::Property;
use crate::source::database::postgres::tokens::quote_identifier;

/// The longest text of roles that is read, in bytes: some 50,000 roles.
const MAX_GLOBALS: u64 = 16 << 20;
/// The options of a role that every user may give who may create roles.
const PLAIN_OPTIONS: &[&str] = &["INHERIT", "LOGIN", CONNECTION_LIMIT];

/// The end of the names of settings that load a library into each new session.
const PRELOADED: &str = "_preload_libraries";

/// The purpose of a statement about roles.
pub(super) enum Purpose {
    /// A role with all of its options.
    Role,
    /// A role with its plain options, if the server refuses it with all of them.
    PlainRole(String),
    /// A property of a role, and the property in words.
    Property(String, String),
    /// A membership.
    Membership(String, String),
    /// The role that granted a membership.
    Grantor { grantor: String, role: String, member: String },
}

/// The roles and settings of a backup, beside those of the server.
pub(super) struct Comparison {
    pub(super) backup: Globals,
    known: BTreeSet<String>,
    current: Globals,
}

impl Comparison {
    /// Reads the dump and the server.
    pub(super) async fn read(server: &Postgres, dump: &mut DumpReader<'_>) -> Result<Self, DatabaseError> {
        Self::of(server, split_globals(&read_text(server, dump).await?)).await
    }

    async fn of(server: &Postgres, backup: Globals) -> Result<Self, DatabaseError> {
        let names = "SELECT coalesce(json_agg(rolname), '[]') FROM pg_catalog.pg_roles";
        let known = server.query(&server.config.maintenance_database, names).await?;
        Ok(Self { backup, known, current: current_globals(server).await? })
    }

    /// Returns the roles that the server lacks.
    pub(super) fn new_roles(&self) -> impl Iterator<Item = &Role> {
        self.backup.roles.iter().filter(|role| !self.known.contains(&role.name))
    }

    /// Returns the properties of roles that the server lacks.
    pub(super) fn new_properties(&self) -> impl Iterator<Item = &(String, Property)> {
        self.backup.properties.iter().filter(|(role, _)| !self.known.contains(role))
    }

    /// Returns the memberships that the server lacks.
    pub(super) fn new_memberships(&self) -> impl Iterator<Item = &Membership> {
        let is_new = |one: &&Membership| existing_membership(one, &self.current).is_none();
        self.backup.memberships.iter().filter(is_new)
    }

    /// Returns the report of a restore of which the server refused these changes.
    pub(super) fn report(&self, server: &Postgres, refused: &[(Purpose, String)]) -> GlobalsReport {
        let lacking = roles_not_created(refused);
        let created = self.new_roles().map(|role| role.name.clone());
        let existing = || self.backup.roles.iter().filter(|role| self.known.contains(&role.name));
        let differences = existing().filter_map(|role| difference(server, role, &self.backup, &self.current));
        let grantors = self.backup.memberships.iter().filter_map(|membership| {
            let existing = existing_membership(membership, &self.current)?;
            if existing.sql == membership.sql { None } else { other_grantor(membership, existing) }
        });
        GlobalsReport {
            created: created.filter(|name| !lacking.contains(name.as_str())).collect(),
            existed: existing().map(|role| role.name.clone()).collect(),
            refused: self.backup.refused.clone(),
            not_applied: differences.chain(grantors).chain(gaps(refused, &lacking)).collect(),
        }
    }

    /// Returns the settings of all roles to be set, and those that are not.
    pub(super) fn settings_of_all(&self) -> (Vec<&Property>, Vec<NotApplied>) {
        let (mut set, mut not_applied) = (Vec::new(), Vec::new());
        for property in &self.backup.settings_of_all {
            let Property { description, steps, .. } = property;
            let kept = |reason: &str| NotApplied { property: description.clone(), reason: reason.to_owned() };
            match self.current.settings_of_all.iter().find(|one| one.description == *description) {
                Some(same) if same.steps == *steps => {}
                Some(_) => not_applied.push(kept("this server has another value, which is kept")),
                None if description.contains(PRELOADED) => not_applied.push(kept(
                    "without these libraries nobody could connect: set it when they are installed",
                )),
                None => set.push(property),
            }
        }
        (set, not_applied)
    }
}

/// Creates the roles of a dump that do not exist, with their settings, comments and rights, and grants the
/// memberships. Existing roles stay unchanged, and their differences are reported.
pub(super) async fn restore_roles(
    server: &Postgres,
    dump: &mut DumpReader<'_>,
) -> Result<GlobalsReport, DatabaseError> {
    let compared = Comparison::read(server, dump).await?;
    kill_point("restore.roles.compared");
    let mut changes = Transaction::new();
    for role in compared.new_roles() {
        add_role(&mut changes, role);
    }
    for (role, Property { description, steps, .. }) in compared.new_properties() {
        changes.add(Purpose::Property(role.clone(), description.clone()), steps, |_| {});
    }
    for membership in compared.new_memberships() {
        add_membership(&mut changes, membership);
    }
    let refused = changes.run(server, &server.config.maintenance_database).await?;
    kill_point("restore.roles.restored");
    let refused: Vec<(Purpose, String)> = refused.into_iter().map(|one| (one.purpose, one.state)).collect();
    Ok(compared.report(server, &refused))
}

/// Sets the settings for all roles. An existing setting is kept.
pub(super) async fn restore_settings(
    server: &Postgres,
    dump: &mut DumpReader<'_>,
) -> Result<Vec<NotApplied>, DatabaseError> {
    let backup = split_globals(&read_text(server, dump).await?);
    if backup.settings_of_all.is_empty() {
        return Ok(Vec::new());
    }
    let compared = Comparison::of(server, backup).await?;
    let (set, mut not_applied) = compared.settings_of_all();
    let mut changes = Transaction::new();
    for Property { description, steps, .. } in set {
        changes.add(description.clone(), steps, |_| {});
    }
    let refused = changes.run(server, &server.config.maintenance_database).await?;
    let refused =
        refused.into_iter().map(|one| NotApplied { property: one.purpose, reason: explain(&one.state) });
    not_applied.extend(refused);
    kill_point("restore.settings.restored");
    Ok(not_applied)
}

/// Returns the roles and settings of the server.
async fn current_globals(server: &Postgres) -> Result<Globals, DatabaseError> {
    let mut dump = server.dump_globals().await?;
    let text = read_text(server, &mut dump).await?;
    dump.finish().await?;
    Ok(split_globals(&text))
}

/// Reads a text of roles. Bytes that are not UTF-8 become characters that no statement may hold.
async fn read_text(
    server: &Postgres,
    text: &mut (impl AsyncRead + Unpin + ?Sized),
) -> Result<String, DatabaseError> {
    let failed = |source| server.config.io_error("read the roles", source);
    let mut bytes = Vec::new();
    text.take(MAX_GLOBALS + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() as u64 > MAX_GLOBALS {
        return Err(failed(std::io::Error::other(format!("they are longer than {MAX_GLOBALS} bytes"))));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds the creation of a role: with all options at once, or, if the server refuses that, with the plain
/// ones, and each further option alone.
fn add_role(changes: &mut Transaction<Purpose>, role: &Role) {
    let name = quote_identifier(&role.name);
    let create = |options: &[&String]| {
        let options: Vec<&str> = options.iter().map(|option| option.as_str()).collect();
        format!("CREATE ROLE {name} WITH {};", options.join(" "))
    };
    let all: Vec<&String> = role.options.values().collect();
    let plain = role.options.iter().filter(|(option, _)| PLAIN_OPTIONS.contains(option));
    let plain: Vec<&String> = plain.map(|(_, sql)| sql).collect();
    changes.add(Purpose::Role, &[create(&all)], |changes| {
        changes.add(Purpose::PlainRole(role.name.clone()), &[create(&plain)], |_| {});
        for (option, sql) in further_options(role) {
            let purpose = option_purpose(role, option, sql);
            changes.add(purpose, &[format!("ALTER ROLE {name} WITH {sql};")], |_| {});
        }
    });
}

/// Returns the options of a role that not every user may give who may create roles. The negated options are the
/// defaults.
pub(super) fn further_options(role: &Role) -> impl Iterator<Item = (&'static str, &String)> {
    let options = role.options.iter().map(|(option, sql)| (*option, sql));
    options.filter(|(option, sql)| !PLAIN_OPTIONS.contains(option) && !sql.starts_with("NO"))
}

pub(super) fn option_purpose(role: &Role, option: &str, sql: &str) -> Purpose {
    let what = if option == PASSWORD { "the password" } else { sql };
    Purpose::Property(role.name.clone(), format!("{what} of the role {}", role.name))
}

/// Adds a membership: granted by the same role as in the backup, or, if the server refuses that, by the user
/// who restores.
fn add_membership(changes: &mut Transaction<Purpose>, membership: &Membership) {
    let Membership { role, member, sql, granted_by } = membership;
    let purpose = Purpose::Membership(role.clone(), member.clone());
    let Some((grantor, without)) = granted_by else {
        return changes.add(purpose, std::slice::from_ref(sql), |_| {});
    };
    let (grantor, role, member) = (grantor.clone(), role.clone(), member.clone());
    changes.add(Purpose::Grantor { grantor, role, member }, std::slice::from_ref(sql), |changes| {
        changes.add(purpose, std::slice::from_ref(without), |_| {});
    });
}

/// Returns the same membership of the server, whoever granted it.
fn existing_membership<'a>(membership: &Membership, current: &'a Globals) -> Option<&'a Membership> {
    let same = |one: &&Membership| one.without_grantor() == membership.without_grantor();
    let all = || current.memberships.iter().filter(same);
    all().find(|one| one.sql == membership.sql).or_else(|| all().next())
}

fn other_grantor(membership: &Membership, existing: &Membership) -> Option<NotApplied> {
    let (grantor, _) = membership.granted_by.as_ref()?;
    let by = existing.granted_by.as_ref().map_or("another role", |(by, _)| by.as_str());
    Some(NotApplied {
        property: describe_grantor(grantor, &membership.role, &membership.member),
        reason: format!("the membership exists, granted by {by}"),
    })
}

fn describe_grantor(grantor: &str, role: &str, member: &str) -> String {
    format!("the grantor {grantor} of the membership of {member} in {role}")
}

fn roles_not_created(refused: &[(Purpose, String)]) -> BTreeSet<&str> {
    let names = refused.iter().filter_map(|(purpose, _)| match purpose {
        Purpose::PlainRole(name) => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

/// Returns what was refused, without that which belongs to a role that was refused itself.
fn gaps(refused: &[(Purpose, String)], lacking: &BTreeSet<&str>) -> Vec<NotApplied> {
    let lacks = |role: &str| lacking.contains(role);
    let memberships: BTreeSet<(&str, &str)> = refused
        .iter()
        .filter_map(|(purpose, _)| match purpose {
            Purpose::Membership(role, member) => Some((role.as_str(), member.as_str())),
            _ => None,
        })
        .collect();
    let property = |purpose: &Purpose| match purpose {
        Purpose::Role => None,
        Purpose::PlainRole(name) => Some(format!("the role {name}")),
        Purpose::Property(role, _) if lacks(role) => None,
        Purpose::Property(_, property) => Some(property.clone()),
        Purpose::Membership(role, member) | Purpose::Grantor { role, member, .. }
            if lacks(role) || lacks(member) =>
        {
            None
        }
        Purpose::Membership(role, member) => Some(format!("the membership of {member} in {role}")),
        Purpose::Grantor { role, member, .. } if memberships.contains(&(role.as_str(), member.as_str())) => {
            None
        }
        Purpose::Grantor { grantor, role, member } => Some(describe_grantor(grantor, role, member)),
    };
    let gap = |(purpose, state): &(Purpose, String)| {
        Some(NotApplied { property: property(purpose)?, reason: explain(state) })
    };
    refused.iter().filter_map(gap).collect()
}

/// Returns the properties of a role in the backup that the existing role does not have. Passwords are not
/// compared: a role that has another one keeps it.
fn difference(server: &Postgres, role: &Role, backup: &Globals, current: &Globals) -> Option<NotApplied> {
    let none = BTreeMap::new();
    let existing = current.roles.iter().find(|one| one.name == role.name);
    let existing = existing.map_or(&none, |role| &role.options);
    let is_same = |option: &str, sql: &String| match (option, existing.get(option)) {
        (PASSWORD, found) => {
            found.is_some() || !server.can_read_passwords() || role.name == server.config.user
        }
        (VALID_UNTIL, Some(found)) => is_same_time(sql, found),
        (_, found) => found == Some(sql),
    };
    let options = role.options.iter().filter(|(option, sql)| !is_same(option, sql));
    let options = options.map(|(option, sql)| if *option == PASSWORD { "a password" } else { sql.as_str() });
    let unlimited = [CONNECTION_LIMIT, VALID_UNTIL].into_iter();
    let unlimited =
        unlimited.filter(|option| existing.contains_key(option) && !role.options.contains_key(option));
    let has = |property: &Property| {
        current.properties.iter().any(|(name, one)| *name == role.name && one.steps == property.steps)
    };
    let properties = backup.properties.iter().filter(|(name, property)| *name == role.name && !has(property));
    let suffix = format!(" of the role {}", role.name);
    let all: Vec<String> = options
        .map(str::to_owned)
        .chain(unlimited.map(|option| format!("no {option}")))
        .chain(properties.map(|(_, one)| one.description.trim_end_matches(&suffix).to_owned()))
        .collect();
    (!all.is_empty()).then(|| NotApplied {
        property: format!("the role {}", role.name),
        reason: format!("it exists and is not changed; the backup has {}", all.join(", ")),
    })
}

/// Returns true if two `VALID UNTIL '…'` name one moment, whatever the time zone.
fn is_same_time(one: &str, other: &str) -> bool {
    let time = |sql: &str| sql.split('\'').nth(1).and_then(|text| text.parse::<Timestamp>().ok());
    one == other || time(one).is_some_and(|moment| time(other) == Some(moment))
}
