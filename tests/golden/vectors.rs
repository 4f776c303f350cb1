//! The test vectors under tests/vectors: made by the reader in tests/reader, which shares no code with kbak.
//! kbak computes each again from its inputs.

use std::path::{Path, PathBuf};
use std::process::Command;

use kbak::format::cache::{self, CachedGroup, CachedMember, GroupRef, MAX_CACHE};
use kbak::format::container::{ContainerKey, DataIdentity, open};
use kbak::format::derive::{ChunkKind, DomainKey, EpochSecret, NamesKey, SecretKey};
use kbak::format::ids::{ChunkId, EpochId, NameId, ObjectHash, WriterId, from_hex, to_hex};
use kbak::format::index::{Index, IndexEntry, IndexHeader, IndexedPack, MAX_INDEX};
use kbak::format::layout::{self, EpochPath, ObjectClass};
use kbak::format::list::{ChunkLocation, Slice, StreamHasher, read_part, write_part};
use kbak::format::pack::{PackBuilder, PackClass, read_table};
use kbak::format::pack_refs::{EtagPrint, PackName, PackRefs, StoreTag};
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::tar::{DeviceNumber, EntryKind, Extent, FileTime, OwnerNames, TarEntry, Xattr, encode};
use kbak::format::{derive::Passphrase, padme};
use kbak::pipeline::chunker::ChunkerParams;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::support::program::succeeds;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn vectors(name: &str) -> Value {
    let bytes = std::fs::read(folder().join(name).with_extension("json")).expect("vectors");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    T::try_from(value.as_u64().expect("a number")).ok().expect("a number of this size")
}

fn id<T: std::str::FromStr>(value: &Value) -> T {
    text(value).parse().ok().expect("an id")
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex");
    text(value).as_bytes().chunks(2).map(digits).collect()
}

fn secret(value: &Value) -> SecretKey {
    SecretKey::new(from_hex(text(value)).expect("a key"))
}

fn passphrase(key: &DomainKey, class: ObjectClass) -> Passphrase {
    key.passphrase(class).expect("a symmetric class")
}

#[test]
fn derivations_match_test_vectors() {
    let all = vectors("derivations");
    let secret_key = EpochSecret(secret(&all["secret"]));
    assert_eq!(to_hex(&secret_key.commitment()), text(&all["commitment"]));
    for domain in rows(&all["domains"]) {
        let key = secret_key.domain(text(&domain["name"]));
        for row in rows(&domain["chunk_ids"]) {
            for (at, kind) in [ChunkKind::Data, ChunkKind::List, ChunkKind::Catalog].into_iter().enumerate() {
                assert_eq!(key.chunk_id(kind, text(&row[0]).as_bytes()).to_string(), text(&row[at + 1]));
            }
        }
        let table: Vec<u8> = key.gear().iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(to_hex(&Sha256::digest(table)), text(&domain["gear_sha256"]));
        for (word, expected) in key.gear().iter().zip(rows(&domain["gear_first"])) {
            assert_eq!(format!("{word:016x}"), text(expected));
        }
        for row in rows(&domain["cut"]) {
            assert_eq!(format!("{:016x}", key.cut(text(&row[0]).as_bytes())), text(&row[1]));
        }
        for row in rows(&domain["member"]) {
            assert_eq!(to_hex(&key.member(text(&row[0]).as_bytes())), text(&row[1]));
        }
        for row in rows(&domain["index_tag"]) {
            assert_eq!(to_hex(&key.index_tag(id(&row[0]))), text(&row[1]));
        }
        for class in [ObjectClass::Index, ObjectClass::Cache, ObjectClass::Record, ObjectClass::State] {
            let expected = text(&domain["passphrases"][class.folder()]);
            assert_eq!(passphrase(&key, class).expose(), expected);
        }
    }
    let names = NamesKey(secret(&all["names_key"]));
    for row in rows(&all["names"]) {
        assert_eq!(names.id(text(&row[0]), text(&row[1])).to_string(), text(&row[2]));
    }
}

#[test]
fn cut_points_match_test_vectors() {
    let all = vectors("cuts");
    let key = EpochSecret(secret(&all["secret"])).domain(text(&all["domain"]));
    for row in rows(&all["rows"]) {
        let mut data = vec![0u8; number(&row["length"])];
        if text(&row["data"]) != "zeros" {
            blake3::Hasher::new().update(text(&row["data"]).as_bytes()).finalize_xof().fill(&mut data);
        }
        let size = |name: &str| number::<usize>(&row[name]);
        let cuts = ChunkerParams::new(size("min"), size("average"), size("max"));
        let mut rest = data.as_slice();
        for length in rows(&row["chunks"]) {
            let found = cuts.chunk_length(key.gear(), rest);
            assert_eq!(found, number::<usize>(length), "{row}");
            rest = &rest[found..];
        }
        assert!(rest.is_empty(), "{row}");
    }
}

