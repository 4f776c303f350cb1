//! Foresees which parts of an archive the server would refuse, from the rights of the user who restores.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use super::super::{DatabaseRestore, DumpReader, GlobalsPreview, NotApplied, RestoredDatabase, TargetState};
use super::archive::{MAX_NAMED, WRITE_SIZE, unknown_format};
use super::properties::properties_of;
use super::rights::{DENIED, Rights, UNKNOWN};
use super::script::explain;
use crate::source::database::DatabaseError;
use crate::source::database::postgres::Postgres;
use crate::source::database::postgres::archive::{ArchiveError, ArchiveScanner, EntryGroup, EntryGroups};
use crate::source::database::postgres::properties::PropertyKind;
use crate::source::database::postgres::tokens::quote_literal;

/// Kinds of entries whose objects `pg_restore` gives to an owner.
const OWNED: &[&str] = &[
    "AGGREGATE",
    "BLOB",
    "COLLATION",
    "CONVERSION",
    "DOMAIN",
    "FOREIGN TABLE",
    "FUNCTION",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
];
/// Kinds of entries that only a superuser may create.
const OF_SUPERUSERS: &[&str] = &[
    "ACCESS METHOD",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "SHELL TYPE",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
];

/// The schema that every new database has.
const PUBLIC: &str = "public";

/// The target of a restore, as the catalogs tell it.
struct Target<'a> {
    rights: &'a Rights,
    /// Roles that the user could become when the archive is restored.
    usable: BTreeSet<String>,
    /// Roles that exist then.
    created: &'a [String],
    no_owner: bool,
    major: u32,
    database: ExistingDatabase,
    extensions: BTreeMap<String, bool>,
    /// The owners of the schemas in the archive.
    schemas: BTreeMap<String, String>,
}

/// The user's rights in the target database.
#[derive(Deserialize)]
struct ExistingDatabase {
    /// True if the user may change the database itself.
    owned: bool,
    /// True if the user may create schemas.
    creates: bool,
    /// True if the user may create objects in the schema `public`.
    public: bool,
    /// The extensions in it, each with true if the user may change it.
    extensions: BTreeMap<String, bool>,
}

/// Returns what the restore of an archive would refuse and not apply.
pub(super) async fn contents(
    server: &Postgres,
    request: &DatabaseRestore,
    target: TargetState,
    globals: Option<&GlobalsPreview>,
    dump: &mut DumpReader<'_>,
) -> Result<RestoredDatabase, DatabaseError> {
    let mut scanner = read_contents(server, request, dump).await?;
    let (groups, statements) = (scanner.take_groups(), scanner.take_database_statements());
    if let Err(ArchiveError::UnknownVersion(..)) = scanner.finish() {
        let not_applied = vec![unknown_format()];
        let (refused, more_refused) = (Vec::new(), 0);
        return Ok(RestoredDatabase { is_verified_complete: false, refused, more_refused, not_applied });
    }
    let rights = Rights::read(server).await?;
    let is_schema = |group: &&EntryGroup| group.kind == "SCHEMA";
    let schemas = groups.keys().filter(is_schema).map(|group| (group.name.clone(), group.owner.clone()));
    let target = Target {
        usable: globals.map(|globals| globals.usable.clone()).unwrap_or_default(),
        created: globals.map_or(&[], |globals| globals.report.created.as_slice()),
        no_owner: request.no_owner,
        major: server.server_major,
        database: existing_database(server, request, target, &rights).await?,
        extensions: available_extensions(server).await?,
        schemas: schemas.collect(),
        rights: &rights,
    };
    let (refused, more_refused) = target.refused_entries(&groups);
    let (properties, unknown) = properties_of(request, &statements);
    let not_applied = properties.into_iter().filter_map(|property| {
        let state = target.refuses_property(&property.kind)?;
        Some(NotApplied { property: property.description, reason: explain(state) })
    });
    let not_applied = not_applied.chain(unknown).collect();
    Ok(RestoredDatabase { is_verified_complete: true, refused, more_refused, not_applied })
}

/// Reads an archive up to the end of its table of contents.
async fn read_contents(
    server: &Postgres,
    request: &DatabaseRestore,
    dump: &mut DumpReader<'_>,
) -> Result<ArchiveScanner, DatabaseError> {
    let mut scanner = ArchiveScanner::default();
    let mut buffer = vec![0; WRITE_SIZE];
    while !scanner.is_past_contents() {
        let count = dump.read(&mut buffer).await.map_err(|source| {
            server.config.io_error(format!("read the archive of {}", request.database), source)
        })?;
        if count == 0 {
            break;
        }
        scanner.feed(&buffer[..count]);
    }
    Ok(scanner)
}

/// Returns the rights in the database that the archive is restored into.
async fn existing_database(
    server: &Postgres,
    request: &DatabaseRestore,
    target: TargetState,
    rights: &Rights,
) -> Result<ExistingDatabase, DatabaseError> {
    if target != TargetState::Empty {
        let extensions = [("plpgsql".to_owned(), rights.superuser)].into();
        return Ok(ExistingDatabase { owned: true, creates: true, public: true, extensions });
    }
    let question = format!(
        "SELECT json_build_object(\
         'owned', (SELECT pg_catalog.pg_has_role(datdba, 'MEMBER') FROM pg_catalog.pg_database WHERE datname = {}), \
         'creates', pg_catalog.has_database_privilege(current_database(), 'CREATE'), \
         'public', coalesce((SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') \
         FROM pg_catalog.pg_namespace WHERE nspname = 'public'), false), \
         'extensions', (SELECT coalesce(json_object_agg(extname, pg_catalog.pg_has_role(extowner, 'MEMBER')), '{{}}') \
         FROM pg_catalog.pg_extension))",
        quote_literal(&request.database)
    );
    server.query(&request.database, &question).await
}

