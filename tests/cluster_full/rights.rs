//! The requests of every verb against the roles that `kbak rbac` prints: none is forbidden, and no right is
//! unused.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt as _;
use http::Method;
use kbak::kubernetes::Cluster;
use serde_json::json;

use super::raw::{self, Id};
use super::{FULL_RESTORE_ARGS, coverage, fixture};
use crate::support::account::{account, apply, as_account, create_cronjob, move_secret, write_plan};
use crate::support::audit::{Right, requests_of, rights_in};
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, create};
use crate::support::memory_backup::create_namespace;
use crate::support::program::{Run, command, good, succeeds};
use crate::support::webhooks::WebhookServer;

/// Verbs that the server checks within another request: for a role or binding that grants more than its
/// writer has.
const CHECKED_WITHIN: &[&str] = &["bind", "escalate"];

/// The kind whose objects the fixture adds only by its definitions: the API server makes them.
const MADE_BY_THE_SERVER: &str = "apiservices.apiregistration.k8s.io";

/// A cluster whose requests are logged.
struct Audited {
    plane: ControlPlane,
    cluster: Cluster,
    /// The objects that it began with.
    shipped: BTreeSet<Id>,
}

impl Audited {
    async fn start() -> Self {
        let plane = tokio::task::spawn_blocking(|| ControlPlane::start(&["--audit"])).await.expect("a plane");
        let cluster = plane.cluster().await;
        let shipped = raw::read(&cluster).await.objects.into_keys().collect();
        create_namespace(&cluster, "kbak").await;
        Self { plane, cluster, shipped }
    }

    /// Prints the rights of a task in `kinds`, applies them here, and waits until they hold.
    async fn grant(&self, plan: &str, task: &str, kinds: &Self) -> BTreeSet<Right> {
        let admin = kinds.plane.kubeconfig().display().to_string();
        let args = ["rbac", "--plan", plan, "--task", task, "--kubeconfig", &admin, "-o", "json"];
        let printed = String::from_utf8(good(&args).stdout).expect("text");
        apply(&self.cluster, &printed).await;
        for (group, plural) in [("", "configmaps"), ("", "secrets"), ("apps", "deployments")] {
            self.until_allowed(&account(task), group, plural).await;
        }
        rights_in(&printed)
    }

    async fn until_allowed(&self, user: &str, group: &str, plural: &str) {
        let attributes = json!({"verb": "list", "group": group, "resource": plural});
        let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        for _ in 0..600 {
            if create(&self.cluster, path, review.clone()).await["status"]["allowed"] == true {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{user} never may list {plural}");
    }

    /// Returns the rights that an account has used here. None of its requests was forbidden.
    async fn used_by(&self, task: &str) -> BTreeSet<Right> {
        let requests = requests_of(&self.cluster, &self.plane.audit_log(), &account(task)).await;
        assert!(requests.forbidden.is_empty(), "{task}: forbidden: {:#?}", requests.forbidden);
        requests.used
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn printed_rights_are_all_that_is_needed_and_all_are_used() {
    let hooks = WebhookServer::start().await;
    let old = Audited::start().await;
    fixture::fill(&old.cluster, &hooks, 0).await;
    let cli = CliRepo::for_plan("nightly");
    move_secret(&cli, &old.cluster).await;
    let plan = write_plan(&cli, &as_account(&old.plane, "backup", cli.at("backup.account")));
    create_cronjob(&old.cluster).await;
    let printed = old.grant(&plan, "backup", &old).await;
    backed_up_in_every_way(&cli, &plan).await;
    let used = old.used_by("backup").await;
    let unused: Vec<_> = printed.difference(&used).collect();
    assert!(unused.is_empty(), "backup: unused: {unused:#?}");

    let new = Audited::start().await;
    let printed = new.grant(&plan, "restore", &old).await;
    let account = as_account(&new.plane, "restore", cli.at("restore.account"));
    restored_in_every_way(&cli, &plan, &account, &old).await;
    let used = new.used_by("restore").await;
    let mut restored = coverage::added(&raw::read(&new.cluster).await, &new.shipped);
    restored.remove(MADE_BY_THE_SERVER);
    let with_status = kinds_with_status(&old).await;
    let applies = |(verb, group, plural): &&Right| {
        let (plural, subresource) = plural.split_once('/').unwrap_or((plural, ""));
        let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let has_status = subresource.is_empty() || with_status.contains(&resource);
        !CHECKED_WITHIN.contains(&verb.as_str()) && restored.contains(&resource) && has_status
    };
    let unused: Vec<_> = printed.difference(&used).filter(applies).collect();
    assert!(unused.is_empty(), "restore: unused: {unused:#?}");
    assert!(restored.len() >= 50, "{} kinds were restored", restored.len());
}

/// Returns the kinds of which the fixture has an object with a status.
async fn kinds_with_status(old: &Audited) -> BTreeSet<String> {
    let found = raw::read(&old.cluster).await.objects.into_iter();
    let found = found.filter(|(id, object)| !old.shipped.contains(id) && object["status"].is_object());
    found.map(|((resource, ..), _)| resource).collect()
}

/// Success, a kill in the middle and the run after it, a new epoch, a check; verification reads no cluster.
async fn backed_up_in_every_way(cli: &CliRepo, plan: &str) {
    let backup = ["backup", "--plan", plan];
    // As the chart starts it: the run tells of itself in an Event.
    succeeds(command(&backup).env("KBAK_CRONJOB", "kbak-backup"));
    let killed = command(&backup).env("KBAK_KILL_AT", "backup.pack.stored").output().expect("it runs");
    assert_eq!(killed.status.signal(), Some(9), "{}", String::from_utf8_lossy(&killed.stderr));
    good(&backup);
    good(&[&backup[..], &["--new-epoch"]].concat());
    succeeds(command(&["check", "--plan", plan]).env("KBAK_CRONJOB", "kbak-backup"));
    let (code, _, said) = cli.run_reader(&["verify"]);
    assert_eq!(code, 0, "{said}");
}

/// Dry runs, a restore into an empty cluster, and two that change what differs.
async fn restored_in_every_way(cli: &CliRepo, plan: &str, account: &Path, old: &Audited) {
    let restore = async |more: &[&str]| -> Run {
        let args = [FULL_RESTORE_ARGS, &["--restore-status", "*"], more].concat();
        cli.restore_cluster(account, &args).await
    };
    restore(&["--dry-run"]).await;
    restore(&["--dry-run=server"]).await;
    let run = restore(&[]).await;
    assert!(matches!(run.code, 0 | 3), "{}", run.all_output());
    for existing in ["patch", "replace"] {
        label_all(old, existing).await;
        good(&["backup", "--plan", plan]);
        let run = restore(&["--existing", existing]).await;
        assert!(matches!(run.code, 0 | 3), "{}", run.all_output());
    }
}

/// Gives a label to every object that can have one.
async fn label_all(old: &Audited, value: &str) {
    let found = raw::read(&old.cluster).await;
    let objects = found.objects.iter().filter(|(id, _)| !old.shipped.contains(*id));
    let changes = objects.map(|((resource, namespace, name), _)| {
        let path = found.kinds[resource].object_path(namespace, name);
        let body = Bytes::from(json!({"metadata": {"labels": {"changed": value}}}).to_string());
        async move {
            let kind = "application/merge-patch+json";
            // What vanishes meanwhile, or cannot be changed, is not restored differently.
            let _ = old.cluster.send(Method::PATCH, &path, "", kind, body).await;
        }
    });
    futures::stream::iter(changes).buffer_unordered(16).collect::<Vec<()>>().await;
}
