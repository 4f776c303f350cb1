//! Memory of a domain's chunk index by the number of its chunks and packs, on generated index objects:
//! `cargo bench --profile soak --features testing --bench sizing [CHUNKS]`.
//!
//! Prints rows of the sizing table in docs/performance.md. Each row is a process of its own, so that memory
//! that one index gave back is not counted as that of the next.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that unwraps fails where it should"
)]
#![allow(clippy::print_stdout, reason = "the table is what it is run for")]

use kbak::format::ids::ObjectHash;
use kbak::format::index::{Index, IndexEntry, IndexedPack};
use kbak::format::pack::PackClass;
use kbak::pipeline::chunk_index::ChunkIndex;
use kbak::pipeline::limits::MemoryLimits;
use kbak::report::event::Reporter;
use kbak::report::memory::resident;

/// The chunks of one index object.
const OBJECT: u64 = 100_000;

/// A row: its name, the chunks of each pack, and the index's share of memory.
struct Row {
    name: &'static str,
    chunks_in_pack: u64,
    share: u64,
}

fn rows() -> [Row; 4] {
    let share = MemoryLimits::divide(128 << 20, 1 << 20).index;
    [
        Row { name: "few packs, all in memory", chunks_in_pack: OBJECT, share: u64::MAX },
        Row { name: "30 chunks a pack, all in memory", chunks_in_pack: 30, share: u64::MAX },
        Row { name: "few packs, limits.memory 128Mi", chunks_in_pack: OBJECT, share },
        Row { name: "30 chunks a pack, limits.memory 128Mi", chunks_in_pack: 30, share },
    ]
}

/// Returns 32 bytes that look random and differ for each number.
fn mixed(number: u64) -> [u8; 32] {
    ObjectHash::of(&number.to_le_bytes()).0
}

/// Returns index object `number` with its own packs and chunks.
fn object(number: u64, chunks_in_pack: u64) -> Index {
    let packs = OBJECT.div_ceil(chunks_in_pack);
    let pack = |at: u64| IndexedPack {
        hash: ObjectHash(mixed(number << 32 | 1 << 31 | at)),
        size: 16 << 20,
        class: PackClass::Data,
    };
    let entry = |at: u64| IndexEntry {
        id: mixed(number << 32 | at)[..16].try_into().unwrap(),
        pack: u32::try_from(at / chunks_in_pack).unwrap(),
        offset: 0,
        length: 500_000,
        plain: 1_500_000,
    };
    Index {
        replaces: Vec::new(),
        packs: (0..packs).map(pack).collect(),
        entries: (0..OBJECT).map(entry).collect(),
    }
}

fn measure(row: &Row, chunks: u64) {
    let before = resident().expect("the kernel says").now;
    let mut index = ChunkIndex::new(row.share, Reporter::silent());
    for number in 0..chunks / OBJECT {
        assert!(index.load(&object(number, row.chunks_in_pack), |_| true).is_empty());
    }
    let mib = (resident().expect("the kernel says").now.saturating_sub(before)) as f64 / f64::from(1 << 20);
    let packs = chunks / OBJECT * OBJECT.div_ceil(row.chunks_in_pack);
    println!("| {} | {chunks} | {packs} | {mib:.0} |", row.name);
    drop(index);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<u64>().expect("a number"));
    let chunks = number(0).unwrap_or(1_000_000);
    if let Some(row) = number(1) {
        return measure(&rows()[usize::try_from(row).unwrap()], chunks);
    }
    println!("| index | chunks | packs | memory, MiB |\n|---|---|---|---|");
    for row in 0..rows().len() {
        let program = std::env::current_exe().expect("its own path");
        let status = std::process::Command::new(program)
            .args([chunks.to_string(), row.to_string()])
            .status()
            .expect("it runs");
        assert!(status.success());
    }
}
