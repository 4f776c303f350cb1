//! Restores PostgreSQL archives through `pg_restore`, and roles through statements of known shapes.
//!
//! An archive holds SQL that runs with the rights of the user who restores. Its author can do in the
//! target all that this user can (a superuser's `COPY … PROGRAM` included). That is in the nature of
//! the format; kbak adds the proof that the bytes are those that the writer signed. Roles are plain
//! SQL and are never piped to `psql` unchanged: see `split_globals`.

mod archive;
mod preview;
mod preview_contents;
mod preview_roles;
mod properties;
mod rights;
mod roles;
mod script;

use async_trait::async_trait;

use super::{
    DatabaseRestore, DumpReader, GlobalsPreview, GlobalsReport, NotApplied, RestoreRecipe, RestoredDatabase,
    StreamContents, TargetDatabase, TargetState,
};
use crate::runtime::kill_point;
use crate::source::database::postgres::tokens::{quote_identifier, quote_literal};
use crate::source::database::postgres::{ARCHIVE_ENDING, ARCHIVE_FORMAT, GLOBALS_STREAM, Postgres};
use crate::source::database::{DatabaseError, DatabaseInfo};

/// The oldest client tools that can restore: `psql` gives each statement's state from 11 on, and `pg_restore`
/// names the entry of each error in one form from 12 on.
const MIN_TOOLS: u32 = 12;
/// The catalogs whose rows with ids from 16384 on (`FirstNormalObjectId`) a dump may hold. Objects of
/// extensions do not count, because a dump holds the extension instead.
const CATALOGS: &[&str] = &[
    "cast",
    "class",
    "collation",
    "conversion",
    "event_trigger",
    "foreign_data_wrapper",
    "foreign_server",
    "namespace",
    "operator",
    "proc",
    "publication",
    "ts_config",
    "ts_dict",
    "type",
];

#[async_trait]
impl RestoreRecipe for Postgres {
    fn contents(&self, stream: &str, format: &str) -> Option<StreamContents> {
        if stream == GLOBALS_STREAM {
            return Some(StreamContents::Globals);
        }
        let name = stream.strip_suffix(ARCHIVE_ENDING).unwrap_or(stream);
        (format == ARCHIVE_FORMAT).then(|| StreamContents::Database(name.to_owned()))
    }

    async fn restore_globals(&self, dump: &mut DumpReader<'_>) -> Result<GlobalsReport, DatabaseError> {
        check_tools(self)?;
        roles::restore_roles(self, dump).await
    }

    async fn restore_settings(&self, dump: &mut DumpReader<'_>) -> Result<Vec<NotApplied>, DatabaseError> {
        check_tools(self)?;
        roles::restore_settings(self, dump).await
    }

    async fn restore_database(
        &self,
        request: &DatabaseRestore,
        dump: &mut DumpReader<'_>,
    ) -> Result<RestoredDatabase, DatabaseError> {
        check_tools(self)?;
        prepare(self, request).await?;
        archive::restore_archive(self, request, dump).await.map_err(|source| {
            let (name, database) = (self.config.name.clone(), request.database.clone());
            DatabaseError::PartlyRestored { name, database, source: Box::new(source) }
        })
    }

    async fn preview_database(&self, request: &DatabaseRestore) -> Result<TargetState, DatabaseError> {
        preview::database(self, request).await
    }

    async fn preview_globals(&self, dump: &mut DumpReader<'_>) -> Result<GlobalsPreview, DatabaseError> {
        check_tools(self)?;
        preview_roles::globals(self, dump).await
    }

    async fn preview_contents(
        &self,
        request: &DatabaseRestore,
        target: TargetState,
        globals: Option<&GlobalsPreview>,
        dump: &mut DumpReader<'_>,
    ) -> Result<RestoredDatabase, DatabaseError> {
        check_tools(self)?;
        preview_contents::contents(self, request, target, globals, dump).await
    }

    /// Counts tables, views, functions, types, schemas, large objects and all else that a dump may hold.
    async fn count_objects(&self, database: &str) -> Result<u64, DatabaseError> {
        let rows = CATALOGS.iter().map(|catalog| {
            // The types of tables and of arrays, the indexes of tables and what belongs to temporary tables
            // do not count beside them.
            let further = match *catalog {
                "class" => " AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relpersistence <> 't'",
                "type" => " AND typtype IN ('b', 'd', 'e', 'r') AND typcategory <> 'A'",
                "namespace" => " AND nspname !~ '^pg_(toast|temp)'",
                _ => "",
            };
            format!(
                "SELECT o.oid FROM pg_catalog.pg_{catalog} o WHERE o.oid >= 16384{further} AND NOT EXISTS \
                 (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_{catalog}'::regclass \
                 AND objid = o.oid AND deptype = 'e')"
            )
        });
        let rows: Vec<String> = rows.collect();
        let question = format!(
            "SELECT to_json(count(*)) FROM ({} UNION ALL SELECT oid FROM pg_catalog.pg_largeobject_metadata) o",
            rows.join(" UNION ALL ")
        );
        self.query(database, &question).await
    }
}

