//! Parts of chunk lists.

use kbak::format::ids::{ChunkId, ObjectHash};
use kbak::format::list::{ChunkLocation, ListError, MAX_SLICE_TEXT, Slice, read_part, write_part};
use kbak::format::pack_refs::PackName;

fn slice(pack: u8, skip: u32, take: u32) -> Slice {
    let pack = PackName { hash: ObjectHash([pack; 32]), size: 1000 };
    Slice {
        location: ChunkLocation { pack, offset: 5, length: 6, plain: 100 },
        id: ChunkId([9; 32]),
        skip,
        take,
    }
}

#[test]
fn parts_decode_unchanged_within_the_slice_limit() {
    let slices = [slice(1, 0, 100), slice(2, 3, 4), slice(1, 99, 1)];
    let text = write_part(&slices);
    assert!(text.lines().next().unwrap().starts_with("{\"packs\":[[\"0101"));
    assert_eq!(read_part(text.as_bytes()).unwrap(), slices);
    let worst = Slice {
        location: ChunkLocation {
            pack: PackName { hash: ObjectHash([255; 32]), size: u64::MAX },
            offset: u32::MAX,
            length: u32::MAX,
            plain: u32::MAX,
        },
        id: ChunkId([255; 32]),
        skip: u32::MAX,
        take: u32::MAX,
    };
    assert!(write_part(&[worst]).len() <= MAX_SLICE_TEXT + 16);
}

#[test]
fn slices_beyond_their_chunk_are_rejected() {
    let good = write_part(&[slice(1, 50, 50)]);
    assert!(read_part(good.as_bytes()).is_ok());
    for bad in [slice(1, 50, 51), slice(1, 0, 0), slice(1, u32::MAX, 2)] {
        assert_eq!(read_part(write_part(&[bad]).as_bytes()), Err(ListError { line: 2 }));
    }
    assert!(read_part(&good.as_bytes()[..good.len() - 1]).is_err(), "a part ends with a line end");
    assert!(read_part(good.replace("[0,", "[1,").as_bytes()).is_err(), "a pack that is not listed");
}