/// Returns the extensions that the server could install, each with true if only a superuser may.
async fn available_extensions(server: &Postgres) -> Result<BTreeMap<String, bool>, DatabaseError> {
    let needs = if server.server_major >= 13 { "superuser AND NOT trusted" } else { "superuser" };
    let question = format!(
        "SELECT coalesce(json_object_agg(name, needs), '{{}}') FROM (SELECT name, bool_and({needs}) AS needs \
         FROM pg_catalog.pg_available_extension_versions GROUP BY name) extensions"
    );
    server.query(&server.config.maintenance_database, &question).await
}

impl Target<'_> {
    fn has_role(&self, role: &str) -> bool {
        self.rights.has_role(role) || self.created.iter().any(|name| name == role)
    }

    /// Returns the SQLSTATE with which the server refuses to make a role the owner of something of the user's.
    fn refuses_owner(&self, owner: &str) -> Option<&'static str> {
        if owner == self.rights.user {
            return None;
        }
        if !self.has_role(owner) {
            return Some(UNKNOWN);
        }
        let may_become =
            self.rights.superuser || self.usable.contains(owner) || self.rights.may_become(owner);
        (!may_become).then_some(DENIED)
    }

    fn refuses_property(&self, kind: &PropertyKind) -> Option<&'static str> {
        let is_of_role = matches!(kind, PropertyKind::SettingInDatabase { .. });
        if !(self.rights.superuser || self.database.owned || is_of_role) {
            return Some(DENIED);
        }
        match kind {
            PropertyKind::SettingInDatabase { role, .. } | PropertyKind::DatabaseRight { role, .. }
                if role != "PUBLIC" && !self.has_role(role) =>
            {
                Some(UNKNOWN)
            }
            PropertyKind::Owner { role } => {
                self.refuses_owner(role).or_else(|| self.rights.refuses_of_database(kind))
            }
            _ => self.rights.refuses_of_database(kind),
        }
    }

    /// Returns the entries that the server would refuse, the first of them, and the number of further ones.
    fn refused_entries(&self, groups: &EntryGroups) -> (Vec<NotApplied>, u64) {
        let (mut refused, mut more) = (Vec::new(), 0);
        for (group, (first, number)) in groups {
            let Some(reason) = self.refuses_entry(group) else { continue };
            if refused.len() == MAX_NAMED {
                more += number;
                continue;
            }
            let EntryGroup { kind, schema, .. } = group;
            let dot = if schema.is_empty() { "" } else { "." };
            let others = if *number > 1 { format!(" and {} more", number - 1) } else { String::new() };
            refused.push(NotApplied { property: format!("{kind} {schema}{dot}{first}{others}"), reason });
        }
        (refused, more)
    }

    /// Returns the reason for which the server would refuse an entry or its owner.
    fn refuses_entry(&self, group: &EntryGroup) -> Option<String> {
        let EntryGroup { kind, schema, owner, name } = group;
        let (rights, database) = (self.rights, &self.database);
        let denied = || Some(explain(DENIED));
        match kind.as_str() {
            // kbak itself creates the database.
            "DATABASE" | "DATABASE PROPERTIES" => return None,
            "COMMENT" => {
                let extension = name.trim_start_matches("EXTENSION ").trim_matches('"');
                let is_others = database.extensions.get(extension).is_some_and(|is_own| !is_own);
                return (is_others && !rights.superuser).then(|| explain(DENIED));
            }
            "EXTENSION" if database.extensions.contains_key(name) => return None,
            "EXTENSION" => {
                return match self.extensions.get(name) {
                    None => Some("this server does not have the extension".to_owned()),
                    Some(true) if !rights.superuser => denied(),
                    Some(_) => None,
                };
            }
            _ if rights.superuser => {}
            kind if OF_SUPERUSERS.contains(&kind) => return denied(),
            "SCHEMA" if !database.creates => return denied(),
            _ if !database.creates && self.schemas.contains_key(schema) => {
                return Some(format!("its schema {schema} cannot be created"));
            }
            _ if schema == PUBLIC && !database.public => return denied(),
            _ => {}
        }
        if self.no_owner || owner.is_empty() || !OWNED.contains(&kind.as_str()) {
            return None;
        }
        if let Some(state) = self.refuses_owner(owner) {
            return Some(format!("its owner {owner}: {}", explain(state)));
        }
        let creates = rights.superuser || *owner == rights.user || self.creates_in(owner, schema);
        (!creates)
            .then(|| format!("its owner {owner} has no right to create in {schema}: {}", explain(DENIED)))
    }

    /// Returns true if a role could create objects in a schema before the archive's rights are restored, as
    /// the owner of an object in it must.
    fn creates_in(&self, role: &str, schema: &str) -> bool {
        match self.schemas.get(schema) {
            Some(owner) => owner == role,
            None => schema != PUBLIC || self.major < 15,
        }
    }
}
