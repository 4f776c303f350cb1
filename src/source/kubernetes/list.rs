//! Lists every kind at one revision and hands the objects on in a fixed order.
//!
//! Several kinds are listed ahead, each page read whole into memory before it waits for the sink;
//! [`Budget`] bounds what lies there. When the revision is compacted away, everything starts
//! again at a newer one: a snapshot is one moment or says that it is not. The token that a 410
//! carries ("go on at the latest") is never used.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::budget::Budget;
use super::client::{ApiError, ApiErrorKind, Cluster};
use super::discovery::{Discovered, discover, form_urlencoded};
use super::hand::{Hand, HandedOn, Listed, Stop, Told};
use super::page::{self, ItemMeta};
use super::probe::{self, Moment, Standing};
use super::{
    Consistency, GapReason, KindInfo, KindReport, ResourceGap, ResourceSink, ResourcesConfig, ResourcesError,
    ResourcesReport,
};
use crate::report::event::{Meter, Reporter};

/// How often a snapshot starts again before it gives up.
const RESTARTS: u32 = 3;
/// The first page's items, before the size of a kind's objects is known.
const FIRST_LIMIT: usize = 500;
/// The size a page's body should have.
const PAGE_TARGET: usize = 4 << 20;
/// Bounds of a page's items; etcd itself is read in steps of at most 10,000.
const LIMITS: Range<usize> = 10..5000;
/// What is kept in memory beside each object's bytes.
const OBJECT_OVERHEAD: usize = 256;

/// Reads the selected resources into `sink`. The meter counts objects and the bytes of lines.
///
/// # Errors
/// [`ResourcesError`]. A kind that cannot be read is no error but a gap in the report.
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
    let about = About::read(cluster).await?;
    let mut restarts = 0;
    loop {
        let mut run = Run::new(cluster, config, meter).await?;
        match run.pass(sink).await {
            Ok(()) => return Ok(run.report(about, restarts)),
            Err(Stop::Failed(error)) => return Err(*error),
            Err(Stop::Expired) if restarts < RESTARTS => {
                restarts += 1;
                reporter.warn(
                    "resources",
                    format!("revision {} is gone; all of it is read again (try {restarts} of {RESTARTS})", {
                        &run.moment.text
                    }),
                );
                sink.restart()
                    .await
                    .map_err(|source| ResourcesError::Sink { kind: "all".to_owned(), source })?;
            }
            Err(Stop::Expired) => {
                return Err(ResourcesError::Expired { tries: restarts + 1, revision: run.moment.text });
            }
        }
    }
}

/// What stays the same over all attempts.
struct About {
    cluster_uid: Option<String>,
    server_version: String,
    gap: Option<ResourceGap>,
}

impl About {
    async fn read(cluster: &Cluster) -> Result<Self, ApiError> {
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
        let path = "/api/v1/namespaces/kube-system";
        let (cluster_uid, gap) = match cluster.get(path, "", 1 << 20).await {
            Ok(answer) => {
                let namespace: Option<Namespace> = serde_json::from_slice(&answer.body).ok();
                (namespace.map(|namespace| namespace.metadata.uid), None)
            }
            Err(error) if matches!(error.code(), Some(403 | 404)) => {
                let rule = "{apiGroups: [\"\"], resources: [namespaces], verbs: [get, list]}".to_owned();
                let reason = GapReason::Forbidden { rule };
                (None, Some(ResourceGap { object: "namespaces/kube-system".to_owned(), reason }))
            }
            Err(error) => return Err(error),
        };
        Ok(Self { cluster_uid, server_version, gap })
    }
}

/// One attempt at one revision.
struct Run<'a> {
    cluster: &'a Cluster,
    config: &'a ResourcesConfig,
    meter: &'a Meter,
    moment: Moment,
    /// The largest body of a page.
    body_limit: usize,
    discovered: Discovered,
    kinds: Vec<KindReport>,
    gaps: Vec<ResourceGap>,
}

impl<'a> Run<'a> {
    async fn new(
        cluster: &'a Cluster,
        config: &'a ResourcesConfig,
        meter: &'a Meter,
    ) -> Result<Self, ResourcesError> {
        let page = (config.budget / 4).min(64 << 20);
        let body_limit = page / 4 * 3;
        let discovered = discover(cluster).await?;
        let moment = probe::moment(cluster, body_limit).await?;
        Ok(Self {
            cluster,
            config,
            meter,
            moment,
            body_limit,
            discovered,
            kinds: Vec::new(),
            gaps: Vec::new(),
        })
    }

