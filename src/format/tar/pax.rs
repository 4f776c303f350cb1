//! The records of a PAX extended header: `LENGTH KEY=VALUE\n`, where the length counts itself.

use super::header::{self, UstarFields, fits_name_field, fits_owner_field};
use super::{BLOCK, EncodeError, EntryKind, FileTime, MAX_PAX, ROOT, TarEntry, padding};

/// The keys, in the order in which they are written.
pub mod key {
    /// `BINARY` if a path, target or owner that follows is not UTF-8.
    pub const CHARSET: &[u8] = b"hdrcharset";
    /// The path.
    pub const PATH: &[u8] = b"path";
    /// The major version of the sparse format: `1`.
    pub const SPARSE_MAJOR: &[u8] = b"GNU.sparse.major";
    /// The minor version of the sparse format: `0`.
    pub const SPARSE_MINOR: &[u8] = b"GNU.sparse.minor";
    /// The path of a file with holes.
    pub const SPARSE_NAME: &[u8] = b"GNU.sparse.name";
    /// The size of a file with holes, holes included.
    pub const SPARSE_SIZE: &[u8] = b"GNU.sparse.realsize";
    /// The link target.
    pub const LINK: &[u8] = b"linkpath";
    /// The number of bytes that follow the header, without padding.
    pub const SIZE: &[u8] = b"size";
    /// The owner's number.
    pub const UID: &[u8] = b"uid";
    /// The group's number.
    pub const GID: &[u8] = b"gid";
    /// The owner's name.
    pub const USER: &[u8] = b"uname";
    /// The group's name.
    pub const GROUP: &[u8] = b"gname";
    /// The modification time: seconds since 1970 with a fraction.
    pub const MTIME: &[u8] = b"mtime";
    /// The prefix of the key of an extended attribute.
    pub const XATTR: &[u8] = b"SCHILY.xattr.";
}

/// Appends the PAX header of `entry` to `out`, or nothing if the ustar block holds every value.
/// Fails with [`EncodeError::TooLong`] if the records exceed [`MAX_PAX`].
pub fn append_header(
    entry: &TarEntry,
    stored: u64,
    fields: &UstarFields,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + BLOCK, 0);
    append_records(entry, stored, fields, out);
    let len = out.len() - start - BLOCK;
    if len == 0 {
        out.truncate(start);
        return Ok(());
    }
    if len > MAX_PAX {
        return Err(EncodeError::TooLong(len));
    }
    let mut block = Vec::with_capacity(BLOCK);
    UstarFields::pax(len).write(&mut block);
    out[start..start + BLOCK].copy_from_slice(&block);
    out.resize(out.len() + padding(len as u64), 0);
    Ok(())
}

fn append_records(entry: &TarEntry, stored: u64, fields: &UstarFields, out: &mut Vec<u8>) {
    let names = entry.names.clone().unwrap_or_default();
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    if ![&entry.path, &fields.link, &names.user, &names.group].into_iter().all(|text| utf8(text)) {
        append_record(out, key::CHARSET, b"BINARY");
    }
    if let EntryKind::Sparse { size, .. } = &entry.kind {
        append_record(out, key::SPARSE_MAJOR, b"1");
        append_record(out, key::SPARSE_MINOR, b"0");
        append_record(out, key::SPARSE_NAME, &entry.path);
        append_record(out, key::SPARSE_SIZE, size.to_string().as_bytes());
    } else if entry.path != ROOT && !fits_name_field(&fields.name) {
        append_record(out, key::PATH, &fields.name);
    }
    if !fits_name_field(&fields.link) {
        append_record(out, key::LINK, &fields.link);
    }
    if stored > header::MAX_LONG {
        append_record(out, key::SIZE, stored.to_string().as_bytes());
    }
    for (key, id) in [(key::UID, entry.uid), (key::GID, entry.gid)] {
        if id > header::MAX_ID {
            append_record(out, key, id.to_string().as_bytes());
        }
    }
    for (key, name) in [(key::USER, &names.user), (key::GROUP, &names.group)] {
        if !fits_owner_field(name) {
            append_record(out, key, name);
        }
    }
    if needs_mtime(entry.mtime) {
        append_record(out, key::MTIME, format_time(entry.mtime).as_bytes());
    }
    for xattr in &entry.xattrs {
        let mut name = key::XATTR.to_vec();
        append_escaped(&xattr.name, &mut name);
        append_record(out, &name, &xattr.value);
    }
}

/// Returns true if the ustar field, whole seconds from 1970 to 2242, cannot hold the time.
fn needs_mtime(time: FileTime) -> bool {
    time.nanos != 0 || u64::try_from(time.seconds).is_ok_and(|s| s > header::MAX_LONG) || time.seconds < 0
}

/// Formats a time as decimal seconds: `1700000000.000000001`, `-0.5` for half a second before 1970.
/// Nanoseconds count forward, so a negative time with a fraction counts back from the next second.
#[must_use]
pub fn format_time(time: FileTime) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

/// Appends a name with `%3D` for `=`, which would end the key, and `%25` for `%`.
fn append_escaped(name: &[u8], out: &mut Vec<u8>) {
    for &byte in name {
        match byte {
            b'=' => out.extend_from_slice(b"%3D"),
            b'%' => out.extend_from_slice(b"%25"),
            byte => out.push(byte),
        }
    }
}

/// Appends one record. The length counts its own digits, so it is raised until it is consistent.
fn append_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3; // space, `=`, newline
    let digits = |number: usize| number.to_string().len();
    let mut length = rest + digits(rest);
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_length_includes_its_own_digits() {
        for value in [0, 1, 2, 3, 4, 5, 85, 86, 87, 88, 89, 90, 980, 985, 990, 995, 9_990] {
            let mut out = Vec::new();
            append_record(&mut out, b"k", &vec![b'v'; value]);
            let space = out.iter().position(|&byte| byte == b' ').expect("a space");
            let length: usize =
                std::str::from_utf8(&out[..space]).expect("digits").parse().expect("a number");
            assert_eq!(length, out.len(), "{value}");
        }
    }

    #[test]
    fn times_before_1970_are_negative() {
        let at = |seconds, nanos| format_time(FileTime { seconds, nanos });
        assert_eq!(at(0, 500_000_000), "0.5");
        assert_eq!(at(-1, 500_000_000), "-0.5");
        assert_eq!(at(-1, 0), "-1");
        assert_eq!(at(-2, 1), "-1.999999999");
        assert_eq!(at(1_700_000_000, 10), "1700000000.00000001");
        assert_eq!(at(i64::MIN, 0), "-9223372036854775808");
    }
}
