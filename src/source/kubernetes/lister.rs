//! Lists one kind, page after page, at a given revision or at one of its own.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::budget::Budget;
use super::client::{ApiError, ApiErrorKind, Cluster};
use super::discovery::form_urlencoded;
use super::hand::{Listed, Stop, Told};
use super::page::{self, ItemMeta, ListMeta};
use super::probe::{self, Moment, Standing};
use super::{Consistency, GapReason, KindInfo, ResourcesError};

/// How often a kind at a revision of its own starts again before it is given up.
pub(super) const RESTARTS: u32 = 3;
/// The first page's items, before the size of a kind's objects is known.
const FIRST_LIMIT: usize = 500;
/// The size a page's body should have.
const PAGE_TARGET: usize = 4 << 20;
/// Bounds of a page's items; etcd itself is read in steps of at most 10,000.
const LIMITS: Range<usize> = 10..5000;
/// What is kept in memory beside each object's bytes.
const OBJECT_OVERHEAD: usize = 256;

/// How one kind is listed.
#[derive(Debug, Clone)]
pub(super) struct Route<'a> {
    pub(super) kind: &'a KindInfo,
    /// The namespaces, where each is named: they are listed one after the other.
    pub(super) namespaces: Option<&'a [String]>,
    /// The label selector that the server applies.
    pub(super) labels: Option<String>,
}

impl<'a> Route<'a> {
    /// What is listed, in the order of the server's keys.
    pub(super) fn paths(&self) -> Vec<(Option<&'a str>, String)> {
        match self.namespaces.filter(|_| self.kind.namespaced) {
            Some(names) => {
                names.iter().map(|name| (Some(name.as_str()), self.kind.path(Some(name)))).collect()
            }
            None => vec![(None, self.kind.path(None))],
        }
    }

    /// The gap that a missing right is, in one namespace or in all that are read.
    pub(super) fn forbidden(&self, namespace: Option<&str>) -> GapReason {
        let named = self.namespaces.filter(|_| self.kind.namespaced);
        let role = match (namespace, named) {
            (Some(namespace), _) => format!("a Role in {namespace}"),
            (None, Some(names)) => format!("a Role in {}", names.join(", ")),
            (None, None) => "a ClusterRole".to_owned(),
        };
        GapReason::Forbidden { rule: probe::rule(self.kind), role }
    }

    fn is_namespaces(&self) -> bool {
        self.kind.group.is_empty() && self.kind.plural == "namespaces"
    }
}

/// What a kind's list showed, whether or not its objects were wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The revision of its pages.
    pub(super) revision: String,
    pub(super) objects: u64,
    /// The revision of the object that changed last.
    pub(super) newest: u64,
    /// Over namespace, name and revision of each object.
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
    pub(super) tell: UnboundedSender<Told>,
}

/// How a listing of one kind ended.
pub(super) enum Ended {
    /// Complete.
    Seen(Seen),
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
    pub(super) async fn run(&self, standing: Standing, moment: &Moment) {
        let told = match standing {
            Standing::Gap(GapReason::Forbidden { .. }) if self.route.is_namespaces() => {
                self.one_by_one(moment).await
            }
            Standing::Gap(reason) => Told::Gap(reason),
            Standing::Together { .. } => match self.list(Some(&moment.text)).await {
                Ended::Seen(seen) => Told::Done(Consistency::AtRevision, seen),
                Ended::Disproved { why } => self.apart(why).await,
                ended => self.failed(ended),
            },
            Standing::Apart { why } => self.apart(why).await,
        };
        // Nobody listens when the run has ended: nothing is left to say then.
        let _ = self.tell.send(told);
    }

    /// Lists the kind at a revision of its own.
    async fn apart(&self, why: String) -> Told {
        let _ = self.tell.send(Told::Apart { why });
        for _ in 0..=RESTARTS {
            match self.list(None).await {
                Ended::Seen(seen) => {
                    return Told::Done(Consistency::OwnRevision(seen.revision.clone()), seen);
                }
                Ended::Error(error) if error.code() == Some(410) => {
                    let _ = self.tell.send(Told::Again);
                }
                ended => return self.failed(ended),
            }
        }
        Told::Gap(GapReason::Expired { tries: RESTARTS + 1 })
    }

