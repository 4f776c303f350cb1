//! Lists one kind, page after page, at a given revision or at its own.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::budget::PageBudget;
use super::list_event::{AttemptError, ListEvent, ListSummary, ListedPage};
use super::revision_probe::{Revision, RevisionStatus};
use super::route::Route;
use super::{GapReason, KindConsistency, ResourcesError};
use crate::kubernetes::{
    ApiError, ApiErrorKind, Cluster, ItemMeta, ListMeta, PageError, encode_query, read_item_meta, split_list,
};

/// The most restarts of a kind at its own revision, and of a whole reading at a common one.
pub(super) const MAX_RESTARTS: u32 = 3;
/// The items of the first page, before the size of a kind's objects is known.
const FIRST_PAGE_ITEMS: usize = 500;
/// The intended size of a page's body, in bytes.
const TARGET_PAGE_SIZE: usize = 4 << 20;
/// Bounds of the number of items in a page; etcd itself is read in steps of at most 10,000.
const PAGE_ITEMS: Range<usize> = 10..5000;
/// The bytes kept in memory for each object, beside its own bytes.
const OBJECT_OVERHEAD: usize = 256;

/// Lists one kind.
pub(super) struct Lister<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) route: Route<'a>,
    pub(super) position: usize,
    pub(super) budget: PageBudget,
    pub(super) body_limit: usize,
    pub(super) events_tx: UnboundedSender<ListEvent>,
}

/// The result of listing one kind.
pub(super) enum ListResult {
    /// The list is complete.
    Complete(ListSummary),
    /// The objects are not proved to be at the revision.
    NotAtRevision { why: String },
    /// An error for this kind or for all.
    Error(ApiError),
    /// A page is not a valid part of a list.
    Malformed(GapReason),
    /// The receiver is gone.
    ReceiverGone,
}

