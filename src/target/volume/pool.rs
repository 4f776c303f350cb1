//! The threads that write files, and the limit on bytes that wait for them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::format::tar::Entry;
use crate::runtime::lock;
use crate::target::volume::directory::Directory;
use crate::target::volume::file::OpenFile;
use crate::target::volume::target::Shared;

/// Bytes that a job counts besides its data.
const OVERHEAD: usize = 4096;

/// One task of a thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// A whole small file.
    Whole { directory: Arc<Directory>, entry: Box<Entry>, data: Vec<u8> },
    /// A symbolic link, pipe or device.
    Special { directory: Arc<Directory>, entry: Box<Entry> },
    /// A part of a large file.
    Part { file: Arc<OpenFile>, at: u64, data: Vec<u8> },
    /// The end of a large file: no more parts follow.
    Complete { file: Arc<OpenFile> },
}

impl Job {
    fn cost(&self) -> usize {
        let data = match self {
            Self::Whole { data, .. } | Self::Part { data, .. } => data.capacity(),
            Self::Special { .. } | Self::Complete { .. } => 0,
        };
        data + OVERHEAD
    }

    fn run(self, shared: &Arc<Shared>) {
        match self {
            Self::Whole { directory, entry, data } => shared.write_whole(&directory, *entry, &data),
            Self::Special { directory, entry } => shared.make_special(&directory, &entry),
            Self::Part { file, at, data } => file.write(at, &data),
            Self::Complete { file } => file.complete(),
        }
    }
}

/// The limit on waiting bytes.
#[derive(Debug, Default)]
struct Budget {
    used: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    /// Waits until there is room. A job larger than the whole budget runs when it is alone.
    fn take(&self, bytes: usize, most: usize) {
        let mut used = lock(&self.used);
        while *used > 0 && *used + bytes > most {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
    }

    fn give(&self, bytes: usize) {
        *lock(&self.used) -= bytes;
        self.freed.notify_all();
    }
}

/// Returns a job's bytes to the budget, also if the job panics: otherwise others wait for ever.
struct Taken<'a>(&'a Budget, usize);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.give(self.1);
    }
}

/// Threads that run jobs in the order of arrival, several at a time.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    budget: Arc<Budget>,
    most: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `count` threads (0: the caller's own is used); at most `most` bytes may wait for them.
    pub(crate) fn new(shared: Arc<Shared>, count: usize, most: usize) -> Self {
        let budget = Arc::new(Budget::default());
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..count)
            .map(|_| {
                let (shared, queue, budget) = (shared.clone(), queue.clone(), budget.clone());
                std::thread::spawn(move || work(&shared, &queue, &budget))
            })
            .collect();
        Self { shared, jobs: (count > 0).then_some(jobs), budget, most, threads }
    }

    /// Runs a job, now or soon. Waits while the budget is used up.
    pub(crate) fn run(&self, job: Job) {
        let Some(jobs) = &self.jobs else { return job.run(&self.shared) };
        let cost = job.cost();
        self.budget.take(cost, self.most);
        if let Err(lost) = jobs.send(job) {
            // Every thread has panicked, which joining reports. Until then no job may be lost.
            lost.0.run(&self.shared);
        }
    }

    /// Waits until all jobs are done. A panic in a thread is resumed here.
    pub(crate) fn finish(mut self) {
        if let Some(panic) = self.join().pop() {
            std::panic::resume_unwind(panic);
        }
    }

    fn join(&mut self) -> Vec<Box<dyn std::any::Any + Send>> {
        self.jobs = None;
        self.threads.drain(..).filter_map(|thread| thread.join().err()).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.join();
    }
}

fn work(shared: &Arc<Shared>, queue: &Mutex<Receiver<Job>>, budget: &Budget) {
    loop {
        let job = lock(queue).recv();
        let Ok(job) = job else { return };
        let _taken = Taken(budget, job.cost());
        if !shared.is_stopped() {
            job.run(shared);
        }
    }
}
