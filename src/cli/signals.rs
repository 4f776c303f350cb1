//! Interruption: the first SIGINT or SIGTERM ends the work in order, the second at once.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::report::failure::{Exit, Failure};

/// Threads for jobs and for files. A few wait for others all the time: the walk, the writer of a
/// restore's target, a store in a folder.
const MAX_BLOCKING: usize = 24;

/// How long work that listens has to end in order: all ends within a second.
const LEAVING: Duration = Duration::from_millis(900);

/// Runs a use case to its end, or until a signal comes. Then its future is dropped: no request and
/// no client tool outlives it, and what is stored is what the next run continues from.
///
/// # Errors
/// The use case's, or that it was interrupted, or that the system gives no threads or signals.
pub(super) fn until_signalled<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    until_stopped(&CancellationToken::new(), work)
}

/// The same for work that listens to `stop`: it has [`LEAVING`] to end in order.
///
/// # Errors
/// As [`until_signalled`].
pub(super) fn until_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let system = |error: std::io::Error| {
        Failure::new(Exit::Usage, "the system gives no threads or no signals")
            .because(error)
            .remedy("look at the limits of this account or container (ulimit -u, pids)")
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
        .max_blocking_threads(MAX_BLOCKING)
        .enable_all()
        .build()
        .map_err(system)?;
    let anyway = runtime.spawn(leave_anyway());
    let result = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
        let mut work = std::pin::pin!(work);
        let name = tokio::select! {
            result = &mut work => return result,
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        // It listens.
        anyway.abort();
        stop.cancel();
        let last = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = tokio::time::sleep(LEAVING) => {}
            }
        };
        tokio::select! {
            // What came to its end in this moment has ended well.
            result = &mut work => result.map_err(|_| interrupted(name)),
            () = last => Err(interrupted(name)),
        }
    });
    // Work on other threads was told to end and holds nothing that must be waited for.
    runtime.shutdown_background();
    result
}

/// How long a call that listens to nothing may still take, as in writing all of a file to a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends the process where the work does not even hear of the signal: it waits in a call that none ends,
/// as in writing to a pipe that nobody reads. At the second signal, or in the end.
async fn leave_anyway() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = tokio::time::sleep(PATIENCE) => {}
    }
    std::process::exit(Exit::Interrupted.code().into())
}

fn interrupted(signal: &str) -> Failure {
    Failure::new(Exit::Interrupted, format!("interrupted by {signal}"))
        .remedy("run it again: what is stored stays stored, and is reused")
}
