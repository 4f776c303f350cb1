//! Consistency checks after all kinds were read: each kind is still in the main store, and the
//! server shows R as it did before.

use futures::FutureExt as _;
use tokio::sync::mpsc::unbounded_channel;

use crate::kubernetes::Cluster;
use crate::source::kubernetes::budget::Budget;
use crate::source::kubernetes::forward::HandedOn;
use crate::source::kubernetes::lister::{Ended, Lister, Route, Seen};
use crate::source::kubernetes::revision_probe::{Moment, RevisionProbe, RevisionStatus};
use crate::source::kubernetes::{Consistency, GapReason, KindReport, ResourceGap};

/// The most objects of a kind that is listed again.
const MOST: u64 = 5000;

/// The consistency recheck of the kinds that were read at R.
pub(crate) struct ConsistencyRecheck<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) sandwich: &'a RevisionProbe<'a>,
    pub(crate) moment: &'a Moment,
    /// The route of each kind, by its position.
    pub(crate) routes: &'a [Route<'a>],
    pub(crate) budget: usize,
    pub(crate) body_limit: usize,
}

/// The result of the recheck.
pub(crate) struct Proved {
    pub(crate) kinds: Vec<KindReport>,
    pub(crate) gaps: Vec<ResourceGap>,
    pub(crate) notes: Vec<ResourceGap>,
    /// The kind that was listed again with the same result.
    pub(crate) repeated: Option<String>,
}

impl ConsistencyRecheck<'_> {
    pub(crate) async fn prove(&self, handed: HandedOn, before: &[RevisionStatus]) -> Proved {
        let HandedOn { mut read, gaps } = handed;
        let mut proved = Proved { kinds: Vec::new(), gaps, notes: Vec::new(), repeated: None };
        self.together(&mut read, before, &mut proved).await;
        self.again(&mut read, &mut proved).await;
        proved.kinds = read.into_iter().map(|(_, report, _)| report).collect();
        proved
    }

    /// Compares kinds with the main store again, except those for which no revision had changed.
    async fn together(
        &self,
        read: &mut [(usize, KindReport, Seen)],
        before: &[RevisionStatus],
        proved: &mut Proved,
    ) {
        let moved = |place: usize| matches!(before[place], RevisionStatus::Together { still: false });
        let mut open: Vec<&mut (usize, KindReport, Seen)> = read
            .iter_mut()
            .filter(|(place, report, _)| report.consistency == Consistency::AtRevision && moved(*place))
            .collect();
        if open.is_empty() {
            return;
        }
        let routes: Vec<_> = open.iter().map(|(place, ..)| self.routes[*place].clone()).collect();
        let stands = match self.sandwich.moment().await {
            Ok(from) => self.sandwich.stand(&routes, &from).await,
            Err(error) => Err(error),
        };
        let stands = match stands {
            Ok(stands) => stands,
            Err(error) => {
                open.iter_mut().for_each(|(_, report, _)| report.consistency = Consistency::Unproved);
                let why = format!("that kinds share a store could not be shown again: {error}");
                let reason = GapReason::NotAtRevision { why };
                proved.gaps.push(ResourceGap { object: format!("{} kinds", open.len()), reason });
                return;
            }
        };
        for ((_, report, _), stand) in open.into_iter().zip(stands) {
            let why = match stand {
                RevisionStatus::Together { .. } => continue,
                RevisionStatus::Apart { why } => {
                    report.consistency = Consistency::OwnRevision(self.moment.text.clone());
                    why
                }
                RevisionStatus::Gap(reason) => {
                    report.consistency = Consistency::Unproved;
                    format!("that it shares the store could not be shown again: {reason}")
                }
            };
            let reason = GapReason::NotAtRevision { why };
            proved.gaps.push(ResourceGap { object: report.kind.resource(), reason });
        }
    }

    /// Lists the kind that changed last at R again. A server that does not keep to R shows other
    /// objects by now.
    async fn again(&self, read: &mut [(usize, KindReport, Seen)], proved: &mut Proved) {
        let fits = |report: &KindReport, seen: &Seen| {
            report.consistency == Consistency::AtRevision && (1..=MOST).contains(&seen.objects)
        };
        let busiest =
            read.iter().filter(|(_, report, seen)| fits(report, seen)).max_by_key(|(.., seen)| seen.newest);
        let Some((place, report, first)) = busiest else { return };
        let resource = report.kind.resource();
        let unknown = |what: String| {
            let why = format!("it could not be listed again: {what}");
            ResourceGap { object: resource.clone(), reason: GapReason::NotAtRevision { why } }
        };
        match self.list(*place).await {
            Ended::Seen(second) if second.digest.finalize() == first.digest.finalize() => {
                proved.repeated = Some(resource);
            }
            Ended::Seen(_) | Ended::Disproved { .. } => {
                let why = format!(
                    "{resource}, listed again at revision {}, are not the same: the server does not keep \
                     to a revision",
                    self.moment.text
                );
                for (_, report, _) in read.iter_mut() {
                    if report.consistency == Consistency::AtRevision {
                        report.consistency = Consistency::Unproved;
                    }
                }
                let reason = GapReason::NotAtRevision { why };
                proved.gaps.push(ResourceGap { object: "all kinds".to_owned(), reason });
            }
            Ended::Error(error) if error.code() == Some(410) => {
                proved.notes.push(unknown(format!("revision {} is gone", self.moment.text)));
            }
            Ended::Error(error) => proved.notes.push(unknown(error.to_string())),
            Ended::Malformed(reason) => proved.notes.push(unknown(reason.to_string())),
            Ended::Unheard => {}
        }
    }

    /// Lists a kind and discards its objects.
    async fn list(&self, place: usize) -> Ended {
        let (tell, mut hear) = unbounded_channel();
        let budget = Budget::new(self.budget, self.body_limit / 3 * 4);
        let route = self.routes[place].clone();
        let lister =
            Lister { cluster: self.cluster, route, place: 0, budget, body_limit: self.body_limit, tell };
        let mut listing = std::pin::pin!(lister.list(Some(&self.moment.text)).fuse());
        loop {
            tokio::select! {
                ended = &mut listing => return ended,
                told = hear.recv() => drop(told),
            }
        }
    }
}
