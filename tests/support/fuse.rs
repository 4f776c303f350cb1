//! A FUSE file system whose files say one size and hold another, served by a thread of the test (the
//! kernel's protocol is in `linux/fuse.h`). Mounting needs root.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// A file at the root of the file system.
#[derive(Debug, Clone)]
pub struct StatedFile {
    pub name: &'static str,
    /// The size that the file system says.
    pub stated: u64,
    pub content: Vec<u8>,
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const BATCH_FORGET: u32 = 42;
/// Reads go to the file system, whatever size it says (`FOPEN_DIRECT_IO`).
const DIRECT_IO: u32 = 1;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
/// The first file's node; the root is 1.
const FIRST: u64 = 2;
const CHANGED: u64 = 1_600_000_000;

/// Mounts the files at `at`. The thread that serves them ends with the mount.
pub fn mount(at: &Path, files: Vec<StatedFile>) {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
    let input = device.try_clone().expect("a descriptor");
    let status = Command::new("mount")
        .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "kbak"])
        .arg(at)
        .stdin(Stdio::from(input))
        .status();
    assert!(status.expect("mount").success());
    // The device cannot be read before it is mounted.
    std::thread::spawn(move || serve(device, &files));
}

fn serve(mut device: File, files: &[StatedFile]) {
    let mut buffer = vec![0; 1 << 18];
    // A read fails when the file system is unmounted.
    while let Ok(length) = device.read(&mut buffer) {
        let request = &buffer[..length];
        let (opcode, unique, node) = (u32_at(request, 4), u64_at(request, 8), u64_at(request, 16));
        let body = &request[40..];
        let answer = match opcode {
            FORGET | BATCH_FORGET => continue,
            INIT => Ok(init()),
            GETATTR => Ok([u64s(&[3600, 0]), attributes(node, files)].concat()),
            LOOKUP => lookup(body, files),
            OPEN => Ok([u64s(&[0]), u32s(&[DIRECT_IO, 0])].concat()),
            OPENDIR => Ok(u64s(&[0, 0])),
            READ => Ok(content(node, body, files)),
            // Blocks and files, free ones; the sizes of a block, of a name and of a fragment; unused.
            STATFS => Ok([u64s(&[0; 5]), u32s(&[4096, 255, 4096]), u32s(&[0; 7])].concat()),
            READDIR => Ok(names(u64_at(body, 8), files)),
            RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
            _ => Err(ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).expect("a short answer");
        let head = [&length.to_le_bytes()[..], &error.to_le_bytes(), &unique.to_le_bytes()].concat();
        // The caller may be gone.
        let _ = device.write_all(&[head, body].concat());
    }
}

fn init() -> Vec<u8> {
    // Version 7.31, read-ahead, flags; requests in the background; the longest write; unused.
    let head = u32s(&[7, 31, 0, 0]);
    let background = [12u16.to_le_bytes(), 9u16.to_le_bytes()].concat();
    [head, background, u32s(&[4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])].concat()
}

fn attributes(node: u64, files: &[StatedFile]) -> Vec<u8> {
    let file = node.checked_sub(FIRST).and_then(|at| files.get(usize::try_from(at).ok()?));
    let (size, mode) = file.map_or((0, 0o040_755), |file| (file.stated, 0o100_644));
    let blocks = size.div_ceil(512);
    // The three times have no nanoseconds; links, owner, group, device, block size, flags.
    [u64s(&[node, size, blocks, CHANGED, CHANGED, CHANGED]), u32s(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])]
        .concat()
}

fn lookup(body: &[u8], files: &[StatedFile]) -> Result<Vec<u8>, i32> {
    let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
    let at = files.iter().position(|file| file.name.as_bytes() == name).ok_or(ENOENT)?;
    let node = FIRST + at as u64;
    Ok([u64s(&[node, 0, 3600, 3600]), u32s(&[0, 0]), attributes(node, files)].concat())
}

fn content(node: u64, body: &[u8], files: &[StatedFile]) -> Vec<u8> {
    let bytes = &files[usize::try_from(node - FIRST).expect("a file")].content;
    let from = usize::try_from(u64_at(body, 8)).expect("an offset").min(bytes.len());
    let length = (u32_at(body, 16) as usize).min(bytes.len() - from);
    bytes[from..from + length].to_vec()
}

fn names(offset: u64, files: &[StatedFile]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (at, file) in files.iter().enumerate().skip(usize::try_from(offset).expect("an offset")) {
        let name = file.name.as_bytes();
        entries.extend(u64s(&[FIRST + at as u64, at as u64 + 1]));
        entries.extend(u32s(&[name.len() as u32, 8]));
        entries.extend(name);
        entries.resize(entries.len().next_multiple_of(8), 0);
    }
    entries
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32s(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn u64s(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
