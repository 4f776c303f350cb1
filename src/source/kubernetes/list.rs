//! Lists every kind at one revision and forwards the objects in a fixed order.
//!
//! Several kinds are listed ahead. Each page is read completely into memory before it waits for the
//! sink; [`PageBudget`] bounds that memory. When the revision is compacted, everything starts again at
//! a newer one: a snapshot shows one revision or reports that it does not. The token in a 410
//! answer ("continue at the latest revision") is never used.

use futures::StreamExt as _;
use serde::Deserialize;
use tokio::sync::mpsc::unbounded_channel;

use super::budget::PageBudget;
use super::forward::{Forwarded, Forwarder};
use super::list_event::AttemptError;
use super::lister::{Lister, MAX_RESTARTS};
use super::recheck::{CheckedKinds, ConsistencyRecheck};
use super::revision_probe::{Revision, RevisionProbe, RevisionStatus};
use super::route::Route;
use super::{GapReason, ResourceGap, ResourceSink, ResourcesConfig, ResourcesError, ResourcesReport};
use crate::kubernetes::{ApiError, Cluster, Discovered, KindInfo, SelectionError, discover};
use crate::report::event::{Meter, Reporter};

/// Reads the selected resources into `sink`. The meter counts objects and the bytes of lines.
/// A kind that cannot be read is a gap in the report, not an error.
pub async fn read_resources(
    cluster: &Cluster,
    config: &ResourcesConfig,
    sink: &mut dyn ResourceSink,
    reporter: &Reporter,
    meter: &Meter,
) -> Result<ResourcesReport, ResourcesError> {
    if config.budget < ResourcesConfig::LEAST_BUDGET {
        return Err(ResourcesError::Budget { budget: config.budget, least: ResourcesConfig::LEAST_BUDGET });
    }
    let namespaces = config.selection.named_namespaces();
    let facts = ClusterFacts::read(cluster, namespaces.as_deref().unwrap_or_default()).await?;
    let mut restarts = 0;
    loop {
        // R is taken before discovery, so that a kind that existed at R and still exists is found.
        let initial_probe = RevisionProbe::by_namespaces(cluster, body_limit(config)).await;
        let discovered = discover(cluster).await?;
        let attempt =
            ListAttempt::new(cluster, config, meter, namespaces.as_deref(), &discovered, initial_probe)
                .await?;
        let text = attempt.revision.text.clone();
        // Kinds that cannot be read at one revision are read one by one, and each of them is named.
        let own_revisions = (restarts > MAX_RESTARTS).then(|| {
            format!("the cluster compacts its history faster than it can be read: {restarts} tries, the last at {text}")
        });
        match attempt.read_all(sink, own_revisions).await {
            Ok(checked) => return Ok(report(config, &discovered, facts, checked, text, restarts)),
            Err(AttemptError::Failed(error)) => return Err(*error),
            Err(AttemptError::RevisionExpired) => {
                restarts += 1;
                let how = if restarts > MAX_RESTARTS {
                    "every kind is read at a revision of its own".to_owned()
                } else {
                    format!("all of it is read again (try {} of {})", restarts + 1, MAX_RESTARTS + 1)
                };
                reporter.warn("resources", format!("revision {text} has expired: {how}"));
                let sink_error = |source| ResourcesError::Sink { kind: "all".to_owned(), source };
                sink.restart().await.map_err(sink_error)?;
            }
        }
    }
}

fn report(
    config: &ResourcesConfig,
    discovered: &Discovered,
    facts: ClusterFacts,
    checked: CheckedKinds,
    revision: String,
    restarts: u32,
) -> ResourcesReport {
    let mut gaps = facts.gaps;
    let known: Vec<KindInfo> = discovered.kinds.iter().chain(&discovered.computed).cloned().collect();
    let absent = |object| ResourceGap { object, reason: GapReason::Absent("kind".to_owned()) };
    gaps.extend(config.selection.unknown_kinds(&known).into_iter().map(absent));
    let stale = discovered.stale.iter();
    gaps.extend(stale.map(|stale| ResourceGap { object: stale.to_string(), reason: GapReason::Stale }));
    gaps.extend(checked.gaps);
    // A selection of no objects must not look like a safe backup. Gaps of these reasons do not explain it.
    let explains_no_loss =
        |gap: &ResourceGap| matches!(gap.reason, GapReason::NotAtRevision { .. } | GapReason::Stale);
    if gaps.iter().all(explains_no_loss) && checked.kinds.iter().all(|kind| kind.objects == 0) {
        let reason = GapReason::Absent("object".to_owned());
        gaps.push(ResourceGap { object: "the plan's selection".to_owned(), reason });
    }
    let mut notes = facts.notes;
    notes.extend(checked.notes);
    ResourcesReport {
        revision,
        cluster_uid: facts.cluster_uid,
        server_version: facts.server_version,
        restarts,
        kinds: checked.kinds,
        computed: discovered.computed.iter().map(KindInfo::resource).collect(),
        repeated: checked.repeated,
        gaps,
        notes,
    }
}

/// Returns the largest body of a page: four pages, with their overhead, make the budget.
fn body_limit(config: &ResourcesConfig) -> usize {
    (config.budget / 4).min(64 << 20) / 4 * 3
}

