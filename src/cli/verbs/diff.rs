//! `kbak diff`: compares two snapshots, or one with the live cluster.

use std::collections::BTreeMap;
use std::io::{BufWriter, Stdout, Write as _, stdout};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading::{self, READER_MEMORY};
use crate::cli::options::{OutputArgs, ProgressMode, ReadArgs, run_report};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::signals::until_signalled;
use crate::compare::{self, Change, Difference, SnapshotObjects};
use crate::format::body::{Item, Stream};
use crate::keys::Identity;
use crate::kubernetes::{Cluster, RequestLimits};
use crate::pipeline::reader::StreamReader;
use crate::plan::ClusterSpec;
use crate::report::text::{plain, plural, size};
use crate::repository::read::snapshot::OpenSnapshot;

/// Arguments of `kbak diff`.
#[derive(Debug, Args)]
#[command(mut_arg("output", crate::cli::options::line_by_line))]
#[command(after_long_help = "\
Examples:
  kbak diff 41 latest --repo … --signer kbak.pub --identity owner.key
  kbak diff 41 42 --item path/srv/uploads -o json … | jq -r 'select(.change == \"removed\").path'

  kbak diff latest --live --repo … --signer kbak.pub --identity owner.key
      the objects that changed in the cluster since, with their changed fields

