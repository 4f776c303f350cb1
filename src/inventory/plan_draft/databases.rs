//! Databases of a plan draft: PostgreSQL as entries, others as comments. CronJobs supply host, user, Secret.

use std::collections::BTreeSet;

use super::yaml::{Yaml, quoted};
use crate::inventory::existing_backup_tools::{DumpCronJob, ToolConfigs};
use crate::inventory::{DetectedDatabase, Inventory, Service};
use crate::plan::sanitize_item_name;

/// The only engine that this version dumps.
const SUPPORTED: &str = "postgresql";

/// A database as an entry of the plan.
struct DatabaseEntry<'a> {
    name: String,
    engine: &'a str,
    /// The source: a workload, or a CronJob that dumps.
    found: String,
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    /// The Secret's namespace and name, and the key in it.
    password: Option<(String, String, String)>,
    /// `true` if the workload itself contains the password.
    plain: bool,
    dumped_by: Option<&'a DumpCronJob>,
}

/// All databases of a draft.
pub(super) struct DatabaseSection<'a>(Vec<DatabaseEntry<'a>>);

impl<'a> DatabaseSection<'a> {
    pub(super) fn of(inventory: &'a Inventory, tool_configs: &'a ToolConfigs) -> Self {
        let mut entries = Vec::new();
        let mut names = BTreeSet::new();
        let mut used: BTreeSet<usize> = BTreeSet::new();
        for database in &inventory.databases {
            let service = service(database, &inventory.services);
            let job = tool_configs.dumps.iter().position(|job| dumps(job, database, service));
            used.extend(job);
            let job = job.map(|at| &tool_configs.dumps[at]);
            entries.push(DatabaseEntry {
                name: unique(&mut names, &format!("{}-{}", database.namespace, database.name)),
                engine: database.engine,
                found: format!("{} {}/{}", database.kind, database.namespace, database.name),
                host: service.map(|service| format!("{}.{}.svc", service.name, service.namespace)),
                port: service.and_then(|service| service.ports.first().copied()),
                user: job.and_then(|job| job.user.clone()).or_else(|| database.login.user.clone()),
                password: secret(job, database),
                plain: database.login.plain,
                dumped_by: job,
            });
        }
        for (_, job) in tool_configs.dumps.iter().enumerate().filter(|(at, _)| !used.contains(at)) {
            entries.push(DatabaseEntry {
                name: unique(&mut names, &format!("{}-{}", job.namespace, job.name)),
                engine: job.engine,
                found: format!("CronJob {}/{}", job.namespace, job.name),
                host: job.host.as_ref().map(|host| qualified(host, &job.namespace)),
                port: None,
                user: job.user.clone(),
                password: job.password.clone().map(|(name, key)| (job.namespace.clone(), name, key)),
                plain: false,
                dumped_by: Some(job),
            });
        }
        Self(entries)
    }

    pub(super) fn write(&self, yaml: &mut Yaml) {
        if self.0.is_empty() {
            let note = "No databases were found by image, port or operator. Add one that is missing by hand:";
            yaml.comment(1, note);
            yaml.comment(1, "databases: [{name: shop, engine: postgresql, host: db.shop.svc, userFile: …, passwordFile: …}]");
            yaml.gap();
            return;
        }
        if self.supported().next().is_some() {
            yaml.line(1, "databases:    # dumped by their own client tools, from where kbak runs");
            self.supported().for_each(|entry| entry.write(yaml));
        }
        for entry in self.0.iter().filter(|entry| !entry.is_supported()) {
            let DatabaseEntry { engine, found, .. } = entry;
            let (what, limits) = match (*engine, &entry.host) {
                (SUPPORTED, None) => ("no Service selects it, and a Job beside it", ""),
                (engine, _) => (engine, " (docs/limits.md)"),
            };
            let why = format!("{what} is not yet supported by this version{limits}");
            yaml.comment(1, &format!("NOT IN THIS PLAN: {engine}, {found}: {why}"));
        }
        yaml.gap();
    }

    /// Writes the plan's databases in values of the chart, which adds the files of user and password.
    pub(super) fn write_values(&self, yaml: &mut Yaml) {
        if self.supported().next().is_some() {
            yaml.line(
                2,
                "databases:    # with tls: allow-plaintext where the server has no TLS; default: verify-full",
            );
            self.supported().for_each(|entry| entry.write_value(yaml));
        }
    }

    /// Writes the Secrets of the databases in values of the chart, with the commands that copy them.
    pub(super) fn write_secrets(&self, yaml: &mut Yaml) {
        if self.supported().next().is_some() {
            yaml.line(0, "databases:    # with caKey: ca.crt for the CA of a server's certificate");
            self.supported().for_each(|entry| entry.write_secret(yaml));
        }
    }

    fn supported(&self) -> impl Iterator<Item = &DatabaseEntry<'a>> {
        self.0.iter().filter(|entry| entry.is_supported())
    }
}

