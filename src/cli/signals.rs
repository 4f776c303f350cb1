//! Interruption: the first SIGINT or SIGTERM ends the work in order, the second at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::report::failure::{Exit, Failure};

/// Threads for jobs and for files. A few wait for others all the time: the walk, the writer of a
/// restore's target, a store in a folder.
const MAX_BLOCKING: usize = 24;

/// How long work that listens has to end in order: all ends within a second.
const LEAVING: Duration = Duration::from_millis(900);

/// How long a call that listens to nothing may still take, as in writing all of a file to a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a use case runs, or has run, that listens to signals.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// The first signal that was heard, and the second.
static HEARD: LazyLock<[CancellationToken; 2]> = LazyLock::new(Default::default);

/// What the first one was.
static NAME: OnceLock<&str> = OnceLock::new();

/// Runs a use case to its end, or until a signal comes. Then its future is dropped: no request and
/// no client tool outlives it.
///
/// # Errors
/// The use case's, or that it was interrupted, or that the system gives no threads or signals.
pub(super) fn until_signalled<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    until_stopped(&CancellationToken::new(), "run it again", work)
}

/// The same for work that listens to `stop`: it has [`LEAVING`] to end in order. `remedy` says how to go
/// on after an interruption.
///
/// # Errors
/// As [`until_signalled`].
pub(super) fn until_stopped<T>(
    stop: &CancellationToken,
    remedy: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let interrupted = || {
        let name = NAME.get().unwrap_or(&"a signal");
        Failure::new(Exit::Interrupted, format!("interrupted by {name}")).remedy(remedy)
    };
    let runtime = Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
        .max_blocking_threads(MAX_BLOCKING)
        .enable_all()
        .build()
        .map_err(system)?;
    let [first, second] = &*HEARD;
    LISTENS.store(true, Ordering::SeqCst);
    let result = runtime.block_on(async {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            () = first.cancelled() => {}
        }
        stop.cancel();
        tokio::select! {
            // What came to its end in this moment has ended well.
            result = &mut work => result.map_err(|_| interrupted()),
            _ = timeout(LEAVING, second.cancelled()) => Err(interrupted()),
        }
    });
    // Work on other threads was told to end and holds nothing that must be waited for.
    runtime.shutdown_background();
    result
}

/// Both signals, each as it comes.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Watches for signals to the end of the process, on a thread of its own, which no call can hold up.
///
/// Before a use case listens, as while keys are read, the first signal ends the process: the system's own
/// answer to it would give no exit code of ours, and none at all to the first process of a container.
/// Later it ends the process where nothing else does: what runs then, be it the work or the report of
/// its end, may wait in a call that nothing ends, as in writing to a pipe that nobody reads.
///
/// # Errors
/// That the system gives no threads or signals.
pub(super) fn watch() -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(system)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().map_err(system)?
    };
    let watch = move || {
        runtime.block_on(async {
            let _ = NAME.set(signals.next().await);
            let [first, second] = &*HEARD;
            first.cancel();
            if LISTENS.load(Ordering::SeqCst) {
                if timeout(PATIENCE, signals.next()).await.is_ok() {
                    second.cancel();
                }
                // Whoever heard it, too, ends in order, with a report.
                sleep(LEAVING).await;
            }
            std::process::exit(Exit::Interrupted.code().into())
        })
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(system)?;
    Ok(())
}

fn system(error: io::Error) -> Failure {
    Failure::new(Exit::Usage, "the system gives no threads or no signals")
        .because(error)
        .remedy("look at the limits of this account or container (ulimit -u, pids)")
}