impl Lister<'_> {
    pub(super) async fn run(&self, status: RevisionStatus, revision: &Revision) {
        let event = match status {
            RevisionStatus::Unreadable(GapReason::Forbidden { .. }) if self.route.is_namespaces() => {
                self.read_named_namespaces(revision).await
            }
            RevisionStatus::Unreadable(reason) => ListEvent::Failed(reason),
            RevisionStatus::Shared { .. } => match self.list(Some(&revision.text)).await {
                ListResult::Complete(summary) => ListEvent::Complete(KindConsistency::AtRevision, summary),
                ListResult::NotAtRevision { why } => self.list_at_own_revision(why).await,
                result => self.failure_event(result),
            },
            RevisionStatus::Own { why } => self.list_at_own_revision(why).await,
        };
        // The receiver is gone when the run has ended; then this event is not needed.
        let _ = self.events_tx.send(event);
    }

    /// Lists the kind at its own revision.
    async fn list_at_own_revision(&self, why: String) -> ListEvent {
        let _ = self.events_tx.send(ListEvent::OwnRevision { why });
        for _ in 0..=MAX_RESTARTS {
            match self.list(None).await {
                ListResult::Complete(summary) => {
                    return ListEvent::Complete(
                        KindConsistency::OwnRevision(summary.revision.clone()),
                        summary,
                    );
                }
                ListResult::Error(error) if error.code() == Some(410) => {
                    let _ = self.events_tx.send(ListEvent::Restarted);
                }
                result => return self.failure_event(result),
            }
        }
        ListEvent::Failed(GapReason::Expired { tries: MAX_RESTARTS + 1 })
    }

    fn failure_event(&self, result: ListResult) -> ListEvent {
        match result {
            ListResult::Error(error) if error.code() == Some(410) => {
                ListEvent::EndAttempt(AttemptError::RevisionExpired)
            }
            ListResult::Error(error) => match self.route.gap(error) {
                Ok(reason) => ListEvent::Failed(reason),
                Err(error) => ListEvent::EndAttempt(ResourcesError::Api(error).into()),
            },
            ListResult::Malformed(reason) => ListEvent::Failed(reason),
            ListResult::NotAtRevision { why } => ListEvent::Failed(GapReason::NotAtRevision { why }),
            ListResult::Complete(_) | ListResult::ReceiverGone => ListEvent::Failed(GapReason::Gone),
        }
    }

    /// Lists the kind at `revision`, or without one at its own.
    pub(super) async fn list(&self, revision: Option<&str>) -> ListResult {
        let mut summary =
            ListSummary { revision: revision.unwrap_or_default().to_owned(), ..ListSummary::default() };
        let mut limit = FIRST_PAGE_ITEMS.min(self.max_items());
        for (namespace, path) in self.route.paths() {
            let before = summary.objects;
            match self.list_path(&path, revision.is_some(), &mut summary, &mut limit).await {
                Ok(()) => {}
                // The stream holds no object of this namespace yet, so it can continue with the next one.
                Err(ListResult::Error(error))
                    if namespace.is_some() && error.code() == Some(403) && summary.objects == before =>
                {
                    let object =
                        format!("{} in {}", self.route.kind.resource(), namespace.unwrap_or_default());
                    let reason = self.route.forbidden(namespace);
                    let _ = self.events_tx.send(ListEvent::PartMissing { object, reason });
                }
                Err(result) => return result,
            }
        }
        ListResult::Complete(summary)
    }

    /// Reads the pages of one path.
    async fn list_path(
        &self,
        path: &str,
        is_requested: bool,
        summary: &mut ListSummary,
        limit: &mut usize,
    ) -> Result<(), ListResult> {
        let mut token = String::new();
        loop {
            let mut reservation = self.budget.reserve(self.position).await;
            let query = self.page_query(*limit, &summary.revision, &token);
            let body = match self.cluster.get(path, &query, self.body_limit).await {
                Ok(answer) => answer.body,
                Err(error) if matches!(error.kind, ApiErrorKind::TooLarge { .. }) && *limit > 1 => {
                    *limit = (*limit / 4).max(1);
                    continue;
                }
                Err(error) => return Err(ListResult::Error(error)),
            };
            let (meta, objects) = split_page(&body).map_err(ListResult::Malformed)?;
            if summary.revision.is_empty() {
                summary.revision.clone_from(&meta.resource_version);
            }
            if let Some(why) =
                revision_mismatch(&summary.revision, &meta.resource_version, is_requested, &objects)
            {
                return Err(ListResult::NotAtRevision { why });
            }
            objects.iter().for_each(|(_, meta)| summary.record(meta));
            *limit = self.next_limit(*limit, body.len(), objects.len());
            reservation.shrink(body.len() + objects.len() * OBJECT_OVERHEAD);
            if self.events_tx.send(ListEvent::Page(ListedPage { body, objects, reservation })).is_err() {
                return Err(ListResult::ReceiverGone);
            }
            if meta.continue_token.is_empty() {
                // A proxy may have cut the list short.
                return match meta.remaining_item_count.filter(|left| *left > 0) {
                    Some(left) => Err(ListResult::Malformed(GapReason::Malformed(format!(
                        "the list ends, and says that {left} objects follow"
                    )))),
                    None => Ok(()),
                };
            }
            token = meta.continue_token;
        }
    }

    /// Reads named namespaces one by one where they may not be listed; a Role in each may allow
    /// that. An object that has not changed since R is the same as at R.
    async fn read_named_namespaces(&self, revision: &Revision) -> ListEvent {
        let mut summary = ListSummary { revision: revision.text.clone(), ..ListSummary::default() };
        let mut consistency = KindConsistency::AtRevision;
        let names = self.route.namespaces.unwrap_or_default();
        if names.is_empty() {
            return ListEvent::Failed(self.route.forbidden(None));
        }
        for name in names {
            let mut reservation = self.budget.reserve(self.position).await;
            let missing = |reason| ListEvent::PartMissing { object: format!("namespaces/{name}"), reason };
            let path = format!("{}/{name}", self.route.kind.path(None));
            let body = match self.cluster.get(&path, "", self.body_limit).await {
                Ok(answer) => answer.body,
                // A missing namespace is reported separately (`ClusterFacts::read`).
                Err(error) if error.code() == Some(404) => continue,
                Err(error) if error.code() == Some(403) => {
                    let _ = self.events_tx.send(missing(self.route.forbidden_namespace(name)));
                    continue;
                }
                Err(error) => return self.failure_event(ListResult::Error(error)),
            };
            let meta = match read_item_meta(&body, 0) {
                Ok(meta) => meta,
                Err(error) => return ListEvent::Failed(malformed(error)),
            };
            if meta.resource_version.parse::<u64>().is_ok_and(|number| number > revision.number) {
                let why =
                    format!("it changed after revision {}, and may only be read as it is", revision.text);
                consistency = KindConsistency::OwnRevision(meta.resource_version.clone());
                let _ = self.events_tx.send(missing(GapReason::NotAtRevision { why }));
            }
            summary.record(&meta);
            reservation.shrink(body.len() + OBJECT_OVERHEAD);
            let objects = vec![(0..body.len(), meta)];
            let _ = self.events_tx.send(ListEvent::Page(ListedPage { body, objects, reservation }));
        }
        ListEvent::Complete(consistency, summary)
    }

    fn page_query(&self, limit: usize, revision: &str, token: &str) -> String {
        let limit = limit.to_string();
        let mut pairs = vec![("limit", limit.as_str())];
        if !token.is_empty() {
            pairs.push(("continue", token));
        } else if !revision.is_empty() {
            pairs.push(("resourceVersion", revision));
            pairs.push(("resourceVersionMatch", "Exact"));
        }
        if let Some(labels) = &self.route.labels {
            pairs.push(("labelSelector", labels));
        }
        encode_query(&pairs)
    }

    /// Returns the most items of a page: the memory needed beside their bytes must fit, too.
    fn max_items(&self) -> usize {
        (self.body_limit / 3 / OBJECT_OVERHEAD).min(PAGE_ITEMS.end)
    }

    /// Returns the next page's number of items: aims at [`TARGET_PAGE_SIZE`], at most four times as many.
    fn next_limit(&self, limit: usize, bytes: usize, objects: usize) -> usize {
        let target = TARGET_PAGE_SIZE.min(self.body_limit / 2);
        let each = bytes / objects.max(1) + 1;
        (target / each).min(limit * 4).clamp(PAGE_ITEMS.start.min(limit.max(1)), self.max_items())
    }
}

