//! The objects of a kind in a cluster, one after the other, with one page in memory.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::{
    ApiError, ApiErrorKind, Cluster, KindInfo, encode_query, page_query, read_item_meta, split_list,
};

/// The maximum size of a page, in bytes.
const PAGE: usize = 16 << 20;
/// The objects of the first page, and the bytes that a page should have.
const FIRST: usize = 200;
const TARGET: usize = 4 << 20;
/// The maximum number of objects per page.
const MOST: usize = 1000;

/// The objects of a kind, in all namespaces or in one.
pub(crate) struct ListedObjects<'a> {
    cluster: &'a Cluster,
    path: String,
    labels: Option<&'a str>,
    limit: usize,
    /// The token of the next page; none before the first and after the last.
    token: Option<String>,
    begun: bool,
    body: Bytes,
    items: VecDeque<(Range<usize>, String)>,
}

impl<'a> ListedObjects<'a> {
    /// `namespace` is the only one that is listed, `labels` the selector that the server applies.
    pub(crate) fn new(
        cluster: &'a Cluster,
        kind: &KindInfo,
        namespace: Option<&str>,
        labels: Option<&'a str>,
    ) -> Self {
        let (path, body, items) = (kind.path(namespace), Bytes::new(), VecDeque::new());
        Self { cluster, path, labels, limit: FIRST, token: None, begun: false, body, items }
    }

    /// Returns the next object: `namespace/name` or its name, and its bytes.
    pub(crate) async fn next(&mut self) -> Result<Option<(String, Bytes)>, ApiError> {
        loop {
            if let Some((range, path)) = self.items.pop_front() {
                return Ok(Some((path, self.body.slice(range))));
            }
            if self.begun && self.token.is_none() {
                return Ok(None);
            }
            self.page().await?;
        }
    }

    async fn page(&mut self) -> Result<(), ApiError> {
        let token = self.token.as_deref().unwrap_or_default();
        let answer = loop {
            let mut query = page_query(self.limit, token);
            if let Some(labels) = self.labels {
                query.push('&');
                query.push_str(&encode_query(&[("labelSelector", labels)]));
            }
            match self.cluster.get(&self.path, &query, PAGE).await {
                Err(error) if matches!(error.kind, ApiErrorKind::TooLarge { .. }) && self.limit > 1 => {
                    self.limit = (self.limit / 4).max(1);
                }
                other => break other?,
            }
        };
        let malformed = |what: String| self.cluster.malformed(&self.path, what);
        let page = split_list(&answer.body).map_err(|error| malformed(error.to_string()))?;
        let count = page.items.len();
        for (index, range) in page.items.into_iter().enumerate() {
            let meta = read_item_meta(&answer.body[range.clone()], index)
                .map_err(|error| malformed(error.to_string()))?;
            let path = match meta.namespace.is_empty() {
                true => meta.name,
                false => format!("{}/{}", meta.namespace, meta.name),
            };
            self.items.push_back((range, path));
        }
        let next = page.metadata.continue_token;
        self.token = (!next.is_empty()).then_some(next);
        self.limit = (TARGET / (answer.body.len() / count.max(1) + 1)).clamp(1, MOST);
        self.begun = true;
        self.body = answer.body;
        Ok(())
    }
}
