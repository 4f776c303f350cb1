//! Cuts the body of a list into its items without decoding them.
//!
//! One pass over the bytes finds the start and end of each element of `items`. An item's bytes stay
//! as the server wrote them, so no number, key order or unknown field changes. The order of the
//! list's own keys is not assumed. It differs between built-in kinds (`metadata` before `items`)
//! and custom resources (keys sorted, `metadata` after `items`; `UnstructuredList` in
//! apimachinery).
//!
//! The cutter trusts the nesting that it sees. [`head`] parses each item completely, although it
//! keeps only its metadata, so that bytes that are not JSON never pass.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr2;
use serde::Deserialize;

use crate::kubernetes::KindInfo;

/// The reason why a body is not a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The body ends early, or is not JSON.
    #[error("not a JSON list: {problem} at byte {at}")]
    Syntax {
        /// The expected syntax.
        problem: &'static str,
        /// The byte offset.
        at: usize,
    },
    /// An object lacks required metadata, or is not JSON. Carries no text of the object.
    #[error("object {index} of the page: {problem}")]
    Object {
        /// The object's index, from 0.
        index: usize,
        /// The problem.
        problem: String,
    },
    /// The list's metadata cannot be read.
    #[error("the list's metadata cannot be read: {0}")]
    Metadata(String),
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
pub struct Page {
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

/// Cuts `body`, which must hold exactly one list.
///
/// # Errors
/// [`PageError::Syntax`] with the position, when nesting or quoting is wrong;
/// [`PageError::Metadata`] when the list's metadata has other types.
pub fn cut(body: &[u8]) -> Result<Page, PageError> {
    let mut page = Page::default();
    let mut seen_items = false;
    let mut at = members(body, blank(body, 0), |key, value| {
        match key {
            "items" if seen_items => return Err(syntax("items only once", value.start)),
            "items" => {
                seen_items = true;
                if body.get(value.start) == Some(&b'[') {
                    page.items = elements(body, value.start)?;
                } else if &body[value.clone()] != b"null" {
                    return Err(syntax("an array of items", value.start));
                }
            }
            "metadata" => {
                page.metadata = serde_json::from_slice(&body[value.clone()])
                    .map_err(|error| PageError::Metadata(shape_of(&error)))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    at = blank(body, at);
    if at < body.len() {
        return Err(syntax("nothing after the list", at));
    }
    if !seen_items {
        return Err(syntax("items", at));
    }
    Ok(page)
}

/// Reads the metadata that a backup needs, and proves that the item is JSON to its end.
///
/// # Errors
/// [`PageError::Object`] when the item is not an object with a name. The message quotes no content.
pub fn head(item: &[u8], index: usize) -> Result<ItemMeta, PageError> {
    let wrong = |problem: String| PageError::Object { index, problem };
    let head: Head<'_> = serde_json::from_slice(item).map_err(|error| wrong(shape_of(&error)))?;
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
/// only at the end. `item` must have passed [`head`], which gave `meta`.
#[must_use]
pub fn line(item: &[u8], meta: &ItemMeta, kind: &KindInfo) -> Bytes {
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
    // string, and the parser in `head` has refused that.
    for byte in &mut line[start..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.put_u8(b'\n');
    line.freeze()
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default, rename = "apiVersion")]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: HeadMeta<'a>,
}

#[derive(Deserialize)]
struct HeadMeta<'a> {
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

fn syntax(problem: &'static str, at: usize) -> PageError {
    PageError::Syntax { problem, at }
}

/// Returns the first position from `at` on that is not white space.
fn blank(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Calls `each` for the members of the object at `at`; returns the position after the object.
fn members(
    body: &[u8],
    at: usize,
    mut each: impl FnMut(&str, Range<usize>) -> Result<(), PageError>,
) -> Result<usize, PageError> {
    if body.get(at) != Some(&b'{') {
        return Err(syntax("an object", at));
    }
    let mut at = blank(body, at + 1);
    if body.get(at) == Some(&b'}') {
        return Ok(at + 1);
    }
    loop {
        if body.get(at) != Some(&b'"') {
            return Err(syntax("a key", at));
        }
        let end = string_end(body, at)?;
        // Keys of a list need no escapes, but another writer might use them.
        let key: Cow<'_, str> =
            serde_json::from_slice(&body[at..end]).map_err(|_| syntax("a key", at)).map(Cow::<str>::Owned)?;
        at = blank(body, end);
        if body.get(at) != Some(&b':') {
            return Err(syntax("a colon", at));
        }
        at = blank(body, at + 1);
        let end = value_end(body, at)?;
        each(&key, at..end)?;
        at = blank(body, end);
        match body.get(at) {
            Some(b',') => at = blank(body, at + 1),
            Some(b'}') => return Ok(at + 1),
            _ => return Err(syntax("a comma or the object's end", at)),
        }
    }
}

/// Returns the ranges of the elements of the array at `at`.
fn elements(body: &[u8], at: usize) -> Result<Vec<Range<usize>>, PageError> {
    let mut found = Vec::new();
    let mut at = blank(body, at + 1);
    if body.get(at) == Some(&b']') {
        return Ok(found);
    }
    loop {
        let end = value_end(body, at)?;
        found.push(at..end);
        at = blank(body, end);
        match body.get(at) {
            Some(b',') => at = blank(body, at + 1),
            Some(b']') => return Ok(found),
            _ => return Err(syntax("a comma or the array's end", at)),
        }
    }
}

/// Returns the position after the value that starts at `at`.
fn value_end(body: &[u8], at: usize) -> Result<usize, PageError> {
    match body.get(at) {
        Some(b'"') => string_end(body, at),
        Some(b'{' | b'[') => nested_end(body, at),
        Some(b',' | b':' | b'}' | b']') | None => Err(syntax("a value", at)),
        Some(_) => {
            let length = body[at..]
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
                .unwrap_or(body.len() - at);
            Ok(at + length)
        }
    }
}

/// Returns the position after the string that starts at `at`.
fn string_end(body: &[u8], at: usize) -> Result<usize, PageError> {
    let mut next = at + 1;
    while let Some(found) = body.get(next..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        let here = next + found;
        if body[here] == b'"' {
            return Ok(here + 1);
        }
        next = here + 2;
    }
    Err(syntax("the string's end", at))
}

/// Returns the position after the object or array that starts at `at`.
fn nested_end(body: &[u8], at: usize) -> Result<usize, PageError> {
    let mut depth = 0usize;
    let mut next = at;
    while let Some(byte) = body.get(next) {
        match byte {
            b'"' => {
                next = string_end(body, next)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(next + 1);
                }
            }
            _ => {}
        }
        next += 1;
    }
    Err(syntax("the value's end", at))
}
