//! The configuration of other backup tools: schedules of Velero and K8up, annotations of pods, and CronJobs
//! that dump a database. Commands are searched for the dump tool and never kept, because they may contain a
//! password.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::inventory::list::{Form, Reach};
use crate::inventory::{MANY, Meta, Object, SOME, told};
use crate::kubernetes::{ApiError, Cluster, KindInfo, discover};
use crate::report::coverage::Unseen;

/// The configuration of other backup tools in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolConfigs {
    /// Schedules of Velero.
    pub velero: Vec<VeleroSchedule>,
    /// Schedules of K8up.
    pub k8up: Vec<K8upSchedule>,
    /// Pods with annotations of either tool, one for each set of annotations in a namespace.
    pub pods: Vec<Annotated>,
    /// CronJobs that dump a database.
    pub dumps: Vec<DumpJob>,
    /// Resources that could not be read, or not to the end.
    pub unseen: Vec<Unseen>,
}

/// A Schedule of Velero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VeleroSchedule {
    /// The Schedule's namespace.
    pub namespace: String,
    /// The Schedule's name.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// `true` if it is paused.
    pub paused: bool,
    /// The settings of its backups.
    pub template: VeleroTemplate,
}

/// The settings of a Velero backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VeleroTemplate {
    /// Included namespaces; empty for all.
    pub included_namespaces: Vec<String>,
    /// Excluded namespaces.
    pub excluded_namespaces: Vec<String>,
    /// Included kinds; empty for all.
    pub included_resources: Vec<String>,
    /// Excluded kinds.
    pub excluded_resources: Vec<String>,
    /// `true` to include cluster-scoped objects, `false` to exclude them; unset for those that are needed.
    pub include_cluster_resources: Option<bool>,
    /// The selector of objects.
    pub label_selector: Option<LabelSelector>,
    /// Further selectors, any of which may match.
    pub or_label_selectors: Vec<LabelSelector>,
    /// The time for which a backup is kept: `720h0m0s`.
    pub ttl: String,
    /// `true` if all volumes are read as files.
    pub default_volumes_to_fs_backup: Option<bool>,
    /// Hooks that run before and after.
    pub hooks: VeleroHooks,
}

/// Hooks of a Velero backup, of which only the names are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VeleroHooks {
    /// The hooks.
    pub resources: Vec<HookName>,
}

/// A hook of a Velero backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HookName {
    /// The hook's name.
    pub name: String,
}

/// A selector as Kubernetes writes it in objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Required labels and their values.
    pub match_labels: BTreeMap<String, String>,
    /// Further terms, all of which must hold.
    pub match_expressions: Vec<Expression>,
}

/// A term of a selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Expression {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// The values to compare with.
    pub values: Vec<String>,
}

/// A Schedule of K8up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct K8upSchedule {
    /// The Schedule's namespace, which is also the one that it backs up.
    pub namespace: String,
    /// The Schedule's name.
    pub name: String,
    /// The cron expression of its backups.
    pub cron: String,
    /// The retention of its prune: counts by rule.
    pub keeps: BTreeMap<String, u32>,
}

/// A pod with annotations of a backup tool; it stands for all pods with the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotated {
    /// The pods' namespace.
    pub namespace: String,
    /// The name of one of the pods.
    pub pod: String,
    /// The annotations. Those with a command have an empty value.
    pub told: BTreeMap<String, String>,
    /// The dump tool in a command, if there is one.
    pub dumps_with: Option<&'static str>,
}

/// A CronJob that dumps a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpJob {
    /// The CronJob's namespace.
    pub namespace: String,
    /// The CronJob's name.
    pub name: String,
    /// The cron expression.
    pub cron: String,
    /// The dump tool: `pg_dump`.
    pub tool: &'static str,
    /// The tool's engine: `postgresql`.
    pub engine: &'static str,
    /// The server, if the CronJob names one.
    pub host: Option<String>,
    /// The user, if the CronJob names one.
    pub user: Option<String>,
    /// The Secret and the key in it that hold the password.
    pub password: Option<(String, String)>,
}

/// Dump tools and their engines; longer names first, because they contain shorter ones.
const TOOLS: &[(&str, &str)] = &[
    ("pg_dumpall", "postgresql"),
    ("pg_dump", "postgresql"),
    ("pg_basebackup", "postgresql"),
    ("mariadb-dump", "mariadb"),
    ("mysqldump", "mysql"),
    ("mongodump", "mongodb"),
    ("redis-cli", "redis"),
    ("etcdctl", "etcd"),
];