/// Returns the gap for a page that is not a list.
fn malformed(error: PageError) -> GapReason {
    GapReason::Malformed(error.to_string())
}

/// A page's metadata, and the range and metadata of each object.
type SplitPage = (ListMeta, Vec<(Range<usize>, ItemMeta)>);

fn split_page(body: &Bytes) -> Result<SplitPage, GapReason> {
    let page = split_list(body).map_err(malformed)?;
    let objects = page.items.into_iter().enumerate().map(|(index, range)| {
        let meta = read_item_meta(&body[range.clone()], index)?;
        Ok((range, meta))
    });
    let objects = objects.collect::<Result<_, _>>().map_err(malformed)?;
    Ok((page.metadata, objects))
}

/// Returns the reason why a page is not at its revision. The list must show the requested revision.
/// If the revision `is_requested`, no object may be newer. That detects a proxy or a datastore that
/// serves the latest state under an old revision (kine#215).
fn revision_mismatch(
    expected: &str,
    shown: &str,
    is_requested: bool,
    objects: &[(Range<usize>, ItemMeta)],
) -> Option<String> {
    if expected != shown {
        return Some(format!("asked for revision {expected}, the answer shows {shown:?}"));
    }
    let newest: u64 = if is_requested { expected.parse().ok()? } else { return None };
    objects.iter().find_map(|(_, meta)| match meta.resource_version.parse::<u64>() {
        Ok(number) if number <= newest => None,
        Ok(number) => Some(format!("an object has revision {number}, newer than {newest}")),
        Err(_) => Some("an object's revision is no number".to_owned()),
    })
}
