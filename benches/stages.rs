//! The stages of a backup and a restore, each alone in one thread: `benches/stages`.
//!
//! Each stage is one function that is not inlined, so that `benches/stages --instructions` can count the
//! instructions of that function and of all that it calls.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that unwraps fails where it should")]
#![allow(missing_docs, reason = "the macros of criterion make public items")]

use std::fmt::Write as _;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use kbak::format::container::{ContainerKey, DataIdentity, DataRecipient, open};
use kbak::format::derive::{ChunkKind, DomainKey, SecretKey};
use kbak::format::ids::{ChunkId, EpochId, NameId, ObjectHash, WriterId};
use kbak::format::layout::EpochPath;
use kbak::format::pack::{MAX_PACK, PackBuilder, SealedPack};
use kbak::format::tar::{EncodedEntry, EntryKind, FileTime, TarEntry, encode};
use kbak::kubernetes::{KindInfo, read_item_meta, split_list, to_json_line};
use kbak::pipeline::chunker::ChunkerParams;
use kbak::pipeline::codec::Codec;
use kbak::runtime::{Buffer, BufferPool, Random as _, SeededRandom};
use kbak::source::volume::{VolumeOptions, VolumeReader, WalkEvent};

/// The bytes of one piece: a segment of small files.
const PIECE: usize = 4 << 20;
/// The bytes of one frame, and the frames of a pack.
const FRAME: usize = 512 << 10;
const FRAMES: usize = 16;
/// The objects of a page, as a backup requests them.
const PAGE: usize = 500;
/// The folders of the tree that is walked, and the files of each.
const FOLDERS: usize = 20;
const FILES: usize = 100;

#[inline(never)]
fn chunk(params: &ChunkerParams, gear: &[u64; 256], mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        bytes = &bytes[params.chunk_length(gear, bytes)..];
        count += 1;
    }
    count
}

#[inline(never)]
fn id(key: &DomainKey, bytes: &[u8]) -> ChunkId {
    key.chunk_id(ChunkKind::Data, bytes)
}

#[inline(never)]
fn compress(codec: &Codec, bytes: &[u8]) -> Buffer {
    codec.encode(bytes).unwrap()
}

#[inline(never)]
fn decompress(codec: &Codec, frame: &[u8]) -> Buffer {
    codec.decode(frame, PIECE).unwrap()
}

/// Encryption, and the hash of the pack.
#[inline(never)]
fn seal(recipient: &DataRecipient, frames: &[Vec<u8>]) -> SealedPack {
    let target = FRAME * (FRAMES + 1);
    let mut pack =
        PackBuilder::new(recipient, target, Vec::with_capacity(PackBuilder::sealed_capacity(target)))
            .unwrap();
    for frame in frames {
        pack.push(ChunkKind::Data, ChunkId([1; 32]), frame, 0).unwrap();
    }
    let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
    pack.seal(&path, NameId([4; 8])).unwrap()
}

#[inline(never)]
fn open_pack(identity: &DataIdentity, sealed: &[u8]) -> Vec<u8> {
    open(sealed, &ContainerKey::Identity(identity), MAX_PACK as u64).unwrap()
}

#[inline(never)]
fn hash(bytes: &[u8]) -> ObjectHash {
    ObjectHash::of(bytes)
}

#[inline(never)]
fn scan_json(kind: &KindInfo, body: &[u8]) -> usize {
    let page = split_list(body).unwrap();
    let line = |(index, range): (usize, &std::ops::Range<usize>)| {
        let item = &body[range.clone()];
        to_json_line(item, &read_item_meta(item, index).unwrap(), kind).len()
    };
    page.items.iter().enumerate().map(line).sum()
}

#[inline(never)]
fn walk(folder: &Path) -> usize {
    let options = VolumeOptions { threads: 0, ..VolumeOptions::default() };
    let volume = VolumeReader::open(folder, options).unwrap();
    volume.walk().filter(|event| matches!(event, WalkEvent::Member(_))).count()
}

#[inline(never)]
fn tar(entries: &[TarEntry]) -> Vec<EncodedEntry> {
    entries.iter().map(|entry| encode(entry).unwrap()).collect()
}

/// Returns bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SeededRandom::new(seed).fill(&mut bytes);
    bytes
}

