//! `kbak cat`: writes a stream, one file of a folder, or one object to standard output.

use std::ffi::OsString;
use std::io::Write;

use clap::{Args, ValueEnum};
use futures::StreamExt as _;

use super::gaps::{gap_report, missing};
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::{ReadArgs, reading};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::format::body::Item;
use crate::format::catalog::MemberType;
use crate::format::name::Name;
use crate::format::tar::parse::{ExpectedInput, ParseError, TarEvent, TarParser};
use crate::pipeline::reader::StreamReader;
use crate::report::run::GapReport;
use crate::report::text::plain;
use crate::restore::folder::Paths;
use crate::restore::streams::member as member_of;

/// The largest object that is decoded, in bytes. No API server accepts more than 3 MiB.
const MAX_OBJECT: u64 = 64 << 20;

/// The number of gaps that are named; the rest is counted.
const MAX_LISTED: usize = 5;

/// Arguments of `kbak cat`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak cat latest path/srv/uploads:2026/invoice.pdf --repo … --signer kbak.pub --identity owner.key > invoice.pdf
  kbak cat latest path/srv/uploads … | tar -t
  kbak cat latest shop:orders.dump … | pg_restore -l
  kbak cat latest resources:core/v1/configmaps/shop/settings … | jq .data
  kbak cat latest resources:apps/v1/deployments … | jq -c .metadata.name
  kbak cat latest resources:apps/v1/deployments/shop/web -o yaml … | less")]
pub struct CatArgs {
    /// latest, a number, or the first six digits of a hash or more
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// An item, and a stream, a file or an object in it
    #[arg(value_name = "ITEM[:PATH]")]
    pub place: OsString,
    /// The format of one object [default: its line as the server wrote it]
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<ObjectFormat>,
    #[command(flatten)]
    pub repository: ReadArgs,
}

/// The format of a single object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ObjectFormat {
    /// YAML
    Yaml,
    /// JSON over several lines
    Json,
}

/// Runs `kbak cat`.
pub(crate) fn run(args: &CatArgs, console: &Console) -> Result<Exit, Failure> {
    output::require_open(Exit::Partial)?;
    reading::with_snapshot(&args.repository, &args.snapshot, console, |opened| async move {
        let snapshot = &opened.snapshot;
        let (item, rest) = reading::parse_place(snapshot, &args.place)?;
        let (stream, path) = reading::find_stream(item, rest)?;
        let reader = snapshot.read(stream)?;
        let mut stdout = std::io::stdout();
        let mut whole = true;
        if let Some(format) = args.output {
            let path = reading::resolve_path(&reader, path).await?;
            output::write_text(&render_object(&reader, &path, format, &item.name).await?)?;
        } else if path.is_empty() {
            whole = stream.format != "tar" || warn_of_gaps(item, None, console);
            let mut bytes = reader.bytes();
            while let Some(piece) = bytes.next().await {
                output::check_write(stdout.write_all(&piece?))?;
            }
        } else {
            let path = reading::resolve_path(&reader, path).await?;
            whole = stream.format != "tar" || warn_of_gaps(item, Some(Paths(vec![path.clone()])), console);
            write_member(&reader, &path, &mut stdout, &item.name).await?;
        }
        output::check_write(stdout.flush())?;
        Ok(if whole { Exit::Safe } else { Exit::Partial })
    })
}

/// Warns of the snapshot's gaps in these paths of a folder, and returns true if there are none. A file that
/// changed while it was read has the right length, but content of different moments.
fn warn_of_gaps(item: &Item, paths: Option<Paths>, console: &Console) -> bool {
    let lacks: Vec<GapReport> = missing(item, paths.as_ref()).map(gap_report).collect();
    for gap in lacks.iter().take(MAX_LISTED) {
        console.warn(&format!("{}: {}: {}", plain(&gap.object), gap.code, plain(&gap.reason)));
    }
    if lacks.len() > MAX_LISTED {
        console.warn(&format!("and {} more: kbak show lists them", lacks.len() - MAX_LISTED));
    }
    lacks.is_empty()
}