#[test]
fn signatures_match_test_vectors() {
    let all = vectors("signatures");
    let seed = |value: &Value| SigningKey::from_seed(&Zeroizing::new(from_hex(text(value)).expect("a seed")));
    let key = seed(&all["seed"]);
    assert_eq!(key.public().to_openssh(), text(&all["public"]));
    for row in rows(&all["lines"]) {
        let namespace =
            Namespace::from_text(&format!("kbak-{}-v1", text(&row["type"]))).expect("a namespace");
        assert_eq!(key.sign(namespace, text(&row["line"]).as_bytes()).expect("signed"), text(&row["armor"]));
    }
    let (writer, plan, epoch): (WriterId, NameId, EpochId) =
        (id(&all["writer"]), id(&all["plan"]), id(&all["epoch"]));
    let path = EpochPath { writer, plan, epoch };
    let hash = ObjectHash::of(text(&all["object"]).as_bytes());
    for (name, unsigned) in [
        ("epoch", layout::epoch_copy(&path, hash)),
        ("snapshot", path.snapshot(42, hash)),
        ("record", layout::record(writer, "receipt", hash)),
        ("report", layout::record(writer, layout::REPORTS, hash)),
    ] {
        assert_eq!(key.sign_key(unsigned).expect("signed").as_str(), text(&all["keys"][name]));
    }
    let index = &all["index"];
    let object = [bytes(&index["header"]), text(&index["sealed"]).as_bytes().to_vec()].concat();
    let (header, sealed) = IndexHeader::split(&object).expect("a header");
    assert_eq!(header.run, seed(&index["seed"]).public());
    assert!(header.verifies(&path, id(&all["domain"]), sealed));
}

#[test]
fn padded_lengths_match_test_vectors() {
    for row in rows(&vectors("padme")["rows"]) {
        assert_eq!(padme::padded(number(&row[0])), number::<u64>(&row[1]), "{row}");
    }
}

#[test]
fn tar_headers_match_test_vectors() {
    for row in rows(&vectors("tar")["rows"]) {
        let encoded = encode(&entry(&row["entry"])).expect("an entry");
        assert_eq!(to_hex(&encoded.header), text(&row["header"]), "{}", row["entry"]);
        assert_eq!(to_hex(&encoded.map), text(&row["map"]), "{}", row["entry"]);
    }
}

fn entry(fields: &Value) -> TarEntry {
    let size = || number(&fields["size"]);
    let link = || bytes(&fields["link"]);
    let device = || DeviceNumber { major: number(&fields["device"][0]), minor: number(&fields["device"][1]) };
    let extent = |row: &Value| Extent { offset: number(&row[0]), len: number(&row[1]) };
    let owner = |name: &str| fields.get(name).map(bytes).unwrap_or_default();
    let kind = match text(&fields["type"]) {
        "file" => EntryKind::File { size: size() },
        "sparse" => {
            EntryKind::Sparse { size: size(), extents: rows(&fields["extents"]).iter().map(extent).collect() }
        }
        "dir" => EntryKind::Directory,
        "symlink" => EntryKind::Symlink { target: link() },
        "hardlink" => EntryKind::HardLink { link_target: link() },
        "fifo" => EntryKind::Fifo,
        "char" => EntryKind::CharDevice(device()),
        "block" => EntryKind::BlockDevice(device()),
        other => panic!("the type {other}"),
    };
    let xattr = |row: &Value| Xattr { name: bytes(&row[0]), value: bytes(&row[1]) };
    let seconds = fields["mtime"][0].as_i64().expect("seconds");
    TarEntry {
        path: bytes(&fields["path"]),
        kind,
        mode: number(&fields["mode"]),
        uid: number(&fields["uid"]),
        gid: number(&fields["gid"]),
        mtime: FileTime { seconds, nanos: number(&fields["mtime"][1]) },
        names: fields.get("user").map(|_| OwnerNames { user: owner("user"), group: owner("group") }),
        xattrs: rows(&fields["xattrs"]).iter().map(xattr).collect(),
    }
}

fn place() -> (EpochPath, NameId) {
    let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
    (path, NameId([4; 8]))
}

