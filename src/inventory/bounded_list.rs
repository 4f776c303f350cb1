//! Bounded lists: read page by page; each object is reduced at once to the part that is kept.

use serde::de::DeserializeOwned;

use crate::kubernetes::{ApiError, ApiErrorKind, Cluster, KindInfo, page_query, split_list};
use crate::report::coverage::UnreadResource;

/// The maximum size of a page in memory, in bytes.
const MAX_PAGE_BYTES: usize = 4 << 20;
/// The maximum number of objects kept of one list; a longer list is reported.
const MAX_KEPT: usize = 20_000;
/// The maximum number of restarts of a list whose revision has expired.
const MAX_RESTARTS: u32 = 2;
/// Requests metadata only, never a Secret's value. A server without that form returns whole objects.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const WHOLE: &str = "application/json";

/// The part of each object that is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Metadata only.
    Metadata,
    /// The whole object, which is small.
    Small,
    /// The whole object.
    Whole,
}

/// The cluster, and the namespaces to list one by one if the whole cluster may not be listed.
#[derive(Debug)]
pub(super) struct ListScope<'a> {
    pub(super) cluster: &'a Cluster,
    /// Namespaces that are known by name.
    pub(super) namespaces: &'a [String],
}

impl ListScope<'_> {
    /// Returns the result of `keep` for all objects of a kind. A kind that may not be listed is listed in the
    /// namespaces known by name. A failure is no error; it is added to `unread`.
    pub(super) async fn read<R: DeserializeOwned, T>(
        &self,
        kind: &KindInfo,
        form: Form,
        unread: &mut Vec<UnreadResource>,
        keep: impl Fn(R) -> Option<T>,
    ) -> Vec<T> {
        let mut kept = Vec::new();
        match self.list(&kind.path(None), form, &keep, &mut kept).await {
            Ok(false) => {}
            Ok(true) => {
                let why = format!("more than {MAX_KEPT} of them: the rest is not read");
                unread.push(UnreadResource { what: kind.resource(), why, rule: None });
            }
            // The definition was removed meanwhile, or never existed: there are no objects.
            Err(error) if error.code() == Some(404) => {}
            Err(error) if error.code() == Some(403) && kind.namespaced => {
                let mut refused = self.namespaces.is_empty();
                for namespace in self.namespaces {
                    let listed = self.list(&kind.path(Some(namespace)), form, &keep, &mut kept).await;
                    refused |= !matches!(listed, Ok(false));
                }
                unread.extend(refused.then(|| unread_kind(kind, &error)));
            }
            Err(error) => unread.push(unread_kind(kind, &error)),
        }
        kept
    }

    /// Reads one list to its end, or until [`MAX_KEPT`] are kept. Returns `true` if it was cut short.
    async fn list<R: DeserializeOwned, T>(
        &self,
        path: &str,
        form: Form,
        keep: &impl Fn(R) -> Option<T>,
        kept: &mut Vec<T>,
    ) -> Result<bool, ApiError> {
        let accept = if form == Form::Metadata { METADATA } else { WHOLE };
        let mut limit = if form == Form::Whole { 100 } else { 500 };
        let before = kept.len();
        let (mut token, mut restarts) = (String::new(), 0);
        loop {
            let query = page_query(limit, &token);
            let answer = match self.cluster.get_as(path, &query, accept, MAX_PAGE_BYTES).await {
                Ok(answer) => answer,
                Err(error) if matches!(error.kind, ApiErrorKind::TooLarge { .. }) && limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                Err(error) if error.code() == Some(410) && restarts < MAX_RESTARTS => {
                    kept.truncate(before);
                    token.clear();
                    restarts += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let malformed = |what: String| self.cluster.malformed(path, what);
            let page = split_list(&answer.body).map_err(|error| malformed(error.to_string()))?;
            for range in page.items {
                // The parser's message may quote a value, so only the column is reported.
                let object = serde_json::from_slice::<R>(&answer.body[range])
                    .map_err(|error| malformed(format!("an object, at column {}", error.column())))?;
                kept.extend(keep(object));
            }
            if page.metadata.continue_token.is_empty() {
                return Ok(false);
            }
            if kept.len() - before > MAX_KEPT {
                return Ok(true);
            }
            token = page.metadata.continue_token;
        }
    }

    /// Reads one object of a kind; `None` if it is gone.
    pub(super) async fn read_one<R: DeserializeOwned>(
        &self,
        kind: &KindInfo,
        namespace: String,
        name: String,
    ) -> Result<Option<R>, UnreadResource> {
        let path = format!("{}/{name}", kind.path(Some(&namespace)));
        match self.cluster.get(&path, "", MAX_PAGE_BYTES).await {
            Ok(answer) => match serde_json::from_slice(&answer.body) {
                Ok(object) => Ok(Some(object)),
                // The parser's message may quote a value.
                Err(_) => {
                    Err(unread(kind, String::new(), &self.cluster.malformed(&path, "no object".to_owned())))
                }
            },
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(unread(kind, kind.get_rule(""), &error)),
        }
    }
}

fn unread_kind(kind: &KindInfo, error: &ApiError) -> UnreadResource {
    unread(kind, kind.list_rule(), error)
}

/// `rule` is what would allow it.
fn unread(kind: &KindInfo, rule: String, error: &ApiError) -> UnreadResource {
    let rule = (error.code() == Some(403)).then_some(rule);
    let why = match &rule {
        Some(_) => "not allowed".to_owned(),
        None => error.kind.to_string(),
    };
    UnreadResource { what: kind.resource(), why, rule }
}
