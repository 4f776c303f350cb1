//! Searches bytes, folders and strace's log for canaries in every spelling in which they might leak.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::program::beneath;

/// Texts to look for.
pub(super) struct Canaries(Vec<(String, Vec<Vec<u8>>)>);

impl Canaries {
    pub(super) fn new(texts: &[&str]) -> Self {
        Self(texts.iter().map(|text| ((*text).to_owned(), spellings(text))).collect())
    }

    /// Returns the canaries in some bytes.
    pub(super) fn in_bytes(&self, bytes: &[u8]) -> Vec<String> {
        let has = |needle: &Vec<u8>| memchr::memmem::find(bytes, needle).is_some();
        let found = self.0.iter().filter(|(_, spellings)| spellings.iter().any(has));
        found.map(|(text, _)| text.clone()).collect()
    }

    /// Returns the canaries in names and contents of everything beneath a folder, each with its place.
    pub(super) fn in_tree(&self, root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for path in beneath(root) {
            let name = path.strip_prefix(root).expect("beneath").as_os_str().as_bytes().to_vec();
            found.extend(self.in_bytes(&name).into_iter().map(|text| format!("{text} names {path:?}")));
            if std::fs::symlink_metadata(&path).expect("metadata").is_file() {
                let bytes = std::fs::read(&path).expect("a file");
                found.extend(self.in_bytes(&bytes).into_iter().map(|text| format!("{text} in {path:?}")));
            }
        }
        found
    }
}

/// Returns a text in plain, hex, UTF-16, and base64 at each of the three offsets in a byte group.
fn spellings(text: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut all = vec![text.as_bytes().to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), utf16];
    for before in 0..3 {
        let shifted = [vec![0; before], text.as_bytes().to_vec()].concat();
        // The first group mixes in the bytes before, the last one the bytes behind: both are cut.
        let whole = STANDARD.encode(&shifted);
        let (from, to) = (before.div_ceil(3) * 4, whole.len() / 4 * 4 - 4);
        all.push(whole.as_bytes()[from..to].to_vec());
    }
    all
}

/// Returns an strace that follows children and logs writes, arguments and environments in full.
pub(super) fn strace(log: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-v", "-s", "4194304", "-e", "signal=none"]);
    command.args(["-e", "trace=execve,write,pwrite64,writev,pwritev,pwritev2,rename,renameat,renameat2"]);
    command.arg("-o").arg(log);
    command
}

/// The log of strace.
pub(super) struct Trace(Vec<u8>);

impl Trace {
    pub(super) fn read(log: &Path) -> Self {
        Self(std::fs::read(log).expect("strace's log"))
    }

    fn calls(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
            let call = line.iter().position(|byte| byte.is_ascii_lowercase())?;
            let open = line.iter().position(|byte| *byte == b'(')?;
            (call < open).then(|| (&line[call..open], &line[open + 1..]))
        })
    }

    /// Returns the paths of the programs that were started.
    pub(super) fn programs(&self) -> impl Iterator<Item = String> {
        let of = |(name, rest): (&[u8], &[u8])| {
            let path = rest.strip_prefix(b"\"")?.split(|byte| *byte == b'"').next()?;
            (name == b"execve").then(|| String::from_utf8_lossy(path).into_owned())
        };
        self.calls().filter_map(of)
    }

    /// Returns the canaries in arguments, environments, new names, and writes to files not beneath
    /// one of `allowed`. Pipes, sockets and in-memory files do not count as files.
    pub(super) fn leaks(&self, canaries: &Canaries, allowed: &[PathBuf]) -> Vec<String> {
        let mut leaks = Vec::new();
        for (name, rest) in self.calls() {
            let place = match name {
                b"execve" => "arguments or environment".to_owned(),
                _ if name.starts_with(b"rename") => "a name".to_owned(),
                _ => match file(rest) {
                    Some(file) if !allowed.iter().any(|folder| Path::new(&file).starts_with(folder)) => file,
                    _ => continue,
                },
            };
            leaks.extend(canaries.in_bytes(rest).into_iter().map(|text| format!("{text} in {place}")));
        }
        leaks
    }
}

/// Returns the file that a write goes to: `5</path>, "…"`.
fn file(rest: &[u8]) -> Option<String> {
    let open = rest.iter().position(|byte| *byte == b'<')?;
    let path = rest[open + 1..].split(|byte| *byte == b'>').next()?;
    let path = String::from_utf8_lossy(path).into_owned();
    let memory = path.starts_with("/memfd:") || path.starts_with("/dev/");
    (path.starts_with('/') && !memory).then_some(path)
}
