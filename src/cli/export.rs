//! `kbak export`: a snapshot as plain files, for stock tools.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt as _;
use tempfile::NamedTempFile;

use super::options::ReadArgs;
use super::reading;
use super::show::Shown;
use super::terminal::Talk;
use crate::format::body::{Item, Stream};
use crate::pipeline::reader::StreamReader;
use crate::report::failure::{Exit, Failure};
use crate::report::text::{plural, size};
use crate::repository::private_file::folder_of;

/// What `kbak export` takes.
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
    /// From where, and with which keys.
    #[command(flatten)]
    pub repository: ReadArgs,
}

/// Writes the files.
pub(super) fn run(args: &ExportArgs, talk: &Talk) -> Result<Exit, Failure> {
    reading::with_snapshot(&args.repository, &args.snapshot, talk, |opened| async move {
        let snapshot = &opened.snapshot;
        for name in &args.item {
            reading::item(snapshot, name)?;
        }
        let whole = serde_json::to_string_pretty(&Shown::of(&opened)).unwrap_or_default() + "\n";
        let (mut files, mut bytes, mut open) = (1u64, whole.len() as u64, Vec::new());
        write(whole.as_bytes(), &args.to.join("snapshot.json"))?;
        for item in &snapshot.body().items {
            if !args.item.is_empty() && !args.item.contains(&item.name) {
                continue;
            }
            for stream in &item.streams {
                bytes +=
                    write_stream(&snapshot.read(stream)?, &args.to.join(file_name(item, stream)?)).await?;
                files += 1;
            }
            if !item.state.is_whole() {
                open.push(item.name.clone());
            }
        }
        let to = args.to.display();
        talk.good(&format!("{}, {} in {to}, in clear text", plural(files, "file", "files"), size(bytes)));
        if open.is_empty() {
            return Ok(Exit::Safe);
        }
        talk.warn(&format!("not whole in this snapshot: {}", open.join(", ")));
        Ok(Exit::Partial)
    })
}

/// `path/srv/uploads.tar`, `shop/orders.dump`, `resources/apps/v1/deployments.jsonl`. Names come
/// from the backup: what could lead out of the folder is refused, or escaped where a server's user
/// chose it.
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

/// The name of a database as one file's name: `%` and `/` are percent-encoded, and a dot at its
/// beginning.
fn escaped(name: &str) -> String {
    let name = name.replace('%', "%25").replace('/', "%2F");
    name.strip_prefix('.').map_or_else(|| name.clone(), |rest| format!("%2E{rest}"))
}

/// A file on its way: under another name beside its own until it is whole.
fn begin(path: &Path) -> Result<NamedTempFile, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(Exit::Usage, format!("{}: cannot be written", path.display()))
            .because(error)
            .remedy("export into a new folder that you may write to")
    };
    if path.symlink_metadata().is_ok() {
        return Err(cannot(std::io::ErrorKind::AlreadyExists.into()));
    }
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(cannot)?;
    tempfile::Builder::new().prefix(".kbak-").tempfile_in(folder).map_err(cannot)
}

/// Gives it its name.
fn end(file: NamedTempFile, path: &Path) -> Result<(), Failure> {
    file.as_file().sync_all().map_err(|error| stopped(path, error))?;
    file.persist_noclobber(path).map(drop).map_err(|error| stopped(path, error.error))
}

fn stopped(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Exit::Partial, format!("{}: not exported; what came before it is whole", path.display()))
        .because(error)
        .remedy("make room, and export into a new folder")
}

fn write(bytes: &[u8], path: &Path) -> Result<(), Failure> {
    let mut file = begin(path)?;
    file.write_all(bytes).map_err(|error| stopped(path, error))?;
    end(file, path)
}

async fn write_stream(reader: &StreamReader, path: &Path) -> Result<u64, Failure> {
    let mut file = begin(path)?;
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        file.write_all(&piece?).map_err(|error| stopped(path, error))?;
    }
    end(file, path)?;
    Ok(reader.body().length)
}
