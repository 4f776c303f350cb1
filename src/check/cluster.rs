//! Checks the cluster: version, kinds, the right to list each, and the possibility of one revision for all.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use tokio::time::Instant;

use super::{CheckJob, ClusterJob, Finding, Severity, within};
use crate::kubernetes::{ApiError, Cluster, Discovered, KindInfo, ListMeta, Selection, discover, split_list};
use crate::plan::Glob;
use crate::report::coverage::UndeclaredKind;
use crate::report::error::causes;
use crate::report::event::{Meter, Reporter};
use crate::report::text::{count, plural};

const PARALLEL: usize = 8;
/// The maximum size of an answer, in bytes; one object's metadata is far below this.
const PAGE: usize = 4 << 20;
/// Requests metadata only. A server without that form returns whole objects.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// The maximum number of kinds named in a line.
const NAMED: usize = 12;
/// The minor version of the oldest server that kbak is tested with.
const OLDEST_TESTED_MINOR: u32 = 33;

pub(super) async fn check(job: &CheckJob, reporter: &Reporter) -> Vec<Finding> {
    match &job.cluster {
        None => Vec::new(),
        Some(Err(unresolved)) => vec![unresolved.finding("cluster")],
        Some(Ok(job)) => {
            let mut findings = within("cluster", cluster(job, reporter)).await;
            // Without an answer coverage cannot be checked, and the failure is already reported.
            if findings.iter().any(|finding| finding.about == "cluster" && finding.weight == Severity::Good) {
                findings.extend(coverage(job, reporter).await);
            }
            findings
        }
    }
}

async fn cluster(job: &ClusterJob, reporter: &Reporter) -> Vec<Finding> {
    let began = Instant::now();
    let (version, discovered) = match futures::join!(version(&job.cluster), discover(&job.cluster)) {
        (Ok(version), Ok(discovered)) => (version, discovered),
        (Err(error), _) | (_, Err(error)) => return vec![unreachable(error)],
    };
    let mut findings = Vec::new();
    match &job.selection {
        None => findings.push(Finding::good("cluster", version.text.clone()).took(began)),
        Some(selection) => {
            let kinds = selection.kinds(&discovered.kinds);
            let named = selection.named_namespaces();
            let meter = reporter.meter("cluster", "kinds");
            let asked = ask(&job.cluster, &kinds, named.as_deref(), &meter).await;
            meter.end();
            findings.push(
                Finding::good("cluster", cluster_summary(&version.text, selection, &asked)).took(began),
            );
            let absent = absent(&job.cluster, selection, named.as_deref(), &discovered).await;
            findings.extend(absent.iter().map(|what| missing_selection(what, job.absent_accepted)));
            findings.extend(rights(&kinds, &asked, named.as_deref()));
            findings.extend(unresponsive_kinds(&kinds, &asked));
            findings.extend(single_revision(&kinds, &asked));
        }
    }
    if version.minor.is_some_and(|minor| minor < OLDEST_TESTED_MINOR) {
        let what = format!(
            "Kubernetes {} is older than what kbak is tried with (v1.{OLDEST_TESTED_MINOR})",
            version.text
        );
        findings.push(Finding::warning("cluster", what));
    }
    findings.extend(stale(&discovered, job.selection.as_ref()));
    findings
}

fn unreachable(error: ApiError) -> Finding {
    let remedy = match error.code() {
        Some(401) => "the credentials are not accepted: renew the token or certificate of the kubeconfig",
        Some(403) => "the identity may not read discovery: bind it to the ClusterRole system:discovery",
        _ => "is the API server up, and the address in the kubeconfig right?",
    };
    Finding::problem("cluster", causes(&error)).remedy(remedy)
}

struct Version {
    text: String,
    minor: Option<u32>,
}

async fn version(cluster: &Cluster) -> Result<Version, ApiError> {
    #[derive(serde::Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Answer {
        git_version: String,
        minor: String,
    }
    let answer = cluster.get("/version", "", 64 << 10).await?;
    let answer: Answer = serde_json::from_slice(&answer.body).unwrap_or_default();
    // Some providers write 33+.
    let minor = answer.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    Ok(Version { text: answer.git_version, minor })
}

/// The answer of one kind to a list of one object.
struct ListProbe {
    /// The number of objects, as far as the server reports it.
    objects: u64,
    revision: String,
    /// The revision of the API server's store before and after all requests.
    between: (u64, u64),
}

