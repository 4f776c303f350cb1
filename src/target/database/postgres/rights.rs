//! The rights of the user who restores, as the server's catalogs tell them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::source::database::DatabaseError;
use crate::source::database::postgres::Postgres;
use crate::source::database::postgres::properties::PropertyKind;

/// The SQLSTATE of a missing right.
pub(super) const DENIED: &str = "42501";
/// The SQLSTATE of an unknown role or setting.
pub(super) const UNKNOWN: &str = "42704";
/// The SQLSTATE of a statement that the server's version does not know.
pub(super) const SYNTAX: &str = "42601";
/// The SQLSTATE of a role's name that the server reserves.
pub(super) const RESERVED: &str = "42939";
/// The SQLSTATE of an unknown database.
const NO_DATABASE: &str = "3D000";
/// The SQLSTATE of a setting that only the server's configuration can change.
const FIXED: &str = "55P02";
/// Parameters that every user may set and that `pg_settings` does not list.
const UNLISTED: &[&str] = &["role", "session_authorization"];

/// The rights of the user who restores.
#[derive(Debug, Deserialize)]
pub(super) struct Rights {
    pub(super) user: String,
    pub(super) superuser: bool,
    pub(super) create_role: bool,
    create_db: bool,
    replication: bool,
    bypass_rls: bool,
    /// The superuser that `initdb` made.
    first_superuser: String,
    /// The rights that the user gets in roles that they create, from PostgreSQL 16 on.
    self_grant: String,
    roles: BTreeMap<String, RoleRights>,
    /// Each role with the members that may grant it.
    admins: BTreeMap<String, BTreeSet<String>>,
    databases: BTreeSet<String>,
    /// Each parameter with the context that may set it.
    contexts: BTreeMap<String, String>,
    /// Parameters that the user may set by a right of their own.
    settable: BTreeSet<String>,
    /// Parameters whose right the user may grant.
    grantable: BTreeSet<String>,
    #[serde(skip)]
    major: u32,
}

/// The user's rights in an existing role.
#[derive(Debug, Deserialize)]
struct RoleRights {
    superuser: bool,
    /// True if the user may become the role.
    set: bool,
    /// True if the user has the role's rights.
    usage: bool,
    /// True if the user may grant the role.
    admin: bool,
}

impl Rights {
    /// Reads the rights of the connected user.
    pub(super) async fn read(server: &Postgres) -> Result<Self, DatabaseError> {
        let major = server.server_major;
        let set = if major >= 16 { "SET" } else { "MEMBER" };
        let parameters = |right: &str| match major {
            15.. => format!(
                "(SELECT coalesce(json_agg(parname), '[]') FROM pg_catalog.pg_parameter_acl \
                 WHERE pg_catalog.has_parameter_privilege(r.oid, parname, '{right}'))"
            ),
            _ => "'[]'::json".to_owned(),
        };
        let (settable, grantable) = (parameters("SET"), parameters("SET WITH GRANT OPTION"));
        let question = format!(
            "SELECT json_build_object('user', r.rolname, 'superuser', r.rolsuper, 'create_role', r.rolcreaterole, \
             'create_db', r.rolcreatedb, 'replication', r.rolreplication, 'bypass_rls', r.rolbypassrls, \
             'first_superuser', pg_catalog.pg_get_userbyid(10), \
             'self_grant', coalesce(pg_catalog.current_setting('createrole_self_grant', true), ''), \
             'roles', (SELECT json_object_agg(o.rolname, json_build_object('superuser', o.rolsuper, \
             'set', pg_catalog.pg_has_role(r.oid, o.oid, '{set}'), \
             'usage', pg_catalog.pg_has_role(r.oid, o.oid, 'USAGE'), \
             'admin', pg_catalog.pg_has_role(r.oid, o.oid, 'MEMBER WITH ADMIN OPTION'))) \
             FROM pg_catalog.pg_roles o), \
             'admins', (SELECT coalesce(json_object_agg(role, members), '{{}}') FROM \
             (SELECT pg_catalog.pg_get_userbyid(roleid) AS role, \
             json_agg(pg_catalog.pg_get_userbyid(member)) AS members \
             FROM pg_catalog.pg_auth_members WHERE admin_option GROUP BY roleid) granted), \
             'databases', (SELECT json_agg(datname) FROM pg_catalog.pg_database), \
             'contexts', (SELECT json_object_agg(lower(name), context) FROM pg_catalog.pg_settings), \
             'settable', {settable}, 'grantable', {grantable}) \
             FROM pg_catalog.pg_roles r WHERE r.rolname = current_user"
        );
        let rights: Self = server.query(&server.config.maintenance_database, &question).await?;
        Ok(Self { major, ..rights })
    }

    /// Returns true if the server has the role.
    pub(super) fn has_role(&self, role: &str) -> bool {
        self.roles.contains_key(role)
    }

    /// Returns true if the user may become an existing role.
    pub(super) fn may_become(&self, role: &str) -> bool {
        self.superuser || self.roles.get(role).is_some_and(|rights| rights.set)
    }