    /// Reads all kinds once.
    async fn pass(&mut self, sink: &mut dyn ResourceSink) -> Result<(), Stop> {
        let discovered = self.discovered.clone();
        let kinds = self.config.selection.kinds(&discovered.kinds);
        if kinds.is_empty() {
            return Err(ResourcesError::Selection(super::SelectionError::Empty).into());
        }
        let standings = probe::probe(self.cluster, &kinds, &self.moment, self.body_limit)
            .await
            .map_err(ResourcesError::from)?;
        let budget = Budget::new(self.config.budget, self.body_limit / 3 * 4);
        let (mut listers, mut heard) = (Vec::new(), Vec::new());
        for (place, (kind, standing)) in kinds.into_iter().zip(standings).enumerate() {
            let (tell, hear) = unbounded_channel();
            listers.push(self.lister(kind, place, standing, budget.clone(), tell));
            heard.push((kind, hear));
        }
        let mut listing = futures::stream::iter(listers).buffer_unordered(self.config.parallel.max(1)).fuse();
        let listing = async { while listing.next().await.is_some() {} };
        let hand = Hand { done: HandedOn::default(), sink };
        let handing = hand.all(heard, &budget, self.config, self.meter);
        tokio::pin!(listing, handing);
        let done = tokio::select! {
            done = &mut handing => done?,
            () = &mut listing => handing.await?,
        };
        (self.kinds, self.gaps) = (done.kinds, done.gaps);
        Ok(())
    }

    /// The work of listing one kind; told in pages.
    fn lister<'b>(
        &self,
        kind: &'b KindInfo,
        place: usize,
        standing: Standing,
        budget: Budget,
        tell: UnboundedSender<Told>,
    ) -> impl Future<Output = ()> + use<'a, 'b>
    where
        'a: 'b,
    {
        let lister = Lister {
            cluster: self.cluster,
            kind,
            place,
            budget,
            body_limit: self.body_limit,
            labels: self.config.selection.labels.clone(),
            tell,
        };
        let moment = self.moment.clone();
        async move { lister.run(standing, &moment).await }
    }

    fn report(self, about: About, restarts: u32) -> ResourcesReport {
        let mut gaps: Vec<ResourceGap> = about.gap.into_iter().collect();
        gaps.extend(self.discovered.stale.iter().map(|stale| ResourceGap {
            object: format!("{}/{}", stale.group, stale.version),
            reason: GapReason::Stale,
        }));
        gaps.extend(self.gaps);
        ResourcesReport {
            revision: self.moment.text,
            cluster_uid: about.cluster_uid,
            server_version: about.server_version,
            restarts,
            kinds: self.kinds,
            computed: self.discovered.computed.iter().map(KindInfo::resource).collect(),
            gaps,
        }
    }
}

/// Lists one kind.
struct Lister<'a> {
    cluster: &'a Cluster,
    kind: &'a KindInfo,
    place: usize,
    budget: Budget,
    body_limit: usize,
    labels: Option<String>,
    tell: UnboundedSender<Told>,
}

/// How a listing of one kind ended.
enum Ended {
    /// Complete, at the revision of its pages.
    At(String),
    /// A proof failed.
    Disproved { why: String },
    /// An error for this kind or for all.
    Error(ApiError),
    /// A page that cannot be read.
    Malformed(GapReason),
    /// Nobody listens any more.
    Unheard,
}

