//! Splits the body of a list into its items without decoding them.
//!
//! An item's bytes stay as the server wrote them, so no number, key order or unknown field changes.
//! The parser proves that they are JSON. The order of the list's own keys is not assumed. It
//! differs between built-in kinds (`metadata` before `items`) and custom resources (keys sorted,
//! `metadata` after `items`; `UnstructuredList` in apimachinery).

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::KindInfo;

/// The reason why a body is not a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The body ends early, is not JSON or is not a list. Carries no text of the body.
    #[error("not a JSON list: {0}")]
    List(String),
    /// An object lacks required metadata, or is not JSON. Carries no text of the object.
    #[error("object {index} of the page: {problem}")]
    Object {
        /// The object's index, from 0.
        index: usize,
        /// The problem.
        problem: String,
    },
}

/// The metadata of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// The revision that the list shows.
    #[serde(default)]
    pub resource_version: String,
    /// The token of the next page; empty on the last page.
    #[serde(default, rename = "continue")]
    pub continue_token: String,
    /// The number of items after this page; unknown with selectors.
    #[serde(default)]
    pub remaining_item_count: Option<u64>,
}

/// A page: its metadata, and the position of its items in the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The list's metadata.
    pub metadata: ListMeta,
    /// The byte range of each item in the body, without surrounding white space.
    pub items: Vec<Range<usize>>,
}

/// The metadata of an object that a backup needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ItemMeta {
    /// The namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The revision that last changed it.
    pub resource_version: String,
    /// True if `apiVersion` is missing, as in lists of built-in kinds.
    pub lacks_api_version: bool,
    /// True if `kind` is missing.
    pub lacks_kind: bool,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(default)]
    metadata: ListMeta,
    /// Required; `null` in an empty list of some servers.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    items: Option<Vec<&'a RawValue>>,
}

/// Splits `body`, which must hold exactly one list. Copies none of it.
/// Fails with [`PageError::List`] with the position.
pub fn split_list(body: &[u8]) -> Result<ListPage, PageError> {
    let list: List<'_> = serde_json::from_slice(body).map_err(|error| PageError::List(shape_of(&error)))?;
    // The parser also reads a struct from an array of its fields.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(PageError::List("it is no object".to_owned()));
    }
    let range = |item: &RawValue| {
        let start = item.get().as_ptr().addr() - body.as_ptr().addr();
        start..start + item.get().len()
    };
    let items = list.items.unwrap_or_default().into_iter().map(range).collect();
    Ok(ListPage { metadata: list.metadata, items })
}

/// Reads the metadata that a backup needs, and proves that the item is JSON to its end.
/// Fails when the item is not an object with a name. The message quotes no content.
pub fn read_item_meta(item: &[u8], index: usize) -> Result<ItemMeta, PageError> {
    let wrong = |problem: String| PageError::Object { index, problem };
    let head: ItemHead<'_> = serde_json::from_slice(item).map_err(|error| wrong(shape_of(&error)))?;
    if !item.starts_with(b"{") || head.metadata.name.is_empty() {
        return Err(wrong("it is no object with a name".to_owned()));
    }
    Ok(ItemMeta {
        namespace: head.metadata.namespace.into_owned(),
        name: head.metadata.name.into_owned(),
        resource_version: head.metadata.resource_version.into_owned(),
        lacks_api_version: head.api_version.is_none(),
        lacks_kind: head.kind.is_none(),
    })
}

/// Returns an item as a line: `apiVersion` and `kind` in front where they are missing, and an LF
/// only at the end. `item` must have passed [`read_item_meta`], which gave `meta`.
#[must_use]
pub fn to_json_line(item: &[u8], meta: &ItemMeta, kind: &KindInfo) -> Bytes {
    let mut line = BytesMut::with_capacity(item.len() + 96);
    line.put_u8(b'{');
    for (name, missing, value) in [
        ("apiVersion", meta.lacks_api_version, kind.api_version()),
        ("kind", meta.lacks_kind, kind.kind.clone()),
    ] {
        if missing {
            line.put_slice(format!("\"{name}\":").as_bytes());
            // The value comes from discovery; it is quoted as JSON nevertheless.
            line.put_slice(serde_json::Value::from(value).to_string().as_bytes());
            line.put_u8(b',');
        }
    }
    let start = line.len();
    line.put_slice(item.get(1..).unwrap_or_default());
    // A line break between tokens is white space, so a space means the same. JSON forbids it in a
    // string, and the parser in `read_item_meta` has refused that.
    for byte in &mut line[start..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.put_u8(b'\n');
    line.freeze()
}

#[derive(Deserialize)]
struct ItemHead<'a> {
    #[serde(borrow, default, rename = "apiVersion")]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: ItemHeadMeta<'a>,
}

#[derive(Deserialize)]
struct ItemHeadMeta<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default, rename = "resourceVersion")]
    resource_version: Cow<'a, str>,
}

/// Returns the kind and position of a parser's error, without its message, which may quote values.
fn shape_of(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Io | Category::Eof => "it ends early",
        Category::Syntax => "it is not JSON",
        Category::Data => "its fields are not those of an object",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// Returns the query for a page of a list: the first, or the one that `token` continues.
pub(crate) fn page_query(limit: usize, token: &str) -> String {
    let limit = limit.to_string();
    let pairs = [("limit", limit.as_str()), ("continue", token)];
    encode_query(if token.is_empty() { &pairs[..1] } else { &pairs })
}

/// Encodes pairs as a query string.
pub(crate) fn encode_query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
