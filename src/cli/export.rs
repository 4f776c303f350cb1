//! `kbak export`: a snapshot as plain files, for stock tools.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use futures::StreamExt as _;

use super::options::ReadArgs;
use super::reading;
use super::show::Shown;
use super::terminal::Talk;
use crate::format::body::{Item, Stream};
use crate::pipeline::reader::StreamReader;
use crate::report::failure::{Exit, Failure};
use crate::report::text::{plural, size};

/// What `kbak export` takes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak export latest --to /mnt/out --repo … --signer kbak.pub --identity owner.key
  kbak export 42 --item shop --to /mnt/out …

Folders come as .tar, databases as .dump and .sql, resources as one .jsonl for each kind, and
snapshot.json says what they are. The files are NOT encrypted: mode 0600, and yours to guard.")]
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
        create(&args.to.join("snapshot.json"))?
            .write_all(whole.as_bytes())
            .map_err(|error| failed(&args.to.join("snapshot.json"), error))?;
        for item in &snapshot.body().items {
            if !args.item.is_empty() && !args.item.contains(&item.name) {
                continue;
            }
            for stream in &item.streams {
                bytes += write(&snapshot.read(stream)?, &args.to.join(file_name(item, stream)?)).await?;
                files += 1;
            }
            if !item.state.is_safe() {
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
/// from the backup: what could lead out of the folder is refused.
fn file_name(item: &Item, stream: &Stream) -> Result<PathBuf, Failure> {
    let name = match stream.format.as_str() {
        "tar" => format!("{}.tar", item.name),
        "jsonl" => format!("{}/{}.jsonl", item.name, stream.name),
        _ => format!("{}/{}", item.name, stream.name),
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

fn create(path: &Path) -> Result<std::fs::File, Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("{}: cannot be written", path.display()))
        .because(error)
        .remedy("export into a new folder with room")
}

async fn write(reader: &StreamReader, path: &Path) -> Result<u64, Failure> {
    let mut file = create(path)?;
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        file.write_all(&piece?).map_err(|error| failed(path, error))?;
    }
    file.sync_all().map_err(|error| failed(path, error))?;
    Ok(reader.body().length)
}