impl DatabaseEntry<'_> {
    fn is_supported(&self) -> bool {
        self.engine == SUPPORTED && self.host.is_some()
    }

    fn write_value(&self, yaml: &mut Yaml) {
        let host = quoted(self.host.as_deref().unwrap_or_default());
        let mut fields = format!("name: {}, engine: postgresql, host: {host}", quoted(&self.name));
        if let Some(port) = self.port.filter(|port| *port != 5432) {
            // A NetworkPolicy sees the port of the pods, which the Service may translate to.
            fields.push_str(&format!(", port: {port}"));
        }
        if let Some(user) = &self.user {
            fields.push_str(&format!(", user: {}", quoted(user)));
        }
        yaml.line(3, &format!("- {{{fields}}}    # {}", self.found));
    }

    /// A Secret can only be mounted in its own namespace: the command copies it into kbak's.
    fn write_secret(&self, yaml: &mut Yaml) {
        let name = quoted(&self.name);
        let keys = if self.user.is_some() { "the key password" } else { "the keys username and password" };
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        match &self.password {
            // Names come from the cluster, and a person copies this into a shell.
            Some((namespace, secret, key)) if [namespace, secret, key].iter().all(|text| is_plain(text)) => {
                let key = key.replace('.', "\\.");
                yaml.comment(1, &format!(
                    "kubectl -n {namespace} get secret {secret} -o jsonpath='{{.data.{key}}}' | base64 -d |"
                ));
                yaml.comment(
                    1,
                    &format!(
                        "  kubectl -n kbak create secret generic {name} --from-file=password=/dev/stdin"
                    ),
                );
            }
            _ => yaml.comment(1, &format!("FILL IN {keys}: kubectl -n kbak create secret generic {name} …")),
        }
        let missing =
            if self.user.is_some() { "" } else { "    # FILL IN the user above, or the key username" };
        yaml.line(1, &format!("- {{name: {name}, existingSecret: {name}}}{missing}"));
    }

    fn write(&self, yaml: &mut Yaml) {
        yaml.line(2, &format!("- name: {}    # {}", quoted(&self.name), self.found));
        yaml.line(3, "engine: postgresql");
        yaml.line(3, &format!("host: {}", quoted(self.host.as_deref().unwrap_or_default())));
        if let Some(port) = self.port.filter(|port| *port != 5432) {
            yaml.line(3, &format!("port: {port}"));
        }
        if let Some(user) = &self.user {
            yaml.line(3, &format!("user: {}", quoted(user)));
        }
        let file = quoted(&format!("secrets/{}-password", self.name));
        match &self.password {
            Some((namespace, name, key)) => {
                yaml.line(3, &format!("passwordFile: {file}    # the key {key} of Secret {namespace}/{name}, mounted or written there"));
            }
            None => yaml.line(3, &format!("passwordFile: {file}    # FILL IN where the password is mounted")),
        }
        if self.plain {
            yaml.comment(3, "its password is in the workload itself and is not copied: put it into a Secret");
        }
        let note =
            "tls: allow-plaintext    # only if the server has no TLS; default: verify-full, with caFile";
        yaml.comment(3, note);
        if let Some(DumpCronJob { namespace, name, cron, tool, .. }) = self.dumped_by {
            let job = format!("CronJob {namespace}/{name} ({cron}) dumps it with {tool}");
            yaml.comment(3, &format!("{job}: host, user and Secret may be its"));
        }
    }
}

/// Returns the Service that selects a database's pods; of several the one with a read-write name (`-rw`),
/// else the one with the shortest name.
fn service<'a>(database: &DetectedDatabase, services: &'a [Service]) -> Option<&'a Service> {
    let selects = |service: &&Service| {
        service.namespace == database.namespace
            && (service.selects(database) || service.is_named_after(database))
    };
    let found = services.iter().filter(selects);
    found.min_by_key(|service| (!service.name.ends_with("-rw"), service.name.len(), &service.name))
}

/// True if a CronJob dumps this database: its host is the Service's or the database's name.
fn dumps(job: &DumpCronJob, database: &DetectedDatabase, service: Option<&Service>) -> bool {
    let Some(host) = &job.host else { return false };
    let qualified = qualified(host, &job.namespace);
    let mut parts = qualified.split('.');
    let named = (parts.next(), parts.next());
    let same = |name: &str| named == (Some(name), Some(&database.namespace));
    job.engine == database.engine
        && (service.is_some_and(|service| same(&service.name)) || same(&database.name))
}

/// Adds the namespace to a host name that has none.
fn qualified(host: &str, namespace: &str) -> String {
    if host.contains('.') { host.to_owned() } else { format!("{host}.{namespace}.svc") }
}

fn secret(job: Option<&DumpCronJob>, database: &DetectedDatabase) -> Option<(String, String, String)> {
    let of_job = job.and_then(|job| Some((&job.namespace, job.password.clone()?)));
    let of_database = || Some((&database.namespace, database.login.password.clone()?));
    of_job.or_else(of_database).map(|(namespace, (name, key))| (namespace.clone(), name, key))
}

/// Returns an item name that is not taken yet.
fn unique(names: &mut BTreeSet<String>, preferred: &str) -> String {
    let base = sanitize_item_name(preferred).unwrap_or_else(|| "database".to_owned());
    let mut name = base.clone();
    let mut number = 2;
    while !names.insert(name.clone()) {
        let end = format!("-{number}");
        name = format!("{}{end}", &base[..base.floor_char_boundary(63 - end.len())]);
        number += 1;
    }
    name
}
