//! PostgreSQL's recipe: selects databases, checks rights and plans dumps.

use async_trait::async_trait;
use serde::Deserialize;

use super::{ARCHIVE_ENDING, ARCHIVE_FORMAT, GLOBALS_STREAM, NO_ROLE_PASSWORDS, Postgres};
use crate::plan::Glob;
use crate::report::text::plural;
use crate::source::database::{
    DatabaseError, DatabaseInfo, Dump, Omission, PlannedDump, Recipe, SelectedDatabases,
};

/// The template databases that every server has.
const TEMPLATES: &[&str] = &["template0", "template1"];

#[async_trait]
impl Recipe for Postgres {
    fn server_version(&self) -> &str {
        &self.server_version
    }

    async fn describe(&self) -> Result<String, DatabaseError> {
        let question = "SELECT to_json(pg_catalog.pg_is_in_recovery())";
        let is_replica: bool = self.query(&self.config.maintenance_database, question).await?;
        let role = if is_replica { "replica" } else { "primary" };
        Ok(format!("{} {role}, pg_dump {}", self.server_version, self.tools.version))
    }

    fn omissions(&self) -> Vec<Omission> {
        let user = &self.config.user;
        let passwords = Omission {
            code: NO_ROLE_PASSWORDS,
            object: GLOBALS_STREAM.into(),
            reason: format!("{user} may not read the passwords of roles: they are not in this backup"),
            remedy: "set them again after a restore: ALTER ROLE … PASSWORD".into(),
        };
        if self.can_read_passwords { Vec::new() } else { vec![passwords] }
    }

    /// Selects `template0` only by its exact name, and `template1` also if it holds user objects or has settings.
    async fn select(&self, patterns: &[Glob]) -> Result<SelectedDatabases, DatabaseError> {
        let names: Vec<String> = patterns.iter().filter_map(Glob::name).collect();
        let matches = |name: &str| patterns.is_empty() || patterns.iter().any(|glob| glob.matches(name));
        let mut databases = self.databases().await?;
        let mut closed = self.closed_databases().await?;
        let exists = |name: &String| closed.contains(name) || databases.iter().any(|one| one.name == *name);
        let absent = names.iter().filter(|name| !exists(name)).cloned().collect();
        let unnamed = |name: &str| TEMPLATES.contains(&name) && !names.iter().any(|named| named == name);
        databases.retain(|one| matches(&one.name));
        closed.retain(|name| matches(name) && !unnamed(name));
        if let Some(at) = databases.iter().position(|one| unnamed(&one.name) && one.name == "template1")
            && !self.has_user_objects(&databases[at].name).await?
        {
            databases.remove(at);
        }
        let omission = |object| Omission {
            code: "no-connections",
            object,
            reason: "it accepts no connections (ALTER DATABASE … ALLOW_CONNECTIONS), so it cannot be dumped"
                .into(),
            remedy: "ALTER DATABASE … ALLOW_CONNECTIONS true".into(),
        };
        let omissions = closed.into_iter().map(omission).collect();
        Ok(SelectedDatabases { databases, omissions, absent })
    }

    /// Finds the tables that a dump could not read: `pg_dump` ends at the first such table.
    async fn check_access(&self, database: &str) -> Option<Omission> {
        const QUESTION: &str = "SELECT json_build_object('tables', count(*), 'first', min(quote_ident(n.nspname) || '.' || quote_ident(c.relname))) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'm', 'S') AND c.relpersistence <> 't' \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' \
             AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))";
        #[derive(Deserialize)]
        struct Unreadable {
            tables: u64,
            first: Option<String>,
        }
        let user = &self.config.user;
        let (reason, remedy) = match self.query::<Unreadable>(database, QUESTION).await {
            Ok(Unreadable { tables: 0, .. }) => return None,
            Ok(Unreadable { tables, first }) => {
                let tables = plural(tables, "table or sequence", "tables and sequences");
                let first = first.unwrap_or_default();
                let remedy = match self.server_major {
                    14.. => format!("GRANT pg_read_all_data TO \"{user}\";"),
                    _ => format!("GRANT SELECT ON ALL TABLES IN SCHEMA … TO \"{user}\"; and on sequences"),
                };
                (format!("{user} may not read {tables} of {database}, {first} among them"), remedy)
            }
            Err(error) => {
                (error.to_string(), format!("GRANT CONNECT ON DATABASE \"{database}\" TO \"{user}\";"))
            }
        };
        Some(Omission { code: "no-access", object: database.to_owned(), reason, remedy })
    }

    fn plan_dumps(&self, databases: &[DatabaseInfo]) -> Vec<PlannedDump> {
        let globals = PlannedDump { stream: GLOBALS_STREAM.into(), format: "sql", databases: Vec::new() };
        let archives = databases.iter().map(|database| PlannedDump {
            stream: format!("{}{ARCHIVE_ENDING}", database.name),
            format: ARCHIVE_FORMAT,
            databases: vec![database.name.clone()],
        });
        std::iter::once(globals).chain(archives).collect()
    }

    async fn start_dump(&self, planned: &PlannedDump) -> Result<Dump, DatabaseError> {
        match planned.databases.first() {
            Some(database) => self.dump(database),
            None => self.dump_globals().await,
        }
    }
}

impl Postgres {
    /// Returns the databases that accept connections, except `template0`, sorted by name.
    pub async fn databases(&self) -> Result<Vec<DatabaseInfo>, DatabaseError> {
        let question = "SELECT coalesce(json_agg(json_build_object('name', datname, \
                     'size', CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) ELSE 0 END, \
                     'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype) \
                     ORDER BY datname COLLATE \"C\"), '[]') \
                     FROM pg_catalog.pg_database WHERE datallowconn AND datname <> 'template0'";
        self.query(&self.config.maintenance_database, question).await
    }

    /// Returns the names of the databases that accept no connections and so cannot be dumped, sorted.
    async fn closed_databases(&self) -> Result<Vec<String>, DatabaseError> {
        let question = "SELECT coalesce(json_agg(datname ORDER BY datname COLLATE \"C\"), '[]') \
                     FROM pg_catalog.pg_database WHERE NOT datallowconn";
        self.query(&self.config.maintenance_database, question).await
    }

    /// Returns true if the database has settings, or holds objects created after the server was initialized.
    /// Their ids begin at 16384 (`FirstNormalObjectId`).
    async fn has_user_objects(&self, database: &str) -> Result<bool, DatabaseError> {
        let objects = ["class", "proc", "type", "namespace", "extension", "largeobject_metadata"]
            .map(|what| format!("EXISTS (SELECT FROM pg_catalog.pg_{what} WHERE oid >= 16384)"));
        let settings = "EXISTS (SELECT FROM pg_catalog.pg_db_role_setting JOIN pg_catalog.pg_database d \
             ON setdatabase = d.oid WHERE datname = current_database())";
        self.query(database, &format!("SELECT to_json({} OR {settings})", objects.join(" OR "))).await
    }
}
