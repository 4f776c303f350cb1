//! A folder as one stream, and back, without chunks and packs.

use std::path::Path;

use kbak::format::tar::END;
use kbak::format::tar::parse::{ExpectedInput, TarParser};
use kbak::source::volume::{
    AppendResult, EntryGap, GapKind, ReadConsistency, SkippedEntry, VolumeOptions, VolumeReader, WalkEvent,
};
use kbak::target::volume::{TargetError, TargetOptions, VolumeReport, VolumeTarget};

/// Entries that a stream did not take.
#[derive(Debug, Default)]
pub struct SkippedEntries {
    pub skipped: Vec<SkippedEntry>,
    pub gaps: Vec<EntryGap>,
    pub left_out: Vec<(kbak::source::volume::LeftOut, u64)>,
    pub members: usize,
}

/// Passes the bytes of a folder's stream to `sink`, in pieces of all sizes.
pub fn stream(folder: &Path, options: VolumeOptions, mut sink: impl FnMut(&[u8])) -> SkippedEntries {
    let volume = VolumeReader::open(folder, options).expect("a volume");
    let mut left = SkippedEntries::default();
    let mut walk = volume.walk();
    let mut buffer = vec![0u8; 100_000];
    for event in walk.by_ref() {
        let member = match event {
            WalkEvent::Skipped(skipped) => {
                left.skipped.push(skipped);
                continue;
            }
            WalkEvent::Gap(gap) => {
                left.gaps.push(gap);
                continue;
            }
            WalkEvent::Member(member) => *member,
        };
        left.members += 1;
        let path = member.entry.path.clone();
        let small = member.encoded_len() < 200_000;
        let done = if small {
            let mut whole = Vec::new();
            volume.append(member, 200_000, &mut whole).map(|appended| {
                sink(&whole);
                matches!(appended, AppendResult::Stored(_, ReadConsistency::Stable))
            })
        } else {
            volume.read(member).and_then(|mut reading| {
                let mut before = Vec::new();
                reading.member().append_before_content(&mut before)?;
                sink(&before);
                loop {
                    match reading.next_block(&mut buffer)? {
                        0 => break,
                        len => sink(&buffer[..len]),
                    }
                }
                let (member, content) = reading.finish()?;
                sink(&vec![0u8; kbak::format::tar::padding(member.content)]);
                Ok(content == ReadConsistency::Stable)
            })
        };
        match done {
            Ok(true) => {}
            Ok(false) => left.gaps.push(EntryGap { path, kind: GapKind::Changed }),
            Err(kind) => left.gaps.push(EntryGap { path, kind }),
        }
    }
    left.left_out = walk.left_out().iter().map(|(why, tallied)| (*why, tallied.count)).collect();
    sink(&END);
    left
}

/// Returns the whole stream in memory.
pub fn bytes(folder: &Path, options: VolumeOptions) -> (Vec<u8>, SkippedEntries) {
    let mut all = Vec::new();
    let left = stream(folder, options, |piece| all.extend_from_slice(piece));
    (all, left)
}

/// The error that ended a restore.
#[derive(Debug)]
pub enum VolumeRestoreError {
    Stream(kbak::format::tar::parse::ParseError),
    Target(TargetError),
}

/// A restore in progress.
pub struct VolumeRestore {
    parser: TarParser,
    target: VolumeTarget,
}

impl VolumeRestore {
    pub fn open(folder: &Path, options: TargetOptions, run: u8) -> Result<Self, VolumeRestoreError> {
        let target = VolumeTarget::open(folder, options, [run; 32]).map_err(VolumeRestoreError::Target)?;
        Ok(Self { parser: TarParser::new(ExpectedInput::Stream), target })
    }

    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), VolumeRestoreError> {
        while let Some(event) = self.parser.next(&mut piece).map_err(VolumeRestoreError::Stream)? {
            self.target.apply(event).map_err(VolumeRestoreError::Target)?;
        }
        Ok(())
    }

    pub fn finish(self) -> Result<VolumeReport, VolumeRestoreError> {
        self.parser.finish().map_err(VolumeRestoreError::Stream)?;
        self.target.finish().map_err(VolumeRestoreError::Target)
    }
}

/// Restores a stream in pieces of `piece` bytes.
pub fn restore(
    stream: &[u8],
    folder: &Path,
    options: TargetOptions,
    piece: usize,
) -> Result<VolumeReport, VolumeRestoreError> {
    let mut restore = VolumeRestore::open(folder, options, 7)?;
    for piece in stream.chunks(piece) {
        restore.feed(piece)?;
    }
    restore.finish()
}
