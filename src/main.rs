//! The program: everything is in the library.

fn main() -> std::process::ExitCode {
    give_memory_back();
    kbak::cli::main()
}

/// Makes glibc give every large buffer back to the kernel when it is freed. By default its threshold
/// for that grows up to 32 MiB with the buffers that it sees, and what is freed in an arena stays
/// resident: then `limits.memory` would bound what is used, and not what is resident (mallopt(3);
/// figures in docs/decisions/0004). Other C libraries do so by themselves.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "no safe interface to it exists; docs/decisions/0004")]
    // SAFETY: mallopt takes two numbers and touches glibc's own parameters; no other thread exists
    // yet. A parameter that it does not know makes it return 0, and nothing changes.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
