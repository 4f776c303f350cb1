//! Determines, before and after the reading, which kinds may be read and which are at one revision.
//!
//! The revision of a list without filters is the revision of the whole store. So a kind is in the
//! store of namespaces if a list of it, made between two lists of namespaces, shows a revision
//! between theirs. Kinds with a store of their own (`--etcd-servers-overrides`, aggregated APIs)
//! answer 200 with an unrelated state when R is requested. Only this probe and the revisions of the
//! objects reveal that.
//!
//! The revision of another store may be between the two by chance. So the lists are close together,
//! and their result is a proof only if it repeats after all kinds were read. By then the main store
//! has moved on, and the other would have to have moved alike. If all three lists show R, the proof
//! is complete: the kind was read as it was at R, in whichever store it is.

use futures::future::join_all;

use crate::kubernetes::KindInfo;
use crate::kubernetes::client::{ApiError, ApiErrorKind, Cluster};
use crate::kubernetes::list_page;
use crate::kubernetes::list_page::PageError;
use crate::source::kubernetes::lister::Route;
use crate::source::kubernetes::{GapReason, ResourcesError};

/// The most probes at once between two lists of namespaces; each reads one object.
const PARALLEL: usize = 8;

/// A revision of the main store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The revision as the server writes it.
    pub(crate) text: String,
    /// The revision as a number, for comparison.
    pub(crate) number: u64,
}

/// The status of a kind's revision, as the probe found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RevisionStatus {
    /// It can be read, and is in the main store.
    Together {
        /// True if no revision changed during the probe.
        still: bool,
    },
    /// It can be read, but only at its own revision.
    Apart {
        /// The evidence.
        why: String,
    },
    /// It cannot be read.
    Gap(GapReason),
}

/// Reads the main store's revision, and compares kinds with it.
#[derive(Debug, Clone)]
pub(crate) struct RevisionProbe<'a> {
    cluster: &'a Cluster,
    /// The path that is listed for the main store's revision: namespaces, or the first built-in
    /// kind that may be listed if those may not.
    reference: String,
    limit: usize,
}

impl<'a> RevisionProbe<'a> {
    /// Creates a probe by namespaces, and reads the current revision.
    pub(crate) async fn by_namespaces(
        cluster: &'a Cluster,
        limit: usize,
    ) -> Result<(Self, Moment), ApiError> {
        let all = Self { cluster, reference: "/api/v1/namespaces".to_owned(), limit };
        let moment = all.moment().await?;
        Ok((all, moment))
    }

    /// Creates a probe by the first kind that may be listed, where namespaces were `refused`.
    pub(crate) async fn by_any(
        cluster: &'a Cluster,
        routes: &[Route<'_>],
        limit: usize,
        refused: ApiError,
    ) -> Result<(Self, Moment), ResourcesError> {
        let built_in = routes.iter().filter(|route| route.kind.group.is_empty());
        for (_, reference) in built_in.flat_map(Route::paths) {
            let one = Self { cluster, reference, limit };
            match one.moment().await {
                Ok(moment) => return Ok((one, moment)),
                Err(error) if error.code() == Some(403) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let rule = "{apiGroups: [\"\"], resources: [namespaces], verbs: [get, list]}".to_owned();
        Err(ResourcesError::Forbidden { rule, role: "a ClusterRole".to_owned(), source: Box::new(refused) })
    }

    /// Returns the store's current revision.
    pub(crate) async fn moment(&self) -> Result<Moment, ApiError> {
        let text = self.revision_of(&self.reference).await?;
        let wrong = || self.cluster.malformed(&self.reference, "its revision is no number");
        let number = text.parse().map_err(|_| wrong())?;
        Ok(Moment { text, number })
    }

    /// Returns the status of each kind, in the order of `routes`; `at` was read before.
    pub(crate) async fn stand(
        &self,
        routes: &[Route<'_>],
        at: &Moment,
    ) -> Result<Vec<RevisionStatus>, ApiError> {
        let mut from = at.clone();
        let mut found = Vec::with_capacity(routes.len());
        for some in routes.chunks(PARALLEL) {
            let asked = join_all(some.iter().map(|route| self.ask(route))).await;
            let until = self.moment().await?;
            for (route, answer) in some.iter().zip(asked) {
                found.push(stand(route, answer, [&from, &until], at)?);
            }
            from = until;
        }
        Ok(found)
    }

    /// Returns the revision that a kind shows, at the first path that may be listed.
    async fn ask(&self, route: &Route<'_>) -> Result<String, ApiError> {
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
        match list_page::cut(&answer.body) {
            Ok(page) => Ok(page.metadata.resource_version),
            Err(error) => Err(self.cluster.malformed(path, error.to_string())),
        }
    }
}

fn stand(
    route: &Route<'_>,
    answer: Result<String, ApiError>,
    [from, until]: [&Moment; 2],
    at: &Moment,
) -> Result<RevisionStatus, ApiError> {
    let revision = match answer {
        Ok(revision) => revision,
        Err(error) => return Ok(RevisionStatus::Gap(gap(route, error)?)),
    };
    let number = revision.parse().ok();
    if number.is_some_and(|number| (from.number..=until.number).contains(&number)) {
        let still = [from.number, until.number] == [at.number; 2];
        return Ok(RevisionStatus::Together { still });
    }
    let why = format!(
        "its store stood at revision {revision:?} while that of namespaces went from {} to {}",
        from.text, until.text
    );
    Ok(RevisionStatus::Apart { why })
}

/// Returns the gap for a failure of one kind; an error if the failure concerns all kinds.
pub(crate) fn gap(route: &Route<'_>, error: ApiError) -> Result<GapReason, ApiError> {
    match &error.kind {
        ApiErrorKind::Status(status) => match status.code {
            401 => Err(error),
            403 => Ok(route.forbidden(None)),
            404 => Ok(GapReason::Gone),
            code => Ok(GapReason::Unavailable { code, message: status.message.clone() }),
        },
        ApiErrorKind::TooLarge { limit } => Ok(GapReason::TooLarge { limit: *limit as u64 }),
        ApiErrorKind::Malformed(what) => Ok(GapReason::Malformed(what.clone())),
        // The server works (others were answered), but this kind's answers do not come completely.
        kind @ (ApiErrorKind::Cut | ApiErrorKind::Deadline(_)) => {
            Ok(GapReason::Unavailable { code: 0, message: kind.to_string() })
        }
        ApiErrorKind::Unreachable | ApiErrorKind::Access(_) => Err(error),
    }
}

/// Returns the RBAC rule that lets a kind be read.
pub(crate) fn rule(kind: &KindInfo) -> String {
    format!("{{apiGroups: [\"{}\"], resources: [{}], verbs: [get, list]}}", kind.group, kind.plural)
}

/// Returns the gap for a page that is not a list.
pub(crate) fn unreadable(error: &PageError) -> GapReason {
    GapReason::Malformed(error.to_string())
}