/// One attempt at one revision.
struct ListAttempt<'a> {
    cluster: &'a Cluster,
    config: &'a ResourcesConfig,
    meter: &'a Meter,
    routes: Vec<Route<'a>>,
    probe: RevisionProbe<'a>,
    revision: Revision,
    /// The largest body of a page, in bytes.
    body_limit: usize,
}

impl<'a> ListAttempt<'a> {
    async fn new(
        cluster: &'a Cluster,
        config: &'a ResourcesConfig,
        meter: &'a Meter,
        namespaces: Option<&'a [String]>,
        discovered: &'a Discovered,
        initial_probe: Result<(RevisionProbe<'a>, Revision), ApiError>,
    ) -> Result<Self, ResourcesError> {
        let body_limit = body_limit(config);
        let selection = &config.selection;
        let route = |kind| Route { kind, namespaces, labels: selection.labels_for(kind) };
        let routes: Vec<_> = selection.kinds(&discovered.kinds).into_iter().map(route).collect();
        if routes.is_empty() || namespaces.is_some_and(<[String]>::is_empty) {
            return Err(SelectionError::Empty.into());
        }
        let (probe, revision) = match initial_probe {
            Err(refused) if refused.code() == Some(403) => {
                RevisionProbe::by_any(cluster, &routes, body_limit, refused).await?
            }
            initial_probe => initial_probe?,
        };
        Ok(Self { cluster, config, meter, routes, probe, revision, body_limit })
    }

    /// Reads all kinds once: together, or each at its own revision for the reason in `own_revisions`.
    async fn read_all(
        &self,
        sink: &mut dyn ResourceSink,
        own_revisions: Option<String>,
    ) -> Result<CheckedKinds, AttemptError> {
        let statuses = match own_revisions {
            Some(why) => vec![RevisionStatus::Own { why }; self.routes.len()],
            None => self.probe.classify(&self.routes, &self.revision).await.map_err(ResourcesError::from)?,
        };
        let forwarded = self.list(sink, &statuses).await?;
        let recheck = ConsistencyRecheck {
            cluster: self.cluster,
            probe: &self.probe,
            revision: &self.revision,
            routes: &self.routes,
            budget: self.config.budget,
            body_limit: self.body_limit,
        };
        Ok(recheck.run(forwarded, &statuses).await)
    }

    async fn list(
        &self,
        sink: &mut dyn ResourceSink,
        statuses: &[RevisionStatus],
    ) -> Result<Forwarded, AttemptError> {
        let budget = PageBudget::new(self.config.budget, self.body_limit / 3 * 4);
        let (mut listers, mut receivers) = (Vec::new(), Vec::new());
        for (position, (route, status)) in self.routes.iter().zip(statuses).enumerate() {
            let (events_tx, events_rx) = unbounded_channel();
            let lister = Lister {
                cluster: self.cluster,
                route: route.clone(),
                position,
                budget: budget.clone(),
                body_limit: self.body_limit,
                events_tx,
            };
            listers.push(async move { lister.run(status.clone(), &self.revision).await });
            receivers.push((route.kind, events_rx));
        }
        let mut listing = futures::stream::iter(listers).buffer_unordered(self.config.parallel.max(1)).fuse();
        let listing = async { while listing.next().await.is_some() {} };
        let forwarding =
            Forwarder::new(sink, &self.config.selection, self.meter).forward_all(receivers, &budget);
        tokio::pin!(listing, forwarding);
        tokio::select! {
            result = &mut forwarding => result,
            () = &mut listing => forwarding.await,
        }
    }
}

/// Facts that stay the same over all attempts.
struct ClusterFacts {
    cluster_uid: Option<String>,
    server_version: String,
    gaps: Vec<ResourceGap>,
    notes: Vec<ResourceGap>,
}

impl ClusterFacts {
    /// Reads the facts. `named` are namespaces that must exist.
    async fn read(cluster: &Cluster, named: &[String]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        #[derive(Deserialize)]
        struct Namespace {
            metadata: Uid,
        }
        #[derive(Deserialize)]
        struct Uid {
            uid: String,
        }
        let answer = cluster.get("/version", "", 64 << 10).await?;
        let server_version = serde_json::from_slice(&answer.body)
            .map_or_else(|_| "unknown".to_owned(), |version: Version| version.git_version);
        let mut facts = Self { cluster_uid: None, server_version, gaps: Vec::new(), notes: Vec::new() };
        match cluster.get("/api/v1/namespaces/kube-system", "", 1 << 20).await {
            Ok(answer) => {
                let namespace: Option<Namespace> = serde_json::from_slice(&answer.body).ok();
                facts.cluster_uid = namespace.map(|namespace| namespace.metadata.uid);
            }
            // No selected object is missing: the UID only distinguishes clusters.
            Err(error) if matches!(error.code(), Some(403 | 404)) => {
                let rule = KindInfo::from_path_parts("", "v1", "namespaces").get_rule("kube-system");
                let reason = GapReason::Forbidden { rule, role: "a ClusterRole".to_owned() };
                facts.notes.push(ResourceGap { object: "the cluster's UID".to_owned(), reason });
            }
            Err(error) => return Err(error),
        }
        for name in named {
            let found = cluster.get(&format!("/api/v1/namespaces/{name}"), "", 1 << 20).await;
            if found.is_err_and(|error| error.code() == Some(404)) {
                let reason = GapReason::Absent("namespace".to_owned());
                facts.gaps.push(ResourceGap { object: format!("namespaces/{name}"), reason });
            }
        }
        Ok(facts)
    }
}
