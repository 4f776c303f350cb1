//! Foresees what the restore of roles would do, from the rights of the user who restores.

use std::collections::BTreeSet;

use super::super::{DumpReader, GlobalsPreview, NotApplied};
use super::rights::{DENIED, RESERVED, Rights, UNKNOWN};
use super::roles::{Comparison, Purpose, further_options, option_purpose};
use super::script::explain;
use crate::source::database::DatabaseError;
use crate::source::database::postgres::Postgres;
use crate::source::database::postgres::globals::{Membership, Role};

/// Returns what the restore of roles, and of the settings of all roles, would do.
pub(super) async fn globals(
    server: &Postgres,
    dump: &mut DumpReader<'_>,
) -> Result<GlobalsPreview, DatabaseError> {
    let compared = Comparison::read(server, dump).await?;
    let rights = Rights::read(server).await?;
    let mut refused = refused_roles(&compared, &rights);
    let mut report = compared.report(server, &refused);
    let memberships = refused_memberships(&compared, &rights, &report.created);
    refused.extend(memberships);
    report = compared.report(server, &refused);
    let (settings, kept) = compared.settings_of_all();
    let refused_settings = settings.into_iter().filter_map(|property| {
        let state = rights.refuses_setting_of_all(&property.kind)?;
        Some(NotApplied { property: property.description.clone(), reason: explain(state) })
    });
    report.not_applied.extend(kept.into_iter().chain(refused_settings));
    let usable = usable_roles(&compared, &rights, &report.created, &refused);
    Ok(GlobalsPreview { report, usable })
}

/// Returns the SQLSTATE with which the server refuses to create a role.
fn refuses_role(role: &Role, rights: &Rights) -> Option<&'static str> {
    match () {
        () if !(rights.superuser || rights.create_role) => Some(DENIED),
        () if role.name.starts_with("pg_") => Some(RESERVED),
        () => None,
    }
}

/// Returns the refused roles and properties of roles, in the order of a restore.
fn refused_roles(compared: &Comparison, rights: &Rights) -> Vec<(Purpose, String)> {
    let mut refused = Vec::new();
    for role in compared.new_roles() {
        if let Some(state) = refuses_role(role, rights) {
            refused.push((Purpose::PlainRole(role.name.clone()), state.to_owned()));
            continue;
        }
        let options = further_options(role).filter_map(|(option, sql)| {
            let state = rights.refuses_option(option)?;
            Some((option_purpose(role, option, sql), state.to_owned()))
        });
        refused.extend(options);
    }
    let properties = compared.new_properties().filter_map(|(role, property)| {
        let state = rights.refuses_of_new_role(&property.kind)?;
        Some((Purpose::Property(role.clone(), property.description.clone()), state.to_owned()))
    });
    refused.extend(properties);
    refused
}

/// Returns the refused memberships and grantors, in the order of a restore that creates these roles.
fn refused_memberships(compared: &Comparison, rights: &Rights, created: &[String]) -> Vec<(Purpose, String)> {
    let created: BTreeSet<&str> = created.iter().map(String::as_str).collect();
    let exists = |role: &str| rights.has_role(role) || created.contains(role);
    let mut granted: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut refused = Vec::new();
    for Membership { role, member, sql, granted_by } in compared.new_memberships() {
        let state = match exists(role) && exists(member) {
            true => rights.refuses_grant(role, sql, created.contains(role.as_str())),
            false => Some(UNKNOWN),
        };
        if let Some((grantor, _)) = granted_by {
            let by = match exists(grantor) {
                true => rights.refuses_grantor(grantor, role, &granted),
                false => Some(UNKNOWN),
            };
            if let Some(by) = state.or(by) {
                let (grantor, role, member) = (grantor.clone(), role.clone(), member.clone());
                refused.push((Purpose::Grantor { grantor, role, member }, by.to_owned()));
            }
        }
        match state {
            Some(state) => {
                refused.push((Purpose::Membership(role.clone(), member.clone()), state.to_owned()));
            }
            None if sql.contains("ADMIN OPTION") || sql.contains("ADMIN TRUE") => {
                granted.insert((role, member));
            }
            None => {}
        }
    }
    refused
}

/// Returns the roles that the user could become after the restore.
fn usable_roles(
    compared: &Comparison,
    rights: &Rights,
    created: &[String],
    refused: &[(Purpose, String)],
) -> BTreeSet<String> {
    let named = || compared.backup.roles.iter().map(|role| &role.name).chain([&rights.user]);
    let may_become = |role: &&String| rights.may_become(role);
    let mut usable: BTreeSet<String> = named().filter(may_become).cloned().collect();
    if rights.may_become_own() {
        usable.extend(created.iter().cloned());
    }
    let is_refused = |one: &Membership| {
        refused.iter().any(|(purpose, _)| {
            matches!(purpose, Purpose::Membership(role, member) if *role == one.role && *member == one.member)
        })
    };
    let new: Vec<&Membership> = compared.new_memberships().filter(|one| !is_refused(one)).collect();
    loop {
        let before = usable.len();
        let through = new.iter().filter(|one| usable.contains(&one.member)).map(|one| one.role.clone());
        let through: Vec<String> = through.collect();
        usable.extend(through);
        if usable.len() == before {
            return usable;
        }
    }
}
