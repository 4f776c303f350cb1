//! Checks of the declared items: resources, databases, volumes.

use std::path::Path;

use super::address::{self, is_plain};
use super::{Kind, Problems};
use crate::plan::items::{
    DatabaseEngine, DatabaseSpec, DumpTransport, ReadMethod, TlsMode, VolumeSpec, is_item_name,
};
use crate::plan::selection::{Glob, selector_problem};
use crate::plan::spec::{ClusterScoped, ResourcesSpec};

impl Problems {
    pub(super) fn check_resources(&mut self, resources: &ResourcesSpec) {
        let namespaced = resources.cluster_scoped == ClusterScoped::None
            || resources.cluster_scoped == ClusterScoped::Auto
            || !resources.namespaces.include.is_empty();
        if namespaced {
            self.check_patterns("spec.resources.namespaces", &resources.namespaces, "namespace");
        }
        self.check_patterns("spec.resources.kinds", &resources.kinds, "kind");
        if let Some(problem) = resources.selector.as_deref().and_then(selector_problem) {
            self.bad_value("spec.resources.selector", problem);
        }
    }

    pub(super) fn check_database(&mut self, field: &str, database: &DatabaseSpec) {
        if !is_item_name(&database.name) || database.name == "resources" {
            let message = format!("{:?} is not a valid name for a database", database.name);
            self.bad_value(format!("{field}.name"), message).set_remedy(
                "use lower-case letters, digits, - and ., at most 63 characters, and not resources",
            );
        }
        self.check_database_address(field, database);
        if database.databases.is_empty() {
            let message = "databases is empty: no database is selected";
            self.add(Kind::Empty, format!("{field}.databases"), message).set_remedy("leave it out for all");
        }
        for (number, pattern) in database.databases.iter().enumerate() {
            if let Err(error) = Glob::with_escapes(pattern) {
                self.bad_value(format!("{field}.databases[{number}]"), error.to_string());
            }
        }
        let users = [database.user.is_some(), database.user_file.is_some(), database.secret_ref.is_some()];
        if users.iter().filter(|given| **given).count() > 1 {
            self.contradiction(field, "user, userFile and secretRef exclude each other");
        }
        if database.password_file.is_some() && database.secret_ref.is_some() {
            let message = "passwordFile and secretRef exclude each other";
            self.contradiction(format!("{field}.passwordFile"), message);
        }
        if database.ca_file.is_some() && database.tls == TlsMode::AllowPlaintext {
            self.contradiction(format!("{field}.caFile"), "caFile proves nothing with tls: allow-plaintext");
        }
        match (&database.command, database.engine) {
            (None, DatabaseEngine::Command) => {
                self.add(Kind::MissingField, field, "the engine command needs command: {dump, restore}");
            }
            (Some(_), engine) if engine != DatabaseEngine::Command => {
                self.contradiction(format!("{field}.command"), "command is only for the engine command");
            }
            (Some(recipe), _) if recipe.dump.is_empty() || recipe.restore.is_empty() => {
                self.bad_value(format!("{field}.command"), "dump and restore each need a program");
            }
            _ => {}
        }
    }

    fn check_database_address(&mut self, field: &str, database: &DatabaseSpec) {
        let transport = database.transport();
        let places = [database.service.is_some(), database.host.is_some(), database.pod.is_some()];
        match places.iter().filter(|given| **given).count() {
            0 if database.engine == DatabaseEngine::Command => {}
            0 => self
                .add(Kind::MissingField, field, "the database has no address")
                .set_remedy("add namespace and service, or host, or pod for exec"),
            1 => {}
            _ => {
                self.contradiction(field, "service, host and pod exclude each other");
            }
        }
        if database.service.is_some() && database.namespace.is_none() {
            self.add(Kind::MissingField, field, "a service needs its namespace");
        }
        if (transport == DumpTransport::Exec) != database.pod.is_some() {
            let message = "transport: exec and pod need each other";
            self.contradiction(format!("{field}.transport"), message);
        }
        if transport != DumpTransport::Job && database.image.is_some() {
            self.contradiction(format!("{field}.image"), "image is only for transport: job");
        }
        if database.container.is_some() && database.pod.is_none() {
            self.contradiction(format!("{field}.container"), "container needs pod");
        }
        if database.port == Some(0) {
            self.bad_value(format!("{field}.port"), "0 is not a port");
        }
        if let Some(Err(message)) = database.host.as_deref().map(address::host) {
            self.bad_value(format!("{field}.host"), message)
                .set_remedy("write only the host; port, user and passwordFile are separate fields");
        }
    }

    pub(super) fn check_volume(&mut self, field: &str, volume: &VolumeSpec) {
        match (&volume.path, volume.claims.is_empty() && volume.selector.is_none()) {
            (Some(path), true) => self.check_folder(field, path, volume),
            (Some(_), false) => {
                self.contradiction(field, "path and claims exclude each other");
            }
            (None, true) => self
                .add(Kind::Empty, field, "the volume selects nothing")
                .set_remedy("add path, or namespace and claims"),
            (None, false) => self.check_claims(field, volume),
        }
        let mut lines = ignore::gitignore::GitignoreBuilder::new("/");
        for (number, line) in volume.exclude.iter().enumerate() {
            if let Err(error) = lines.add_line(None, line) {
                let message = format!("{line:?} is not a valid pattern: {error}");
                self.bad_value(format!("{field}.exclude[{number}]"), message);
            }
        }
    }

    fn check_folder(&mut self, field: &str, path: &Path, volume: &VolumeSpec) {
        let text = path.to_string_lossy();
        if !path.is_absolute() || !path.components().all(is_plain) || (text.len() > 1 && text.ends_with('/'))
        {
            let message = format!("{text:?} is not a plain absolute path");
            self.bad_value(format!("{field}.path"), message)
                .set_remedy("begin it with /; write no .. and no slash at the end");
        }
        if let Some(name) = volume.name.as_deref().filter(|name| !is_item_name(name)) {
            self.bad_value(format!("{field}.name"), format!("{name:?} is not a valid name for a folder"));
        }
        if volume.namespace.is_some() {
            self.contradiction(format!("{field}.namespace"), "a path has no namespace");
        }
        if volume.method.is_some_and(|method| method != ReadMethod::Live) {
            self.contradiction(format!("{field}.method"), "a path is read live; snapshots are for claims");
        }
    }

    fn check_claims(&mut self, field: &str, volume: &VolumeSpec) {
        if volume.namespace.is_none() {
            self.add(Kind::MissingField, field, "claims need their namespace");
        }
        if !volume.claims.is_empty() && volume.selector.is_some() {
            self.contradiction(format!("{field}.selector"), "claims and selector exclude each other");
        }
        if volume.name.is_some() {
            self.contradiction(format!("{field}.name"), "name is for a path; claims have names");
        }
        self.check_globs(&format!("{field}.claims"), &volume.claims);
        if let Some(problem) = volume.selector.as_deref().and_then(selector_problem) {
            self.bad_value(format!("{field}.selector"), problem);
        }
    }
}
