//! Lists every kind at one revision and forwards the objects in a fixed order.
//!
//! Several kinds are listed ahead. Each page is read completely into memory before it waits for the
//! sink; [`Budget`] bounds that memory. When the revision is compacted, everything starts again at
//! a newer one: a snapshot shows one revision or reports that it does not. The token in a 410
//! answer ("continue at the latest revision") is never used.

use futures::StreamExt as _;
use tokio::sync::mpsc::unbounded_channel;

use super::budget::Budget;
use super::lister::{Lister, RESTARTS, Route};
use super::{GapReason, ResourceGap, ResourceSink, ResourcesConfig, ResourcesError, ResourcesReport};
use crate::kubernetes::client::{ApiError, Cluster};
use crate::kubernetes::discovery::{Discovered, discover};
use crate::kubernetes::{KindInfo, SelectionError};
use crate::report::event::{Meter, Reporter};
use crate::source::kubernetes::forward::{Forwarder, HandedOn, Stop};
use crate::source::kubernetes::recheck::{ConsistencyRecheck, Proved};
use crate::source::kubernetes::revision_probe::{Moment, RevisionProbe, RevisionStatus};

/// Reads the selected resources into `sink`. The meter counts objects and the bytes of lines.
///
/// # Errors
/// [`ResourcesError`]. A kind that cannot be read is a gap in the report, not an error.
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
    let named = config.selection.named_namespaces();
    let about = About::read(cluster, named.as_deref().unwrap_or_default()).await?;
    let mut restarts = 0;
    loop {
        // R is taken before discovery, so that a kind that existed at R and still exists is found.
        let early = RevisionProbe::by_namespaces(cluster, body_limit(config)).await;
        let discovered = discover(cluster).await?;
        let run = Run::new(cluster, config, meter, named.as_deref(), &discovered, early).await?;
        let text = run.moment.text.clone();
        // Kinds that cannot be read at one revision are read one by one, and each of them is named.
        let apart = (restarts > RESTARTS).then(|| {
            format!("the cluster compacts its history faster than it can be read: {restarts} tries, the last at {text}")
        });
        match run.pass(sink, apart).await {
            Ok(proved) => return Ok(report(config, &discovered, about, proved, text, restarts)),
            Err(Stop::Failed(error)) => return Err(*error),
            Err(Stop::Expired) => {
                restarts += 1;
                let how = if restarts > RESTARTS {
                    "every kind is read at a revision of its own".to_owned()
                } else {
                    format!("all of it is read again (try {} of {})", restarts + 1, RESTARTS + 1)
                };
                reporter.warn("resources", format!("revision {text} is gone; {how}"));
                let refused = |source| ResourcesError::Sink { kind: "all".to_owned(), source };
                sink.restart().await.map_err(refused)?;
            }
        }
    }
}

fn report(
    config: &ResourcesConfig,
    discovered: &Discovered,
    about: About,
    proved: Proved,
    revision: String,
    restarts: u32,
) -> ResourcesReport {
    let mut gaps = about.gaps;
    let known: Vec<KindInfo> = discovered.kinds.iter().chain(&discovered.computed).cloned().collect();
    gaps.extend(
        config
            .selection
            .unknown_kinds(&known)
            .into_iter()
            .map(|object| ResourceGap { object, reason: GapReason::Absent("kind".to_owned()) }),
    );
    gaps.extend(
        discovered
            .stale
            .iter()
            .map(|stale| ResourceGap { object: stale.to_string(), reason: GapReason::Stale }),
    );
    gaps.extend(proved.gaps);
    // A selection that gives no objects must not look like a safe backup. Gaps of these two reasons
    // do not explain an empty result.
    let beside = |gap: &ResourceGap| matches!(gap.reason, GapReason::NotAtRevision { .. } | GapReason::Stale);
    if gaps.iter().all(beside) && proved.kinds.iter().all(|kind| kind.objects == 0) {
        let reason = GapReason::Absent("object".to_owned());
        gaps.push(ResourceGap { object: "the plan's selection".to_owned(), reason });
    }
    let mut notes = about.notes;
    notes.extend(proved.notes);
    ResourcesReport {
        revision,
        cluster_uid: about.cluster_uid,
        server_version: about.server_version,
        restarts,
        kinds: proved.kinds,
        computed: discovered.computed.iter().map(KindInfo::resource).collect(),
        repeated: proved.repeated,
        gaps,
        notes,
    }
}

/// Returns the largest body of a page: four pages, with their overhead, make the budget.
fn body_limit(config: &ResourcesConfig) -> usize {
    (config.budget / 4).min(64 << 20) / 4 * 3
}

/// Facts that stay the same over all attempts.
struct About {
    cluster_uid: Option<String>,
    server_version: String,
    gaps: Vec<ResourceGap>,
    notes: Vec<ResourceGap>,
}

