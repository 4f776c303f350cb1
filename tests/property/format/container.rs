//! Containers: any range opens from its own blocks, damage and wrong keys are noticed.

use bytes::Bytes;
use kbak::format::container::{
    ContainerError, ContainerHead, ContainerKey, DataIdentity, ObjectRange, Sealer, open,
};
use kbak::format::derive::{EpochSecret, SecretKey};
use kbak::format::ids::ObjectHash;
use kbak::format::layout::ObjectClass;

fn seal(identity: &DataIdentity, plaintext: &[u8]) -> Bytes {
    let mut sealer = Sealer::to_recipient(&identity.recipient(), 0).unwrap();
    sealer.write(plaintext).unwrap();
    let (bytes, hash) = sealer.finish().unwrap();
    assert_eq!(hash, ObjectHash::of(&bytes));
    bytes
}

#[test]
fn any_range_opens_from_its_own_blocks() {
    let identity = DataIdentity::generate();
    let plaintext: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    for size in [1, 65_535, 65_536, 65_537, 131_072, 300_000] {
        let sealed = seal(&identity, &plaintext[..size]);
        let head = ContainerHead::parse(&sealed.slice(..sealed.len().min(1024))).unwrap();
        for start in [0, 1, 65_535, 65_536, 65_537, 131_071, 131_072, 262_144, 299_999] {
            for take in [1, 100, 65_536, 70_000] {
                if start + take > size {
                    continue;
                }
                let whole = sealed.len() as u64;
                let range = head.sealed_range(start as u64, (start + take) as u64, whole);
                let bytes = sealed.slice(range.start as usize..range.end as usize);
                let window = ObjectRange { offset: range.start, bytes, size: whole };
                let got = head.open_range(&identity, &window, start as u64, take).unwrap();
                assert_eq!(got, &plaintext[start..start + take], "{size} {start} {take}");
            }
        }
    }
}

#[test]
fn flipped_bit_is_rejected() {
    let identity = DataIdentity::generate();
    let sealed = seal(&identity, b"some plaintext");
    for byte in 0..sealed.len() {
        for bit in 0..8 {
            let mut bad = sealed.to_vec();
            bad[byte] ^= 1 << bit;
            assert!(open(&bad, &ContainerKey::Identity(&identity), 100).is_err(), "byte {byte} bit {bit}");
        }
    }
}

#[test]
fn symmetric_containers_open_with_their_own_passphrase_only() {
    let domain = EpochSecret(SecretKey::new([1; 32])).domain("path/x");
    let (index, cache) =
        (domain.passphrase(ObjectClass::Index).unwrap(), domain.passphrase(ObjectClass::Cache).unwrap());
    let mut sealer = Sealer::with_passphrase(&index, 0).unwrap();
    sealer.write(b"entries").unwrap();
    let (sealed, _) = sealer.finish().unwrap();
    assert_eq!(open(&sealed, &ContainerKey::Passphrase(&index), 100).unwrap(), b"entries");
    assert!(matches!(open(&sealed, &ContainerKey::Passphrase(&cache), 100), Err(ContainerError::WrongKey)));
    assert!(matches!(
        open(&sealed, &ContainerKey::Passphrase(&index), 3),
        Err(ContainerError::TooLarge { limit: 3 })
    ));
}