/// Decodes one object and renders it. Its fields may come in another order than the server's.
async fn render_object(
    reader: &StreamReader,
    path: &Name,
    format: ObjectFormat,
    item: &str,
) -> Result<String, Failure> {
    let remedy = "name one object, as in resources:core/v1/configmaps/shop/settings; omit -o for bytes";
    let no_object = || Failure::usage("-o is for one object of a cluster").remedy(remedy);
    let found = member_of(reader, path).await?;
    let (at, line) = found.filter(|(_, line)| line.kind == MemberType::Object).ok_or_else(no_object)?;
    let end = at.checked_add(line.len).filter(|end| *end <= reader.body().length && line.len <= MAX_OBJECT);
    let end =
        end.ok_or_else(|| Failure::new(Exit::Damaged, format!("the catalog of {item} contradicts itself")))?;
    let mut bytes = reader.range(at..end);
    let mut text = Vec::new();
    while let Some(piece) = bytes.next().await {
        text.extend_from_slice(&piece?);
    }
    // The parser's message is left out: it may quote a value.
    let damaged = |_| Failure::new(Exit::Damaged, format!("{} is not JSON", path.display()));
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
    let shown = match format {
        ObjectFormat::Yaml => serde_saphyr::to_string(&value).map_err(|error| error.to_string()),
        ObjectFormat::Json => serde_json::to_string_pretty(&value).map_err(|error| error.to_string()),
    };
    let shown =
        shown.map_err(|error| Failure::new(Exit::Bug, "the object cannot be written").because(error))?;
    Ok(shown.trim_end().to_owned() + "\n")
}

/// Writes one member: the content of a file, or the line of an object.
async fn write_member(
    reader: &StreamReader,
    path: &Name,
    out: &mut impl Write,
    item: &str,
) -> Result<(), Failure> {
    let not_found = || {
        Failure::usage(format!("{item} holds nothing at {}", path.display()))
            .remedy("kbak ls or kbak find show what it holds")
    };
    let (mut at, mut line) = member_of(reader, path).await?.ok_or_else(not_found)?;
    // The content of a hard link is stored at the first name of the file.
    if line.kind == MemberType::Hardlink
        && let Some(link_target) = &line.link
    {
        (at, line) = member_of(reader, link_target).await?.ok_or_else(not_found)?;
    }
    match line.kind {
        MemberType::File | MemberType::Object | MemberType::Dump => {}
        _ => {
            let what = format!("{} is not a file", path.display());
            return Err(Failure::usage(what).remedy("kbak restore --path restores folders"));
        }
    }
    let end = at.checked_add(line.len).filter(|end| *end <= reader.body().length);
    let end =
        end.ok_or_else(|| Failure::new(Exit::Damaged, format!("the catalog of {item} contradicts itself")))?;
    let mut bytes = reader.range(at..end);
    if line.kind != MemberType::File {
        while let Some(piece) = bytes.next().await {
            output::check_write(out.write_all(&piece?))?;
        }
        return Ok(());
    }
    let mut parser = TarParser::new(ExpectedInput::Members);
    let mut content = ContentWriter { out, at: 0 };
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        let mut rest: &[u8] = &piece;
        while let Some(event) = parser.next(&mut rest).map_err(damaged)? {
            content.take(event)?;
        }
    }
    parser.finish().map_err(damaged)?;
    content.fill(line.size.unwrap_or(content.at))
}

fn damaged(error: ParseError) -> Failure {
    Failure::new(Exit::Damaged, "the stream is not a tar stream of kbak").because(error)
}

/// Writes a file's content, with zeros for its holes.
struct ContentWriter<'a, W> {
    out: &'a mut W,
    at: u64,
}

impl<W: Write> ContentWriter<'_, W> {
    fn take(&mut self, event: TarEvent<'_>) -> Result<(), Failure> {
        if let TarEvent::Data { at, bytes } = event {
            self.fill(at)?;
            output::check_write(self.out.write_all(bytes))?;
            self.at += bytes.len() as u64;
        }
        Ok(())
    }

    fn fill(&mut self, to: u64) -> Result<(), Failure> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while self.at < to {
            let next = (to - self.at).min(ZEROS.len() as u64);
            output::check_write(self.out.write_all(&ZEROS[..usize::try_from(next).unwrap_or(ZEROS.len())]))?;
            self.at += next;
        }
        Ok(())
    }
}
