//! Decodes the header blocks of one member into the entry that they encode, or refuses them.
//!
//! Fields are read strictly, then the entry is encoded again and must give the same bytes. So only
//! output of [`super::encode`] is accepted, even where this reader checks too little.

use super::header::{self, field};
use super::order::{self, PathError};
use super::pax::key;
use super::sparse::MAX_MAP;
use super::{
    BLOCK, DeviceNumber, EncodeError, EntryKind, Extent, FileTime, MAX_EXTENTS, OwnerNames, ROOT, TarEntry,
    Xattr,
};

/// The fault in a member's header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The `ustar` header is missing.
    #[error("no ustar header")]
    Magic,
    /// The checksum does not match the block.
    #[error("the header's checksum is wrong")]
    Checksum,
    /// A field holds no number of the expected form, or one out of range.
    #[error("the field {0} holds no valid number")]
    Number(&'static str),
    /// A type of entry that kbak does not write.
    #[error("kbak never writes an entry of type {:?}", char::from(*.0))]
    Type(u8),
    /// The PAX records are not well-formed.
    #[error("a malformed PAX record")]
    Record,
    /// A PAX record that kbak does not write, or one in the wrong place.
    #[error("an unexpected PAX record {:?}", String::from_utf8_lossy(.0))]
    Key(Vec<u8>),
    /// An invalid path, such as one that leads upwards.
    #[error("its path {0}")]
    Path(#[source] PathError),
    /// A value that cannot be encoded.
    #[error("its attributes are invalid")]
    Value(#[source] EncodeError),
    /// The map of holes is malformed, unordered, or does not match the sizes.
    #[error("its map of holes is invalid")]
    Map,
    /// Encoding the entry again gives other bytes.
    #[error("its header is not in canonical form")]
    NotCanonical,
}

/// The fields of a header. The extents of a sparse file are known only after its map.
#[derive(Debug)]
pub(crate) struct DecodedHeader {
    pub(crate) entry: TarEntry,
    /// Bytes that follow the header: map and content.
    pub(crate) stored: u64,
    /// The size, holes included, if the file is sparse.
    pub(crate) sparse: Option<u64>,
}

/// Checks magic and checksum of the ustar block alone. Returns its type and size field.
pub(crate) fn check_block(block: &[u8; BLOCK]) -> Result<(u8, u64), HeaderError> {
    if &block[field::MAGIC] != header::MAGIC {
        return Err(HeaderError::Magic);
    }
    // Six digits, NUL, space.
    let sum = parse_octal(&block[field::CHECKSUM.start..field::CHECKSUM.end - 1], "checksum");
    if sum.ok() != Some(u64::from(header::checksum(block))) {
        return Err(HeaderError::Checksum);
    }
    Ok((block[field::TYPE], parse_octal(&block[field::SIZE], "size")?))
}

/// Decodes the records of the PAX header, if there is one, and the ustar block.
pub(crate) fn decode_header(records: &[u8], block: &[u8; BLOCK]) -> Result<DecodedHeader, HeaderError> {
    let pax = PaxRecords::parse(records)?;
    let name = pax.sparse_name.or(pax.path).unwrap_or(text_field(&block[field::NAME])).to_vec();
    let link = pax.link.unwrap_or(text_field(&block[field::LINK])).to_vec();
    let user = pax.user.unwrap_or(text_field(&block[field::USER]));
    let group = pax.group.unwrap_or(text_field(&block[field::GROUP]));
    let stored = pax.size.map_or_else(|| parse_octal(&block[field::SIZE], "size"), Ok)?;
    let number = |at, what| parse_octal(&block[at], what).map(|value| value as u32);
    let device = || -> Result<DeviceNumber, HeaderError> {
        let (major, minor) = (number(field::MAJOR, "devmajor")?, number(field::MINOR, "devminor")?);
        Ok(DeviceNumber { major, minor })
    };
    let kind = match block[field::TYPE] {
        b'0' => EntryKind::File { size: stored },
        b'1' => EntryKind::HardLink { link_target: link },
        b'2' => EntryKind::Symlink { target: link },
        b'3' => EntryKind::CharDevice(device()?),
        b'4' => EntryKind::BlockDevice(device()?),
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(HeaderError::Type(other)),
    };
    let path = entry_path(name, &kind)?;
    let id = |pax: Option<u32>, at, what| pax.map_or_else(|| number(at, what), Ok);
    let seconds = parse_octal(&block[field::MTIME], "mtime")?;
    let mtime = pax.mtime.unwrap_or(FileTime { seconds: seconds as i64, nanos: 0 });
    let names = (!user.is_empty() || !group.is_empty())
        .then(|| OwnerNames { user: user.to_vec(), group: group.to_vec() });
    let entry = TarEntry {
        path,
        kind,
        mode: number(field::MODE, "mode")?,
        uid: id(pax.uid, field::UID, "uid")?,
        gid: id(pax.gid, field::GID, "gid")?,
        mtime,
        names,
        xattrs: pax.xattrs,
    };
    Ok(DecodedHeader { entry, stored, sparse: pax.sparse_size })
}

/// Returns the entry of a header and the map that followed it, if the bytes are canonical.
pub(crate) fn finish_entry(
    mut fields: DecodedHeader,
    header: &[u8],
    map: &[u8],
) -> Result<TarEntry, HeaderError> {
    if let Some(size) = fields.sparse {
        if !matches!(fields.entry.kind, EntryKind::File { .. }) {
            return Err(HeaderError::Map);
        }
        let extents = SparseMap::parse(map, size)?;
        fields.entry.kind = EntryKind::Sparse { size, extents };
    }
    let encoded = super::encode(&fields.entry).map_err(|error| match error {
        EncodeError::Path(path) => HeaderError::Path(path),
        EncodeError::Map => HeaderError::Map,
        other => HeaderError::Value(other),
    })?;
    if encoded.header != header || encoded.map != map {
        return Err(HeaderError::NotCanonical);
    }
    Ok(fields.entry)
}

/// Decodes one whole header without a map, as a restore's list of deferred entries holds it.
pub(crate) fn decode_whole(bytes: &[u8]) -> Result<TarEntry, HeaderError> {
    let (head, last) = bytes.split_last_chunk::<BLOCK>().ok_or(HeaderError::Magic)?;
    check_block(last)?;
    let records = match head.split_first_chunk::<BLOCK>() {
        None => &[][..],
        Some((pax, rest)) => {
            let (_, len) = check_block(pax)?;
            usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(HeaderError::Record)?
        }
    };
    finish_entry(decode_header(records, last)?, bytes, &[])
}

/// Returns the path as an entry has it: in tar, directories end with a slash and nothing else does.
fn entry_path(mut name: Vec<u8>, kind: &EntryKind) -> Result<Vec<u8>, HeaderError> {
    if *kind == EntryKind::Directory && name.len() > 1 && name.last() == Some(&b'/') {
        name.pop();
        if name == b"." {
            return Ok(ROOT.to_vec());
        }
    }
    match order::check_path(&name) {
        Ok(()) if name == ROOT => Err(HeaderError::Path(PathError::Dot)),
        Ok(()) => Ok(name),
        Err(error) => Err(HeaderError::Path(error)),
    }
}

/// Returns a text field up to its NUL.
fn text_field(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Parses octal digits that end with a NUL.
fn parse_octal(bytes: &[u8], what: &'static str) -> Result<u64, HeaderError> {
    let Some((0, digits)) = bytes.split_last() else { return Err(HeaderError::Number(what)) };
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value * 8 + u64::from(digit - b'0')),
        _ => Err(HeaderError::Number(what)),
    })
}