#[test]
fn binary_objects_match_test_vectors() {
    let all = vectors("objects");
    let (path, domain) = place();
    let pack = |row: &Value| PackName { hash: id(&row[0]), size: number(&row[1]) };
    let refs = PackRefs::new(rows(&all["packs"]).iter().map(pack).collect());
    assert_eq!(to_hex(refs.seal(&path, domain).bytes()), text(&all["needs_without_etags"]));
    let etag = |hash: &ObjectHash| {
        let at = refs.packs().iter().position(|pack| pack.hash == *hash).expect("a pack");
        all["etags"][at].as_str().map(EtagPrint::of).unwrap_or_default()
    };
    let noted = refs.clone().with_etags(StoreTag::of(text(&all["store"])), etag);
    assert_eq!(to_hex(noted.seal(&path, domain).bytes()), text(&all["needs"]));
    assert_eq!(PackRefs::parse(&bytes(&all["needs"])), Some(noted));

    let slice = |row: &Value| Slice {
        location: ChunkLocation {
            pack: pack(row),
            offset: number(&row[2]),
            length: number(&row[3]),
            plain: number(&row[4]),
        },
        id: id(&row[5]),
        skip: number(&row[6]),
        take: number(&row[7]),
    };
    let slices: Vec<Slice> = rows(&all["slices"]).iter().map(slice).collect();
    assert_eq!(write_part(&slices), text(&all["part"]));
    assert_eq!(read_part(text(&all["part"]).as_bytes()).expect("a part"), slices);
    let mut hasher = StreamHasher::default();
    slices.iter().for_each(|slice| hasher.update(slice));
    assert_eq!(hasher.finish().to_string(), text(&all["stream_hash"]));

    let member = |row: &Value| CachedMember {
        digest: from_hex(text(&row[0])).expect("a digest"),
        length: number(&row[1]),
    };
    let group = CachedGroup { members: rows(&all["members"]).iter().map(member).collect(), slices };
    assert_eq!(to_hex(&group.to_bytes()), text(&all["cache_group"]));
    let key = EpochSecret(SecretKey::new([7; 32])).domain("path/srv/uploads");
    let groups = |row: &Value| GroupRef { key: number(&row[0]), object: id(&row[1]) };
    let groups: Vec<GroupRef> = rows(&all["groups"]).iter().map(groups).collect();
    let root = cache::seal_root(&groups, &path, domain, &key).expect("sealed");
    let phrase = passphrase(&key, ObjectClass::Cache);
    let plain = open(root.bytes(), &ContainerKey::Passphrase(&phrase), MAX_CACHE).expect("opened");
    assert_eq!(to_hex(&plain), text(&all["cache_root"]));
}

#[test]
fn indexes_match_test_vectors() {
    let all = vectors("objects");
    let (path, domain) = place();
    let index = &all["index"];
    let pack = |(row, class): (&Value, &Value)| IndexedPack {
        hash: id(&row[0]),
        size: number(&row[1]),
        class: if class == 0 { PackClass::Data } else { PackClass::Metadata },
    };
    let entry = |row: &Value| IndexEntry {
        id: from_hex(text(&row[0])).expect("half an id"),
        pack: number(&row[1]),
        offset: number(&row[2]),
        length: number(&row[3]),
        plain: number(&row[4]),
    };
    let made = Index {
        replaces: rows(&index["replaced"]).iter().map(id).collect(),
        packs: rows(&all["packs"]).iter().zip(rows(&index["classes"])).map(pack).collect(),
        entries: rows(&index["entries"]).iter().map(entry).collect(),
    };
    let key = EpochSecret(SecretKey::new([7; 32])).domain("path/srv/uploads");
    let run = SigningKey::from_seed(&Zeroizing::new([10; 32]));
    let sealed = made.seal(&path, domain, &key, &run).expect("sealed");
    let (header, age) = IndexHeader::split(sealed.bytes()).expect("a header");
    assert!(header.verifies(&path, domain, age));
    let phrase = passphrase(&key, ObjectClass::Index);
    let plain = open(age, &ContainerKey::Passphrase(&phrase), MAX_INDEX).expect("opened");
    assert_eq!(to_hex(&plain), text(&index["plain"]));
}

#[test]
fn packs_match_test_vectors() {
    let all = vectors("objects");
    let (path, domain) = place();
    let identity = DataIdentity::generate();
    let mut builder = PackBuilder::new(&identity.recipient(), 1 << 20, Vec::new()).expect("a pack");
    for (row, kind) in rows(&all["frames"]).iter().zip([ChunkKind::Data, ChunkKind::List, ChunkKind::Catalog])
    {
        let plain = u32::try_from(bytes(&row[2]).len()).expect("a length");
        let chunk: ChunkId = id(&row[0]);
        builder.push(kind, chunk, &bytes(&row[1]), plain).expect("added");
    }
    let sealed = builder.seal(&path, domain).expect("sealed");
    let plain = open(sealed.object.bytes(), &ContainerKey::Identity(&identity), 1 << 20).expect("opened");
    assert_eq!(to_hex(&plain), text(&all["pack"]));
    assert_eq!(read_table(&plain).expect("a table"), sealed.table);
}

#[test]
fn reader_makes_stored_test_vectors() {
    let scratch = tempfile::tempdir().expect("a folder");
    succeeds(reader().arg("vectors").arg(scratch.path()));
    for file in std::fs::read_dir(folder()).expect("vectors") {
        let name = file.expect("a file").file_name();
        let read = |folder: &Path| std::fs::read(folder.join(&name)).expect("vectors");
        assert!(
            read(scratch.path()) == read(&folder()),
            "{name:?} is another one: write it with tests/reader"
        );
    }
}

/// Returns the reader in Python, without its arguments.
pub(super) fn reader() -> Command {
    let python = std::env::var_os("KBAK_TEST_READER")
        .expect("KBAK_TEST_READER names its Python: eval \"$(scripts/tools --need reader)\"");
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader"));
    command
}
