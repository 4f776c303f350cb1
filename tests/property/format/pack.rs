//! Packs and the tables at their ends.

use kbak::format::container::{ContainerKey, DataIdentity, open};
use kbak::format::derive::ChunkKind;
use kbak::format::ids::{ChunkId, EpochId, NameId, ObjectHash, WriterId};
use kbak::format::layout::EpochPath;
use kbak::format::pack::{MAX_PACK, PackBuilder, read_table};
use kbak::format::padme;

fn sample() -> Vec<u8> {
    let identity = DataIdentity::generate();
    let mut builder = PackBuilder::new(&identity.recipient(), 1 << 20, Vec::new()).unwrap();
    assert!(builder.fits(usize::MAX >> 1), "an empty pack takes any frame");
    for (i, frame) in [&b"frame one"[..], b"frame two", b"3"].iter().enumerate() {
        builder.push(ChunkKind::Data, ChunkId([i as u8; 32]), frame, 100).unwrap();
    }
    let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
    let pack = builder.seal(&path, NameId([4; 8])).unwrap();
    assert_eq!(pack.hash, ObjectHash::of(pack.object.bytes()));
    open(pack.object.bytes(), &ContainerKey::Identity(&identity), MAX_PACK as u64).unwrap()
}

#[test]
fn table_is_read_from_the_end_of_a_pack() {
    let plaintext = sample();
    assert_eq!(plaintext.len() as u64, padme::padded(plaintext.len() as u64));
    let table = read_table(&plaintext).unwrap();
    assert_eq!(table.len(), 3);
    assert_eq!(&plaintext[table[1].offset as usize..][..table[1].length as usize], b"frame two");
}

#[test]
fn flipped_bit_in_table_or_padding_is_detected() {
    let plaintext = sample();
    let frames = 9 + 9 + 1;
    let table = read_table(&plaintext).unwrap();
    for byte in frames..plaintext.len() {
        for bit in 0..8 {
            let mut bad = plaintext.clone();
            bad[byte] ^= 1 << bit;
            assert_ne!(read_table(&bad).as_ref(), Ok(&table), "byte {byte} bit {bit}");
        }
    }
}
