//! The binary: calls the command line in the library.

fn main() -> std::process::ExitCode {
    give_memory_back();
    kbak::cli::main()
}

/// Sets fixed malloc thresholds, so that glibc returns large buffers to the kernel when they are
/// freed. By default its mmap threshold grows up to 32 MiB with the buffers freed, and memory freed
/// in an arena stays resident. Then `limits.memory` would bound the memory in use, not resident
/// memory (mallopt(3); figures in docs/decisions/0004). Other C libraries return memory without this.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "no safe interface to it exists; docs/decisions/0004")]
    // SAFETY: mallopt takes two numbers and touches only glibc's own parameters; no other thread
    // exists yet. For a parameter that glibc does not know it returns 0 and changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