/// Returns text of 4,096 different words, some of them often: a third of it is left when it is compressed.
fn text(length: usize) -> Vec<u8> {
    let words = noise(1, 4096 * 6);
    let mut text = String::new();
    for number in noise(2, length).chunks_exact(2) {
        let random = usize::from(u16::from_le_bytes([number[0], number[1]])) & 4095;
        // Multiplied by itself: small numbers are frequent.
        let word = &words[random * random / 4096 * 6..][..6];
        for byte in word {
            text.push(char::from(b'a' + byte % 26));
        }
        text.push(if random % 9 == 0 { '\n' } else { ' ' });
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    text.into_bytes()
}

/// Returns the body of a page of ConfigMaps, as an API server writes it.
fn page() -> Vec<u8> {
    let value = String::from_utf8(text(600)).unwrap();
    let mut body =
        r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":["#
            .to_owned();
    for number in 0..PAGE {
        let comma = if number == 0 { "" } else { "," };
        write!(
            body,
            r#"{comma}{{"metadata":{{"name":"map-{number}","namespace":"many","uid":"{number:032x}","resourceVersion":"{number}","#
        )
        .unwrap();
        write!(body, r#""labels":{{"app":"load"}}}},"data":{{"value":{}}}}}"#, serde_json::json!(value))
            .unwrap();
    }
    body.push_str("]}");
    body.into_bytes()
}

fn kind() -> KindInfo {
    KindInfo {
        group: String::new(),
        version: "v1".to_owned(),
        plural: "configmaps".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespaced: true,
        subresources: Vec::new(),
    }
}

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..FOLDERS {
        let below = folder.path().join(number.to_string());
        std::fs::create_dir(&below).unwrap();
        for file in 0..FILES {
            std::fs::write(below.join(file.to_string()), "content").unwrap();
        }
    }
    folder
}

fn entries() -> Vec<TarEntry> {
    let entry = |number: usize| TarEntry {
        path: format!("folder/{}/file-{number}", number / FILES).into_bytes(),
        kind: EntryKind::File { size: 100 },
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        mtime: FileTime { seconds: 1_700_000_000, nanos: 5 },
        names: None,
        xattrs: Vec::new(),
    };
    (0..FOLDERS * FILES).map(entry).collect()
}

fn bytes_in_stages(criterion: &mut Criterion) {
    let key = DomainKey::new(&SecretKey::new([9; 32]));
    let piece = text(PIECE);
    let mut group = criterion.benchmark_group("bytes");
    group.throughput(Throughput::Bytes(PIECE as u64)).sample_size(20);
    let params = ChunkerParams::new(512 << 10, 1536 << 10, 4 << 20);
    group.bench_function("chunk", |bencher| bencher.iter(|| chunk(&params, key.gear(), &piece)));
    group.bench_function("id", |bencher| bencher.iter(|| id(&key, &piece)));
    group.bench_function("hash", |bencher| bencher.iter(|| hash(&piece)));
    let pool = BufferPool::new(64 << 20);
    for (name, verify) in [("compress", false), ("compress_and_verify", true)] {
        let codec = Codec::new(2, verify, pool.clone());
        group.bench_function(name, |bencher| bencher.iter(|| compress(&codec, &piece)));
    }
    let codec = Codec::new(2, false, pool);
    let frame = codec.encode(&piece).unwrap();
    group.bench_function("decompress", |bencher| bencher.iter(|| decompress(&codec, &frame)));
    group.finish();
}

fn packs(criterion: &mut Criterion) {
    let identity = DataIdentity::generate();
    let recipient = identity.recipient();
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(|seed| noise(seed as u64, FRAME)).collect();
    let sealed = seal(&recipient, &frames);
    let mut group = criterion.benchmark_group("packs");
    group.throughput(Throughput::Bytes((FRAME * FRAMES) as u64)).sample_size(20);
    group.bench_function("seal", |bencher| {
        bencher.iter_batched(|| (), |()| seal(&recipient, &frames), BatchSize::PerIteration);
    });
    group.bench_function("open_pack", |bencher| {
        bencher.iter(|| open_pack(&identity, sealed.object.bytes()));
    });
    group.finish();
}

fn entries_in_stages(criterion: &mut Criterion) {
    let (body, kind, entries, folder) = (page(), kind(), entries(), tree());
    let mut group = criterion.benchmark_group("entries");
    group.throughput(Throughput::Elements(PAGE as u64)).sample_size(20);
    group.bench_function("scan_json", |bencher| bencher.iter(|| scan_json(&kind, &body)));
    group.throughput(Throughput::Elements((FOLDERS * FILES) as u64));
    group.bench_function("walk", |bencher| bencher.iter(|| walk(folder.path())));
    group.bench_function("tar", |bencher| bencher.iter(|| tar(&entries)));
    group.finish();
}

criterion_group!(stages, bytes_in_stages, packs, entries_in_stages);
criterion_main!(stages);
