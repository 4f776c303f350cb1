//! Lists one kind, page after page, at a given revision or at its own.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::budget::Budget;
use super::{Consistency, GapReason, ResourcesError};
use crate::kubernetes::KindInfo;
use crate::kubernetes::client::{ApiError, ApiErrorKind, Cluster};
use crate::kubernetes::discovery::form_urlencoded;
use crate::kubernetes::list_page;
use crate::kubernetes::list_page::{ItemMeta, ListMeta};
use crate::source::kubernetes::forward::{ListEvent, Listed, Stop};
use crate::source::kubernetes::revision_probe;
use crate::source::kubernetes::revision_probe::{Moment, RevisionStatus};

/// The most restarts of a kind at its own revision, and of a whole reading at a common one.
pub(super) const RESTARTS: u32 = 3;
/// The items of the first page, before the size of a kind's objects is known.
const FIRST_LIMIT: usize = 500;
/// The intended size of a page's body, in bytes.
const PAGE_TARGET: usize = 4 << 20;
/// Bounds of the number of items in a page; etcd itself is read in steps of at most 10,000.
const LIMITS: Range<usize> = 10..5000;
/// The bytes kept in memory for each object, beside its own bytes.
const OBJECT_OVERHEAD: usize = 256;

/// The paths and selectors with which one kind is listed.
#[derive(Debug, Clone)]
pub(super) struct Route<'a> {
    pub(super) kind: &'a KindInfo,
    /// The namespaces, if each is named: they are listed one after the other.
    pub(super) namespaces: Option<&'a [String]>,
    /// The label selector that the server applies.
    pub(super) labels: Option<String>,
}

impl<'a> Route<'a> {
    /// Returns the paths to list, in the order of the server's keys.
    pub(super) fn paths(&self) -> Vec<(Option<&'a str>, String)> {
        match self.namespaces.filter(|_| self.kind.namespaced) {
            Some(names) => {
                names.iter().map(|name| (Some(name.as_str()), self.kind.path(Some(name)))).collect()
            }
            None => vec![(None, self.kind.path(None))],
        }
    }

    /// Returns the gap for a missing right, in one namespace or in all that are read.
    pub(super) fn forbidden(&self, namespace: Option<&str>) -> GapReason {
        let named = self.namespaces.filter(|_| self.kind.namespaced);
        let role = match (namespace, named) {
            (Some(namespace), _) => format!("a Role in {namespace}"),
            (None, Some(names)) => format!("a Role in {}", names.join(", ")),
            (None, None) => "a ClusterRole".to_owned(),
        };
        GapReason::Forbidden { rule: revision_probe::rule(self.kind), role }
    }

    fn is_namespaces(&self) -> bool {
        self.kind.group.is_empty() && self.kind.plural == "namespaces"
    }
}

/// A summary of a kind's list, over selected and other objects.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The revision of its pages.
    pub(super) revision: String,
    pub(super) objects: u64,
    /// The revision of the object that changed last.
    pub(super) newest: u64,
    /// The digest over namespace, name and revision of each object.
    pub(super) digest: Box<blake3::Hasher>,
}

impl Seen {
    fn look(&mut self, meta: &ItemMeta) {
        for text in [&meta.namespace, &meta.name, &meta.resource_version] {
            self.digest.update(text.as_bytes());
            self.digest.update(b"\n");
        }
        self.objects += 1;
        self.newest = self.newest.max(meta.resource_version.parse().unwrap_or(0));
    }
}

/// Lists one kind.
pub(super) struct Lister<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) route: Route<'a>,
    pub(super) place: usize,
    pub(super) budget: Budget,
    pub(super) body_limit: usize,
    pub(super) tell: UnboundedSender<ListEvent>,
}

/// The result of listing one kind.
pub(super) enum Ended {
    /// The list is complete.
    Seen(Seen),
    /// A proof failed.
    Disproved { why: String },
    /// An error for this kind or for all.
    Error(ApiError),
    /// A page is not a valid part of a list.
    Malformed(GapReason),
    /// The receiver is gone.
    Unheard,
}

