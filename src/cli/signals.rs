//! Interruption: the first SIGINT or SIGTERM asks for an orderly end, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::report::failure::{Exit, Failure};

/// Runs a use case to its end, with a token that is cancelled by a signal.
///
/// # Errors
/// The use case's, or that the system gives no threads or signals.
pub(super) fn until_signalled<T, F>(
    say: impl Fn(&str) + Send + 'static,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let system = |error: std::io::Error| {
        Failure::new(Exit::Usage, "the system gives no threads or no signals")
            .because(error)
            .remedy("look at the limits of this account or container (ulimit -u, pids)")
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4))
        .enable_all()
        .build()
        .map_err(system)?;
    let result = runtime.block_on(async {
        let token = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
        let cancel = token.clone();
        tokio::spawn(async move {
            let mut first = true;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if !first {
                    std::process::exit(i32::from(Exit::Interrupted.code()));
                }
                say("stopping; what is stored stays stored (again: at once)");
                cancel.cancel();
                first = false;
            }
        });
        work(token).await
    });
    // Work on other threads was told to end; it holds nothing that must be waited for.
    runtime.shutdown_background();
    result
}
