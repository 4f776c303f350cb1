//! The threads that write files, and the limit on bytes that wait for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::{directory::Directory, file::OpenFile, state::TargetState};
use crate::format::tar::TarEntry;
use crate::runtime::lock;

/// Bytes that a job counts besides its data.
const OVERHEAD: usize = 4096;
/// The most jobs that are sent at once: waking a thread takes as long as writing a small file.
pub(super) const BATCH: usize = 32;
/// Bytes of jobs from which on they are sent.
const BATCH_BYTES: usize = 512 << 10;

#[derive(Debug)]
pub(crate) enum WriteJob {
    /// A whole small file.
    Whole {
        directory: Arc<Directory>,
        entry: Box<TarEntry>,
        data: Bytes,
        /// The memory that stays in use for `data`, in bytes.
        held: usize,
    },
    /// A symbolic link, pipe or device.
    Special { directory: Arc<Directory>, entry: Box<TarEntry> },
    /// A part of a large file.
    Part {
        file: Arc<OpenFile>,
        at: u64,
        data: Bytes,
        /// The memory that stays in use for `data`, in bytes.
        held: usize,
    },
    /// The end of a large file: no more parts follow.
    Complete { file: Arc<OpenFile> },
}

impl WriteJob {
    fn cost(&self) -> usize {
        let data = match self {
            Self::Whole { held, .. } | Self::Part { held, .. } => *held,
            Self::Special { .. } | Self::Complete { .. } => 0,
        };
        data + OVERHEAD
    }

    /// Returns the number of bytes that it writes.
    fn content(&self) -> usize {
        match self {
            Self::Whole { data, .. } | Self::Part { data, .. } => data.len(),
            Self::Special { .. } | Self::Complete { .. } => 0,
        }
    }

    fn run(self, state: &Arc<TargetState>) {
        match self {
            Self::Whole { directory, entry, data, .. } => state.write_whole(&directory, *entry, &data),
            Self::Special { directory, entry } => state.make_special(&directory, &entry),
            Self::Part { file, at, data, .. } => file.write(at, &data),
            Self::Complete { file } => file.complete_part(),
        }
    }
}

/// The limit on waiting bytes.
#[derive(Debug, Default)]
struct BufferBudget {
    used: Mutex<usize>,
    freed: Condvar,
}

impl BufferBudget {
    /// Waits until there is room. A job larger than the whole budget runs when it is alone.
    fn acquire(&self, bytes: usize, limit: usize) {
        let mut used = lock(&self.used);
        while *used > 0 && *used + bytes > limit {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
    }
}

/// Returns a job's bytes to the budget, also if the job panics: otherwise others wait for ever.
struct BudgetGuard<'a>(&'a BufferBudget, usize);

impl Drop for BudgetGuard<'_> {
    fn drop(&mut self) {
        *lock(&self.0.used) -= self.1;
        self.0.freed.notify_all();
    }
}

/// Jobs that are sent together, and what they cost.
#[derive(Debug, Default)]
struct Batch {
    jobs: Vec<WriteJob>,
    cost: usize,
}

/// Threads that run jobs in the order of arrival, several at a time.
#[derive(Debug)]
pub(crate) struct WorkerPool {
    state: Arc<TargetState>,
    /// Batches for the threads, and calls for the one that writes everything to the disk.
    queues: Option<(Sender<Batch>, SyncSender<()>)>,
    budget: Arc<BufferBudget>,
    limit: usize,
    batch: Batch,
    /// The bytes that jobs write since the last such call.
    unsynced: usize,
    /// True once no more jobs come: a call that still waits is left out.
    has_ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl WorkerPool {
    /// Starts `count` threads (0: the caller's own is used); at most `limit` bytes may wait for them.
    pub(crate) fn new(state: Arc<TargetState>, count: usize, limit: usize) -> Self {
        let budget = Arc::new(BufferBudget::default());
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut threads: Vec<_> = (0..count)
            .map(|_| {
                let (state, queue, budget) = (state.clone(), queue.clone(), budget.clone());
                std::thread::spawn(move || run_worker(&state, &queue, &budget))
            })
            .collect();
        let has_ended = Arc::new(AtomicBool::new(false));
        let queues = (count > 0).then(|| {
            // While the thread is behind, one more call waits.
            let (syncs, calls) = sync_channel(1);
            let (state, has_ended) = (state.clone(), has_ended.clone());
            threads.push(std::thread::spawn(move || {
                let wanted = calls.iter().take_while(|()| !has_ended.load(Ordering::Acquire));
                wanted.for_each(|()| state.sync());
            }));
            (jobs, syncs)
        });
        Self { state, queues, budget, limit, batch: Batch::default(), unsynced: 0, has_ended, threads }
    }

    /// Runs a job, now or soon. Waits while the budget is used up.
    pub(crate) fn run(&mut self, job: WriteJob) {
        if self.queues.is_none() {
            return job.run(&self.state);
        }
        self.unsynced += job.content();
        self.batch.cost += job.cost();
        self.batch.jobs.push(job);
        if self.batch.jobs.len() >= BATCH || self.batch.cost >= BATCH_BYTES {
            self.send_batch();
        }
    }

    fn send_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let Some((jobs, syncs)) = &self.queues else { return };
        if self.unsynced >= self.state.options.sync_every && syncs.try_send(()).is_ok() {
            self.unsynced = 0;
        }
        self.budget.acquire(batch.cost, self.limit);
        if let Err(lost) = jobs.send(batch) {
            // Every thread has panicked, which joining reports. Until then no job may be lost.
            lost.0.jobs.into_iter().for_each(|job| job.run(&self.state));
        }
    }

    /// Waits until all jobs are done. A panic in a thread is resumed here.
    pub(crate) fn finish(mut self) {
        if let Some(panic) = self.join().pop() {
            std::panic::resume_unwind(panic);
        }
    }

    fn join(&mut self) -> Vec<Box<dyn std::any::Any + Send>> {
        self.send_batch();
        self.has_ended.store(true, Ordering::Release);
        self.queues = None;
        self.threads.drain(..).filter_map(|thread| thread.join().err()).collect()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.join();
    }
}

fn run_worker(state: &Arc<TargetState>, queue: &Mutex<Receiver<Batch>>, budget: &BufferBudget) {
    loop {
        let Ok(batch) = lock(queue).recv() else { return };
        let _taken = BudgetGuard(budget, batch.cost);
        for job in batch.jobs {
            if !state.is_stopped() {
                job.run(state);
            }
        }
    }
}
