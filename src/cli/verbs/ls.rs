//! `kbak ls` and `kbak find`: list and search a snapshot by its catalogs.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use clap::Args;
use futures::StreamExt as _;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::{OutputArgs, ReadArgs, line_by_line, reading};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::Column::{Left, Right};
use crate::cli::shell::output::{self, OutputFormat};
use crate::format::body::Stream;
use crate::format::catalog::{CatalogLine, MemberType};
use crate::format::name::Name;
use crate::format::tar::order;
use crate::pipeline::reader::StreamReader;
use crate::report::text::{count, plain, size, utc};
use crate::repository::read::snapshot::OpenSnapshot;
use crate::restore::streams::catalog_start;

/// Arguments of `kbak ls`.
#[derive(Debug, Args)]
#[command(mut_arg("output", line_by_line))]
#[command(after_long_help = "\
Examples:
  kbak ls latest --repo … --signer kbak.pub --identity owner.key
  kbak ls latest path/srv/uploads …
  kbak ls latest path/srv/uploads:2026/invoices -R …
  kbak ls latest resources:apps/v1/deployments …
  kbak ls 42 path/srv/uploads -R -o json … | jq -r .path")]
pub struct LsArgs {
    /// latest, a number, or the first six digits of a hash or more
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// An item, and a folder or a stream in it [default: the items and their streams]
    #[arg(value_name = "ITEM[:PATH]")]
    pub place: Option<OsString>,
    /// List all levels below, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Arguments of `kbak find`.
#[derive(Debug, Args)]
#[command(mut_arg("output", line_by_line))]
#[command(after_long_help = "\
Examples:
  kbak find latest '*.pdf' --repo … --signer kbak.pub --identity owner.key
  kbak find latest 'invoices/2026/**' --item path/srv/uploads …
  kbak find latest 'shop/*' --item resources …

Exit codes: 0, also when nothing is found.")]
pub struct FindArgs {
    /// latest, a number, or the first six digits of a hash or more
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// A pattern in the syntax of .gitignore
    #[arg(value_name = "PATTERN")]
    pub pattern: OsString,
    /// Only in this item; repeatable
    #[arg(long, value_name = "NAME")]
    pub item: Vec<String>,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak ls`: lists a folder or a kind, or all items with their streams.
pub(crate) fn ls(args: &LsArgs, console: &Console) -> Result<Exit, Failure> {
    reading::with_snapshot(&args.repository, &args.snapshot, console, |opened| async move {
        let snapshot = &opened.snapshot;
        let Some(place) = &args.place else { return list_streams(snapshot, args.output.output) };
        let (item, rest) = reading::parse_place(snapshot, place)?;
        let (stream, path) = reading::find_stream(item, rest)?;
        let mut printer = EntryPrinter::new(args.output.output, &item.name, stream);
        if stream.catalog.is_empty() {
            return Err(Failure::usage(format!("{}:{} has no entries", item.name, stream.name))
                .remedy("kbak cat prints its bytes"));
        }
        let reader = snapshot.read(stream)?;
        let name = reading::resolve_path(&reader, path).await?;
        let path = name.bytes();
        let mut lines = reader.catalog_from(catalog_start(stream, path));
        let mut found = path.is_empty();
        let sorted = stream.format == "tar";
        while let Some(line) = lines.next().await {
            let (_, line) = line?;
            let member = line.path.bytes();
            let beneath = path.is_empty() || order::is_below(member, path);
            found |= member == path || beneath;
            let itself = member == path && line.kind != MemberType::Dir;
            // The stream of a kind has no folders: namespaces are parts of names.
            if itself || beneath && (args.recursive || !sorted || is_child(member, path)) {
                printer.line(&line)?;
            } else if sorted && !beneath && order::compare(member, path).is_gt() {
                break;
            }
        }
        printer.finish()?;
        if found {
            return Ok(Exit::Safe);
        }
        let what = format!("{} holds nothing at {}", item.name, name.display());
        Err(Failure::usage(what).remedy("kbak find searches the whole snapshot"))
    })
}

/// A stream that `kbak ls` can list.
#[derive(Serialize)]
struct StreamRow<'a> {
    place: String,
    item: &'a str,
    stream: &'a str,
    members: u64,
    length: u64,
}

fn list_streams(snapshot: &OpenSnapshot, format: OutputFormat) -> Result<Exit, Failure> {
    let mut all = Vec::new();
    for (item, stream) in snapshot.streams() {
        let place = match stream.format.as_str() {
            "tar" => item.to_owned(),
            _ => format!("{item}:{}", stream.name),
        };
        let Stream { members, length, .. } = *stream;
        all.push(StreamRow { place, item, stream: &stream.name, members, length });
    }
    let columns = [Left("PLACE"), Right("ENTRIES"), Right("SIZE")];
    let rows = all.iter().map(|one| vec![one.place.clone(), count(one.members), size(one.length)]);
    output::write_lines(format, &columns, rows, &all)?;
    Ok(Exit::Safe)
}

/// Runs `kbak find`: searches for paths.
pub(crate) fn find(args: &FindArgs, console: &Console) -> Result<Exit, Failure> {
    let term = SearchTerm::parse(&args.pattern)?;
    reading::with_snapshot(&args.repository, &args.snapshot, console, |opened| async move {
        let snapshot = &opened.snapshot;
        for item in reading::chosen_items(snapshot, &args.item)? {
            for stream in &item.streams {
                search(&snapshot.read(stream)?, &term, args.output.output, &item.name).await?;
            }
        }
        Ok(Exit::Safe)
    })
}

async fn search(
    reader: &StreamReader,
    term: &SearchTerm,
    format: OutputFormat,
    item: &str,
) -> Result<(), Failure> {
    let mut printer = EntryPrinter::new(format, item, reader.body());
    printer.with_place = true;
    let mut lines = reader.catalog();
    while let Some(line) = lines.next().await {
        let (_, line) = line?;
        if term.matches(&line) {
            printer.line(&line)?;
        }
    }
    printer.finish()
}

/// A search term: a pattern, or a name that is not UTF-8, as raw bytes or as kbak escapes it.
struct SearchTerm {
    pattern: Option<Gitignore>,
    name: Option<Name>,
}

impl SearchTerm {
    fn parse(given: &OsStr) -> Result<Self, Failure> {
        let bytes = Name::from(given.as_bytes());
        let Some(text) = given.to_str() else { return Ok(Self { pattern: None, name: Some(bytes) }) };
        let mut builder = GitignoreBuilder::new("");
        let added = builder.add_line(None, text).map(|_| ());
        let pattern = added
            .and_then(|()| builder.build())
            .map_err(|error| Failure::usage(format!("invalid pattern {text:?}")).because(error))?;
        Ok(Self { pattern: Some(pattern), name: bytes.unescaped() })
    }

    fn matches(&self, line: &CatalogLine) -> bool {
        let bytes = line.path.bytes();
        // As in patterns: with a slash it is a whole path, without one a name in any folder.
        let named = self.name.as_ref().is_some_and(|name| {
            let last = bytes.rsplit(|&byte| byte == b'/').next();
            name.bytes() == bytes || last == Some(name.bytes())
        });
        let path = Path::new(OsStr::from_bytes(bytes));
        let matches = |pattern: &Gitignore| pattern.matched(path, line.kind == MemberType::Dir).is_ignore();
        named || self.pattern.as_ref().is_some_and(matches)
    }
}

fn is_child(member: &[u8], folder: &[u8]) -> bool {
    let beneath = if folder.is_empty() { member } else { member.get(folder.len() + 1..).unwrap_or_default() };
    // Kinds do not come here: their members are namespace/name, and both parts are shown.
    !beneath.contains(&b'/')
}

/// Writes entries as they are read, so that a list of millions is never held in memory.
struct EntryPrinter<'a> {
    format: OutputFormat,
    item: &'a str,
    stream: &'a str,
    objects: bool,
    with_place: bool,
    out: std::io::BufWriter<std::io::Stdout>,
}

#[derive(Serialize)]
struct EntryRow<'a> {
    item: &'a str,
    stream: &'a str,
    #[serde(flatten)]
    line: &'a CatalogLine,
}

impl<'a> EntryPrinter<'a> {
    fn new(format: OutputFormat, item: &'a str, stream: &'a Stream) -> Self {
        let objects = stream.format == "jsonl";
        let out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout());
        Self { format, item, stream: &stream.name, objects, with_place: false, out }
    }

    fn line(&mut self, line: &CatalogLine) -> Result<(), Failure> {
        let text = match self.format {
            OutputFormat::Table => self.row(line),
            format => output::render_line(&EntryRow { item: self.item, stream: self.stream, line }, format)?,
        };
        output::check_write(writeln!(self.out, "{text}"))
    }

    fn row(&self, line: &CatalogLine) -> String {
        let place = match (self.with_place, self.objects) {
            (true, true) => format!("{}:{}/", plain(self.item), plain(self.stream)),
            (true, false) => format!("{}:", plain(self.item)),
            _ => String::new(),
        };
        let name = format!("{place}{}", line.path.display());
        if self.objects {
            return format!("{:>9}  {name}", size(line.len));
        }
        let kind = match line.kind {
            MemberType::Dir => 'd',
            MemberType::Symlink => 'l',
            MemberType::Hardlink => 'h',
            MemberType::Fifo => 'p',
            MemberType::Char => 'c',
            MemberType::Block => 'b',
            MemberType::File | MemberType::Object | MemberType::Dump => '-',
        };
        let mode = line.mode.as_deref().unwrap_or("-");
        let owner = match (line.uid, line.gid) {
            (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
            _ => "-".into(),
        };
        let bytes = line.size.map_or_else(|| "-".into(), size);
        let slash = if line.kind == MemberType::Dir { "/" } else { "" };
        let link = line.link.as_ref().map(|to| format!(" -> {}", to.display())).unwrap_or_default();
        format!("{kind} {mode:>5}  {owner:<11} {bytes:>9}  {}  {name}{slash}{link}", time(line))
    }

    fn finish(mut self) -> Result<(), Failure> {
        output::check_write(self.out.flush())
    }
}

fn time(line: &CatalogLine) -> String {
    let seconds = line.mtime.as_deref().and_then(|text| text.split('.').next()?.parse::<i64>().ok());
    let at = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(|| format!("{:20}", "-"), utc)
}
