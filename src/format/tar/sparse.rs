//! The map of a file with holes, GNU.sparse 1.0: the number of extents, then offset and length of
//! each, as decimal numbers with a newline after each, padded with zeros to a block. A file that
//! ends in a hole has one more extent, empty, at its size; GNU tar needs it to set the length.

use super::{EncodeError, Extent, MAX_EXTENTS, padding};

/// The longest map: count and extents, each number of at most 20 bytes with its newline, padded.
pub const MAX_MAP: usize = 8 + (MAX_EXTENTS + 1) * 40 + 512;

/// Encodes the map of a file of `size` bytes; also returns the number of bytes in its extents.
/// Fails if the extents are empty, not ascending, touching, too many, pass the size, or leave no hole.
pub fn encode_map(size: u64, extents: &[Extent]) -> Result<(Vec<u8>, u64), EncodeError> {
    let mut content = 0u64;
    let mut end = None;
    for extent in extents {
        let next = extent.offset.checked_add(extent.len).ok_or(EncodeError::Map)?;
        let ordered = end.is_none_or(|end| extent.offset > end);
        if !ordered || extent.len == 0 || next > size {
            return Err(EncodeError::Map);
        }
        content += extent.len;
        end = Some(next);
    }
    // A file without a hole must be written as a plain one, so that each file has one encoding.
    if extents.len() > MAX_EXTENTS || content == size {
        return Err(EncodeError::Map);
    }
    let hole_at_end = end.unwrap_or(0) < size;
    let mut map = format!("{}\n", extents.len() + usize::from(hole_at_end)).into_bytes();
    for extent in extents {
        map.extend_from_slice(format!("{}\n{}\n", extent.offset, extent.len).as_bytes());
    }
    if hole_at_end {
        map.extend_from_slice(format!("{size}\n0\n").as_bytes());
    }
    map.resize(map.len() + padding(map.len() as u64), 0);
    Ok((map, content))
}
