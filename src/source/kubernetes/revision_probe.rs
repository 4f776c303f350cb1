//! Determines, before and after the reading, which kinds may be read and which are at one revision.
//!
//! The revision of a list without filters is the revision of the whole store. So a kind is in the store of
//! namespaces if a list of it, made between two lists of namespaces, shows a revision between theirs. Kinds
//! with a store of their own (`--etcd-servers-overrides`, aggregated APIs) answer 200 with an unrelated state
//! when R is requested. Only this probe and the revisions of the objects reveal that.
//!
//! The revision of another store may be between the two by chance. So the lists are close together,
//! and their result is a proof only if it repeats after all kinds were read. By then the main store
//! has moved on, and the other would have to have moved alike. If all three lists show R, the proof
//! is complete: the kind was read as it was at R, in whichever store it is.

use futures::future::join_all;

use super::route::Route;
use super::{GapReason, ResourcesError};
use crate::kubernetes::{ApiError, Cluster, KindInfo, split_list};

/// The most probes at once between two lists of namespaces; each reads one object.
const PARALLEL: usize = 8;

/// A revision of the main store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Revision {
    /// The revision as the server writes it.
    pub(super) text: String,
    /// The revision as a number, for comparison.
    pub(super) number: u64,
}

/// The status of a kind's revision, as the probe found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RevisionStatus {
    /// It can be read, and is in the main store.
    Shared {
        /// True if no revision changed during the probe.
        unchanged: bool,
    },
    /// It can be read, but only at its own revision.
    Own {
        /// The evidence.
        why: String,
    },
    /// It cannot be read.
    Unreadable(GapReason),
}

/// Reads the main store's revision, and compares kinds with it.
#[derive(Debug, Clone)]
pub(super) struct RevisionProbe<'a> {
    cluster: &'a Cluster,
    /// The path that is listed for the main store's revision: namespaces, or the first built-in
    /// kind that may be listed if those may not.
    reference: String,
    limit: usize,
}

impl<'a> RevisionProbe<'a> {
    /// Creates a probe by namespaces, and reads the current revision.
    pub(super) async fn by_namespaces(
        cluster: &'a Cluster,
        limit: usize,
    ) -> Result<(Self, Revision), ApiError> {
        let all = Self { cluster, reference: "/api/v1/namespaces".to_owned(), limit };
        let revision = all.current_revision().await?;
        Ok((all, revision))
    }

    /// Creates a probe by the first kind that may be listed, where namespaces were `refused`.
    pub(super) async fn by_any(
        cluster: &'a Cluster,
        routes: &[Route<'_>],
        limit: usize,
        refused: ApiError,
    ) -> Result<(Self, Revision), ResourcesError> {
        let built_in = routes.iter().filter(|route| route.kind.group.is_empty());
        for (_, reference) in built_in.flat_map(Route::paths) {
            let one = Self { cluster, reference, limit };
            match one.current_revision().await {
                Ok(revision) => return Ok((one, revision)),
                Err(error) if error.code() == Some(403) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let rule = KindInfo::from_path_parts("", "v1", "namespaces").list_rule();
        Err(ResourcesError::Forbidden { rule, role: "a ClusterRole".to_owned(), source: Box::new(refused) })
    }

    /// Returns the store's current revision.
    pub(super) async fn current_revision(&self) -> Result<Revision, ApiError> {
        let text = self.revision_of(&self.reference).await?;
        let malformed = || self.cluster.malformed(&self.reference, "its revision is no number");
        let number = text.parse().map_err(|_| malformed())?;
        Ok(Revision { text, number })
    }

    /// Returns the status of each kind, in the order of `routes`; `at` was read before.
    pub(super) async fn classify(
        &self,
        routes: &[Route<'_>],
        at: &Revision,
    ) -> Result<Vec<RevisionStatus>, ApiError> {
        let mut from = at.clone();
        let mut found = Vec::with_capacity(routes.len());
        for some in routes.chunks(PARALLEL) {
            let answers = join_all(some.iter().map(|route| self.probe_kind(route))).await;
            let until = self.current_revision().await?;
            for (route, answer) in some.iter().zip(answers) {
                found.push(classify(route, answer, [&from, &until], at)?);
            }
            from = until;
        }
        Ok(found)
    }

    /// Returns the revision that a kind shows, at the first path that may be listed.
    async fn probe_kind(&self, route: &Route<'_>) -> Result<String, ApiError> {
        let mut refused = None;
        for (_, path) in route.paths() {
            match self.revision_of(&path).await {
                Err(error) if error.code() == Some(403) => refused = Some(error),
                answer => return answer,
            }
        }
        Err(refused
            .unwrap_or_else(|| self.cluster.malformed(&route.kind.path(None), "no namespace is selected")))
    }

    async fn revision_of(&self, path: &str) -> Result<String, ApiError> {
        let answer = self.cluster.get(path, "limit=1", self.limit).await?;
        match split_list(&answer.body) {
            Ok(page) => Ok(page.metadata.resource_version),
            Err(error) => Err(self.cluster.malformed(path, error.to_string())),
        }
    }
}

fn classify(
    route: &Route<'_>,
    answer: Result<String, ApiError>,
    [from, until]: [&Revision; 2],
    at: &Revision,
) -> Result<RevisionStatus, ApiError> {
    let revision = match answer {
        Ok(revision) => revision,
        Err(error) => return Ok(RevisionStatus::Unreadable(route.gap(error)?)),
    };
    let number = revision.parse().ok();
    if number.is_some_and(|number| (from.number..=until.number).contains(&number)) {
        let unchanged = [from.number, until.number] == [at.number; 2];
        return Ok(RevisionStatus::Shared { unchanged });
    }
    let why = format!(
        "its store was at revision {revision:?} while that of namespaces went from {} to {}",
        from.text, until.text
    );
    Ok(RevisionStatus::Own { why })
}