    /// Returns true if the user may become the roles that they create.
    pub(super) fn may_become_own(&self) -> bool {
        self.superuser || self.self_grant.to_lowercase().contains("set")
    }

    /// Returns the SQLSTATE with which the server refuses to give an option to a role that the user made.
    pub(super) fn refuses_option(&self, option: &str) -> Option<&'static str> {
        let is_given = match option {
            _ if self.superuser => true,
            "SUPERUSER" => false,
            "REPLICATION" => self.major >= 16 && self.replication,
            "BYPASSRLS" => self.major >= 16 && self.bypass_rls,
            "CREATEDB" => self.major < 16 || self.create_db,
            _ => true,
        };
        (!is_given).then_some(DENIED)
    }

    /// Returns the SQLSTATE with which the server refuses to set a parameter.
    fn refuses_setting(&self, parameter: &str) -> Option<&'static str> {
        let parameter = parameter.to_lowercase();
        match self.contexts.get(&parameter).map(String::as_str) {
            Some("user" | "backend") => None,
            Some("superuser" | "superuser-backend") => self.denies(self.settable.contains(&parameter)),
            Some(_) => Some(FIXED),
            None if UNLISTED.contains(&parameter.as_str()) => None,
            None if self.superuser && !parameter.contains('.') => Some(UNKNOWN),
            // An extension's, or one that only superusers see.
            None => self.denies(self.settable.contains(&parameter)),
        }
    }

    /// Returns the SQLSTATE of a missing right for all but superusers without it.
    fn denies(&self, has_right: bool) -> Option<&'static str> {
        (!self.superuser && !has_right).then_some(DENIED)
    }

    /// Returns the SQLSTATE with which the server refuses a setting of all roles.
    pub(super) fn refuses_setting_of_all(&self, kind: &PropertyKind) -> Option<&'static str> {
        self.denies(false).or_else(|| self.refuses_of_new_role(kind))
    }

    /// Returns the SQLSTATE with which the server refuses a property of a role that the user made.
    pub(super) fn refuses_of_new_role(&self, kind: &PropertyKind) -> Option<&'static str> {
        match kind {
            PropertyKind::Setting { parameter } => self.refuses_setting(parameter),
            PropertyKind::SettingInDatabase { parameter, database, .. } => {
                (!self.databases.contains(database))
                    .then_some(NO_DATABASE)
                    .or(self.refuses_setting(parameter))
            }
            PropertyKind::ParameterRight { .. } if self.major < 15 => Some(SYNTAX),
            PropertyKind::ParameterRight { parameter } => {
                self.denies(self.grantable.contains(&parameter.to_lowercase()))
            }
            _ => None,
        }
    }

    /// Returns the SQLSTATE with which the server refuses a property of a database that the user owns.
    pub(super) fn refuses_of_database(&self, kind: &PropertyKind) -> Option<&'static str> {
        match kind {
            PropertyKind::Setting { parameter } => self.refuses_setting(parameter),
            PropertyKind::SettingInDatabase { parameter, role, .. } => {
                let is_other = *role != self.user;
                // A role that is not known yet is one that the user made.
                let is_given = self.roles.get(role).is_none_or(|existing| {
                    self.create_role && !existing.superuser && (self.major < 16 || existing.admin)
                });
                self.denies(!is_other || is_given).or_else(|| self.refuses_setting(parameter))
            }
            PropertyKind::DatabaseRight { has_grantor: true, .. } => self.denies(false),
            PropertyKind::Owner { role } if *role != self.user => self.denies(self.create_db),
            _ => None,
        }
    }

    /// Returns the SQLSTATE with which the server refuses to grant a role; `is_own` if the user made it.
    pub(super) fn refuses_grant(&self, role: &str, sql: &str, is_own: bool) -> Option<&'static str> {
        let has_options =
            [" INHERIT ", " SET ", "ADMIN TRUE", "ADMIN FALSE"].iter().any(|it| sql.contains(it));
        if self.major < 16 && has_options {
            return Some(SYNTAX);
        }
        let existing = self.roles.get(role);
        let may_grant = existing.is_some_and(|existing| {
            !existing.superuser && (existing.admin || (self.major < 16 && self.create_role))
        });
        self.denies(is_own || may_grant)
    }

    /// Returns the SQLSTATE with which the server refuses that another role grants a role. `granted` holds the
    /// roles with their members who may grant them, as far as this restore makes them.
    pub(super) fn refuses_grantor(
        &self,
        grantor: &str,
        role: &str,
        granted: &BTreeSet<(&str, &str)>,
    ) -> Option<&'static str> {
        if self.major < 16 {
            return self.denies(grantor == self.user);
        }
        let has_rights = grantor == self.user || self.roles.get(grantor).is_some_and(|one| one.usage);
        let is_admin = grantor == self.first_superuser
            || granted.contains(&(role, grantor))
            || self.admins.get(role).is_some_and(|members| members.contains(grantor));
        if is_admin { self.denies(has_rights) } else { Some(DENIED) }
    }
}