fn check_tools(server: &Postgres) -> Result<(), DatabaseError> {
    if server.tools.major >= MIN_TOOLS {
        return Ok(());
    }
    let problem = format!(
        "a restore needs client tools of PostgreSQL {MIN_TOOLS} or newer; these are {}",
        server.tools.version
    );
    Err(server.config.invalid(problem))
}

/// Returns the database for queries and statements about the target database.
fn maintenance_database<'a>(server: &'a Postgres, request: &DatabaseRestore) -> &'a str {
    match server.config.maintenance_database.as_str() {
        // A session cannot drop the database that it is connected to.
        same if same == request.database && same == "template1" => "postgres",
        same if same == request.database => "template1",
        other => other,
    }
}

/// Prepares the target database as requested, or refuses.
async fn prepare(server: &Postgres, request: &DatabaseRestore) -> Result<(), DatabaseError> {
    let maintenance = maintenance_database(server, request);
    // One element if the database exists: true if it is a template.
    let question = format!(
        "SELECT coalesce(json_agg(datistemplate), '[]') FROM pg_catalog.pg_database WHERE datname = {}",
        quote_literal(&request.database)
    );
    let found: Vec<bool> = server.query(maintenance, &question).await?;
    let exists = !found.is_empty();
    let name = quote_identifier(&request.database);
    if exists && request.target != TargetDatabase::Replace {
        let objects = server.count_objects(&request.database).await?;
        if objects > 0 {
            let (name, database) = (server.config.name.clone(), request.database.clone());
            return Err(DatabaseError::NotEmpty { name, database, objects });
        }
        return Ok(());
    }
    if exists {
        check_droppable(server, request).await?;
        if found.contains(&true) {
            // A template cannot be dropped.
            let statement = format!("ALTER DATABASE {name} IS_TEMPLATE false");
            script::run(server, maintenance, &format!("alter the template {}", request.database), &statement)
                .await?;
        }
        let force = if server.server_major >= 13 { " WITH (FORCE)" } else { "" };
        let statement = format!("DROP DATABASE {name}{force}");
        script::run(server, maintenance, &format!("drop {}", request.database), &statement).await?;
        kill_point("restore.database.dropped");
    }
    let encoding = request.encoding_from.as_ref().and_then(encoding_clause).unwrap_or_default();
    let statement = format!("CREATE DATABASE {name} TEMPLATE template0{encoding}");
    script::run(server, maintenance, &format!("create {}", request.database), &statement).await?;
    kill_point("restore.database.created");
    Ok(())
}

/// Refuses to replace a database that its administrator closed, or that a subscription uses: the server would
/// drop the first one, and calls the second one used by other sessions.
async fn check_droppable(server: &Postgres, request: &DatabaseRestore) -> Result<(), DatabaseError> {
    #[derive(serde::Deserialize)]
    struct Obstacles {
        closed: bool,
        subscribed: bool,
    }
    let question = format!(
        "SELECT json_build_object('closed', NOT d.datallowconn, 'subscribed', \
         EXISTS (SELECT FROM pg_catalog.pg_subscription s WHERE s.subdbid = d.oid)) \
         FROM pg_catalog.pg_database d WHERE d.datname = {}",
        quote_literal(&request.database)
    );
    let Obstacles { closed, subscribed } =
        server.query(maintenance_database(server, request), &question).await?;
    let reason = match (closed, subscribed) {
        (true, _) => "it accepts no connections (ALLOW_CONNECTIONS false)",
        (_, true) => "a subscription in it receives data (DROP SUBSCRIPTION)",
        _ => return Ok(()),
    };
    Err(DatabaseError::Refused {
        name: server.config.name.clone(),
        operation: format!("drop {}", request.database),
        reason: reason.to_owned(),
    })
}

/// Returns the encoding and collation of the backup's database, as `CREATE DATABASE` takes them.
fn encoding_clause(info: &DatabaseInfo) -> Option<String> {
    let value = |property: &str| info.properties.get(property)?.as_str().map(quote_literal);
    let (encoding, collate, ctype) = (value("encoding")?, value("collate")?, value("ctype")?);
    Some(format!(" ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}"))
}