impl About {
    /// Reads the facts. `named` are namespaces that must exist.
    async fn read(cluster: &Cluster, named: &[String]) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        #[derive(serde::Deserialize)]
        struct Namespace {
            metadata: Uid,
        }
        #[derive(serde::Deserialize)]
        struct Uid {
            uid: String,
        }
        let answer = cluster.get("/version", "", 64 << 10).await?;
        let server_version = serde_json::from_slice(&answer.body)
            .map_or_else(|_| "unknown".to_owned(), |version: Version| version.git_version);
        let mut about = Self { cluster_uid: None, server_version, gaps: Vec::new(), notes: Vec::new() };
        match cluster.get("/api/v1/namespaces/kube-system", "", 1 << 20).await {
            Ok(answer) => {
                let namespace: Option<Namespace> = serde_json::from_slice(&answer.body).ok();
                about.cluster_uid = namespace.map(|namespace| namespace.metadata.uid);
            }
            // No selected object is missing: the UID only distinguishes clusters.
            Err(error) if matches!(error.code(), Some(403 | 404)) => {
                let rule = "{apiGroups: [\"\"], resources: [namespaces], resourceNames: [kube-system], verbs: [get]}";
                let reason = GapReason::Forbidden { rule: rule.to_owned(), role: "a ClusterRole".to_owned() };
                about.notes.push(ResourceGap { object: "the cluster's UID".to_owned(), reason });
            }
            Err(error) => return Err(error),
        }
        for name in named {
            let found = cluster.get(&format!("/api/v1/namespaces/{name}"), "", 1 << 20).await;
            if found.is_err_and(|error| error.code() == Some(404)) {
                let reason = GapReason::Absent("namespace".to_owned());
                about.gaps.push(ResourceGap { object: format!("namespaces/{name}"), reason });
            }
        }
        Ok(about)
    }
}

/// One attempt at one revision.
struct Run<'a> {
    cluster: &'a Cluster,
    config: &'a ResourcesConfig,
    meter: &'a Meter,
    routes: Vec<Route<'a>>,
    sandwich: RevisionProbe<'a>,
    moment: Moment,
    /// The largest body of a page, in bytes.
    body_limit: usize,
}

impl<'a> Run<'a> {
    async fn new(
        cluster: &'a Cluster,
        config: &'a ResourcesConfig,
        meter: &'a Meter,
        named: Option<&'a [String]>,
        discovered: &'a Discovered,
        early: Result<(RevisionProbe<'a>, Moment), ApiError>,
    ) -> Result<Self, ResourcesError> {
        let body_limit = body_limit(config);
        let selection = &config.selection;
        let route = |kind| Route { kind, namespaces: named, labels: selection.labels_for(kind) };
        let routes: Vec<_> = selection.kinds(&discovered.kinds).into_iter().map(route).collect();
        if routes.is_empty() || named.is_some_and(<[String]>::is_empty) {
            return Err(SelectionError::Empty.into());
        }
        let (sandwich, moment) = match early {
            Err(refused) if refused.code() == Some(403) => {
                RevisionProbe::by_any(cluster, &routes, body_limit, refused).await?
            }
            early => early?,
        };
        Ok(Self { cluster, config, meter, routes, sandwich, moment, body_limit })
    }

    /// Reads all kinds once: together, or each at its own revision for the reason in `apart`.
    async fn pass(&self, sink: &mut dyn ResourceSink, apart: Option<String>) -> Result<Proved, Stop> {
        let standings = match apart {
            Some(why) => vec![RevisionStatus::Apart { why }; self.routes.len()],
            None => self.sandwich.stand(&self.routes, &self.moment).await.map_err(ResourcesError::from)?,
        };
        let handed = self.list(sink, &standings).await?;
        let after = ConsistencyRecheck {
            cluster: self.cluster,
            sandwich: &self.sandwich,
            moment: &self.moment,
            routes: &self.routes,
            budget: self.config.budget,
            body_limit: self.body_limit,
        };
        Ok(after.prove(handed, &standings).await)
    }

    async fn list(
        &self,
        sink: &mut dyn ResourceSink,
        standings: &[RevisionStatus],
    ) -> Result<HandedOn, Stop> {
        let budget = Budget::new(self.config.budget, self.body_limit / 3 * 4);
        let (mut listers, mut heard) = (Vec::new(), Vec::new());
        for (place, (route, standing)) in self.routes.iter().zip(standings).enumerate() {
            let (tell, hear) = unbounded_channel();
            let lister = Lister {
                cluster: self.cluster,
                route: route.clone(),
                place,
                budget: budget.clone(),
                body_limit: self.body_limit,
                tell,
            };
            listers.push(async move { lister.run(standing.clone(), &self.moment).await });
            heard.push((route.kind, hear));
        }
        let mut listing = futures::stream::iter(listers).buffer_unordered(self.config.parallel.max(1)).fuse();
        let listing = async { while listing.next().await.is_some() {} };
        let handing = Forwarder::new(sink, &self.config.selection, self.meter).all(heard, &budget);
        tokio::pin!(listing, handing);
        tokio::select! {
            done = &mut handing => done,
            () = &mut listing => handing.await,
        }
    }
}
