//! `kbak diff`: compares two snapshots, or one with the live cluster.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::reading;
use crate::cli::options::reading::MEMORY;
use crate::cli::options::sources;
use crate::cli::options::{OutputArgs, Progress, ReadArgs};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::Format;
use crate::cli::shell::run_end;
use crate::cli::shell::signals::until_signalled;
use crate::compare::{self, Change, Difference, Stored};
use crate::format::body::{Item, Stream};
use crate::keys::Identity;
use crate::pipeline::reader::StreamReader;
use crate::plan::Cluster;
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
      what changed in the cluster since: which objects, and which of their fields

A file counts as the same when its kind, size, owner, mode, link, time of change, extended attributes
and content are; an object when its JSON is. Content is looked at where nothing but that time differs, and
read where the two snapshots do not share what they stored. With --live, fields that the server sets by
itself are left out, and paths of fields are told, values never. Exit codes: 0 no difference,
1 differences, 3 something was not compared.")]
pub struct DiffArgs {
    /// The older one: a number, or the first digits of a hash
    #[arg(value_name = "FROM")]
    pub from: String,
    /// The newer one
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
    /// Options for the repository and the keys of its readers.
    #[command(flatten)]
    pub repository: ReadArgs,
    /// The output format; JSON is written as one object a line.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak diff`.
pub(crate) fn run(args: &DiffArgs, console: &Console) -> Result<Exit, Failure> {
    let identities = reading::keys(&args.repository.reader)?;
    if args.live {
        return live(args, &identities, console);
    }
    let reporter = console.reporter();
    let (count, lacking) = until_signalled(async {
        let view = reading::view(&args.repository, &reporter).await?;
        let mut both = Vec::with_capacity(2);
        for name in [&args.from, &args.to] {
            let (plan, snapshot) = view.select(&reading::which(&args.repository.reader, name)).await?;
            both.push(view.open(&plan, &snapshot, &identities, MEMORY / 2).await?);
        }
        let [from, to] = both.as_slice() else {
            return Err(Failure::new(Exit::Bug, "two snapshots are not two"));
        };
        let mut found = Found::new(args.output.output);
        let lacking = items(from, to, &args.item, &mut found).await?;
        output::written(found.out.0.flush())?;
        Ok((found.count, lacking))
    })?;
    for one in &lacking {
        console.warn(&plain(one));
    }
    Ok(told(count, lacking.is_empty(), console))
}

fn told(count: u64, is_all: bool, console: &Console) -> Exit {
    match (count, is_all) {
        (0, true) => {
            console.say("no difference");
            Exit::Safe
        }
        (0, false) => {
            console.say("no difference in what was compared");
            Exit::Partial
        }
        _ => {
            console.say(&plural(count, "difference", "differences"));
            Exit::Bug
        }
    }
}

/// Compares a snapshot's resources with the live cluster.
fn live(args: &DiffArgs, identities: &[Arc<Identity>], console: &Console) -> Result<Exit, Failure> {
    let display = run_end::shown(Progress::Auto, console);
    let reporter = display.reporter();
    let compared = until_signalled(async {
        let from = &args.repository;
        let snapshot = reading::open(from, &args.from, identities, MEMORY, &reporter).await?.snapshot;
        let spec = Cluster { kubeconfig_file: args.kubeconfig.clone(), context: args.context.clone() };
        let cluster = sources::cluster(Some(&spec), &reporter).await?;
        let meter = reporter.meter("resources", "objects");
        let mut found = Found::new(args.output.output);
        let mut take = |one: Difference| found.take("resources", one).map_err(Into::into);
        let not_compared = compare::live(&snapshot, &cluster, &meter, &mut take).await?;
        meter.end();
        output::written(found.out.0.flush())?;
        Ok((found.count, not_compared))
    });
    drop(display.finish());
    let (count, not_compared) = compared?;
    for one in &not_compared {
        console.warn(&format!("{}: not compared: {}", one.kind, plain(&one.why)));
    }
    Ok(told(count, not_compared.is_empty(), console))
}

#[derive(Serialize)]
struct Row<'a> {
    change: Change,
    item: &'a str,
    stream: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<String>,
}

struct Out(std::io::BufWriter<std::io::Stdout>);

impl From<std::io::Stdout> for Out {
    fn from(stdout: std::io::Stdout) -> Self {
        Self(std::io::BufWriter::with_capacity(64 << 10, stdout))
    }
}

/// Writes differences as they are found.
struct Found {
    format: Format,
    out: Out,
    count: u64,
}

impl Found {
    fn new(format: Format) -> Self {
        Self { format, out: std::io::stdout().into(), count: 0 }
    }

    fn take(&mut self, item: &str, one: Difference) -> Result<(), Failure> {
        let Difference { change, kind, object, fields } = one;
        self.add(&Row { change, item, stream: &kind, path: &object, what: fields })
    }

