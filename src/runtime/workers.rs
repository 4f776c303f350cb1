//! The threads of a run.

/// The threads on which blocking and CPU-bound work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// The runtime's blocking threads.
    Threads {
        /// The number of jobs that a stage may run at once.
        count: usize,
    },
    /// The caller's thread, immediately: a seed then fixes the order of events.
    Inline,
}

impl Workers {
    /// Returns the number of jobs that a stage may run at once, at least 1.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Threads { count } => count.max(1),
            Self::Inline => 1,
        }
    }

    /// Runs `job` and returns its result. A panic in the job is resumed in the caller.
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => job(),
            Self::Threads { .. } => match tokio::task::spawn_blocking(job).await {
                Ok(value) => value,
                Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
                // Blocking jobs are cancelled only when the runtime shuts down. By then this future is no
                // longer awaited.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