impl Lister<'_> {
    async fn run(&self, standing: Standing, moment: &Moment) {
        let told = match standing {
            Standing::Gap(reason) => Told::Gap(reason),
            Standing::Together => match self.list(Some(moment)).await {
                Ended::At(_) => Told::Done(Consistency::AtRevision),
                Ended::Disproved { why } => {
                    if self.tell.send(Told::Again { why }).is_err() {
                        return;
                    }
                    self.apart().await
                }
                ended => self.failed(ended),
            },
            Standing::Apart { why } => {
                if self.tell.send(Told::Again { why }).is_err() {
                    return;
                }
                self.apart().await
            }
        };
        // Nobody listens when the run has ended: nothing is left to say then.
        let _ = self.tell.send(told);
    }

    /// Lists the kind at a revision of its own.
    async fn apart(&self) -> Told {
        match self.list(None).await {
            Ended::At(revision) => Told::Done(Consistency::OwnRevision(revision)),
            ended => self.failed(ended),
        }
    }

    fn failed(&self, ended: Ended) -> Told {
        match ended {
            Ended::Error(error) if error.code() == Some(410) => Told::Stop(Stop::Expired),
            Ended::Error(error) => match probe::gap(self.kind, error) {
                Ok(reason) => Told::Gap(reason),
                Err(error) => Told::Stop(ResourcesError::Api(error).into()),
            },
            Ended::Malformed(reason) => Told::Gap(reason),
            Ended::Disproved { why } => Told::Gap(GapReason::NotAtRevision { why }),
            Ended::At(_) | Ended::Unheard => Told::Gap(GapReason::Gone),
        }
    }

    /// Lists the kind at `moment`, or at one revision of its own.
    async fn list(&self, moment: Option<&Moment>) -> Ended {
        let mut limit = FIRST_LIMIT.min(self.most());
        let mut token = String::new();
        let mut revision = moment.map(|moment| moment.text.clone());
        loop {
            let mut grant = self.budget.take(self.place).await;
            let path = self.kind.path(None);
            let query = self.query(limit, moment, &token);
            let answer = match self.cluster.get(&path, &query, self.body_limit).await {
                Ok(answer) => answer,
                Err(error) if matches!(error.kind, ApiErrorKind::TooLarge { .. }) && limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                Err(error) => return Ended::Error(error),
            };
            let body = answer.body;
            let (meta, objects) = match self.take_apart(&body) {
                Ok(parts) => parts,
                Err(reason) => return Ended::Malformed(reason),
            };
            let expected = revision.get_or_insert_with(|| meta.resource_version.clone());
            if let Some(why) = disproof(expected, &meta.resource_version, moment, &objects) {
                return Ended::Disproved { why };
            }
            limit = self.next_limit(limit, body.len(), objects.len());
            grant.shrink(body.len() + objects.len() * OBJECT_OVERHEAD);
            if self.tell.send(Told::Page(Listed { body, objects, grant })).is_err() {
                return Ended::Unheard;
            }
            if meta.continue_token.is_empty() {
                return Ended::At(meta.resource_version);
            }
            token = meta.continue_token;
        }
    }

    fn query(&self, limit: usize, moment: Option<&Moment>, token: &str) -> String {
        let limit = limit.to_string();
        let mut pairs = vec![("limit", limit.as_str())];
        if !token.is_empty() {
            pairs.push(("continue", token));
        } else if let Some(moment) = moment {
            pairs.push(("resourceVersion", &moment.text));
            pairs.push(("resourceVersionMatch", "Exact"));
        }
        if let Some(labels) = &self.labels {
            pairs.push(("labelSelector", labels));
        }
        form_urlencoded(&pairs)
    }

    #[expect(clippy::type_complexity, reason = "a pair that lives for three lines")]
    fn take_apart(&self, body: &Bytes) -> Result<(page::ListMeta, Vec<(Range<usize>, ItemMeta)>), GapReason> {
        let cut = page::cut(body).map_err(|error| probe::unreadable(&error))?;
        let objects = cut.items.into_iter().enumerate().map(|(index, range)| {
            let meta = page::head(&body[range.clone()], index, self.kind)?;
            Ok((range, meta))
        });
        let objects = objects.collect::<Result<_, _>>().map_err(|error| probe::unreadable(&error))?;
        Ok((cut.metadata, objects))
    }

    /// The most items of a page: what lies beside their bytes must fit, too.
    fn most(&self) -> usize {
        (self.body_limit / 3 / OBJECT_OVERHEAD).min(LIMITS.end)
    }

    /// Aims at [`PAGE_TARGET`], grows by four at most.
    fn next_limit(&self, limit: usize, bytes: usize, objects: usize) -> usize {
        let target = PAGE_TARGET.min(self.body_limit / 2);
        let each = bytes / objects.max(1) + 1;
        (target / each).min(limit * 4).clamp(LIMITS.start.min(limit.max(1)), self.most())
    }
}

/// Why a page is not of the moment: the list must show the revision that was asked for, and no
/// object may be newer (a proxy or a datastore that serves the latest state under an old
/// revision is found out by that: kine#215).
fn disproof(
    expected: &str,
    shown: &str,
    moment: Option<&Moment>,
    objects: &[(Range<usize>, ItemMeta)],
) -> Option<String> {
    if expected != shown {
        return Some(format!("asked for revision {expected}, the answer shows {shown:?}"));
    }
    let moment = moment?;
    objects.iter().find_map(|(_, meta)| match meta.resource_version.parse::<u64>() {
        Ok(number) if number <= moment.number => None,
        Ok(number) => Some(format!("an object has revision {number}, newer than {}", moment.number)),
        Err(_) => Some("an object's revision is no number".to_owned()),
    })
}
