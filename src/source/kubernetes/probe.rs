//! Finds out, before anything is read, what may be read and what can be of one moment.
//!
//! The revision of a list without filters is the revision of the whole store. So a kind lives in
//! the store of namespaces if a list of it, made between two lists of namespaces, shows a
//! revision between theirs. Kinds with a store of their own (`--etcd-servers-overrides`,
//! aggregated APIs) answer 200 at an unrelated moment when they are asked for R: nothing but this
//! probe and the revisions of the objects tells.

use futures::StreamExt as _;

use super::client::{ApiError, ApiErrorKind, Cluster};
use super::page::{self, PageError};
use super::{GapReason, KindInfo};

/// Probes under way at once: each is one object.
const PARALLEL: usize = 8;

/// A revision of the main store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// As the server says it.
    pub(super) text: String,
    /// Its place in the order of revisions.
    pub(super) number: u64,
}

/// What the probe found of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It can be read, and lives with the others.
    Together,
    /// It can be read, at a revision of its own.
    Apart {
        /// What showed it.
        why: String,
    },
    /// It cannot be read.
    Gap(GapReason),
}

/// The store's revision now.
pub(super) async fn moment(cluster: &Cluster, limit: usize) -> Result<Moment, ApiError> {
    let path = "/api/v1/namespaces";
    let text = revision_of(cluster, path, limit).await?;
    let number = text.parse().map_err(|_| malformed(cluster, path, "its revision is no number"))?;
    Ok(Moment { text, number })
}

/// What can be read, in the order of `kinds`; `from` was read before.
pub(super) async fn probe(
    cluster: &Cluster,
    kinds: &[&KindInfo],
    from: &Moment,
    limit: usize,
) -> Result<Vec<Standing>, ApiError> {
    let asked: Vec<_> = futures::stream::iter(kinds)
        .map(|kind| async move { revision_of(cluster, &kind.path(None), limit).await })
        .buffered(PARALLEL)
        .collect()
        .await;
    let until = moment(cluster, limit).await?;
    kinds.iter().zip(asked).map(|(kind, answer)| stand(kind, answer, from, &until)).collect()
}

fn stand(
    kind: &KindInfo,
    answer: Result<String, ApiError>,
    from: &Moment,
    until: &Moment,
) -> Result<Standing, ApiError> {
    let revision = match answer {
        Ok(revision) => revision,
        Err(error) => return Ok(Standing::Gap(gap(kind, error)?)),
    };
    let between = revision.parse().is_ok_and(|number| (from.number..=until.number).contains(&number));
    if between {
        return Ok(Standing::Together);
    }
    let why = format!(
        "its store stood at revision {revision:?} while that of namespaces went from {} to {}",
        from.text, until.text
    );
    Ok(Standing::Apart { why })
}

async fn revision_of(cluster: &Cluster, path: &str, limit: usize) -> Result<String, ApiError> {
    let answer = cluster.get(path, "limit=1", limit).await?;
    match page::cut(&answer.body) {
        Ok(page) => Ok(page.metadata.resource_version),
        Err(error) => Err(malformed(cluster, path, &error.to_string())),
    }
}

/// The gap that a failure means for one kind; an error when it means all kinds.
pub(super) fn gap(kind: &KindInfo, error: ApiError) -> Result<GapReason, ApiError> {
    match &error.kind {
        ApiErrorKind::Status(status) => match status.code {
            401 => Err(error),
            403 => Ok(GapReason::Forbidden { rule: rule(kind) }),
            404 => Ok(GapReason::Gone),
            code => Ok(GapReason::Unavailable { code, message: status.message.clone() }),
        },
        ApiErrorKind::TooLarge { limit } => Ok(GapReason::TooLarge { limit: *limit as u64 }),
        ApiErrorKind::Malformed(what) => Ok(GapReason::Malformed(what.clone())),
        // The server is there (others answered), but this kind's answers do not come whole.
        kind @ (ApiErrorKind::Cut | ApiErrorKind::Deadline(_)) => {
            Ok(GapReason::Unavailable { code: 0, message: kind.to_string() })
        }
        ApiErrorKind::Unreachable | ApiErrorKind::Access(_) => Err(error),
    }
}

/// The rule that lets a kind be read.
pub(super) fn rule(kind: &KindInfo) -> String {
    format!("{{apiGroups: [\"{}\"], resources: [{}], verbs: [get, list]}}", kind.group, kind.plural)
}

/// A page that is no list.
pub(super) fn unreadable(error: &PageError) -> GapReason {
    GapReason::Malformed(error.to_string())
}

fn malformed(cluster: &Cluster, path: &str, what: &str) -> ApiError {
    ApiError {
        operation: format!("GET {path}"),
        server: cluster.server().to_owned(),
        kind: ApiErrorKind::Malformed(what.to_owned()),
        repeated: false,
        source: None,
    }
}