    fn failed(&self, ended: Ended) -> Told {
        match ended {
            Ended::Error(error) if error.code() == Some(410) => Told::Stop(Stop::Expired),
            Ended::Error(error) => match probe::gap(&self.route, error) {
                Ok(reason) => Told::Gap(reason),
                Err(error) => Told::Stop(ResourcesError::Api(error).into()),
            },
            Ended::Malformed(reason) => Told::Gap(reason),
            Ended::Disproved { why } => Told::Gap(GapReason::NotAtRevision { why }),
            Ended::Seen(_) | Ended::Unheard => Told::Gap(GapReason::Gone),
        }
    }

    /// Lists the kind at `revision`, or at one of its own.
    pub(super) async fn list(&self, revision: Option<&str>) -> Ended {
        let mut seen = Seen { revision: revision.unwrap_or_default().to_owned(), ..Seen::default() };
        let mut limit = FIRST_LIMIT.min(self.most());
        for (namespace, path) in self.route.paths() {
            let before = seen.objects;
            match self.pages(&path, revision.is_some(), &mut seen, &mut limit).await {
                Ok(()) => {}
                // The stream holds nothing of this namespace yet, so it can go on with the next.
                Err(Ended::Error(error))
                    if namespace.is_some() && error.code() == Some(403) && seen.objects == before =>
                {
                    let object =
                        format!("{} in {}", self.route.kind.resource(), namespace.unwrap_or_default());
                    let reason = self.route.forbidden(namespace);
                    let _ = self.tell.send(Told::Missing { object, reason });
                }
                Err(ended) => return ended,
            }
        }
        Ended::Seen(seen)
    }

    /// The pages of one path.
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
            if self.tell.send(Told::Page(Listed { body, objects, grant })).is_err() {
                return Err(Ended::Unheard);
            }
            if meta.continue_token.is_empty() {
                // Something between may have cut the list short.
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

    /// Namespaces that are named, where they may not be listed: each is read by itself, which a Role
    /// in it may allow. An object that has not changed since R is what it was at R.
    async fn one_by_one(&self, moment: &Moment) -> Told {
        let mut seen = Seen { revision: moment.text.clone(), ..Seen::default() };
        let mut consistency = Consistency::AtRevision;
        let names = self.route.namespaces.unwrap_or_default();
        if names.is_empty() {
            return Told::Gap(self.route.forbidden(None));
        }
        for name in names {
            let mut grant = self.budget.take(self.place).await;
            let missing = |reason| Told::Missing { object: format!("namespaces/{name}"), reason };
            let path = format!("{}/{name}", self.route.kind.path(None));
            let body = match self.cluster.get(&path, "", self.body_limit).await {
                Ok(answer) => answer.body,
                // That it is absent is told apart from what is read.
                Err(error) if error.code() == Some(404) => continue,
                Err(error) if error.code() == Some(403) => {
                    let _ = self.tell.send(missing(self.route.forbidden(Some(name))));
                    continue;
                }
                Err(error) => return self.failed(Ended::Error(error)),
            };
            let meta = match page::head(&body, 0) {
                Ok(meta) => meta,
                Err(error) => return Told::Gap(probe::unreadable(&error)),
            };
            if meta.resource_version.parse::<u64>().is_ok_and(|number| number > moment.number) {
                let why = format!("it changed after revision {}, and may only be read as it is", moment.text);
                consistency = Consistency::OwnRevision(meta.resource_version.clone());
                let _ = self.tell.send(missing(GapReason::NotAtRevision { why }));
            }
            seen.look(&meta);
            grant.shrink(body.len() + OBJECT_OVERHEAD);
            let objects = vec![(0..body.len(), meta)];
            let _ = self.tell.send(Told::Page(Listed { body, objects, grant }));
        }
        Told::Done(consistency, seen)
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

/// A page's metadata, and its objects with theirs.
type Parts = (ListMeta, Vec<(Range<usize>, ItemMeta)>);

fn take_apart(body: &Bytes) -> Result<Parts, GapReason> {
    let cut = page::cut(body).map_err(|error| probe::unreadable(&error))?;
    let objects = cut.items.into_iter().enumerate().map(|(index, range)| {
        let meta = page::head(&body[range.clone()], index)?;
        Ok((range, meta))
    });
    let objects = objects.collect::<Result<_, _>>().map_err(|error| probe::unreadable(&error))?;
    Ok((cut.metadata, objects))
}

/// Why a page is not of the moment: the list must show the revision that was asked for, and, where
/// that was `given`, no object may be newer (a proxy or a datastore that serves the latest state under
/// an old revision is found out by that: kine#215).
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
