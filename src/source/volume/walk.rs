//! Walks the members of a volume in order; several threads inspect entries ahead of the caller.
//!
//! One thread plans ([`super::planner`]) and cuts the walk into batches of at most 64 entries. Workers
//! inspect the entries of a batch (attributes, links, extended attributes, holes) and encode their headers for digests.
//! The caller takes the batches in the order of the plan. At most `QUEUE` batches wait. In them a member with
//! more than 2 KiB of extended attributes or 64 extents is only noted, and inspected when its turn comes.
//! That is some 500 bytes a member, half a MiB in all, and at worst (paths and targets of 4 KiB) 10 MiB.
//!
//! The caller's thread decides on hard links, because they depend on the order: the first path of
//! an inode holds the content, and the others link to it. For each inode with several names this link
//! target's path is kept until the last name was seen: the path and some 80 bytes.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::vec;

use super::VolumeReader;
use super::gap::{EntryGap, GapKind, LeftOut, SkippedEntry};
use super::inspect::{InspectLimits, Inspected, VolumeMember};
use super::planner::{ListRequest, Planner, StepKind, WalkStep};
use crate::format::tar::{EntryKind, ROOT, TarEntry};
use crate::fs::stat::Inode;
use crate::report::counts::Counts;
use crate::runtime::lock;

/// The most batches that wait for the caller.
const QUEUE: usize = 16;

/// The next result of a walk.
#[derive(Debug)]
pub enum WalkEvent {
    /// An entry that is included.
    Member(Box<VolumeMember>),
    /// An entry that a rule leaves out; it is named, and nothing is missing.
    Skipped(SkippedEntry),
    /// An entry that could not be included.
    Gap(EntryGap),
}

type Batch = Vec<(WalkStep, Option<Inspected>)>;

/// A task of a worker.
enum WalkJob {
    Inspect(Vec<WalkStep>, SyncSender<Batch>),
    List(ListRequest),
}

/// The origin of the batches of a walk.
enum BatchSource {
    Inline(Box<Planner>),
    Threads { batches: Receiver<Option<Receiver<Batch>>>, threads: Vec<JoinHandle<()>> },
    Over,
}

/// The first path of a file with several names, and the number of names not yet seen.
struct LinkTarget {
    path: Vec<u8>,
    links_left: u32,
}

/// An iterator over the members of a volume, in order.
pub struct VolumeWalk {
    volume: VolumeReader,
    source: BatchSource,
    batch: vec::IntoIter<(WalkStep, Option<Inspected>)>,
    /// Used again for each inspection.
    buffer: Vec<u8>,
    link_targets: HashMap<Inode, LinkTarget>,
    left_out: Counts<LeftOut>,
}

impl std::fmt::Debug for VolumeWalk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl VolumeWalk {
    pub(super) fn start(volume: VolumeReader) -> Self {
        let source = match volume.inner.options.threads {
            0 => BatchSource::Inline(Box::new(Planner::new(volume.clone(), None))),
            count => start_threads(&volume, count),
        };
        let (batch, link_targets) = (Vec::new().into_iter(), HashMap::new());
        Self { volume, source, batch, buffer: Vec::new(), link_targets, left_out: Counts::default() }
    }

    /// Returns the count of everything left out so far that was not named one by one.
    pub fn left_out(&self) -> &Counts<LeftOut> {
        &self.left_out
    }

    /// Receives the next batch; returns false at the end.
    fn refill(&mut self) -> Result<bool, GapKind> {
        let batch = match &mut self.source {
            BatchSource::Over => return Ok(false),
            BatchSource::Inline(planner) => {
                planner.next_batch().into_iter().map(|step| (step, None)).collect()
            }
            BatchSource::Threads { batches, .. } => {
                // A lost thread must not look like the end of the walk, because entries would be missing.
                match batches.recv().map_err(|_| GapKind::Stopped)? {
                    Some(batch) => batch.recv().map_err(|_| GapKind::Stopped)?,
                    None => Vec::new(),
                }
            }
        };
        if batch.is_empty() {
            self.source = BatchSource::Over;
        }
        self.batch = batch.into_iter();
        Ok(self.batch.len() > 0)
    }

    fn process(&mut self, step: WalkStep, found: Option<Inspected>) -> Option<WalkEvent> {
        let WalkStep { mut path, kind } = step;
        let kind = match kind {
            StepKind::Skipped(why) => return Some(WalkEvent::Skipped(SkippedEntry { path, why })),
            StepKind::LeftOut(why) => {
                self.left_out.add(why, &path);
                return None;
            }
            StepKind::Gap(kind) => kind,
            StepKind::Inspect { place, directory } => {
                let found = match found {
                    Some(Inspected::ExceedsLimits) | None => {
                        let buffer = &mut self.buffer;
                        self.volume.inspect(&place, &mut path, directory, InspectLimits::FULL, buffer)
                    }
                    Some(found) => found,
                };
                match found {
                    Inspected::Member(member, left_out) => {
                        for why in left_out {
                            self.left_out.add(why, &member.entry.path);
                        }
                        return Some(match self.resolve_link(*member) {
                            Ok(member) => WalkEvent::Member(Box::new(member)),
                            Err((entry, kind)) => WalkEvent::Gap(EntryGap { path: entry.path, kind }),
                        });
                    }
                    Inspected::Skipped(why) => return Some(WalkEvent::Skipped(SkippedEntry { path, why })),
                    Inspected::Vanished => {
                        self.left_out.add(LeftOut::Vanished, &path);
                        return None;
                    }
                    Inspected::Gap(kind) => kind,
                    Inspected::ExceedsLimits => GapKind::Stopped,
                }
            }
        };
        Some(WalkEvent::Gap(EntryGap { path, kind }))
    }

