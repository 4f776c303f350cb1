//! CronJobs that dump a database. Commands are never kept, because they may contain a password.

use crate::inventory::object_parts::{Object, PodSpec, object_parts};

/// A CronJob that dumps a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpCronJob {
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

/// Returns the dump tool in a command line.
pub(super) fn dump_tool_in(text: &str) -> Option<&'static str> {
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

object_parts! {
    pub(super) struct CronJobSpec {
        schedule: String,
        job_template: Object<JobSpec>,
    }
    struct JobSpec {
        template: Object<PodSpec>,
    }
}

pub(super) fn to_dump_cron_job(job: Object<CronJobSpec>) -> Option<DumpCronJob> {
    let pod = job.spec.job_template.spec.template.spec;
    let (container, text, tool) =
        pod.containers.iter().chain(&pod.init_containers).find_map(|container| {
            let text = [container.command.as_slice(), container.args.as_slice()].concat().join(" ");
            dump_tool_in(&text).map(|tool| (container, text, tool))
        })?;
    let engine = TOOLS.iter().find(|(known, _)| *known == tool)?.1;
    let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    let value = |names| container.variable(names).map(|variable| variable.value.clone());
    let host = option(&words, &["-h", "--host"]).or_else(|| url_host(&words)).or_else(|| value(HOSTS));
    let user = option(&words, &["-U", "--username", "-u", "--user"]).or_else(|| value(USERS));
    Some(DumpCronJob {
        namespace: job.metadata.namespace,
        name: job.metadata.name,
        cron: job.spec.schedule,
        tool,
        engine,
        host: host.filter(|host| is_plain(host)),
        user: user.filter(|user| is_plain(user)),
        password: container.variable(PASSWORDS).and_then(|variable| variable.secret()),
    })
}

const HOSTS: &str = "PGHOST MYSQL_HOST MARIADB_HOST MONGO_HOST REDIS_HOST DB_HOST";
const USERS: &str = "PGUSER MYSQL_USER MARIADB_USER MONGO_USER DB_USER";
const PASSWORDS: &str = "PGPASSWORD MYSQL_PWD MYSQL_PASSWORD MYSQL_ROOT_PASSWORD MARIADB_PASSWORD MONGO_PASSWORD \
    DB_PASSWORD";

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

    fn cron_job(command: &[&str], env: serde_json::Value) -> Option<DumpCronJob> {
        let object = serde_json::json!({
            "metadata": {"namespace": "shop", "name": "dump"},
            "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
                "containers": [{"command": command, "env": env}]}}}}},
        });
        to_dump_cron_job(serde_json::from_value(object).expect("a CronJob"))
    }

    #[test]
    fn dumps_are_recognised_and_no_password_is_kept() {
        let env = serde_json::json!([
            {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]);
        let found = cron_job(&["sh", "-c", "pg_dump -h orders.shop.svc -U backup orders | gzip > /b/x"], env);
        let found = found.expect("a dump");
        assert_eq!((found.tool, found.engine), ("pg_dump", "postgresql"));
        assert_eq!((found.host.as_deref(), found.user.as_deref()), (Some("orders.shop.svc"), Some("backup")));
        assert_eq!(found.password, Some(("db".to_owned(), "password".to_owned())));

        let env = serde_json::json!([{"name": "MYSQL_PWD", "value": "canary"}]);
        let found = cron_job(&["mysqldump", "--host=db", "-uroot", "-pcanary", "--all-databases"], env);
        let found = found.expect("a dump");
        assert_eq!((found.host.as_deref(), found.user.as_deref()), (Some("db"), Some("root")));
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");

        let found =
            cron_job(&["pg_dump", "postgresql://me:canary@db.example.eu:5432/x"], serde_json::json!([]));
        let found = found.expect("a dump");
        assert_eq!(found.host.as_deref(), Some("db.example.eu"));
        assert!(!format!("{found:?}").contains("canary"), "{found:?}");

        assert_eq!(cron_job(&["redis-cli", "ping"], serde_json::json!([])), None);
        assert_eq!(
            cron_job(&["sh", "-c", "pg_dump -h $HOST"], serde_json::json!([])).expect("a dump").host,
            None
        );
    }
}
