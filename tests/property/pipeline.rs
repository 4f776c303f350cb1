//! Streams through packs and back, with clock and randomness that repeat by seed.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use kbak::format::catalog::{CatalogLine, MemberType};
use kbak::format::container::DataIdentity;
use kbak::format::derive::{DomainKey, SecretKey};
use kbak::format::ids::{EpochId, NameId, WriterId};
use kbak::format::layout::{EpochPath, ObjectClass};
use kbak::format::name::Name;
use kbak::format::sign::SigningKey;
use kbak::format::{body, pack::PackClass};
use kbak::pipeline::chunk_index::ChunkIndex;
use kbak::pipeline::context::{EpochTarget, PipelineContext};
use kbak::pipeline::domain::DomainWriter;
use kbak::pipeline::fetch::Fetcher;
use kbak::pipeline::limits::MemoryLimits;
use kbak::pipeline::piece::{Piece, StreamMember};
use kbak::pipeline::reader::StreamReader;
use kbak::pipeline::stream::WrittenDomain;
use kbak::report::event::Reporter;
use kbak::repository::index_loader::{DomainIndexLoader, Loaded, TrustedIndexes};
use kbak::runtime::{Random, Runtime, SeededRandom};
use kbak::store::Store;
use kbak::store::memory::MemoryStore;
use kbak::store::recording::RecordingStore;
use proptest::prelude::*;

const DOMAIN: NameId = NameId([4; 8]);

struct TestDomain {
    store: Arc<dyn Store>,
    runtime: Runtime,
    identity: DataIdentity,
    path: EpochPath,
    key: DomainKey,
    run: Arc<SigningKey>,
}

impl TestDomain {
    fn new(seed: u64) -> Self {
        let runtime = Runtime::seeded(seed, "2026-11-23T02:00:00Z".parse().unwrap());
        let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
        Self {
            store: Arc::new(MemoryStore::new(runtime.clock.clone())),
            runtime,
            identity: DataIdentity::generate(),
            path,
            key: DomainKey::new(&SecretKey::new([9; 32])),
            run: Arc::new(SigningKey::from_seed(&[4; 32].into())),
        }
    }

    fn writer(&self, known: ChunkIndex) -> Arc<DomainWriter> {
        let limits = MemoryLimits::divide(64 << 20, 1 << 20);
        let engine = PipelineContext::new(
            self.runtime.clone(),
            self.store.clone(),
            Reporter::silent(),
            limits,
            3,
            true,
        );
        let run = self.run.clone();
        let target = EpochTarget { path: self.path, recipient: self.identity.recipient(), run };
        DomainWriter::new(engine, target, DOMAIN, self.key.clone(), known)
    }

    /// Writes `pieces` as one stream, one member each.
    async fn write(&self, pieces: &[Vec<u8>], known: ChunkIndex) -> WrittenDomain {
        let domain = self.writer(known);
        let mut stream = domain.stream();
        for (at, bytes) in pieces.iter().enumerate() {
            let piece = Piece::of_bytes(bytes.clone(), vec![member(at, bytes.len())]);
            stream.push(if at % 7 == 0 { piece.starting_group() } else { piece }).await.unwrap();
        }
        let pending = stream.finish().await.unwrap();
        domain.finish(vec![pending]).await.unwrap()
    }

    fn reader(&self, written: &WrittenDomain) -> StreamReader {
        self.reader_of(self.store.clone(), written, 32 << 20)
    }

    fn reader_of(&self, store: Arc<dyn Store>, written: &WrittenDomain, memory: u64) -> StreamReader {
        let (key, identity) = (Arc::new(self.key.clone()), self.identity.clone());
        let fetcher = Fetcher::new(store, self.path, DOMAIN, identity, key, self.runtime.workers, memory);
        let stream = &written.streams[0];
        let body = body::Stream {
            name: "x".into(),
            format: "x".into(),
            domain: DOMAIN,
            length: stream.length,
            members: stream.members,
            hash: stream.hash,
            sha256: None,
            parts: stream.parts.clone(),
            catalog: stream.catalog.clone(),
        };
        StreamReader::new(Arc::new(fetcher), body, 4)
    }

    /// Returns the store's index, and the packs that it names and the store lacks.
    async fn stored_index(&self) -> Loaded {
        let key = Arc::new(self.key.clone());
        let none = BTreeSet::new();
        let reporter = Reporter::silent();
        let loader =
            DomainIndexLoader { store: &self.store, path: self.path, domain: DOMAIN, reporter: &reporter };
        let named = std::collections::HashSet::new();
        let trusted = TrustedIndexes { named: &named, runs: &[self.run.public()] };
        loader.load(&key, &none, trusted, &[], 0).await.unwrap()
    }
}

fn member(at: usize, length: usize) -> StreamMember {
    let line = CatalogLine {
        path: Name::from(format!("m{at:06}").as_str()),
        kind: MemberType::File,
        at: 0,
        len: 0,
        size: Some(length as u64),
        mode: None,
        uid: None,
        gid: None,
        mtime: None,
        link: None,
    };
    StreamMember::uncached(0, length as u64, Some(line))
}

async fn read(reader: &StreamReader, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = reader.range(range);
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    bytes
}