fn parse_decimal(bytes: &[u8], what: &'static str) -> Result<u64, HeaderError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HeaderError::Number(what))?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeaderError::Number(what));
    }
    text.parse().map_err(|_| HeaderError::Number(what))
}

/// Parses a time such as `-1.5` into seconds rounded down and nanoseconds forward from there.
fn parse_time(bytes: &[u8]) -> Result<FileTime, HeaderError> {
    let wrong = || HeaderError::Number("mtime");
    let negative = bytes.starts_with(b"-");
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let (whole, fraction) = match bytes.iter().position(|&byte| byte == b'.') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    if fraction.len() > 9 {
        return Err(wrong());
    }
    let seconds = i128::from(parse_decimal(whole, "mtime")?);
    let mut padded = fraction.to_vec();
    padded.resize(9, b'0');
    let total = seconds * 1_000_000_000 + i128::from(parse_decimal(&padded, "mtime")?);
    let total = if negative { -total } else { total };
    let seconds = i64::try_from(total.div_euclid(1_000_000_000)).map_err(|_| wrong())?;
    Ok(FileTime { seconds, nanos: total.rem_euclid(1_000_000_000) as u32 })
}

/// The values of the known records in a PAX header.
#[derive(Default)]
struct PaxRecords<'a> {
    path: Option<&'a [u8]>,
    link: Option<&'a [u8]>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    user: Option<&'a [u8]>,
    group: Option<&'a [u8]>,
    mtime: Option<FileTime>,
    sparse_name: Option<&'a [u8]>,
    sparse_size: Option<u64>,
    xattrs: Vec<Xattr>,
}

