//! Walks the members of a volume in order; several threads inspect entries ahead of the caller.
//!
//! One thread plans ([`super::planner`]) and cuts the walk into batches of at most 64 entries.
//! Workers inspect the entries of a batch (attributes, links, extended attributes, holes) and
//! encode their headers. The caller takes the batches in the order of the plan. At most `QUEUE`
//! batches wait. In them a member with more than 2 KiB of extended attributes or 64 extents is only
//! noted, and inspected when its turn comes. That is some 2 KiB a member, 2 MiB in all, and at
//! worst (paths and targets of 4 KiB) 12 MiB.
//!
//! The caller's thread decides on hard links, because they depend on the order: the first path of
//! an inode carries it. For each inode with several names the carrier's path is kept until the last
//! name was seen: the path and some 80 bytes.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::vec;

use rustix::io::Errno;

use super::Volume;
use super::inspect::{Inspected, Limits, Member};
use super::planner::{Planner, Request, Step, What};
use super::tally::Tally;
use crate::format::tar::{EncodeError, ROOT};
use crate::fs::stat::Inode;
use crate::runtime::lock;

/// The most batches that wait for the caller.
const QUEUE: usize = 16;

/// The next result of a walk.
#[derive(Debug)]
pub enum Walked {
    /// An entry that is included.
    Member(Box<Member>),
    /// An entry that a rule leaves out; it is named, and nothing is missing.
    Skipped(Skipped),
    /// An entry that could not be included.
    Gap(Gap),
}

/// An entry that a rule leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The path.
    pub path: Vec<u8>,
    /// The rule.
    pub why: Skip,
}

/// The rule by which an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// A socket: its server creates a new one.
    Socket,
    /// A mount point. A directory's own member is kept, with the attributes that are visible.
    MountPoint,
    /// Another file system without a mount point, such as a btrfs subvolume. Its directory is kept.
    OtherFileSystem,
    /// The file system's own `lost+found`.
    LostAndFound,
    /// Neither file, directory, link, pipe, device nor socket.
    UnknownType,
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket => "a socket",
            Self::MountPoint => "a mount point",
            Self::OtherFileSystem => "another file system",
            Self::LostAndFound => "the file system's lost+found",
            Self::UnknownType => "of unknown type",
        })
    }
}

/// A part left out of members, or an entry too common to name each time; counted, with the first paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// The entry matches an exclude pattern.
    Excluded,
    /// The entry was removed between the listing of its directory and its inspection.
    Vanished,
    /// A `trusted.*` attribute.
    TrustedXattr,
    /// The `security.selinux` attribute.
    SelinuxXattr,
    /// An attribute of another namespace, which cannot be set again.
    OtherXattr,
    /// An attribute that could not be read.
    UnreadableXattr,
    /// The immutable or append-only flag.
    LockedFlag,
}

/// An entry that could not be included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {kind}", String::from_utf8_lossy(path))]
pub struct Gap {
    /// The path. A directory may stand for all its content.
    pub path: Vec<u8>,
    /// The reason.
    #[source]
    pub kind: GapKind,
}

