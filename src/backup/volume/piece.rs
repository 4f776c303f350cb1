//! One piece of a volume: some members are read and encoded, others reused from the last run.

use std::sync::Arc;

use jiff::Timestamp;

use crate::format::cache::NO_DIGEST;
use crate::format::catalog::{CatalogLine, MemberType};
use crate::format::derive::DomainKey;
use crate::format::list::Slice;
use crate::format::name::Name;
use crate::format::pack::MAX_CHUNK;
use crate::format::tar::EntryKind;
use crate::format::tar::pax::format_time;
use crate::pipeline::SourceError;
use crate::pipeline::piece::{PieceOutput, PieceRun, StreamMember};
use crate::report::event::Meter;
use crate::runtime::Buffer;
use crate::source::volume::{
    AppendResult, GapKind, MemberDigest, ReadConsistency, VolumeMember, VolumeReader,
};

use super::findings::VolumeFindings;

/// The data that all jobs of a volume share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct VolumeContext {
    /// The folder to back up.
    pub volume: VolumeReader,
    /// The domain's key.
    pub key: Arc<DomainKey>,
    /// Gaps and left-out entries.
    pub findings: VolumeFindings,
    /// Counts files.
    pub meter: Arc<Meter>,
}

/// One member of a piece.
#[derive(Debug)]
pub enum PlannedMember {
    /// A member to read, as the walk saw it.
    Read(Box<VolumeMember>),
    /// An unchanged member, whose bytes are in these slices.
    Unchanged {
        /// The member as the walk saw it.
        member: Box<VolumeMember>,
        /// The slices that hold its bytes.
        slices: Vec<Slice>,
    },
    /// Bytes without a member of their own: the header of a large file.
    Bytes(Vec<u8>),
}

impl VolumeContext {
    /// Returns the digest of a member read since `started` if the next run may trust it, else [`NO_DIGEST`].
    #[must_use]
    pub fn settled_digest(
        &self,
        member: &VolumeMember,
        content: ReadConsistency,
        started: Timestamp,
    ) -> MemberDigest {
        let shows_changes = content == ReadConsistency::Stable && member.has_stated_length();
        if shows_changes && self.volume.is_settled(&member.stat, started) { member.digest } else { NO_DIGEST }
    }

    /// Reads and encodes a piece into an empty buffer. Runs on a worker.
    pub fn run(
        &self,
        planned: Vec<PlannedMember>,
        started: Timestamp,
        buffer: Buffer,
    ) -> Result<PieceOutput, SourceError> {
        let mut output = PieceOutput { data: buffer, ..PieceOutput::default() };
        let mut length = 0i64;
        for planned in planned {
            let before = output.data.len();
            match planned {
                PlannedMember::Bytes(bytes) => {
                    output.data.extend_from_slice(&bytes);
                    length += add_fresh(&mut output, before);
                }
                PlannedMember::Unchanged { member, slices } if !self.has_unstored_link_target(&member) => {
                    self.store(&mut output, &member, length, member.digest);
                    length += i64::try_from(member.encoded_len())?;
                    output.runs.push(PieceRun::Known(slices));
                    self.meter.add_done(1);
                }
                PlannedMember::Unchanged { member, .. } | PlannedMember::Read(member) => {
                    // If the link target was not stored, the content is stored under this path.
                    let unstored = self.has_unstored_link_target(&member);
                    let appended = self.append(*member, unstored, &mut output.data);
                    let Some((member, content)) = appended else { continue };
                    let digest = self.settled_digest(&member, content, started);
                    self.store(&mut output, &member, length, digest);
                    length += add_fresh(&mut output, before);
                    self.meter.add_done(1);
                }
            }
        }
        Ok(output)
    }

    fn store(&self, output: &mut PieceOutput, member: &VolumeMember, at: i64, digest: MemberDigest) {
        if let EntryKind::HardLink { link_target } = &member.entry.kind {
            self.findings.record_link(link_target);
        }
        output.members.push(catalog_member(member, at, digest));
    }

    /// True if the file that a member links to could not be stored.
    fn has_unstored_link_target(&self, member: &VolumeMember) -> bool {
        matches!(&member.entry.kind, EntryKind::HardLink { link_target } if self.findings.is_unstored_link_target(link_target))
    }

    /// Appends a member and returns it; `None` if it could not be stored, which is recorded. A link whose target
    /// is `unstored` becomes a file.
    fn append(
        &self,
        member: VolumeMember,
        unstored: bool,
        fresh: &mut Vec<u8>,
    ) -> Option<(VolumeMember, ReadConsistency)> {
        let path = member.entry.path.clone();
        let has_links = member.stat.has_links();
        let room = (MAX_CHUNK - fresh.len()) as u64;
        let member = if unstored { self.volume.inspect_again(&path) } else { Ok(member) };
        let gap = match member.and_then(|member| self.volume.append(member, room, fresh)) {
            Ok(AppendResult::Stored(member, content)) => {
                if content != ReadConsistency::Stable {
                    self.findings.gap(&path, &GapKind::Changed);
                }
                return Some((member, content));
            }
            Ok(AppendResult::TooLarge(member)) if !member.has_stated_length() => GapKind::WrongSize,
            Ok(AppendResult::TooLarge(_)) => GapKind::Changed,
            Err(gap) => gap,
        };
        self.findings.record_unstored(&path, &gap, has_links);
        None
    }
}

/// Adds the bytes appended since `before` as new, and returns their number.
fn add_fresh(output: &mut PieceOutput, before: usize) -> i64 {
    let (skip, take) = (before, output.data.len() - before);
    // At most one chunk, so 32 bits hold it.
    let (skip, take) = (u32::try_from(skip).unwrap_or(u32::MAX), u32::try_from(take).unwrap_or(u32::MAX));
    match output.runs.last_mut() {
        Some(PieceRun::New { skip: start, take: so_far }) if *start + *so_far == skip => *so_far += take,
        _ if take > 0 => output.runs.push(PieceRun::New { skip, take }),
        _ => {}
    }
    i64::from(take)
}

/// Returns a member as the pipeline takes it, starting `at` bytes into the piece.
#[must_use]
pub fn catalog_member(member: &VolumeMember, at: i64, digest: MemberDigest) -> StreamMember {
    let (kind, size, link) = match &member.entry.kind {
        EntryKind::File { size } | EntryKind::Sparse { size, .. } => (MemberType::File, Some(*size), None),
        EntryKind::Directory => (MemberType::Dir, None, None),
        EntryKind::Symlink { target } => (MemberType::Symlink, None, Some(target)),
        EntryKind::HardLink { link_target } => (MemberType::Hardlink, None, Some(link_target)),
        EntryKind::Fifo => (MemberType::Fifo, None, None),
        EntryKind::CharDevice(_) => (MemberType::Char, None, None),
        EntryKind::BlockDevice(_) => (MemberType::Block, None, None),
    };
    let line = CatalogLine {
        path: Name(member.entry.path.clone()),
        kind,
        at: 0,
        len: 0,
        size,
        mode: Some(format!("{:04o}", member.stat.mode & 0o7777)),
        uid: Some(member.stat.uid),
        gid: Some(member.stat.gid),
        mtime: Some(format_time(member.stat.mtime)),
        link: link.map(|link| Name(link.clone())),
    };
    StreamMember { at, length: member.encoded_len(), line: Some(line), digest }
}