    fn add(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        self.count += 1;
        let text = match self.format {
            Format::Json => serde_json::to_string(row).unwrap_or_default(),
            Format::Yaml => format!("---\n{}", serde_saphyr::to_string(row).unwrap_or_default().trim_end()),
            Format::Table => {
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
        output::written(writeln!(self.out.0, "{text}"))
    }
}

async fn items(
    from: &OpenSnapshot,
    to: &OpenSnapshot,
    wanted: &[String],
    found: &mut Found,
) -> Result<Vec<String>, Failure> {
    for name in wanted {
        if !from.body().items.iter().any(|item| item.name == *name) {
            reading::item(to, name)?;
        }
    }
    let named = |snapshot: &OpenSnapshot| -> BTreeMap<String, Item> {
        let chosen =
            snapshot.body().items.iter().filter(|item| wanted.is_empty() || wanted.contains(&item.name));
        chosen.map(|item| (item.name.clone(), item.clone())).collect()
    };
    let (older, newer) = (named(from), named(to));
    for (change, here, there) in [(Change::Removed, &older, &newer), (Change::Added, &newer, &older)] {
        for name in here.keys().filter(|name| !there.contains_key(*name)) {
            found.add(&Row { change, item: name, stream: "", path: "", what: Vec::new() })?;
        }
    }
    let mut not_compared = Vec::new();
    for (name, old) in &older {
        let Some(new) = newer.get(name) else { continue };
        streams((from, old), (to, new), found).await?;
        not_compared.extend([(from, old), (to, new)].into_iter().filter_map(lacks));
    }
    Ok(not_compared)
}

/// Returns a warning if an item has gaps: data that its backup could not read is not compared.
fn lacks((snapshot, item): (&OpenSnapshot, &Item)) -> Option<String> {
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
    Some(format!("{name}: not compared: what snapshot {seq} could not read whole: {object}{why}{more}"))
}

async fn streams(
    (from, old): (&OpenSnapshot, &Item),
    (to, new): (&OpenSnapshot, &Item),
    found: &mut Found,
) -> Result<(), Failure> {
    let item = old.name.as_str();
    let missing = |here: &Item, there: &Item| -> Vec<String> {
        let has = |name: &str| there.streams.iter().any(|stream| stream.name == name);
        here.streams.iter().filter(|stream| !has(&stream.name)).map(|stream| stream.name.clone()).collect()
    };
    for (change, names) in [(Change::Removed, missing(old, new)), (Change::Added, missing(new, old))] {
        for stream in &names {
            found.add(&Row { change, item, stream, path: "", what: Vec::new() })?;
        }
    }
    for before in &old.streams {
        let Some(after) = new.streams.iter().find(|stream| stream.name == before.name) else { continue };
        if same(before, after) {
            continue;
        }
        let readers = (from.read(before)?, to.read(after)?);
        match before.format.as_str() {
            "tar" => {
                let mut take = |one: Difference| found.take(item, one).map_err(Into::into);
                let compared = compare::folder(&readers.0, &readers.1, &mut take).await;
                compared.map_err(|error| error.at("item", item))?;
            }
            "jsonl" => objects(&readers.0, &readers.1, item, found).await?,
            _ => {
                let what = match (before.length, after.length) {
                    (old, new) if old == new => vec!["content".to_owned()],
                    (old, new) => vec![format!("{} → {}", size(old), size(new))],
                };
                let stream = before.name.as_str();
                found.add(&Row { change: Change::Changed, item, stream, path: "", what })?;
            }
        }
    }
    Ok(())
}

fn same(before: &Stream, after: &Stream) -> bool {
    match (before.sha256, after.sha256) {
        (Some(old), Some(new)) => old == new && before.length == after.length,
        _ => before.epoch == after.epoch && before.hash == after.hash,
    }
}

/// Compares the objects of a kind by name, because the server's order may differ between the snapshots.
async fn objects(
    from: &StreamReader,
    to: &StreamReader,
    item: &str,
    found: &mut Found,
) -> Result<(), Failure> {
    let stream = from.body().name.clone();
    let (mut old, new) = (digests(from).await?, digests(to).await?);
    for (path, digest) in &new {
        let change = match old.remove(path) {
            Some(before) if before == *digest => continue,
            Some(_) => Change::Changed,
            None => Change::Added,
        };
        found.add(&Row { change, item, stream: &stream, path, what: Vec::new() })?;
    }
    for path in old.keys() {
        found.add(&Row { change: Change::Removed, item, stream: &stream, path, what: Vec::new() })?;
    }
    Ok(())
}

/// Returns the objects of a kind by name, each with a digest of its line.
async fn digests(reader: &StreamReader) -> Result<BTreeMap<String, [u8; 32]>, Failure> {
    let mut found = BTreeMap::new();
    let mut stored = Stored::new(reader);
    while let Some((path, line)) = stored.next().await? {
        found.insert(path, *blake3::hash(&line).as_bytes());
    }
    Ok(found)
}