A file counts as the same when its kind, size, owner, mode, link, time of change, extended attributes
and content are; an object when its JSON is. Content is compared where only that time differs, and read
where the snapshots do not share its chunks. With --live, fields that the server sets are left out, and
paths of fields are printed, values never. Exit codes: 0 no difference,
1 differences, 3 something was not compared.")]
pub struct DiffArgs {
    /// The older snapshot: a number, or the first six digits of a hash or more
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The newer snapshot
    #[arg(value_name = "TO", default_value = "latest", conflicts_with = "live")]
    pub to: String,
    /// Compare with the live cluster
    #[arg(long)]
    pub live: bool,
    /// A kubeconfig file [default: the pod's ServiceAccount, KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE", requires = "live")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME", requires = "live")]
    pub context: Option<String>,
    /// Only this item; repeatable [default: all]
    #[arg(long, value_name = "NAME")]
    pub item: Vec<String>,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak diff`.
pub(crate) fn run(args: &DiffArgs, console: &Console) -> Result<Exit, Failure> {
    let identities = reading::required_identities(&args.repository.reader)?;
    if args.live {
        return compare_live(args, &identities, console);
    }
    if (args.from.as_str(), args.to.as_str()) == ("latest", "latest") {
        let what = "latest would be compared with itself, and no difference would mean nothing";
        let remedy = "name an older snapshot first, or compare with the cluster: --live";
        return Err(Failure::usage(what).remedy(remedy));
    }
    let reporter = console.reporter();
    let (count, not_compared) = until_signalled(async {
        let view = reading::open_repository(&args.repository, &reporter).await?;
        let open = async |name: &str| {
            let (plan, snapshot) =
                view.select(&reading::snapshot_selector(&args.repository.reader, name)).await?;
            view.open(&plan, &snapshot, &identities, READER_MEMORY / 2).await
        };
        let (from, to) = (open(&args.from).await?, open(&args.to).await?);
        let mut printer = DifferencePrinter::new(args.output.output);
        let not_compared = compare_items(&from, &to, &args.item, &mut printer).await?;
        output::check_write(printer.out.flush())?;
        Ok((printer.count, not_compared))
    })?;
    for one in &not_compared {
        console.warn(&plain(one));
    }
    Ok(print_count(count, not_compared.is_empty(), console))
}

fn print_count(count: u64, is_all: bool, console: &Console) -> Exit {
    match (count, is_all) {
        (0, true) => {
            console.line("no difference");
            Exit::Safe
        }
        (0, false) => {
            console.line("no difference in what was compared");
            Exit::Partial
        }
        _ => {
            console.line(&plural(count, "difference", "differences"));
            Exit::Bug
        }
    }
}

/// Compares a snapshot's resources with the live cluster.
fn compare_live(args: &DiffArgs, identities: &[Arc<Identity>], console: &Console) -> Result<Exit, Failure> {
    let display = run_report::start_display(ProgressMode::Auto, console, None);
    let reporter = display.reporter();
    let compared = until_signalled(async {
        let from = &args.repository;
        let snapshot =
            reading::open_snapshot(from, &args.from, identities, READER_MEMORY, &reporter).await?.snapshot;
        let gaps = check_live_items(args, &snapshot)?;
        let spec = ClusterSpec { kubeconfig_file: args.kubeconfig.clone(), context: args.context.clone() };
        let cluster = Cluster::connect(Some(&spec), RequestLimits::default(), &reporter).await?;
        let meter = reporter.meter("resources", "objects");
        let mut printer = DifferencePrinter::new(args.output.output);
        let mut take = |one: Difference| printer.take("resources", one).map_err(Into::into);
        let not_compared = compare::live(&snapshot, &cluster, &meter, &mut take).await?;
        meter.end();
        output::check_write(printer.out.flush())?;
        Ok((printer.count, not_compared, gaps))
    });
    drop(display.finish());
    let (count, not_compared, gaps) = compared?;
    let kinds = not_compared.iter().map(|one| format!("{}: not compared: {}", one.kind, one.why));
    let warnings: Vec<String> = kinds.chain(gaps).collect();
    for one in &warnings {
        console.warn(&plain(one));
    }
    Ok(print_count(count, warnings.is_empty(), console))
}

/// Refuses items that are not resources, and a snapshot without resources: a comparison of nothing would find no
/// difference. Returns the gaps of the resources.
fn check_live_items(args: &DiffArgs, snapshot: &OpenSnapshot) -> Result<Option<String>, Failure> {
    for item in reading::chosen_items(snapshot, &args.item)? {
        if !args.item.is_empty() && item.kind != "resources" {
            let what =
                format!("--live compares resources, and the item {} is of kind {}", item.name, item.kind);
            return Err(
                Failure::usage(what).remedy("leave out --live and name two snapshots, or leave out --item")
            );
        }
    }
    let items = &snapshot.body().items;
    let resources = items.iter().find(|item| item.kind == "resources" && item.facts.contains_key("kinds"));
    let Some(resources) = resources else {
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        let gap = items.iter().filter(|item| item.kind == "resources").flat_map(|item| &item.gaps).next();
        let seq = snapshot.body().seq;
        let failure = Failure::usage(format!("snapshot {seq:06} holds no resources of a cluster"))
            .fact("its items", names.join(", "))
            .remedy("name another snapshot: kbak snapshots lists them");
        return Err(match gap {
            Some(gap) => failure.fact("why", gap.reason.clone()),
            None => failure,
        });
    };
    Ok(gap_warning((snapshot, resources)))
}

#[derive(Serialize)]
struct DifferenceRow<'a> {
    change: Change,
    item: &'a str,
    stream: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<String>,
}

/// Writes differences as they are found.
struct DifferencePrinter {
    format: OutputFormat,
    out: BufWriter<Stdout>,
    count: u64,
}

impl DifferencePrinter {
    fn new(format: OutputFormat) -> Self {
        Self { format, out: BufWriter::with_capacity(64 << 10, stdout()), count: 0 }
    }

    fn take(&mut self, item: &str, one: Difference) -> Result<(), Failure> {
        let Difference { change, kind, object, fields } = one;
        self.add(&DifferenceRow { change, item, stream: &kind, path: &object, what: fields })
    }

    fn mark(&mut self, change: Change, item: &str, stream: &str, path: &str) -> Result<(), Failure> {
        self.add(&DifferenceRow { change, item, stream, path, what: Vec::new() })
    }

    fn add(&mut self, row: &DifferenceRow<'_>) -> Result<(), Failure> {
        self.count += 1;
        let text = match self.format {
            format @ (OutputFormat::Json | OutputFormat::Yaml) => output::render_line(row, format)?,
            OutputFormat::Table => {
                let mark = match row.change {
                    Change::Added => '+',
                    Change::Removed => '-',
                    Change::Changed => '~',
                };
                let place = match (row.stream, row.path) {
                    ("" | "tar", "") => row.item.to_owned(),
                    ("tar", path) => format!("{}:{path}", row.item),
                    (stream, "") => format!("{}:{stream}", row.item),
                    (stream, path) => format!("{}:{stream}/{path}", row.item),
                };
                let what =
                    if row.what.is_empty() { String::new() } else { format!("   {}", row.what.join(", ")) };
                format!("{mark} {}{what}", plain(&place))
            }
        };
        output::check_write(writeln!(self.out, "{text}"))
    }
}

async fn compare_items(
    from: &OpenSnapshot,
    to: &OpenSnapshot,
    names: &[String],
    printer: &mut DifferencePrinter,
) -> Result<Vec<String>, Failure> {
    for name in names {
        if !from.body().items.iter().any(|item| item.name == *name) {
            reading::find_item(to, name)?;
        }
    }
    let named = |snapshot: &OpenSnapshot| -> BTreeMap<String, Item> {
        let chosen =
            snapshot.body().items.iter().filter(|item| names.is_empty() || names.contains(&item.name));
        chosen.map(|item| (item.name.clone(), item.clone())).collect()
    };
    let (older, newer) = (named(from), named(to));
    for (change, here, there) in [(Change::Removed, &older, &newer), (Change::Added, &newer, &older)] {
        for name in here.keys().filter(|name| !there.contains_key(*name)) {
            printer.mark(change, name, "", "")?;
        }
    }
    let mut not_compared = Vec::new();
    for (name, old) in &older {
        let Some(new) = newer.get(name) else { continue };
        compare_streams((from, old), (to, new), printer).await?;
        not_compared.extend([(from, old), (to, new)].into_iter().filter_map(gap_warning));
    }
    Ok(not_compared)
}

/// Returns a warning if an item has gaps: data that its backup could not read is not compared.
fn gap_warning((snapshot, item): (&OpenSnapshot, &Item)) -> Option<String> {
    let first = item.gaps.first()?;
    let more = match item.gaps.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let object = match first.object.display() {
        object if object.is_empty() => String::new(),
        object => format!("{object}: "),
    };
    let (name, seq, why) = (&item.name, snapshot.body().seq, &first.reason);
    Some(format!("{name}: not compared: a gap of snapshot {seq}: {object}{why}{more}"))
}

async fn compare_streams(
    (from, old): (&OpenSnapshot, &Item),
    (to, new): (&OpenSnapshot, &Item),
    printer: &mut DifferencePrinter,
) -> Result<(), Failure> {
    let item = old.name.as_str();
    let missing = |here: &Item, there: &Item| -> Vec<String> {
        let has = |name: &str| there.streams.iter().any(|stream| stream.name == name);
        here.streams.iter().filter(|stream| !has(&stream.name)).map(|stream| stream.name.clone()).collect()
    };
    for (change, names) in [(Change::Removed, missing(old, new)), (Change::Added, missing(new, old))] {
        for stream in &names {
            printer.mark(change, item, stream, "")?;
        }
    }
    for before in &old.streams {
        let Some(after) = new.streams.iter().find(|stream| stream.name == before.name) else { continue };
        if has_same_content(before, after) {
            continue;
        }
        let readers = (from.read(before)?, to.read(after)?);
        match before.format.as_str() {
            "tar" => {
                let mut take = |one: Difference| printer.take(item, one).map_err(Into::into);
                let compared = compare::folder(&readers.0, &readers.1, &mut take).await;
                compared.map_err(|error| error.at("item", item))?;
            }
            "jsonl" => compare_objects(&readers.0, &readers.1, item, printer).await?,
            _ => {
                let what = match (before.length, after.length) {
                    (old, new) if old == new => vec!["content".to_owned()],
                    (old, new) => vec![format!("{} → {}", size(old), size(new))],
                };
                let stream = before.name.as_str();
                printer.add(&DifferenceRow { change: Change::Changed, item, stream, path: "", what })?;
            }
        }
    }
    Ok(())
}

fn has_same_content(before: &Stream, after: &Stream) -> bool {
    match (before.sha256, after.sha256) {
        (Some(old), Some(new)) => old == new && before.length == after.length,
        // Ids differ between epochs, and so do hashes over them.
        _ => before.hash == after.hash,
    }
}

/// Compares the objects of a kind by name, because the server's order may differ between the snapshots.
async fn compare_objects(
    from: &StreamReader,
    to: &StreamReader,
    item: &str,
    printer: &mut DifferencePrinter,
) -> Result<(), Failure> {
    let stream = from.body().name.clone();
    let (mut old, new) = (digests(from).await?, digests(to).await?);
    for (path, digest) in &new {
        let change = match old.remove(path) {
            Some(before) if before == *digest => continue,
            Some(_) => Change::Changed,
            None => Change::Added,
        };
        printer.mark(change, item, &stream, path)?;
    }
    for path in old.keys() {
        printer.mark(Change::Removed, item, &stream, path)?;
    }
    Ok(())
}

/// Returns the objects of a kind by name, each with a digest of its line.
async fn digests(reader: &StreamReader) -> Result<BTreeMap<String, [u8; 32]>, Failure> {
    let mut found = BTreeMap::new();
    let mut stored = SnapshotObjects::new(reader);
    while let Some((path, line)) = stored.next().await? {
        found.insert(path.display(), *blake3::hash(&line).as_bytes());
    }
    Ok(found)
}