/// Reads the configuration of other backup tools.
///
/// # Errors
/// Fails if the kinds of the cluster cannot be discovered.
pub async fn read_tool_configs(cluster: &Cluster) -> Result<ToolConfigs, ApiError> {
    let mut tool_configs = ToolConfigs::default();
    let reach = Reach { cluster, namespaces: &[] };
    for kind in &discover(cluster).await?.kinds {
        match (kind.group.as_str(), kind.plural.as_str()) {
            ("velero.io", "schedules") => {
                let looked = reach.all(kind, Form::Whole, SOME, velero).await;
                tool_configs.unseen.extend(looked.unseen);
                tool_configs.velero = looked.kept;
            }
            ("k8up.io", "schedules") => {
                let looked = reach.all(kind, Form::Whole, SOME, k8up).await;
                tool_configs.unseen.extend(looked.unseen);
                tool_configs.k8up = looked.kept;
            }
            _ => {}
        }
    }
    let looked = reach.all(&KindInfo::named("", "v1", "pods"), Form::Metadata, MANY, annotated).await;
    tool_configs.unseen.extend(looked.unseen);
    tool_configs.pods = looked.kept;
    // The pods of one workload have the same annotations.
    tool_configs.pods.sort_by(|a, b| (&a.namespace, &a.told, &a.pod).cmp(&(&b.namespace, &b.told, &b.pod)));
    tool_configs.pods.dedup_by(|a, b| (&a.namespace, &a.told) == (&b.namespace, &b.told));
    let looked = reach.all(&KindInfo::named("batch", "v1", "cronjobs"), Form::Whole, SOME, dump_job).await;
    tool_configs.unseen.extend(looked.unseen);
    tool_configs.dumps = looked.kept;
    Ok(tool_configs)
}

