//! The state that all threads of a restore share: root, options, report, the error that stops it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use rustix::io::Errno;

use super::report::{FailureReason, LostAttribute, VolumeReport};
use super::{error::TargetError, options::TargetOptions};
use crate::format::tar::ROOT;
use crate::fs::Root;
use crate::runtime::lock;

/// Prefix of temporary names; 16 hexadecimal digits of the run, `-`, and a number follow.
const TEMPORARY: &[u8] = b".kbak-restore-";

#[derive(Debug)]
pub(crate) struct TargetState {
    pub(crate) root: Root,
    pub(crate) options: TargetOptions,
    pub(crate) euid: u32,
    run: String,
    counter: AtomicU64,
    report: Mutex<VolumeReport>,
    stopped: AtomicBool,
    error: Mutex<Option<TargetError>>,
}

impl TargetState {
    /// `random` names temporary files.
    pub(crate) fn new(root: Root, options: TargetOptions, random: [u8; 32]) -> Self {
        Self {
            root,
            options,
            euid: rustix::process::geteuid().as_raw(),
            run: random.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
            counter: AtomicU64::new(0),
            report: Mutex::default(),
            stopped: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    pub(crate) fn report(&self) -> MutexGuard<'_, VolumeReport> {
        lock(&self.report)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Records that an entry is not restored. Some errors (no space, quota, read-only) end the restore.
    pub(crate) fn fail(&self, path: &[u8], reason: FailureReason) {
        if let FailureReason::System { errno: errno @ (Errno::NOSPC | Errno::DQUOT | Errno::ROFS), .. } =
            reason
        {
            self.stop(path, errno);
        }
        self.report().fail(path, reason);
    }

    fn stop(&self, path: &[u8], errno: Errno) {
        lock(&self.error).get_or_insert(TargetError::Stopped(path.to_vec(), errno));
        self.stopped.store(true, Ordering::Release);
    }

    /// Waits until everything written so far is on the disk. An error ends the restore, as the kernel reports it once.
    pub(crate) fn sync(&self) {
        if let Err(errno) = rustix::fs::syncfs(&self.root) {
            self.stop(ROOT, errno);
        }
    }

    /// Returns the error that stopped the restore, if one did.
    pub(crate) fn check(&self) -> Result<(), TargetError> {
        if !self.is_stopped() {
            return Ok(());
        }
        Err(lock(&self.error).clone().unwrap_or(TargetError::EventOrder))
    }

    pub(crate) fn record_lost_attributes(&self, path: &[u8], lost: Vec<LostAttribute>) {
        if !lost.is_empty() {
            let mut report = self.report();
            lost.into_iter().for_each(|loss| report.lost.add(loss, path));
        }
    }

    pub(crate) fn temporary_name(&self) -> Vec<u8> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        [TEMPORARY, format!("{}-{number:x}", self.run).as_bytes()].concat()
    }

    pub(crate) fn is_own_temporary(&self, name: &[u8]) -> bool {
        name.strip_prefix(TEMPORARY).is_some_and(|rest| rest.starts_with(self.run.as_bytes()))
    }
}

/// True if a name is one that this program gives to incomplete files.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(TEMPORARY) else { return false };
    let hex = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_hexdigit);
    rest.len() > 17 && hex(&rest[..16]) && rest[16] == b'-' && hex(&rest[17..])
}
