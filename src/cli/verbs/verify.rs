//! `kbak verify`: checks that the stored objects are those that were signed, with or without a key.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::keyring::writer;
use crate::cli::options::reading;
use crate::cli::options::reading::MEMORY;
use crate::cli::options::{OutputArgs, ReadArgs, RunArgs, enough};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::Format;
use crate::cli::shell::run_end;
use crate::cli::shell::signals::until_signalled;
use crate::format::ids::ObjectHash;
use crate::keys::Identity;
use crate::keys::writer_key::WriterKey;
use crate::report::run::RunReport;
use crate::report::text::{count, plain, plural, short_hash, size};
use crate::verify::{Depth, Fault, Finding, Options, Verdict, distrust, verify};

/// The number of snapshots and items of one finding that the table lists.
const TOLD: usize = 8;

/// Arguments of `kbak verify`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak verify --repo s3://backups/prod --signer kbak.pub
  kbak verify --repo … --signer … --read-all
  kbak verify --repo … --signer … --sample 5% --expect-head sha256:9b1f…
  kbak verify --repo … --signer … --identity owner.key

Without more it proves signatures, the chain of snapshots, and that everything a snapshot needs is
there with its size. --read-all reads every byte and compares it with its name, --sample some packs.
With --identity everything that snapshots need is opened, down to every chunk. None of the first
three needs a private key.

Exit codes: 0 all is well, 2 a newer kbak is needed, 3 an epoch does not open with the identity, or
there is no snapshot, 4 something is damaged, missing or tampered with, 5 the store cannot be reached.")]
pub struct VerifyArgs {
    /// Read every byte of every object
    #[arg(long, conflicts_with = "sample")]
    pub read_all: bool,
    /// Read this share of the packs, chosen at random: 5% or 0.05
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub sample: Option<f64>,
    /// Sign a record of the packs that are bad with this writer's key: the next backup stores their
    /// data anew, and restores look for copies
    #[arg(long, value_name = "FILE")]
    pub distrust_key: Option<PathBuf>,
    /// A snapshot that must be in its chain: the hash that an earlier run told
    #[arg(long, value_name = "HASH", value_parser = head)]
    pub expect_head: Option<ObjectHash>,
    /// Options for the repository and the keys of its readers.
    #[command(flatten)]
    pub repository: ReadArgs,
    /// Options of the run: progress, limits and report files.
    #[command(flatten)]
    pub run: RunArgs,
    /// The output format of the findings.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map_err(|_| "a share is 5% or 0.05".to_owned())? / unit;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("a share is above 0 and at most 100%".into()) }
}

fn head(text: &str) -> Result<ObjectHash, String> {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    text.parse().map_err(|_| "a head is sha256: and 64 hex digits, as kbak backup tells it".into())
}

/// Runs `kbak verify`.
pub(crate) fn run(args: &VerifyArgs, console: &Console) -> Result<Exit, Failure> {
    let place = args.repository.store.repo.clone().unwrap_or_default();
    let (identities, key) = keys(args, console)
        .map_err(|failure| run_end::unbegun("verify", &place, None, failure, &args.run, console))?;
    let memory = args.run.memory.map(crate::plan::Size::get);
    let mut report = run_end::begin("verify", &place, None);
    let display = run_end::display(&args.run, console, memory);
    let reporter = display.reporter();
    let options = Options {
        which: reading::which(&args.repository.reader, "latest"),
        depth: match (args.read_all, args.sample) {
            (true, _) => Depth::All,
            (false, Some(share)) => Depth::Sample(share),
            (false, None) => Depth::Presence,
        },
        expect_head: args.expect_head,
        identities,
        memory: memory.map_or(MEMORY, |memory| memory / 2),
    };
    let outcome = until_signalled(async {
        let view = reading::view(&args.repository, &reporter).await?;
        let verdict = verify(&view, &options).await?;
        let records = match &key {
            Some(key) => distrust(&view, key, &verdict).await?,
            None => 0,
        };
        Ok((verdict, records))
    });
    let format = args.output.output;
    let (verdict, records) = match outcome {
        Ok(done) => done,
        Err(failure) => {
            return run_end::end(report, Some(&failure), display, &reporter, &args.run, format, console);
        }
    };
    fill(&mut report, &verdict);
    if records > 0 {
        let text = plural(records, "record of bad packs was signed", "records of bad packs were signed");
        report.facts.push(("distrust".into(), format!("{text}: the next backup stores their data anew")));
    }
    let report = run_end::complete(report, None, display, &reporter);
    run_end::leave(&report, &args.run, console);
    if format == Format::Table {
        output::text(&findings(&verdict))?;
    } else {
        output::value(&verdict, format)?;
    }
    run_end::tell(report, &args.run, console)
}