fn velero(raw: RawVelero) -> Option<VeleroSchedule> {
    let RawVelero { metadata, spec } = raw;
    let VeleroSpec { schedule, paused, template } = spec;
    Some(VeleroSchedule {
        namespace: metadata.namespace,
        name: metadata.name,
        cron: schedule,
        paused,
        template,
    })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawVelero {
    metadata: Meta,
    spec: VeleroSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VeleroSpec {
    schedule: String,
    paused: bool,
    template: VeleroTemplate,
}

fn k8up(raw: RawK8up) -> Option<K8upSchedule> {
    let Meta { name, namespace, .. } = raw.metadata;
    let keeps = raw.spec.prune.retention.into_iter();
    let keeps =
        keeps.filter_map(|(rule, count)| Some((rule, u32::try_from(count.as_u64()?).ok()?))).collect();
    Some(K8upSchedule { namespace, name, cron: raw.spec.backup.schedule, keeps })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawK8up {
    metadata: Meta,
    spec: K8upSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct K8upSpec {
    backup: K8upPart,
    prune: K8upPart,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct K8upPart {
    schedule: String,
    retention: BTreeMap<String, serde_json::Value>,
}

fn annotated(object: Object) -> Option<Annotated> {
    let Meta { name, namespace, annotations, .. } = object.metadata;
    let mut told = told(&annotations);
    let mut dumps_with = None;
    for (key, value) in &mut told {
        if key.ends_with("command") {
            dumps_with = dumps_with.or(tool_in(value));
            value.clear();
        }
    }
    (!told.is_empty()).then_some(Annotated { namespace, pod: name, told, dumps_with })
}

/// Returns the dump tool in a command line.
fn tool_in(text: &str) -> Option<&'static str> {
    TOOLS.iter().map(|(tool, _)| *tool).find(|tool| text.contains(tool) && is_dump(tool, text))
}

/// True if the command dumps. Clients with other uses do so only with these words.
fn is_dump(tool: &str, text: &str) -> bool {
    match tool {
        "redis-cli" => text.contains("--rdb"),
        "etcdctl" => text.contains("snapshot"),
        _ => true,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawJob {
    metadata: Meta,
    spec: CronSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CronSpec {
    schedule: String,
    job_template: JobTemplate,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct JobSpec {
    template: PodTemplate,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodTemplate {
    spec: Pod,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Pod {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Container {
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<Variable>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Variable {
    name: String,
    value: String,
    value_from: Source,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    secret_key_ref: Option<Reference>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    name: String,
    key: String,
}

fn dump_job(raw: RawJob) -> Option<DumpJob> {
    let pod = raw.spec.job_template.spec.template.spec;
    let containers = pod.containers.iter().chain(&pod.init_containers);
    let found = containers.into_iter().find_map(|container| {
        let text = [container.command.as_slice(), container.args.as_slice()].concat().join(" ");
        tool_in(&text).map(|tool| (container, text, tool))
    });
    let (container, text, tool) = found?;
    let engine = TOOLS.iter().find(|(known, _)| *known == tool)?.1;
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    let variable = |names: &[&str]| {
        names.iter().find_map(|name| container.env.iter().find(|variable| variable.name == *name))
    };
    let value = |names: &[&str]| variable(names).map(|variable| variable.value.clone());
    let host = option(&words, &["-h", "--host"]).or_else(|| url_host(&words)).or_else(|| value(HOSTS));
    let user = option(&words, &["-U", "--username", "-u", "--user"]).or_else(|| value(USERS));
    let password = variable(PASSWORDS).and_then(|variable| variable.value_from.secret_key_ref.as_ref());
    Some(DumpJob {
        namespace: raw.metadata.namespace,
        name: raw.metadata.name,
        cron: raw.spec.schedule,
        tool,
        engine,
        host: host.filter(|host| is_plain(host)),
        user: user.filter(|user| is_plain(user)),
        password: password.map(|reference| (reference.name.clone(), reference.key.clone())),
    })
}

const HOSTS: &[&str] = &["PGHOST", "MYSQL_HOST", "MARIADB_HOST", "MONGO_HOST", "REDIS_HOST", "DB_HOST"];
const USERS: &[&str] = &["PGUSER", "MYSQL_USER", "MARIADB_USER", "MONGO_USER", "DB_USER"];
const PASSWORDS: &[&str] = &[
    "PGPASSWORD",
    "MYSQL_PWD",
    "MYSQL_PASSWORD",
    "MYSQL_ROOT_PASSWORD",
    "MARIADB_PASSWORD",
    "MONGO_PASSWORD",
    "DB_PASSWORD",
];

/// True for a name; false for a variable, a substitution or anything that may hold a secret.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

/// Returns the value of an option: `-h X`, `-hX` or `--host=X`.
fn option(words: &[&str], names: &[&str]) -> Option<String> {
    for (at, word) in words.iter().enumerate() {
        for name in names {
            let Some(rest) = word.strip_prefix(name) else { continue };
            return match rest.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if rest.is_empty() => words.get(at + 1).map(|value| (*value).to_owned()),
                None if name.starts_with("--") => continue,
                None => Some(rest.to_owned()),
            };
        }
    }
    None
}

/// Returns the host of the first URL among the words, without user and password before an `@`.
fn url_host(words: &[&str]) -> Option<String> {
    let url = words.iter().find_map(|word| word.split_once("://"))?.1;
    let authority = url.split('/').next().unwrap_or_default();
    let place = authority.rsplit('@').next().unwrap_or_default();
    Some(place.split(':').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(command: &[&str], env: serde_json::Value) -> Option<DumpJob> {
        let object = serde_json::json!({
            "metadata": {"namespace": "shop", "name": "dump"},
            "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
                "containers": [{"command": command, "env": env}]}}}}},
        });
        dump_job(serde_json::from_value(object).expect("a CronJob"))
    }

    #[test]
    fn dumps_are_recognised_and_no_password_is_kept() {
        let env = serde_json::json!([
            {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]);
        let found = job(&["sh", "-c", "pg_dump -h orders.shop.svc -U backup orders | gzip > /b/x"], env);
        let found = found.expect("a dump");
        assert_eq!((found.tool, found.engine), ("pg_dump", "postgresql"));
        assert_eq!((found.host.as_deref(), found.user.as_deref()), (Some("orders.shop.svc"), Some("backup")));
        assert_eq!(found.password, Some(("db".to_owned(), "password".to_owned())));

        let env = serde_json::json!([{"name": "MYSQL_PWD", "value": "canary"}]);
        let found = job(&["mysqldump", "--host=db", "-uroot", "-pcanary", "--all-databases"], env);
        let found = found.expect("a dump");
        assert_eq!((found.host.as_deref(), found.user.as_deref()), (Some("db"), Some("root")));
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");

        let found = job(&["pg_dump", "postgresql://me:canary@db.example.eu:5432/x"], serde_json::json!([]));
        let found = found.expect("a dump");
        assert_eq!(found.host.as_deref(), Some("db.example.eu"));
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");

        assert_eq!(job(&["redis-cli", "ping"], serde_json::json!([])), None);
        assert_eq!(job(&["sh", "-c", "pg_dump -h $HOST"], serde_json::json!([])).expect("a dump").host, None);
    }
}