fn pieces(seed: u64, sizes: &[usize]) -> Vec<Vec<u8>> {
    let random = SeededRandom::new(seed);
    sizes
        .iter()
        .map(|size| {
            let mut bytes = vec![0; *size];
            random.fill(&mut bytes);
            bytes
        })
        .collect()
}

fn nothing() -> ChunkIndex {
    ChunkIndex::new(0, Reporter::silent())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn written_bytes_read_back(seed in any::<u64>(), sizes in prop::collection::vec(1usize..300_000, 1..40)) {
        let pieces = pieces(seed, &sizes);
        let whole = pieces.concat();
        runtime().block_on(async {
            let fixture = TestDomain::new(seed);
            let written = fixture.write(&pieces, nothing()).await;
            prop_assert_eq!(written.streams[0].length, whole.len() as u64);
            let reader = fixture.reader(&written);
            prop_assert!(read(&reader, 0..whole.len() as u64).await == whole);
            for (from, to) in [(0, 1), (whole.len() / 3, whole.len() / 2 + 1), (whole.len() - 1, whole.len())] {
                prop_assert!(read(&reader, from as u64..to as u64).await == whole[from..to]);
            }
            // The catalog names each member's place.
            let lines: Vec<_> = reader.catalog().map(|line| line.unwrap()).collect().await;
            prop_assert_eq!(lines.len(), pieces.len());
            let mut at = 0;
            for ((place, line), piece) in lines.iter().zip(&pieces) {
                prop_assert_eq!((*place, line.len), (at, piece.len() as u64));
                at += piece.len() as u64;
            }
            Ok(())
        })?;
    }
}

#[test]
fn second_run_stores_no_data_again() {
    let pieces = pieces(7, &[200_000; 30]);
    runtime().block_on(async {
        let fixture = TestDomain::new(7);
        let first = fixture.write(&pieces, nothing()).await;
        let Loaded { known, lost, .. } = fixture.stored_index().await;
        assert_eq!(lost, []);
        assert!(!known.packs(PackClass::Data).is_empty() && !known.packs(PackClass::Metadata).is_empty());
        let second = fixture.write(&pieces, known).await;
        assert_eq!((second.packs, second.index.len()), (0, 0), "everything was known");
        assert_eq!(second.streams[0].packs, first.streams[0].packs);
        assert_eq!(second.streams[0].hash, first.streams[0].hash);
        assert_eq!(read(&fixture.reader(&second), 0..6_000_000).await, pieces.concat());
    });
}

#[test]
fn lost_pack_is_stored_again() {
    let pieces = pieces(8, &[200_000; 30]);
    runtime().block_on(async {
        let fixture = TestDomain::new(8);
        let first = fixture.write(&pieces, nothing()).await;
        let lost = *first.streams[0].packs.iter().min().expect("a pack");
        fixture.store.delete(&fixture.path.in_domain(DOMAIN, ObjectClass::Pack, lost.hash)).await.unwrap();
        let loaded = fixture.stored_index().await;
        assert_eq!(loaded.lost, [lost]);
        let second = fixture.write(&pieces, loaded.known).await;
        assert!(second.packs >= 1 && !second.streams[0].packs.contains(&lost));
        assert_eq!(read(&fixture.reader(&second), 0..6_000_000).await, pieces.concat());
    });
}

#[test]
fn packs_beyond_the_memory_budget_are_not_fetched_for_every_chunk() {
    let pieces = pieces(9, &[100_000; 160]);
    runtime().block_on(async {
        let fixture = TestDomain::new(9);
        fixture.write(&pieces, nothing()).await;
        // The same pieces in another order: neighbours are in packs far apart.
        let mixed: Vec<Vec<u8>> = (0..160).map(|at| pieces[at * 77 % 160].clone()).collect();
        let second = fixture.write(&mixed, fixture.stored_index().await.known).await;
        let record = Arc::new(RecordingStore::new(fixture.store.clone()));
        // Memory for two of the sixteen packs.
        let reader = fixture.reader_of(record.clone(), &second, 5 << 20);
        assert!(read(&reader, 0..16_000_000).await == mixed.concat());
        let fetched: u64 = record.recorded().iter().map(|operation| operation.bytes).sum();
        assert!(fetched < 3 * 16_000_000, "{fetched} bytes for 16,000,000");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_stream_loses_no_chunk_of_another_stream() {
    for seed in 0..24 {
        let mut fixture = TestDomain::new(seed);
        fixture.runtime.workers = kbak::runtime::Workers::Threads { count: 2 };
        let kept = pieces(seed, &[90_000; 4]);
        let lost = pieces(seed + 1000, &[90_000; 12]);
        let domain = fixture.writer(nothing());
        let (mut good, mut bad) = (domain.stream(), domain.stream());
        for (at, bytes) in kept.iter().enumerate() {
            good.push(Piece::of_bytes(bytes.clone(), vec![member(at, bytes.len())])).await.unwrap();
        }
        let pending = good.finish().await.unwrap();
        // The stream is dropped while its chunks go into the same pack as those of the other.
        for bytes in lost.iter().take(seed as usize % 12 + 1) {
            bad.push(Piece::of_bytes(bytes.clone(), Vec::new())).await.unwrap();
        }
        drop(bad);
        let written = domain.finish(vec![pending]).await.expect("the other stream is whole");
        let whole = kept.concat();
        assert!(read(&fixture.reader(&written), 0..whole.len() as u64).await == whole, "seed {seed}");
    }
}
