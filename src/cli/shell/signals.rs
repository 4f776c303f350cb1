//! Handles SIGINT and SIGTERM: the first signal ends the work in order, the second at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::{Exit, Failure};

/// The limit of threads for blocking jobs and files. A few of them wait for others all the time: the
/// folder walk, the writer of a restore's target, a store in a folder.
const MAX_BLOCKING: usize = 24;

/// The time that cancellable work has to end in order, so that all ends within a second.
const SHUTDOWN_TIME: Duration = Duration::from_millis(900);

/// The time that a call without cancellation may still take, such as a file write to a slow disk.
const BLOCKED_CALL_TIME: Duration = Duration::from_secs(10);

/// True if a use case that listens to signals runs or has run.
static IS_LISTENING: AtomicBool = AtomicBool::new(false);

/// The tokens that the first and the second signal cancel.
static SIGNAL_TOKENS: LazyLock<[CancellationToken; 2]> = LazyLock::new(Default::default);

/// The name of the first signal.
static SIGNAL_NAME: OnceLock<&str> = OnceLock::new();

/// Runs a use case to its end or until a signal, which drops its future with all requests and client tools.
pub(crate) fn until_signalled<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    until_stopped(&CancellationToken::new(), "run it again", work)
}

/// Runs work that observes `stop`: after a signal it has [`SHUTDOWN_TIME`] to end in order. `remedy` says how
/// to continue after an interruption.
pub(crate) fn until_stopped<T>(
    stop: &CancellationToken,
    remedy: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let interrupted = || {
        let name = SIGNAL_NAME.get().unwrap_or(&"a signal");
        Failure::new(Exit::Interrupted, format!("interrupted by {name}")).remedy(remedy)
    };
    let runtime = async_runtime().map_err(system_failure)?;
    let [first, second] = &*SIGNAL_TOKENS;
    IS_LISTENING.store(true, Ordering::SeqCst);
    let result = runtime.block_on(async {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            () = first.cancelled() => {}
        }
        stop.cancel();
        tokio::select! {
            // Work that succeeds in this moment counts as a success.
            result = &mut work => result.map_err(|_| interrupted()),
            _ = timeout(SHUTDOWN_TIME, second.cancelled()) => Err(interrupted()),
        }
    });
    // Work on other threads is cancelled, and none of it must be waited for.
    runtime.shutdown_background();
    result
}

/// Runs the last step of a run, also after an interruption, until the next signal. Returns false if a signal
/// or the lack of threads ended it.
pub(crate) fn until_next_signal(work: impl Future<Output = ()>) -> bool {
    let Ok(runtime) = async_runtime() else { return false };
    let [first, second] = &*SIGNAL_TOKENS;
    let next = if first.is_cancelled() { second } else { first };
    IS_LISTENING.store(true, Ordering::SeqCst);
    let is_done = runtime.block_on(async {
        tokio::select! {
            () = work => true,
            () = next.cancelled() => false,
        }
    });
    runtime.shutdown_background();
    is_done
}

fn async_runtime() -> io::Result<tokio::runtime::Runtime> {
    Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
        .max_blocking_threads(MAX_BLOCKING)
        .enable_all()
        .build()
}

/// The streams of both signals.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// Waits for the next signal and returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Watches for signals until the process ends, on a separate thread that no other call can block.
///
/// Before a use case listens, such as while keys are read, the first signal ends the process. The system's
/// default action would not give kbak's exit code, and PID 1 of a container has no default action.
/// Later the thread ends the process only if nothing else does: the work, or the report of its end, may
/// block in a call without cancellation, such as a write to a pipe that is not read.
pub(crate) fn watch() -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(system_failure)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::new().map_err(system_failure)?
    };
    let watch = move || {
        runtime.block_on(async {
            let _ = SIGNAL_NAME.set(signals.next().await);
            let [first, second] = &*SIGNAL_TOKENS;
            first.cancel();
            if IS_LISTENING.load(Ordering::SeqCst) {
                if timeout(BLOCKED_CALL_TIME, signals.next()).await.is_ok() {
                    second.cancel();
                }
                // Work that listens ends in order within this time, with a report.
                sleep(SHUTDOWN_TIME).await;
            }
            std::process::exit(Exit::Interrupted.code().into())
        })
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(system_failure)?;
    Ok(())
}

fn system_failure(error: io::Error) -> Failure {
    Failure::usage("the system provides no threads or no signal handlers")
        .because(error)
        .remedy("raise the limits of this account or container (ulimit -u, pids)")
}