/// Lists one object of each kind, metadata only. This needs the same right as the backup, and no Secret's
/// value crosses the network.
async fn ask(
    cluster: &Cluster,
    kinds: &[&KindInfo],
    named: Option<&[String]>,
    meter: &Meter,
) -> Vec<Result<ListProbe, ApiError>> {
    meter.add_total(kinds.len() as u64);
    let revision = || async { namespaces(cluster).await.unwrap_or(0) };
    let before = revision().await;
    let mut asked: Vec<Result<ListProbe, ApiError>> = futures::stream::iter(kinds)
        .map(|kind| async move {
            let answer = one(cluster, kind, named).await;
            meter.add_done(1);
            answer
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    let after = revision().await;
    for asked in asked.iter_mut().flatten() {
        asked.between = (before, after);
    }
    asked
}

async fn one(cluster: &Cluster, kind: &KindInfo, named: Option<&[String]>) -> Result<ListProbe, ApiError> {
    let paths: Vec<String> = match named.filter(|_| kind.namespaced) {
        Some(named) => named.iter().map(|namespace| kind.path(Some(namespace))).collect(),
        None => vec![kind.path(None)],
    };
    let mut asked = ListProbe { objects: 0, revision: String::new(), between: (0, 0) };
    for path in paths {
        let answer = cluster.get_as(&path, "limit=1", METADATA, PAGE).await?;
        let page = split_list(&answer.body).unwrap_or_default();
        let ListMeta { resource_version, remaining_item_count, .. } = page.metadata;
        asked.objects += page.items.len() as u64 + remaining_item_count.unwrap_or(0);
        asked.revision = resource_version;
    }
    Ok(asked)
}

/// Returns the revision of the API server's store that holds namespaces.
async fn namespaces(cluster: &Cluster) -> Option<u64> {
    let answer = cluster.get_as("/api/v1/namespaces", "limit=1", METADATA, PAGE).await.ok()?;
    split_list(&answer.body).ok()?.metadata.resource_version.parse().ok()
}

fn cluster_summary(version: &str, selection: &Selection, asked: &[Result<ListProbe, ApiError>]) -> String {
    let objects: u64 = asked.iter().flatten().map(|asked| asked.objects).sum();
    let kinds = plural(asked.len() as u64, "kind", "kinds");
    let every =
        selection.namespaces.iter().any(Glob::is_everything) && selection.exclude_namespaces.is_empty();
    // A list of one gives the number of a kind's objects, not of those that a selection takes.
    let chosen = if every && selection.labels.is_none() { "" } else { " before namespaces and labels" };
    format!("{version}, {kinds}, {} objects{chosen}", count(objects))
}

/// Returns kinds and namespaces that the plan names and the cluster lacks, worded as in a backup.
async fn absent(
    cluster: &Cluster,
    selection: &Selection,
    named: Option<&[String]>,
    discovered: &Discovered,
) -> Vec<String> {
    let known: Vec<KindInfo> = discovered.kinds.iter().chain(&discovered.computed).cloned().collect();
    let kinds = selection.unknown_kinds(&known).into_iter();
    let mut absent: Vec<String> = kinds.map(|kind| format!("the kind {kind}")).collect();
    for name in named.unwrap_or_default() {
        let found = cluster.get(&format!("/api/v1/namespaces/{name}"), "", PAGE).await;
        if found.is_err_and(|error| error.code() == Some(404)) {
            absent.push(format!("the namespace {name}"));
        }
    }
    absent
}

fn missing_selection(what: &str, accepted: bool) -> Finding {
    let missing = format!("{what} is missing in the cluster, and the plan names it");
    if accepted {
        return Finding::note("resources", format!("{missing}: the gap absent, which it accepts"));
    }
    Finding::problem("resources", format!("{missing}: every backup would have the gap absent (exit 3)"))
        .remedy("correct resources.namespaces or resources.kinds in the plan, or accept the gap absent")
}

/// Returns the kinds that may not be listed, with the rules to add. If the plan names its namespaces,
/// cluster-scoped kinds give only a warning: their objects are only taken where a namespace needs them.
fn rights(
    kinds: &[&KindInfo],
    asked: &[Result<ListProbe, ApiError>],
    named: Option<&[String]>,
) -> Vec<Finding> {
    let refused =
        |asked: &Result<ListProbe, ApiError>| matches!(asked, Err(error) if error.code() == Some(403));
    let closed = kinds.iter().zip(asked).filter(|(_, asked)| refused(asked)).map(|(kind, _)| *kind);
    let (optional, needed): (Vec<&KindInfo>, Vec<&KindInfo>) =
        closed.partition(|kind| named.is_some() && !kind.namespaced);
    let mut findings = Vec::new();
    if needed.is_empty() {
        let what =
            format!("{} may be listed", plural((kinds.len() - optional.len()) as u64, "kind", "kinds"));
        findings.push(Finding::good("rights", what));
    } else {
        let role = match named {
            Some(named) => format!("a Role in each of {}", named.join(", ")),
            None => "a ClusterRole".to_owned(),
        };
        let what = format!("may not list {}", kind_names(&needed));
        findings.push(Finding::problem("rights", what).remedy(rules(&needed, &role)));
    }
    if !optional.is_empty() {
        let what = format!("may not list {}: what needs them is backed up without", kind_names(&optional));
        findings.push(Finding::warning("rights", what).remedy(rules(&optional, "a ClusterRole")));
    }
    findings
}

/// Joins names of kinds; beyond [`NAMED`] only their number is given.
fn kind_names(kinds: &[&KindInfo]) -> String {
    let mut names: Vec<String> = kinds.iter().take(NAMED).map(|kind| kind.resource()).collect();
    if kinds.len() > NAMED {
        names.push(format!("{} more", kinds.len() - NAMED));
    }
    names.join(", ")
}

/// Returns the rules that allow listing kinds: lines for `rules:` of a role, one a group.
fn rules(kinds: &[&KindInfo], role: &str) -> String {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in kinds {
        groups.entry(&kind.group).or_default().push(&kind.plural);
    }
    let lines = groups.iter().map(|(group, plurals)| {
        format!("- {{apiGroups: [\"{group}\"], resources: [{}], verbs: [list]}}", plurals.join(", "))
    });
    let first = format!("add to rules: of {role} that is bound to this identity:");
    std::iter::once(first).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Returns the kinds whose server does not answer: a dead aggregated API, a dead conversion webhook.
fn unresponsive_kinds(kinds: &[&KindInfo], asked: &[Result<ListProbe, ApiError>]) -> Vec<Finding> {
    let dead = kinds.iter().zip(asked).filter_map(|(kind, asked)| match asked {
        Err(error) if error.code() != Some(403) => Some((kind, error)),
        _ => None,
    });
    let one = |(kind, error): (&&KindInfo, &ApiError)| {
        let what = format!("{} cannot be listed: {}", kind.resource(), error.kind);
        let remedy = match kind.group.as_str() {
            "" => "is the API server well?".to_owned(),
            group => format!("look at what serves it: kubectl get apiservices,crds | grep {group}"),
        };
        Finding::problem("cluster", what).remedy(remedy)
    };
    dead.map(one).collect()
}

/// Checks that all kinds can be read at one revision. A kind whose revision is not between the main store's
/// two is in another store.
fn single_revision(kinds: &[&KindInfo], asked: &[Result<ListProbe, ApiError>]) -> Vec<Finding> {
    let is_shared = |asked: &ListProbe| asked.between.0 > 0 && asked.between.1 > 0;
    if asked.iter().flatten().any(|asked| !is_shared(asked)) {
        let what = "whether one revision for all kinds is possible only the backup finds out: namespaces may not be listed";
        return vec![Finding::note("moment", what)];
    }
    let apart = |asked: &ListProbe| {
        let (before, after) = asked.between;
        !asked.revision.parse().is_ok_and(|at| (before..=after).contains(&at))
    };
    let elsewhere: Vec<&KindInfo> = kinds
        .iter()
        .zip(asked)
        .filter(|(_, asked)| asked.as_ref().is_ok_and(apart))
        .map(|(kind, _)| *kind)
        .collect();
    if elsewhere.is_empty() {
        return vec![Finding::good("moment", "one revision for all kinds is possible")];
    }
    let what = format!("no one moment: {} live in a store of their own", kind_names(&elsewhere));
    let remedy = "leave them out (resources.kinds.exclude), or accept the gap not-at-revision";
    vec![Finding::warning("moment", what).remedy(remedy)]
}

/// Returns the groups whose kinds are unknown, because their server does not answer discovery.
fn stale(discovered: &Discovered, selection: Option<&Selection>) -> Vec<Finding> {
    if selection.is_none() {
        return Vec::new();
    }
    let one = |group: &crate::kubernetes::StaleGroup| {
        let what =
            format!("{}/{} does not answer discovery: its kinds are unknown", group.group, group.version);
        let remedy = format!("kubectl get apiservice {}.{}", group.version, group.group);
        Finding::problem("cluster", what).remedy(remedy)
    };
    discovered.stale.iter().map(one).collect()
}

/// Checks coverage. An undeclared Secret that cannot be recreated is a problem. Other undeclared things are
/// warnings, or problems too with `coverage: strict`.
async fn coverage(job: &ClusterJob, reporter: &Reporter) -> Vec<Finding> {
    let Some(watch) = &job.coverage else { return Vec::new() };
    let began = Instant::now();
    let coverage = watch.run(reporter).await;
    let mut findings = Vec::new();
    if watch.declared.excludes_secrets() {
        let what = "Secrets are not looked at, because the plan excludes them: keys among them are not found";
        findings.push(Finding::note("coverage", what));
    }
    if coverage.uncovered.is_empty() && coverage.unseen.is_empty() {
        findings.push(Finding::good("coverage", coverage.summary()).took(began));
    }
    for line in coverage.findings() {
        let weight = match line.what {
            Some(UndeclaredKind::Key) => Severity::Problem,
            _ if coverage.strict => Severity::Problem,
            Some(_) => Severity::Warning,
            None => Severity::Note,
        };
        findings.push(Finding::new("coverage", weight, line.text).remedy(line.remedy));
    }
    for one in &coverage.accepted {
        findings
            .push(Finding::note("coverage", format!("{} is not declared, as the plan accepts", one.item)));
    }
    findings
}
