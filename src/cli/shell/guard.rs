//! Keeps secrets and plaintext out of arguments, panic messages and core dumps.

use std::ffi::OsString;

use crate::cli::failure::Failure;

/// Reports a panic as a bug with its location, and exits. Its message is left out: it may quote data.
pub(crate) fn hide_panic_messages() {
    std::panic::set_hook(Box::new(|info| {
        use std::io::Write as _;
        let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let mut err = std::io::stderr().lock();
        let _ = writeln!(
            err,
            "\nerror: kbak has a bug: it stopped at {place}\n  version    {}\n  \
             nothing that is in the store was harmed; running again resumes\n  \
             → report it with this text; what the bug saw is left out, because it may be your data\n  exit 1",
            env!("CARGO_PKG_VERSION")
        );
        // A panic of the display thread must not end the backup.
        if std::thread::current().name() != Some(super::display::DISPLAY_THREAD) {
            std::process::exit(1);
        }
    }));
}

/// Refuses arguments that hold a private key: other processes can see them, and errors quote them.
pub(crate) fn refuse_private_keys(arguments: &[OsString]) -> Result<(), Failure> {
    let signs = ["AGE-SECRET-KEY-1", "PRIVATE KEY-----"];
    let private = |text: &OsString| {
        let text = text.to_string_lossy().to_uppercase();
        signs.iter().any(|sign| text.contains(sign))
    };
    let Some(at) = arguments.iter().position(private) else { return Ok(()) };
    let before = at.checked_sub(1).map(|before| arguments[before].to_string_lossy());
    let place = before.filter(|text| text.starts_with("--"));
    let what = match place {
        Some(option) => format!("{option}: this is a private key"),
        None => "an argument is a private key".to_owned(),
    };
    Err(Failure::usage(what).remedy(
        "give the public key, or the file of the private one; this key is now in the shell's history and the \
         process list: create another",
    ))
}

/// Disables core dumps, which would write keys and plaintext to a disk.
pub(crate) fn disable_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Lowering a limit cannot fail, and there would be no better action.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
