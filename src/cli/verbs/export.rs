//! `kbak export`: writes a snapshot as plain files, for standard tools.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt as _;
use tempfile::NamedTempFile;

use super::show::SnapshotDetails;
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::{ReadArgs, reading};
use crate::cli::shell::console::Console;
use crate::format::body::{Item, Stream};
use crate::fs::beneath::{Root, proc_fd};
use crate::report::error::causes;
use crate::report::text::{plural, size};
use crate::repository::read::snapshot::OpenSnapshot;
use crate::target::volume::Destination;

/// Arguments of `kbak export`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak export latest --to /mnt/out --repo … --signer kbak.pub --identity owner.key
  kbak export 42 --item shop --to /mnt/out …

Folders are written as .tar, databases as .dump and .sql, resources as one .jsonl for each kind;
snapshot.json lists them. In names of databases / and % are written %2F and %25, a leading dot %2E.
The files are NOT encrypted; their mode is 0600. A file gets its name only when it is complete.
Exit codes: 0 all exported, 3 something was not (it is named).")]
pub struct ExportArgs {
    /// latest, a number, or the first six digits of a hash or more
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    /// The target folder; existing files are never overwritten
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// Only this item; repeatable [default: all]
    #[arg(long, value_name = "NAME")]
    pub item: Vec<String>,
    #[command(flatten)]
    pub repository: ReadArgs,
}

/// Runs `kbak export`.
pub(crate) fn run(args: &ExportArgs, console: &Console) -> Result<Exit, Failure> {
    reading::with_snapshot(&args.repository, &args.snapshot, console, |opened| async move {
        let snapshot = &opened.snapshot;
        let items = reading::chosen_items(snapshot, &args.item)?;
        let whole = serde_json::to_string_pretty(&SnapshotDetails::of(&opened)).unwrap_or_default() + "\n";
        let (mut files, mut bytes, mut open) = (1u64, whole.len() as u64, Vec::new());
        let mut damaged: Option<Failure> = None;
        write_file(whole.as_bytes(), &args.to, Path::new("snapshot.json"))?;
        for item in items {
            for stream in &item.streams {
                let name = file_name(item, stream)?;
                match write_stream(snapshot, stream, &args.to, &name).await {
                    Ok(written) => (files, bytes) = (files + 1, bytes + written),
                    // Undamaged streams are still exported.
                    Err(failure) if failure.exit == Exit::Damaged => {
                        let all = damaged.take().unwrap_or_else(damage_failure);
                        damaged = Some(all.fact(name.display().to_string(), causes(&failure)));
                    }
                    Err(failure) => return Err(failure),
                }
            }
            if !item.state.is_complete() {
                open.push(item.name.clone());
            }
        }
        let to = args.to.display();
        console.success(&format!(
            "{}, {} in {to}, in clear text",
            plural(files, "file", "files"),
            size(bytes)
        ));
        if !open.is_empty() {
            console.warn(&format!("incomplete in this snapshot: {}", open.join(", ")));
        }
        match (damaged, open.is_empty()) {
            (Some(failure), _) => Err(failure),
            (None, true) => Ok(Exit::Safe),
            (None, false) => Ok(Exit::Partial),
        }
    })
}

fn damage_failure() -> Failure {
    Failure::new(Exit::Damaged, "the backup is damaged here, and these files were not exported")
        .remedy("kbak verify lists the damaged objects; an earlier snapshot may hold the same files")
}

/// Returns `path/srv/uploads.tar`, `shop/orders.dump` or `resources/apps/v1/deployments.jsonl`. Names
/// come from the backup: one that could lead out of the folder is refused. Names of databases, which
/// users of the server choose, are escaped.
fn file_name(item: &Item, stream: &Stream) -> Result<PathBuf, Failure> {
    let name = match stream.format.as_str() {
        "tar" => format!("{}.tar", item.name),
        "jsonl" => format!("{}/{}.jsonl", item.name, stream.name),
        _ => format!("{}/{}", item.name, escaped(&stream.name)),
    };
    let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if !name.split('/').all(sound) {
        return Err(Failure::new(
            Exit::Damaged,
            format!("the snapshot names a stream {name:?}, which is not a file name"),
        ));
    }
    Ok(PathBuf::from(name))
}

/// Returns a database's name as a file name: `%`, `/` and a leading dot are percent-encoded.
fn escaped(name: &str) -> String {
    let name = name.replace('%', "%25").replace('/', "%2F");
    name.strip_prefix('.').map_or_else(|| name.clone(), |rest| format!("%2E{rest}"))
}

/// An incomplete file: it has a temporary name in its folder until it is complete.
struct PartialFile {
    file: NamedTempFile,
    /// The final path, through the open folder, so that no link can redirect it meanwhile.
    place: PathBuf,
    shown: PathBuf,
    _folder: Root,
}

impl PartialFile {
    /// Creates the file `name` below `to`, with its parent folders. Links below `to` are not followed: other
    /// users may have created them.
    fn create(to: &Path, name: &Path) -> Result<Self, Failure> {
        let shown = to.join(name);
        let cannot = |error: std::io::Error| {
            Failure::usage(format!("{}: cannot be written", shown.display()))
                .because(error)
                .remedy("export into a new folder that you may write to")
        };
        std::fs::create_dir_all(to).map_err(cannot)?;
        let below = name.parent().unwrap_or(Path::new("")).to_owned();
        let folder = Destination { base: to.to_owned(), subfolder: below }
            .create()
            .map_err(|error| cannot(error.into()))?;
        let open = PathBuf::from(OsString::from_vec(proc_fd(&folder)));
        let place = open.join(name.file_name().unwrap_or_default());
        if place.symlink_metadata().is_ok() {
            return Err(cannot(std::io::ErrorKind::AlreadyExists.into()));
        }
        let file = tempfile::Builder::new().prefix(".kbak-").tempfile_in(&open).map_err(cannot)?;
        Ok(Self { file, place, shown, _folder: folder })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| write_failure(&self.shown, error))
    }

    /// Syncs the file and gives it its final name.
    fn finish(self) -> Result<(), Failure> {
        let Self { file, place, shown, _folder } = self;
        file.as_file().sync_all().map_err(|error| write_failure(&shown, error))?;
        file.persist_noclobber(&place).map(drop).map_err(|error| write_failure(&shown, error.error))
    }
}

fn write_failure(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Exit::Partial, format!("{}: not exported; the files before it are complete", path.display()))
        .because(error)
        .remedy("free disk space, and export into a new folder")
}

fn write_file(bytes: &[u8], to: &Path, name: &Path) -> Result<(), Failure> {
    let mut file = PartialFile::create(to, name)?;
    file.write(bytes)?;
    file.finish()
}

async fn write_stream(
    snapshot: &OpenSnapshot,
    stream: &Stream,
    to: &Path,
    name: &Path,
) -> Result<u64, Failure> {
    let reader = snapshot.read(stream)?;
    let mut file = PartialFile::create(to, name)?;
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        file.write(&piece?)?;
    }
    file.finish()?;
    Ok(reader.body().length)
}