/// Reads the identities, if any are given, and the writer's key that signs distrust records.
fn keys(args: &VerifyArgs, console: &Console) -> Result<(Vec<Arc<Identity>>, Option<WriterKey>), Failure> {
    enough(args.run.memory)?;
    let identities = match args.repository.reader.identity.is_empty() {
        true => Vec::new(),
        false => reading::keys(&args.repository.reader)?,
    };
    let key = args.distrust_key.as_deref().map(|file| writer(file, console)).transpose()?;
    Ok((identities, key))
}

fn fill(report: &mut RunReport, verdict: &Verdict) {
    report.exit = verdict.outcome();
    report.repository.clone_from(&verdict.repository);
    let checked = &verdict.checked;
    let healed = verdict.findings.iter().filter(|finding| finding.healed).count() as u64;
    let wrong = verdict.findings.len() as u64 + verdict.findings_left_out - healed;
    let newer = verdict.findings.iter().all(|finding| finding.fault == Fault::Newer || finding.healed);
    let snapshots = plural(checked.snapshots, "snapshot", "snapshots");
    report.verdict = match (wrong, newer) {
        (0, _) if checked.snapshots == 0 => "no snapshot is there: nothing is safe".to_owned(),
        (0, _) => format!("verified: {snapshots} of {}", plural(checked.plans, "plan", "plans")),
        (wrong, true) => format!("{} of a newer format", plural(wrong, "object is", "objects are")),
        (wrong, false) => {
            format!("{} damaged, missing or tampered with", plural(wrong, "object is", "objects are"))
        }
    };
    let mut fact = |name: &str, value: String| report.facts.push((name.to_owned(), value));
    fact("needed", plural(checked.packs, "pack", "packs"));
    if checked.hashed > 0 {
        let packs = plural(checked.packs_read, "pack", "packs");
        let objects = plural(checked.hashed, "object", "objects");
        fact("read", format!("{objects}, {packs} among them, {}", size(checked.bytes_read)));
    }
    if healed > 0 {
        fact(
            "healed",
            format!("{}: copies of all their chunks lie elsewhere", plural(healed, "bad pack", "bad packs")),
        );
    }
    if checked.chunks > 0 {
        fact("opened", format!("{} chunks", count(checked.chunks)));
    }
    for head in &verdict.heads {
        fact("head", format!("{:06} of plan {}, sha256:{}", head.sequence, head.plan.plan, head.hash));
    }
    for what in &verdict.not_checked {
        fact("not checked", what.clone());
    }
}

/// Renders the findings as text.
fn findings(verdict: &Verdict) -> String {
    let mut text = String::new();
    for finding in &verdict.findings {
        one(&mut text, finding);
    }
    if verdict.findings_left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "and {} more", count(verdict.findings_left_out));
    }
    text
}

fn one(text: &mut String, finding: &Finding) {
    let mark = if finding.healed { "·" } else { "✗" };
    let _ = writeln!(text, "{mark} {}", plain(&finding.object));
    let _ = writeln!(text, "    {}: {}", finding.fault.word(), plain(&finding.detail));
    for touched in finding.snapshots.iter().take(TOLD) {
        let mut items = touched.items.iter().map(|item| plain(item).into_owned()).collect::<Vec<_>>();
        let more = items.len().saturating_sub(TOLD);
        items.truncate(TOLD);
        let items = match (items.is_empty(), more) {
            (true, _) => String::new(),
            (false, 0) => format!(": {}", items.join(", ")),
            (false, more) => format!(": {} and {more} more", items.join(", ")),
        };
        let (seq, hash) = (touched.sequence, short_hash(&touched.hash.to_string()));
        let _ = writeln!(text, "    touches snapshot {seq:06} ({hash}) of plan {}{items}", touched.plan.plan);
    }
    let more = finding.snapshots.len().saturating_sub(TOLD) as u64;
    if more > 0 {
        let _ = writeln!(text, "    and {}", plural(more, "more snapshot", "more snapshots"));
    }
    let _ = writeln!(text, "  → {}", finding.remedy);
}
