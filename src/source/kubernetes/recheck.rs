//! Checks after all kinds were read: each is still in the main store, and the server shows R as before.

use futures::FutureExt as _;
use tokio::sync::mpsc::unbounded_channel;

use super::budget::PageBudget;
use super::forward::{Forwarded, ForwardedKind};
use super::lister::{ListResult, Lister};
use super::revision_probe::{Revision, RevisionProbe, RevisionStatus};
use super::route::Route;
use super::{GapReason, KindConsistency, KindReport, ResourceGap};
use crate::kubernetes::Cluster;

/// The most objects of a kind that is listed again.
const MAX_RELISTED: u64 = 5000;

/// The consistency recheck of the kinds that were read at R.
pub(super) struct ConsistencyRecheck<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) probe: &'a RevisionProbe<'a>,
    pub(super) revision: &'a Revision,
    /// The route of each kind, by its position.
    pub(super) routes: &'a [Route<'a>],
    pub(super) budget: usize,
    pub(super) body_limit: usize,
}

/// The result of the recheck.
pub(super) struct CheckedKinds {
    pub(super) kinds: Vec<KindReport>,
    pub(super) gaps: Vec<ResourceGap>,
    pub(super) notes: Vec<ResourceGap>,
    /// The kind that was listed again with the same result.
    pub(super) repeated: Option<String>,
}

impl ConsistencyRecheck<'_> {
    /// Checks the kinds again; `before` are their statuses before they were read.
    pub(super) async fn run(&self, forwarded: Forwarded, before: &[RevisionStatus]) -> CheckedKinds {
        let Forwarded { mut kinds, gaps } = forwarded;
        let mut checked = CheckedKinds { kinds: Vec::new(), gaps, notes: Vec::new(), repeated: None };
        self.recheck_store(&mut kinds, before, &mut checked).await;
        self.relist_newest(&mut kinds, &mut checked).await;
        checked.kinds = kinds.into_iter().map(|kind| kind.report).collect();
        checked
    }

    /// Compares kinds with the main store again, except those for which no revision had changed.
    async fn recheck_store(
        &self,
        kinds: &mut [ForwardedKind],
        before: &[RevisionStatus],
        checked: &mut CheckedKinds,
    ) {
        let mut open: Vec<&mut ForwardedKind> = kinds
            .iter_mut()
            .filter(|kind| {
                kind.report.consistency == KindConsistency::AtRevision
                    && before[kind.position] == RevisionStatus::Shared { unchanged: false }
            })
            .collect();
        if open.is_empty() {
            return;
        }
        let routes: Vec<_> = open.iter().map(|kind| self.routes[kind.position].clone()).collect();
        let statuses = match self.probe.current_revision().await {
            Ok(from) => self.probe.classify(&routes, &from).await,
            Err(error) => Err(error),
        };
        let statuses = match statuses {
            Ok(statuses) => statuses,
            Err(error) => {
                open.iter_mut().for_each(|kind| kind.report.consistency = KindConsistency::Unproved);
                let why = format!("the proof that kinds share a store could not be repeated: {error}");
                checked.gaps.push(not_at_revision(format!("{} kinds", open.len()), why));
                return;
            }
        };
        for (ForwardedKind { report, .. }, status) in open.into_iter().zip(statuses) {
            let why = match status {
                RevisionStatus::Shared { .. } => continue,
                RevisionStatus::Own { why } => {
                    report.consistency = KindConsistency::OwnRevision(self.revision.text.clone());
                    why
                }
                RevisionStatus::Unreadable(reason) => {
                    report.consistency = KindConsistency::Unproved;
                    format!("the proof that it shares the store could not be repeated: {reason}")
                }
            };
            checked.gaps.push(not_at_revision(report.kind.resource(), why));
        }
    }

    /// Lists the kind that changed last at R again. A server that ignores R shows other objects by now.
    async fn relist_newest(&self, kinds: &mut [ForwardedKind], checked: &mut CheckedKinds) {
        let is_relisted = |kind: &&ForwardedKind| {
            kind.report.consistency == KindConsistency::AtRevision
                && (1..=MAX_RELISTED).contains(&kind.summary.objects)
        };
        let newest = kinds.iter().filter(is_relisted).max_by_key(|kind| kind.summary.newest);
        let Some(first) = newest else { return };
        let resource = first.report.kind.resource();
        let unknown =
            |what: String| not_at_revision(resource.clone(), format!("it could not be listed again: {what}"));
        match self.list(first.position).await {
            ListResult::Complete(second) if second.digest.finalize() == first.summary.digest.finalize() => {
                checked.repeated = Some(resource);
            }
            ListResult::Complete(_) | ListResult::NotAtRevision { .. } => {
                let why = format!(
                    "{resource}, listed again at revision {}, are not the same: the server does not keep \
                     to a revision",
                    self.revision.text
                );
                for ForwardedKind { report, .. } in kinds {
                    if report.consistency == KindConsistency::AtRevision {
                        report.consistency = KindConsistency::Unproved;
                    }
                }
                checked.gaps.push(not_at_revision("all kinds".to_owned(), why));
            }
            ListResult::Error(error) if error.code() == Some(410) => {
                checked.notes.push(unknown(format!("revision {} has expired", self.revision.text)));
            }
            ListResult::Error(error) => checked.notes.push(unknown(error.to_string())),
            ListResult::Malformed(reason) => checked.notes.push(unknown(reason.to_string())),
            ListResult::ReceiverGone => {}
        }
    }

    /// Lists a kind and discards its objects.
    async fn list(&self, position: usize) -> ListResult {
        let (events_tx, mut events_rx) = unbounded_channel();
        let budget = PageBudget::new(self.budget, self.body_limit / 3 * 4);
        let route = self.routes[position].clone();
        let lister = Lister {
            cluster: self.cluster,
            route,
            position: 0,
            budget,
            body_limit: self.body_limit,
            events_tx,
        };
        let mut listing = std::pin::pin!(lister.list(Some(&self.revision.text)).fuse());
        loop {
            tokio::select! {
                result = &mut listing => return result,
                event = events_rx.recv() => drop(event),
            }
        }
    }
}

fn not_at_revision(object: String, why: String) -> ResourceGap {
    ResourceGap { object, reason: GapReason::NotAtRevision { why } }
}
