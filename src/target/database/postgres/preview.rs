//! Foresees what the restore of a database would do with its target, and changes nothing.

use serde::Deserialize;

use super::{check_droppable, maintenance_database};
use crate::source::database::DatabaseError;
use crate::source::database::postgres::Postgres;
use crate::source::database::postgres::tokens::quote_literal;
use crate::target::database::{DatabaseRestore, RestoreRecipe as _, TargetDatabase, TargetState};

/// The rights of the user who restores, and the target database.
#[derive(Deserialize)]
struct Rights {
    exists: bool,
    creates: bool,
    /// True if the user is the owner of the database or a superuser.
    owns: bool,
}

pub(super) async fn database(
    server: &Postgres,
    request: &DatabaseRestore,
) -> Result<TargetState, DatabaseError> {
    let name = quote_literal(&request.database);
    let question = format!(
        "SELECT json_build_object('exists', d.datdba IS NOT NULL, 'creates', r.rolcreatedb OR r.rolsuper, \
         'owns', r.rolsuper OR coalesce(pg_catalog.pg_has_role(r.oid, d.datdba, 'MEMBER'), false)) \
         FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_database d ON d.datname = {name} \
         WHERE r.rolname = current_user"
    );
    let rights: Rights = server.query(maintenance_database(server, request), &question).await?;
    let denied = |operation: String| DatabaseError::NoRight {
        name: server.config.name.clone(),
        user: server.config.user.clone(),
        operation,
    };
    let may_create = || match rights.creates {
        true => Ok(()),
        false => Err(denied("create databases (CREATEDB)".to_owned())),
    };
    if !rights.exists {
        may_create()?;
        return Ok(TargetState::Absent);
    }
    if request.target == TargetDatabase::Replace && rights.owns {
        check_droppable(server, request).await?;
    }
    let objects = server.count_objects(&request.database).await?;
    if request.target == TargetDatabase::Replace {
        if !rights.owns {
            return Err(denied(format!("drop {}: it belongs to another role", request.database)));
        }
        may_create()?;
        return Ok(TargetState::Dropped(objects));
    }
    if objects > 0 {
        let (name, database) = (server.config.name.clone(), request.database.clone());
        return Err(DatabaseError::NotEmpty { name, database, objects });
    }
    Ok(TargetState::Empty)
}