impl<'a> PaxRecords<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<Self, HeaderError> {
        let mut records = Self::default();
        while !rest.is_empty() {
            let (key, value, after) = parse_record(rest)?;
            records.take(key, value)?;
            rest = after;
        }
        if records.sparse_name.is_some() != records.sparse_size.is_some() {
            return Err(HeaderError::Map);
        }
        Ok(records)
    }

    /// Stores one record. Order and repetition are not checked here: the canonical form settles both.
    fn take(&mut self, key: &[u8], value: &'a [u8]) -> Result<(), HeaderError> {
        let id = |value, what| parse_decimal(value, what)?.try_into().map_err(|_| HeaderError::Number(what));
        match key {
            key::CHARSET if value == b"BINARY" => {}
            key::PATH => self.path = Some(value),
            key::SPARSE_MAJOR if value == b"1" => {}
            key::SPARSE_MINOR if value == b"0" => {}
            key::SPARSE_NAME => self.sparse_name = Some(value),
            key::SPARSE_SIZE => self.sparse_size = Some(parse_decimal(value, "GNU.sparse.realsize")?),
            key::LINK => self.link = Some(value),
            key::SIZE => self.size = Some(parse_decimal(value, "size")?),
            key::UID => self.uid = Some(id(value, "uid")?),
            key::GID => self.gid = Some(id(value, "gid")?),
            key::USER => self.user = Some(value),
            key::GROUP => self.group = Some(value),
            key::MTIME => self.mtime = Some(parse_time(value)?),
            _ => match key.strip_prefix(key::XATTR) {
                Some(name) => self.xattrs.push(Xattr { name: unescape(name), value: value.to_vec() }),
                None => return Err(HeaderError::Key(key[..key.len().min(64)].to_vec())),
            },
        }
        Ok(())
    }
}

/// The key, the value, and the bytes after a record.
type PaxRecord<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Parses `LENGTH KEY=VALUE\n` at the head of `bytes`, and returns what follows it too.
fn parse_record(bytes: &[u8]) -> Result<PaxRecord<'_>, HeaderError> {
    let space = bytes.iter().take(8).position(|&byte| byte == b' ').ok_or(HeaderError::Record)?;
    let length = parse_decimal(&bytes[..space], "record length").map_err(|_| HeaderError::Record)?;
    let length = usize::try_from(length).map_err(|_| HeaderError::Record)?;
    if length <= space + 1 || length > bytes.len() {
        return Err(HeaderError::Record);
    }
    let (record, rest) = bytes.split_at(length);
    let body = record[space + 1..].strip_suffix(b"\n").ok_or(HeaderError::Record)?;
    let equals = body.iter().position(|&byte| byte == b'=').ok_or(HeaderError::Record)?;
    Ok((&body[..equals], &body[equals + 1..], rest))
}

/// Undoes the escapes of `=` and `%` in the name of an extended attribute.
fn unescape(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', b'3', b'D', after @ ..] => (b'=', after),
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = after;
    }
    out
}

/// The map of a sparse file, as it arrives block by block.
#[derive(Debug, Default)]
pub(crate) struct SparseMap {
    pub(crate) bytes: Vec<u8>,
    newlines: usize,
    /// Number of newlines in a complete map.
    expected: Option<usize>,
}

impl SparseMap {
    /// Takes one block. Returns true if the map is complete.
    pub(crate) fn push(&mut self, block: &[u8]) -> Result<bool, HeaderError> {
        if self.expected.is_none() {
            // The count is the first line; it always fits into the first block.
            let end = block.iter().position(|&byte| byte == b'\n').ok_or(HeaderError::Map)?;
            let count = parse_decimal(&block[..end], "map").map_err(|_| HeaderError::Map)?;
            let count = usize::try_from(count).map_err(|_| HeaderError::Map)?;
            if count > MAX_EXTENTS + 1 {
                return Err(HeaderError::Map);
            }
            self.expected = Some(1 + 2 * count);
        }
        self.newlines += block.iter().filter(|&&byte| byte == b'\n').count();
        self.bytes.extend_from_slice(block);
        if self.bytes.len() > MAX_MAP {
            return Err(HeaderError::Map);
        }
        match self.expected {
            Some(expected) if self.newlines > expected => Err(HeaderError::Map),
            expected => Ok(Some(self.newlines) == expected),
        }
    }

    /// Returns the extents of a complete map. Order and padding are checked by the canonical form.
    fn parse(map: &[u8], size: u64) -> Result<Vec<Extent>, HeaderError> {
        let end = map.iter().rposition(|&byte| byte == b'\n').ok_or(HeaderError::Map)?;
        let mut numbers =
            map[..end].split(|&byte| byte == b'\n').map(|line| parse_decimal(line, "map")).skip(1);
        let mut extents = Vec::new();
        while let Some(offset) = numbers.next() {
            let offset = offset.map_err(|_| HeaderError::Map)?;
            let len = numbers.next().ok_or(HeaderError::Map)?.map_err(|_| HeaderError::Map)?;
            extents.push(Extent { offset, len });
        }
        if extents.last() == Some(&Extent { offset: size, len: 0 }) {
            extents.pop();
        }
        Ok(extents)
    }
}