impl Lister<'_> {
    pub(super) async fn run(&self, standing: RevisionStatus, moment: &Moment) {
        let told = match standing {
            RevisionStatus::Gap(GapReason::Forbidden { .. }) if self.route.is_namespaces() => {
                self.one_by_one(moment).await
            }
            RevisionStatus::Gap(reason) => ListEvent::Gap(reason),
            RevisionStatus::Together { .. } => match self.list(Some(&moment.text)).await {
                Ended::Seen(seen) => ListEvent::Done(Consistency::AtRevision, seen),
                Ended::Disproved { why } => self.apart(why).await,
                ended => self.failed(ended),
            },
            RevisionStatus::Apart { why } => self.apart(why).await,
        };
        // The receiver is gone when the run has ended; then this event is not needed.
        let _ = self.tell.send(told);
    }

    /// Lists the kind at its own revision.
    async fn apart(&self, why: String) -> ListEvent {
        let _ = self.tell.send(ListEvent::Apart { why });
        for _ in 0..=RESTARTS {
            match self.list(None).await {
                Ended::Seen(seen) => {
                    return ListEvent::Done(Consistency::OwnRevision(seen.revision.clone()), seen);
                }
                Ended::Error(error) if error.code() == Some(410) => {
                    let _ = self.tell.send(ListEvent::Again);
                }
                ended => return self.failed(ended),
            }
        }
        ListEvent::Gap(GapReason::Expired { tries: RESTARTS + 1 })
    }

    fn failed(&self, ended: Ended) -> ListEvent {
        match ended {
            Ended::Error(error) if error.code() == Some(410) => ListEvent::Stop(Stop::Expired),
            Ended::Error(error) => match revision_probe::gap(&self.route, error) {
                Ok(reason) => ListEvent::Gap(reason),
                Err(error) => ListEvent::Stop(ResourcesError::Api(error).into()),
            },
            Ended::Malformed(reason) => ListEvent::Gap(reason),
            Ended::Disproved { why } => ListEvent::Gap(GapReason::NotAtRevision { why }),
            Ended::Seen(_) | Ended::Unheard => ListEvent::Gap(GapReason::Gone),
        }
    }

    /// Lists the kind at `revision`, or without one at its own.
    pub(super) async fn list(&self, revision: Option<&str>) -> Ended {
        let mut seen = Seen { revision: revision.unwrap_or_default().to_owned(), ..Seen::default() };
        let mut limit = FIRST_LIMIT.min(self.most());
        for (namespace, path) in self.route.paths() {
            let before = seen.objects;
            match self.pages(&path, revision.is_some(), &mut seen, &mut limit).await {
                Ok(()) => {}
                // The stream holds no object of this namespace yet, so it can continue with the next one.
                Err(Ended::Error(error))
                    if namespace.is_some() && error.code() == Some(403) && seen.objects == before =>
                {
                    let object =
                        format!("{} in {}", self.route.kind.resource(), namespace.unwrap_or_default());
                    let reason = self.route.forbidden(namespace);
                    let _ = self.tell.send(ListEvent::Missing { object, reason });
                }
                Err(ended) => return ended,
            }
        }
        Ended::Seen(seen)
    }

    /// Reads the pages of one path.
    async fn pages(&self, path: &str, given: bool, seen: &mut Seen, limit: &mut usize) -> Result<(), Ended> {
        let mut token = String::new();
        loop {
            let mut grant = self.budget.take(self.place).await;
            let query = self.query(*limit, &seen.revision, &token);
            let body = match self.cluster.get(path, &query, self.body_limit).await {
                Ok(answer) => answer.body,
                Err(error) if matches!(error.kind, ApiErrorKind::TooLarge { .. }) && *limit > 1 => {
                    *limit = (*limit / 4).max(1);
                    continue;
                }
                Err(error) => return Err(Ended::Error(error)),
            };
            let (meta, objects) = take_apart(&body).map_err(Ended::Malformed)?;
            if seen.revision.is_empty() {
                seen.revision.clone_from(&meta.resource_version);
            }
            if let Some(why) = disproof(&seen.revision, &meta.resource_version, given, &objects) {
                return Err(Ended::Disproved { why });
            }
            objects.iter().for_each(|(_, meta)| seen.look(meta));
            *limit = self.next_limit(*limit, body.len(), objects.len());
            grant.shrink(body.len() + objects.len() * OBJECT_OVERHEAD);
            if self.tell.send(ListEvent::Page(Listed { body, objects, grant })).is_err() {
                return Err(Ended::Unheard);
            }
            if meta.continue_token.is_empty() {
                // A proxy may have cut the list short.
                return match meta.remaining_item_count.filter(|left| *left > 0) {
                    Some(left) => Err(Ended::Malformed(GapReason::Malformed(format!(
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
    async fn one_by_one(&self, moment: &Moment) -> ListEvent {
        let mut seen = Seen { revision: moment.text.clone(), ..Seen::default() };
        let mut consistency = Consistency::AtRevision;
        let names = self.route.namespaces.unwrap_or_default();
        if names.is_empty() {
            return ListEvent::Gap(self.route.forbidden(None));
        }
        for name in names {
            let mut grant = self.budget.take(self.place).await;
            let missing = |reason| ListEvent::Missing { object: format!("namespaces/{name}"), reason };
            let path = format!("{}/{name}", self.route.kind.path(None));
            let body = match self.cluster.get(&path, "", self.body_limit).await {
                Ok(answer) => answer.body,
                // A missing namespace is reported separately (`About::read`).
                Err(error) if error.code() == Some(404) => continue,
                Err(error) if error.code() == Some(403) => {
                    let _ = self.tell.send(missing(self.route.forbidden(Some(name))));
                    continue;
                }
                Err(error) => return self.failed(Ended::Error(error)),
            };
            let meta = match list_page::head(&body, 0) {
                Ok(meta) => meta,
                Err(error) => return ListEvent::Gap(revision_probe::unreadable(&error)),
            };
            if meta.resource_version.parse::<u64>().is_ok_and(|number| number > moment.number) {
                let why = format!("it changed after revision {}, and may only be read as it is", moment.text);
                consistency = Consistency::OwnRevision(meta.resource_version.clone());
                let _ = self.tell.send(missing(GapReason::NotAtRevision { why }));
            }
            seen.look(&meta);
            grant.shrink(body.len() + OBJECT_OVERHEAD);
            let objects = vec![(0..body.len(), meta)];
            let _ = self.tell.send(ListEvent::Page(Listed { body, objects, grant }));
        }
        ListEvent::Done(consistency, seen)
    }

    fn query(&self, limit: usize, revision: &str, token: &str) -> String {
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
        form_urlencoded(&pairs)
    }

    /// Returns the most items of a page: the memory needed beside their bytes must fit, too.
    fn most(&self) -> usize {
        (self.body_limit / 3 / OBJECT_OVERHEAD).min(LIMITS.end)
    }

    /// Returns the next page's number of items: aims at [`PAGE_TARGET`], at most four times as many.
    fn next_limit(&self, limit: usize, bytes: usize, objects: usize) -> usize {
        let target = PAGE_TARGET.min(self.body_limit / 2);
        let each = bytes / objects.max(1) + 1;
        (target / each).min(limit * 4).clamp(LIMITS.start.min(limit.max(1)), self.most())
    }
}

/// A page's metadata, and the range and metadata of each object.
type Parts = (ListMeta, Vec<(Range<usize>, ItemMeta)>);

fn take_apart(body: &Bytes) -> Result<Parts, GapReason> {
    let cut = list_page::cut(body).map_err(|error| revision_probe::unreadable(&error))?;
    let objects = cut.items.into_iter().enumerate().map(|(index, range)| {
        let meta = list_page::head(&body[range.clone()], index)?;
        Ok((range, meta))
    });
    let objects = objects.collect::<Result<_, _>>().map_err(|error| revision_probe::unreadable(&error))?;
    Ok((cut.metadata, objects))
}

/// Returns the reason why a page is not at its revision. The list must show the requested revision.
/// If the revision was `given`, no object may be newer. That detects a proxy or a datastore that
/// serves the latest state under an old revision (kine#215).
fn disproof(
    expected: &str,
    shown: &str,
    given: bool,
    objects: &[(Range<usize>, ItemMeta)],
) -> Option<String> {
    if expected != shown {
        return Some(format!("asked for revision {expected}, the answer shows {shown:?}"));
    }
    let most: u64 = if given { expected.parse().ok()? } else { return None };
    objects.iter().find_map(|(_, meta)| match meta.resource_version.parse::<u64>() {
        Ok(number) if number <= most => None,
        Ok(number) => Some(format!("an object has revision {number}, newer than {most}")),
        Err(_) => Some("an object's revision is no number".to_owned()),
    })
}
