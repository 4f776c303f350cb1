//! Applies the properties of a database that its archive records.

use super::super::{DatabaseRestore, NotApplied};
use super::script::{RefusedChange, Transaction, explain};
use crate::source::database::DatabaseError;
use crate::source::database::postgres::Postgres;
use crate::source::database::postgres::archive::DatabaseStatements;
use crate::source::database::postgres::properties::{Property, PropertyKind, database_properties};
use crate::source::database::postgres::tokens::quote_identifier;

/// Returns the properties of the database that a restore applies, and the descriptions of those that it does not.
pub(super) fn properties_of(
    request: &DatabaseRestore,
    statements: &DatabaseStatements,
) -> (Vec<Property>, Vec<NotApplied>) {
    let properties = database_properties(&statements.statements, &request.database);
    let owner = statements.owner.iter().map(|owner| Property {
        description: format!("its owner {owner}"),
        kind: PropertyKind::Owner { role: owner.clone() },
        steps: vec![format!(
            "ALTER DATABASE {} OWNER TO {};",
            quote_identifier(&request.database),
            quote_identifier(owner)
        )],
    });
    let applied = owner.chain(properties.known);
    let applied = applied.filter(|property| !(property.kind.changes_rights() && request.no_owner));
    let unknown = properties.refused.into_iter().map(|property| NotApplied {
        property,
        reason: "kbak does not restore this; it is in the archive".into(),
    });
    (applied.collect(), unknown.collect())
}

/// Applies the archive's properties to the database: `pg_restore` does that only for one that it
/// created. This comes last, because a limit or a setting may block the data.
pub(super) async fn apply_properties(
    server: &Postgres,
    request: &DatabaseRestore,
    statements: &DatabaseStatements,
) -> Result<Vec<NotApplied>, DatabaseError> {
    let (properties, unknown) = properties_of(request, statements);
    let mut changes = Transaction::new();
    for property in properties {
        changes.add(property.description, &property.steps, |_| {});
    }
    let refused = changes.run(server, &server.config.maintenance_database).await?;
    let refused = refused
        .into_iter()
        .map(|RefusedChange { purpose, state }| NotApplied { property: purpose, reason: explain(&state) });
    Ok(refused.chain(unknown).collect())
}
