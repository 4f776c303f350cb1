//! `kbak export`: writes a snapshot as plain files, for standard tools.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt as _;
use tempfile::NamedTempFile;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::ReadArgs;
use crate::cli::options::reading;
use crate::cli::shell::console::Console;
use crate::cli::verbs::show::Shown;
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

Folders come as .tar, databases as .dump and .sql, resources as one .jsonl for each kind, and
snapshot.json says what they are. In names of databases / and % are written %2F and %25, a dot at the
beginning %2E. The files are NOT encrypted: mode 0600, and yours to guard. A file
has its name only when it is whole. Exit codes: 0 all is exported, 3 something is not (it is named).")]
pub struct ExportArgs {
    /// latest, a number, or the first digits of a hash
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    /// Where the files go; existing ones are never overwritten
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// Only this item; repeatable [default: all]
    #[arg(long, value_name = "NAME")]
    pub item: Vec<String>,
    /// Options for the repository and the keys of its readers.
    #[command(flatten)]
    pub repository: ReadArgs,
}

/// Runs `kbak export`.
pub(crate) fn run(args: &ExportArgs, console: &Console) -> Result<Exit, Failure> {
    reading::with_snapshot(&args.repository, &args.snapshot, console, |opened| async move {
        let snapshot = &opened.snapshot;
        for name in &args.item {
            reading::item(snapshot, name)?;
        }
        let whole = serde_json::to_string_pretty(&Shown::of(&opened)).unwrap_or_default() + "\n";
        let (mut files, mut bytes, mut open) = (1u64, whole.len() as u64, Vec::new());
        let mut damaged: Option<Failure> = None;
        write(whole.as_bytes(), &args.to, Path::new("snapshot.json"))?;
        for item in &snapshot.body().items {
            if !args.item.is_empty() && !args.item.contains(&item.name) {
                continue;
            }
            for stream in &item.streams {
                let name = file_name(item, stream)?;
                match write_stream(snapshot, stream, &args.to, &name).await {
                    Ok(written) => (files, bytes) = (files + 1, bytes + written),
                    // Undamaged streams are still exported.
                    Err(failure) if failure.exit == Exit::Damaged => {
                        let all = damaged.take().unwrap_or_else(not_all);
                        damaged = Some(all.fact(name.display().to_string(), causes(&failure)));
                    }
                    Err(failure) => return Err(failure),
                }
            }
            if !item.state.is_whole() {
                open.push(item.name.clone());
            }
        }
        let to = args.to.display();
        console.good(&format!("{}, {} in {to}, in clear text", plural(files, "file", "files"), size(bytes)));
        if !open.is_empty() {
            console.warn(&format!("not whole in this snapshot: {}", open.join(", ")));
        }
        match (damaged, open.is_empty()) {
            (Some(failure), _) => Err(failure),
            (None, true) => Ok(Exit::Safe),
            (None, false) => Ok(Exit::Partial),
        }
    })
}

fn not_all() -> Failure {
    Failure::new(Exit::Damaged, "the backup is damaged here, and these files were not exported")
        .remedy("kbak verify names the objects; an earlier snapshot may hold what they held")
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
            format!("the snapshot names a stream {name:?}, which is no file"),
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
struct Growing {
    file: NamedTempFile,
    /// The final path, through the open folder, so that no link can redirect it meanwhile.
    place: PathBuf,
    shown: PathBuf,
    _folder: Root,
}

/// Creates the file `name` below `to`, with its parent folders. Links below `to` are not followed: other
/// users may have created them.
fn begin(to: &Path, name: &Path) -> Result<Growing, Failure> {
    let shown = to.join(name);
    let cannot = |error: std::io::Error| {
        Failure::new(Exit::Usage, format!("{}: cannot be written", shown.display()))
            .because(error)
            .remedy("export into a new folder that you may write to")
    };
    std::fs::create_dir_all(to).map_err(cannot)?;
    let below = name.parent().unwrap_or(Path::new("")).to_owned();
    let folder = Destination { to: to.to_owned(), below }.make().map_err(|error| cannot(error.into()))?;
    let open = PathBuf::from(OsString::from_vec(proc_fd(&folder)));
    let place = open.join(name.file_name().unwrap_or_default());
    if place.symlink_metadata().is_ok() {
        return Err(cannot(std::io::ErrorKind::AlreadyExists.into()));
    }
    let file = tempfile::Builder::new().prefix(".kbak-").tempfile_in(&open).map_err(cannot)?;
    Ok(Growing { file, place, shown, _folder: folder })
}

impl Growing {
    fn add(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| stopped(&self.shown, error))
    }

    /// Syncs the file and gives it its final name.
    fn end(self) -> Result<(), Failure> {
        let Self { file, place, shown, _folder } = self;
        file.as_file().sync_all().map_err(|error| stopped(&shown, error))?;
        file.persist_noclobber(&place).map(drop).map_err(|error| stopped(&shown, error.error))
    }
}

fn stopped(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Exit::Partial, format!("{}: not exported; what came before it is whole", path.display()))
        .because(error)
        .remedy("make room, and export into a new folder")
}

fn write(bytes: &[u8], to: &Path, name: &Path) -> Result<(), Failure> {
    let mut file = begin(to, name)?;
    file.add(bytes)?;
    file.end()
}

async fn write_stream(
    snapshot: &OpenSnapshot,
    stream: &Stream,
    to: &Path,
    name: &Path,
) -> Result<u64, Failure> {
    let reader = snapshot.read(stream)?;
    let mut file = begin(to, name)?;
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        file.add(&piece?)?;
    }
    file.end()?;
    Ok(reader.body().length)
}