    /// Turns a member into a hard link if an earlier path has the same inode.
    fn resolve_link(&mut self, member: VolumeMember) -> Result<VolumeMember, (TarEntry, GapKind)> {
        if !member.stat.has_links() {
            return Ok(member);
        }
        let inode = member.stat.inode();
        let Some(link_target) = self.link_targets.get_mut(&inode) else {
            let link_target =
                LinkTarget { path: member.entry.path.clone(), links_left: member.stat.nlink - 1 };
            self.link_targets.insert(inode, link_target);
            return Ok(member);
        };
        link_target.links_left -= 1;
        let link_target = if link_target.links_left == 0 {
            self.link_targets.remove(&inode).map(|link_target| link_target.path).unwrap_or_default()
        } else {
            link_target.path.clone()
        };
        let (kind, buffer) = (EntryKind::HardLink { link_target }, &mut self.buffer);
        self.volume.encode(member.entry.path, kind, member.stat, Vec::new(), buffer)
    }
}

impl Iterator for VolumeWalk {
    type Item = WalkEvent;

    fn next(&mut self) -> Option<WalkEvent> {
        loop {
            while let Some((step, found)) = self.batch.next() {
                if let Some(walked) = self.process(step, found) {
                    return Some(walked);
                }
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(kind) => {
                    self.source = BatchSource::Over;
                    return Some(WalkEvent::Gap(EntryGap { path: ROOT.to_vec(), kind }));
                }
            }
        }
    }
}

impl Drop for VolumeWalk {
    fn drop(&mut self) {
        if let BatchSource::Threads { batches, threads } =
            std::mem::replace(&mut self.source, BatchSource::Over)
        {
            // Without a receiver the planner stops, and without a planner the workers do.
            drop(batches);
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

fn start_threads(volume: &VolumeReader, count: usize) -> BatchSource {
    let (jobs, queue) = channel::<WalkJob>();
    let (sender, batches) = sync_channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    let mut threads = Vec::with_capacity(count + 1);
    for _ in 0..count {
        let (volume, queue) = (volume.clone(), queue.clone());
        threads.push(std::thread::spawn(move || run_worker(&volume, &queue)));
    }
    let requests = jobs.clone();
    // A failed send means that no worker is left; the receiver of the answer notices.
    let requests: Box<dyn Fn(ListRequest) + Send> = Box::new(move |request| {
        let _ = requests.send(WalkJob::List(request));
    });
    let planner = Planner::new(volume.clone(), Some(requests));
    threads.push(std::thread::spawn(move || run_planner(planner, &jobs, &sender)));
    BatchSource::Threads { batches, threads }
}

fn run_planner(mut planner: Planner, jobs: &Sender<WalkJob>, batches: &SyncSender<Option<Receiver<Batch>>>) {
    loop {
        let steps = planner.next_batch();
        if steps.is_empty() {
            let _ = batches.send(None);
            return;
        }
        let (reply, batch) = sync_channel(1);
        if jobs.send(WalkJob::Inspect(steps, reply)).is_err() || batches.send(Some(batch)).is_err() {
            return;
        }
    }
}

fn run_worker(volume: &VolumeReader, queue: &Mutex<Receiver<WalkJob>>) {
    let mut buffer = Vec::new();
    loop {
        let job = lock(queue).recv();
        match job {
            Err(_) => return,
            Ok(WalkJob::List(request)) => request.serve(volume),
            Ok(WalkJob::Inspect(steps, reply)) => {
                let batch = steps.into_iter().map(|step| inspect(volume, step, &mut buffer)).collect();
                // The caller may have abandoned the walk.
                let _ = reply.send(batch);
            }
        }
    }
}

fn inspect(volume: &VolumeReader, mut step: WalkStep, buffer: &mut Vec<u8>) -> (WalkStep, Option<Inspected>) {
    let found = match &step.kind {
        StepKind::Inspect { place, directory } => {
            Some(volume.inspect(place, &mut step.path, *directory, InspectLimits::AHEAD, buffer))
        }
        _ => None,
    };
    (step, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tar::FileTime;
    use crate::source::volume::VolumeOptions;

    #[test]
    fn reused_inode_number_does_not_link_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"content").unwrap();
        let volume =
            VolumeReader::open(dir.path(), VolumeOptions { threads: 0, ..VolumeOptions::default() }).unwrap();
        let mut walk = volume.walk();
        let file = walk.by_ref().find_map(|walked| match walked {
            WalkEvent::Member(member) if member.entry.path == b"file" => Some(*member),
            _ => None,
        });
        let file = file.unwrap();
        let mut link = |path: &str, second: Option<i64>| {
            let mut member = file.clone();
            member.entry.path = path.into();
            member.stat.nlink = 3;
            member.stat.btime = second.map(|seconds| FileTime { seconds, nanos: 0 });
            walk.resolve_link(member).unwrap().entry.kind
        };
        let to = |link_target: &str| EntryKind::HardLink { link_target: link_target.into() };
        assert_eq!(link("g1", Some(1)), file.entry.kind);
        assert_eq!(link("g2", Some(2)), file.entry.kind, "the inode number was reused");
        assert_eq!((link("h1", Some(1)), link("h2", Some(2))), (to("g1"), to("g2")));
        assert_eq!(link("i", None), file.entry.kind);
        assert_eq!(link("j", None), to("i"), "a file system without creation times");
    }
}
