//! The resident memory of the process, as the kernel counts it (proc(5), status).

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// The current value (VmRSS).
    pub now: u64,
    /// The maximum so far (VmHWM).
    pub peak: u64,
}

/// Reads the kernel's figures; `None` where there is no /proc.
#[must_use]
pub fn resident() -> Option<Resident> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<Resident> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(Resident { now: field("VmRSS")?, peak: field("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_status_is_parsed() {
        let text = "Name:\tkbak\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        assert_eq!(parse(text), Some(Resident { now: 1 << 20, peak: 2 << 20 }));
        assert_eq!(parse("Name:\tkbak\n"), None);
    }
}
