//! One piece of a volume: some members are read and encoded, others reused from the last run.

use std::sync::Arc;

use jiff::Timestamp;

use crate::format::cache::NO_DIGEST;
use crate::format::catalog::{Line, Type};
use crate::format::derive::DomainKey;
use crate::format::list::Slice;
use crate::format::name::Name;
use crate::format::pack::MAX_CHUNK;
use crate::format::tar::Kind;
use crate::pipeline::SourceError;
use crate::pipeline::piece::{Member, Output, Run};
use crate::report::event::Meter;
use crate::source::volume::Member as Walked;
use crate::source::volume::{Appended, Content, GapKind, Volume};

use super::findings::Findings;

/// The data that all jobs of a volume share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// The folder to back up.
    pub volume: Volume,
    /// The domain's key.
    pub key: Arc<DomainKey>,
    /// Prefix of every digest: the walk's parameters.
    pub parameters: Arc<Vec<u8>>,
    /// Gaps and left-out entries.
    pub findings: Findings,
    /// Counts files.
    pub meter: Arc<Meter>,
}

/// One member of a piece.
#[derive(Debug)]
pub enum Planned {
    /// A member to read.
    Read(Box<Walked>),
    /// An unchanged member, whose bytes are in these slices.
    Known {
        /// The member as the walk saw it.
        member: Box<Walked>,
        /// The slices that hold its bytes.
        slices: Vec<Slice>,
        /// Its digest in the scan cache.
        digest: [u8; 16],
    },
    /// Bytes without a member of their own: the header of a large file.
    Bytes(Vec<u8>),
}

impl Context {
    /// Returns the digest of a member in the scan cache.
    #[must_use]
    pub fn digest(&self, member: &Walked) -> [u8; 16] {
        let mut seen = self.parameters.to_vec();
        member.seen(&mut seen);
        self.key.member(&seen)
    }

    /// Returns the digest of a member read since `started` if the next run may trust it, else [`NO_DIGEST`].
    #[must_use]
    pub fn settled_digest(&self, member: &Walked, content: Content, started: Timestamp) -> [u8; 16] {
        if content == Content::Settled && self.volume.settled(&member.stat, started) {
            self.digest(member)
        } else {
            NO_DIGEST
        }
    }

    /// Reads and encodes a piece. Runs on a worker.
    pub fn run(&self, planned: Vec<Planned>, started: Timestamp) -> Result<Output, SourceError> {
        let mut output = Output::default();
        let mut length = 0i64;
        for planned in planned {
            let before = output.fresh.len();
            match planned {
                Planned::Bytes(bytes) => {
                    output.fresh.extend_from_slice(&bytes);
                    length += add_fresh(&mut output, before);
                }
                Planned::Known { member, slices, digest } if !self.lost_its_carrier(&member) => {
                    self.store(&mut output, &member, length, digest);
                    length += i64::try_from(member.encoded_len())?;
                    output.runs.push(Run::Known(slices));
                    self.meter.add_done(1);
                }
                Planned::Known { member, .. } | Planned::Read(member) => {
                    let Some((member, content)) = self.append(*member, &mut output.fresh) else { continue };
                    let digest = self.settled_digest(&member, content, started);
                    self.store(&mut output, &member, length, digest);
                    length += add_fresh(&mut output, before);
                    self.meter.add_done(1);
                }
            }
        }
        Ok(output)
    }

    fn store(&self, output: &mut Output, member: &Walked, at: i64, digest: [u8; 16]) {
        if let Kind::HardLink { carrier } = &member.kind {
            self.findings.link(carrier);
        }
        output.members.push(record(member, at, digest));
    }

    /// True if the file that a member links to could not be stored.
    fn lost_its_carrier(&self, member: &Walked) -> bool {
        matches!(&member.kind, Kind::HardLink { carrier } if self.findings.lost_carrier(carrier))
    }

    /// Appends a member and returns it; `None` if it could not be stored, which is recorded.
    fn append(&self, member: Walked, fresh: &mut Vec<u8>) -> Option<(Walked, Content)> {
        let path = member.path.clone();
        let carries = member.stat.has_links();
        let room = (MAX_CHUNK - fresh.len()) as u64;
        // If the carrier was lost, this path carries the content.
        let lost = self.lost_its_carrier(&member);
        let member = if lost { self.volume.look_again(&path) } else { Ok(member) };
        let gap = match member.and_then(|member| self.volume.append(member, room, fresh)) {
            Ok(Appended::Stored(member, content)) => {
                if content == Content::Changed {
                    self.findings.gap(&path, &GapKind::Changed);
                }
                return Some((member, content));
            }
            Ok(Appended::TooLarge(_)) => GapKind::Changed,
            Err(gap) => gap,
        };
        self.findings.lose(&path, &gap, carries);
        None
    }
}

/// Adds the bytes appended since `before` as new, and returns their number.
fn add_fresh(output: &mut Output, before: usize) -> i64 {
    let (skip, take) = (before, output.fresh.len() - before);
    // At most one chunk, so 32 bits hold it.
    let (skip, take) = (u32::try_from(skip).unwrap_or(u32::MAX), u32::try_from(take).unwrap_or(u32::MAX));
    match output.runs.last_mut() {
        Some(Run::Fresh { skip: start, take: so_far }) if *start + *so_far == skip => *so_far += take,
        _ if take > 0 => output.runs.push(Run::Fresh { skip, take }),
        _ => {}
    }
    i64::from(take)
}

/// Returns a member as the pipeline takes it, starting `at` bytes into the piece.
#[must_use]
pub fn record(member: &Walked, at: i64, digest: [u8; 16]) -> Member {
    let (kind, size, link) = match &member.kind {
        Kind::File { size } | Kind::Sparse { size, .. } => (Type::File, Some(*size), None),
        Kind::Directory => (Type::Dir, None, None),
        Kind::Symlink { target } => (Type::Symlink, None, Some(target)),
        Kind::HardLink { carrier } => (Type::Hardlink, None, Some(carrier)),
        Kind::Fifo => (Type::Fifo, None, None),
        Kind::CharDevice(_) => (Type::Char, None, None),
        Kind::BlockDevice(_) => (Type::Block, None, None),
    };
    let mtime = member.stat.mtime;
    let line = Line {
        path: Name(member.path.clone()),
        kind,
        at: 0,
        len: 0,
        size,
        mode: Some(format!("{:04o}", member.stat.mode & 0o7777)),
        uid: Some(member.stat.uid),
        gid: Some(member.stat.gid),
        mtime: Some(format!("{}.{:09}", mtime.seconds, mtime.nanos)),
        link: link.map(|link| Name(link.clone())),
    };
    Member { at, length: member.encoded_len(), line: Some(line), digest }
}
