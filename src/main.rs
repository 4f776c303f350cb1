//! The binary: calls the command line in the library.

fn main() -> std::process::ExitCode {
    give_memory_back();
    clean_environment();
    kbak::cli::main()
}

/// Removes variables that are set and empty, and line breaks at the end of others. The libraries and child
/// processes that read them get no other way to hear of it (docs/decisions/0004).
fn clean_environment() {
    for (name, value) in kbak::cli::shell::environment::corrections(std::env::vars_os()) {
        #[expect(unsafe_code, reason = "another thread could read the environment; docs/decisions/0004")]
        // SAFETY: no other thread exists yet, and the names and values come from the environment itself.
        unsafe {
            match value {
                Some(value) => std::env::set_var(name, value),
                None => std::env::remove_var(name),
            }
        }
    }
}

/// Sets fixed malloc thresholds, so that glibc returns large buffers to the kernel when they are freed, and keeps a
/// little of the small ones. By default its mmap threshold grows up to 32 MiB with the buffers freed, and memory
/// freed in an arena stays resident. Then `limits.memory` would bound the memory in use, not resident memory
/// (mallopt(3); figures in docs/decisions/0004). Other C libraries return memory without this.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "no safe interface to it exists; docs/decisions/0004")]
    // SAFETY: mallopt takes two numbers and touches only glibc's own parameters; no other thread
    // exists yet. For a parameter that glibc does not know it returns 0 and changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 << 20);
        libc::mallopt(libc::M_TOP_PAD, 256 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 4);
    }
}