/// The reason why an entry could not be included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GapKind {
    /// A directory cannot be opened: its content is missing.
    #[error("the directory cannot be opened")]
    OpenDirectory(#[source] Errno),
    /// A directory cannot be listed: its content is missing.
    #[error("the directory cannot be listed")]
    ReadDirectory(#[source] Errno),
    /// The names of a directory exceed the bound of [`super::listing`].
    #[error("the directory holds more names than fit in memory")]
    TooManyNames,
    /// The attributes cannot be read.
    #[error("the attributes cannot be read")]
    Stat(#[source] Errno),
    /// The map of holes cannot be read.
    #[error("the holes cannot be found")]
    Holes(#[source] Errno),
    /// A file cannot be opened.
    #[error("the file cannot be opened")]
    Open(#[source] Errno),
    /// A file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] Errno),
    /// The path from the root exceeds `PATH_MAX`: its content is missing.
    #[error("the path is longer than 4095 bytes")]
    PathTooLong,
    /// Another file, or one of another type, took its place during the walk.
    #[error("it was replaced by something else meanwhile")]
    Replaced,
    /// A file with further names was deleted or replaced during the walk. Links to it may be in the
    /// stream already, so nothing else is stored under its path.
    #[error("it was deleted or replaced meanwhile, and names that are linked to it may be missing, too")]
    CarrierGone,
    /// It changed each time it was read. The stored content has the declared length, and is mixed.
    #[error("it changed while it was read")]
    Changed,
    /// The attributes do not fit into a header.
    #[error("its attributes cannot be stored")]
    Encode(#[source] EncodeError),
    /// A thread of the walk is gone, so all later entries are missing. This is a bug.
    #[error("the walk stopped early, by a bug")]
    Stopped,
}

type Batch = Vec<(Step, Option<Inspected>)>;

enum Job {
    Look(Vec<Step>, SyncSender<Batch>),
    List(Request),
}

enum Source {
    Inline(Box<Planner>),
    Threads { batches: Receiver<Option<Receiver<Batch>>>, threads: Vec<JoinHandle<()>> },
    Over,
}

struct Carrier {
    path: Vec<u8>,
    links_left: u32,
}

/// An iterator over the members of a volume, in order.
pub struct Walk {
    volume: Volume,
    source: Source,
    batch: vec::IntoIter<(Step, Option<Inspected>)>,
    carriers: HashMap<Inode, Carrier>,
    left_out: Tally<LeftOut>,
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl Walk {
    pub(super) fn start(volume: Volume) -> Self {
        let source = match volume.inner.options.threads {
            0 => Source::Inline(Box::new(Planner::new(volume.clone(), None))),
            count => start_threads(&volume, count),
        };
        let (batch, carriers) = (Vec::new().into_iter(), HashMap::new());
        Self { volume, source, batch, carriers, left_out: Tally::default() }
    }

    /// Returns the count of everything left out so far that was not named one by one.
    #[must_use]
    pub fn left_out(&self) -> &Tally<LeftOut> {
        &self.left_out
    }

    /// Receives the next batch; returns false at the end.
    fn refill(&mut self) -> Result<bool, GapKind> {
        let batch = match &mut self.source {
            Source::Over => return Ok(false),
            Source::Inline(planner) => planner.next_batch().into_iter().map(|step| (step, None)).collect(),
            Source::Threads { batches, .. } => {
                // A lost thread must not look like the end of the walk, because entries would be missing.
                match batches.recv().map_err(|_| GapKind::Stopped)? {
                    Some(batch) => batch.recv().map_err(|_| GapKind::Stopped)?,
                    None => Vec::new(),
                }
            }
        };
        if batch.is_empty() {
            self.source = Source::Over;
        }
        self.batch = batch.into_iter();
        Ok(self.batch.len() > 0)
    }

    fn take(&mut self, step: Step, found: Option<Inspected>) -> Option<Walked> {
        let Step { path, what } = step;
        let kind = match what {
            What::Skipped(why) => return Some(Walked::Skipped(Skipped { path, why })),
            What::LeftOut(why) => {
                self.left_out.add(why, &path);
                return None;
            }
            What::Gap(kind) => kind,
            What::Inspect { place, directory } => {
                let found = match found {
                    Some(Inspected::Heavy) | None => {
                        self.volume.inspect(&place, &path, directory, Limits::FULL)
                    }
                    Some(found) => found,
                };
                match found {
                    Inspected::Member(member, left_out) => {
                        for why in left_out {
                            self.left_out.add(why, &path);
                        }
                        match self.link(*member) {
                            Ok(member) => return Some(Walked::Member(Box::new(member))),
                            Err(kind) => kind,
                        }
                    }
                    Inspected::Skipped(why) => return Some(Walked::Skipped(Skipped { path, why })),
                    Inspected::Vanished => {
                        self.left_out.add(LeftOut::Vanished, &path);
                        return None;
                    }
                    Inspected::Gap(kind) => kind,
                    Inspected::Heavy => GapKind::Stopped,
                }
            }
        };
        Some(Walked::Gap(Gap { path, kind }))
    }

    /// Turns a member into a hard link if an earlier path carries its inode.
    fn link(&mut self, member: Member) -> Result<Member, GapKind> {
        if !member.stat.has_links() {
            return Ok(member);
        }
        let inode = member.stat.inode();
        let Some(carrier) = self.carriers.get_mut(&inode) else {
            let carrier = Carrier { path: member.path.clone(), links_left: member.stat.nlink - 1 };
            self.carriers.insert(inode, carrier);
            return Ok(member);
        };
        carrier.links_left -= 1;
        let path = if carrier.links_left == 0 {
            self.carriers.remove(&inode).map(|carrier| carrier.path).unwrap_or_default()
        } else {
            carrier.path.clone()
        };
        member.into_link(path)
    }
}

impl Iterator for Walk {
    type Item = Walked;

    fn next(&mut self) -> Option<Walked> {
        loop {
            while let Some((step, found)) = self.batch.next() {
                if let Some(walked) = self.take(step, found) {
                    return Some(walked);
                }
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(kind) => {
                    self.source = Source::Over;
                    return Some(Walked::Gap(Gap { path: ROOT.to_vec(), kind }));
                }
            }
        }
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if let Source::Threads { batches, threads } = std::mem::replace(&mut self.source, Source::Over) {
            // Without a receiver the planner stops, and without a planner the workers do.
            drop(batches);
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

fn start_threads(volume: &Volume, count: usize) -> Source {
    let (jobs, queue) = channel::<Job>();
    let (sender, batches) = sync_channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    let mut threads = Vec::with_capacity(count + 1);
    for _ in 0..count {
        let (volume, queue) = (volume.clone(), queue.clone());
        threads.push(std::thread::spawn(move || work(&volume, &queue)));
    }
    let requests = jobs.clone();
    // A failed send means that no worker is left; the receiver of the answer notices.
    let requests: Box<dyn Fn(Request) + Send> = Box::new(move |request| {
        let _ = requests.send(Job::List(request));
    });
    let planner = Planner::new(volume.clone(), Some(requests));
    threads.push(std::thread::spawn(move || plan(planner, &jobs, &sender)));
    Source::Threads { batches, threads }
}

fn plan(
    mut planner: Planner,
    jobs: &std::sync::mpsc::Sender<Job>,
    batches: &SyncSender<Option<Receiver<Batch>>>,
) {
    loop {
        let steps = planner.next_batch();
        if steps.is_empty() {
            let _ = batches.send(None);
            return;
        }
        let (reply, batch) = sync_channel(1);
        if jobs.send(Job::Look(steps, reply)).is_err() || batches.send(Some(batch)).is_err() {
            return;
        }
    }
}

fn work(volume: &Volume, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = lock(queue).recv();
        match job {
            Err(_) => return,
            Ok(Job::List(request)) => request.serve(volume),
            Ok(Job::Look(steps, reply)) => {
                let batch = steps.into_iter().map(|step| look(volume, step)).collect();
                // The caller may have abandoned the walk.
                let _ = reply.send(batch);
            }
        }
    }
}

fn look(volume: &Volume, step: Step) -> (Step, Option<Inspected>) {
    let found = match &step.what {
        What::Inspect { place, directory } => {
            Some(volume.inspect(place, &step.path, *directory, Limits::AHEAD))
        }
        _ => None,
    };
    (step, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tar::Kind;
    use crate::format::tar::Time;
    use crate::source::volume::VolumeOptions;

    #[test]
    fn reused_inode_number_does_not_link_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"content").unwrap();
        let volume =
            Volume::open(dir.path(), VolumeOptions { threads: 0, ..VolumeOptions::default() }).unwrap();
        let mut walk = volume.walk();
        let file = walk.by_ref().find_map(|walked| match walked {
            Walked::Member(member) if member.path == b"file" => Some(*member),
            _ => None,
        });
        let file = file.unwrap();
        let mut link = |path: &str, second: Option<i64>| {
            let mut member = Member { path: path.into(), ..file.clone() };
            member.stat.nlink = 3;
            member.stat.btime = second.map(|seconds| Time { seconds, nanos: 0 });
            walk.link(member).unwrap().kind
        };
        let to = |carrier: &str| Kind::HardLink { carrier: carrier.into() };
        assert_eq!(link("g1", Some(1)), file.kind);
        assert_eq!(link("g2", Some(2)), file.kind, "the number was given away again");
        assert_eq!((link("h1", Some(1)), link("h2", Some(2))), (to("g1"), to("g2")));
        assert_eq!(link("i", None), file.kind);
        assert_eq!(link("j", None), to("i"), "a file system that tells no time of making");
    }
}
