//! Divides one memory budget of a process among the stages.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PipelineError;

/// The memory of a process before any stage has a buffer: code, runtime, TLS, SDK. Measured on
/// x86_64 Linux, rounded up.
const FIXED: u64 = 36 << 20;
/// The smallest budget that the stages can work with.
const MIN_STAGES: u64 = 24 << 20;
/// The number of packs open at once: two for data, so that neighbours in a stream do not stay
/// neighbours in a pack, and one for metadata.
pub const OPEN_PACKS: u64 = 3;

/// The division of a memory budget. All sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// The most resident memory of the process.
    pub memory: u64,
    /// The size at which packs are closed.
    pub pack: u64,
    /// The number of packs that may be open or being uploaded.
    pub packs: u64,
    /// The most that jobs on workers may hold together: sources, frames, copies for verification.
    pub jobs: u64,
    /// The most that the chunk index may take.
    pub index: u64,
}

impl MemoryLimits {
    /// Divides `memory`. `largest_pack` is the pack size of the epoch (16 MiB by default).
    #[must_use]
    pub fn divide(memory: u64, largest_pack: u64) -> Self {
        let free = memory.saturating_sub(FIXED).max(MIN_STAGES);
        // Half of the budget for packs (docs/format.md), for at least five: three open, two being uploaded.
        let for_packs = free / 2;
        let pack = (for_packs / (OPEN_PACKS + 2)).clamp(1 << 20, largest_pack) & !((1 << 20) - 1);
        let packs = (for_packs / pack).clamp(OPEN_PACKS + 1, 16);
        Self { memory, pack, packs, jobs: free / 4, index: free / 4 }
    }
}

/// A limit on the bytes held at once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    permits: Arc<Semaphore>,
    most: u32,
}

/// The bytes of one permit: 4 KiB, so that 32 bits can count any budget.
const UNIT: u64 = 4096;

impl MemoryBudget {
    /// Creates a budget of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let most = u32::try_from((bytes / UNIT).max(1)).unwrap_or(u32::MAX);
        Self { permits: Arc::new(Semaphore::new(most as usize)), most }
    }

    /// Waits until `bytes` are free. More than the whole budget counts as the whole budget, so
    /// that one large item at a time can pass.
    pub async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, PipelineError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.most);
        self.permits.clone().acquire_many_owned(units).await.map_err(|_| PipelineError::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divided_budget_stays_within_limit() {
        for memory in [64u64, 128, 256, 1024, 8192] {
            let limits = MemoryLimits::divide(memory << 20, 16 << 20);
            let sum = limits.pack * limits.packs + limits.jobs + limits.index;
            assert!(sum <= (memory << 20).max(FIXED + MIN_STAGES), "{memory} MiB: {limits:?}");
            assert!(limits.packs > OPEN_PACKS, "room for a pack under way: {limits:?}");
        }
        assert_eq!(MemoryLimits::divide(128 << 20, 16 << 20).pack, 9 << 20);
        assert_eq!(MemoryLimits::divide(1 << 30, 16 << 20).pack, 16 << 20);
    }
}
