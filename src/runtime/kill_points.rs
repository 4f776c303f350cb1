//! Named points at which tests end the process.

/// A named point at which the kill tests end the process with SIGKILL: `KBAK_KILL_AT=name`, or
/// `name:N` for the N-th time it is passed. `KBAK_STOP_AT` stops it with SIGSTOP instead. Compiled in only with the
/// feature `testing`.
#[cfg(feature = "testing")]
pub fn kill_point(name: &'static str) {
    use rustix::process::Signal;
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};
    static WANTED: LazyLock<Option<(String, u64, Signal)>> = LazyLock::new(|| {
        let asked = |variable: &str, signal| std::env::var(variable).ok().map(|text| (text, signal));
        let asked = asked("KBAK_KILL_AT", Signal::KILL).or_else(|| asked("KBAK_STOP_AT", Signal::STOP));
        let (text, signal) = asked?;
        Some(match text.rsplit_once(':') {
            Some((name, nth)) => (name.to_owned(), nth.parse().ok()?, signal),
            None => (text, 1, signal),
        })
    });
    static PASSED: LazyLock<Mutex<HashMap<&'static str, u64>>> = LazyLock::new(Mutex::default);
    let Some((wanted, nth, signal)) = WANTED.as_ref() else { return };
    if wanted != name {
        return;
    }
    let mut passed = super::lock(&PASSED);
    let count = passed.entry(name).or_default();
    *count += 1;
    if *count == *nth {
        let _ = rustix::process::kill_process(rustix::process::getpid(), *signal);
    }
}

/// Does nothing without the feature `testing`.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn kill_point(_name: &'static str) {}

/// A named point at which a test makes the process panic with the data held there:
/// `KBAK_PANIC_AT=name:what`. Compiled in only with the feature `testing`.
#[cfg(feature = "testing")]
pub fn panic_point(name: &'static str, what: &str, held: &[u8]) {
    let wanted = std::env::var("KBAK_PANIC_AT").ok();
    if wanted.and_then(|wanted| Some(wanted.strip_prefix(name)?.strip_prefix(':')? == what)) == Some(true) {
        panic!("{}", String::from_utf8_lossy(held));
    }
}

/// Does nothing without the feature `testing`.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub fn panic_point(_name: &'static str, _what: &str, _held: &[u8]) {}
