//! Catalogs: the members of a stream, for `ls`, `find`, `diff` and for restoring one path.
//!
//! JSON lines in the order of the stream. `at` is the offset of the member's first byte relative
//! to the `start` of its own catalog chunk, so that an early change rewrites no later chunk; the
//! chunk is found by its `first` (docs/decisions/0001).

use serde::{Deserialize, Serialize};

use super::name::Name;

/// The longest catalog chunk, in bytes of text.
pub const MAX_CHUNK: usize = 1 << 20;

/// The type of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberType {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A further name of a file that is an earlier member.
    Hardlink,
    /// A FIFO.
    Fifo,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A Kubernetes object: one line of JSON.
    Object,
    /// A database dump.
    Dump,
}

/// The catalog line of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogLine {
    /// The member's path; `namespace/name` for objects.
    pub path: Name,
    /// The member's type.
    #[serde(rename = "type")]
    pub kind: MemberType,
    /// The offset of its first byte from the `start` of its catalog chunk, in bytes.
    pub at: u64,
    /// The member's length in the stream, in bytes.
    pub len: u64,
    /// The size of a file's content, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Permission bits in octal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The owner's user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The time of the last change of content: seconds since 1970, a point, nine digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<String>,
    /// The target of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Name>,
}

impl CatalogLine {
    /// Returns the line's text with its line end.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// Reads a catalog chunk. Returns `None` if a line is malformed.
#[must_use]
pub fn read_lines(text: &[u8]) -> Option<Vec<CatalogLine>> {
    let text = text.strip_suffix(b"\n")?;
    text.split(|&byte| byte == b'\n').map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compact_and_decode_unchanged() {
        let line = CatalogLine {
            path: Name::from("a/b"),
            kind: MemberType::Object,
            at: 7,
            len: 9,
            size: None,
            mode: None,
            uid: None,
            gid: None,
            mtime: None,
            link: None,
        };
        let text = line.to_text();
        assert_eq!(text, b"{\"path\":\"a/b\",\"type\":\"object\",\"at\":7,\"len\":9}\n");
        assert_eq!(read_lines(&text), Some(vec![line]));
        assert_eq!(read_lines(b"{}\n"), None);
    }
}
