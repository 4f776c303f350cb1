//! `kbak verify`: checks that the stored objects are those that were signed, with or without a key.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::key_files::read_writer_key;
use crate::cli::options::notices::Notices;
use crate::cli::options::plan_args::load;
use crate::cli::options::reading::{self, READER_MEMORY};
use crate::cli::options::run_report::{self, RunOutput};
use crate::cli::options::{OutputArgs, ReadArgs, RunArgs, check_memory};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::signals::until_signalled;
use crate::format::ids::ObjectHash;
use crate::keys::Identity;
use crate::keys::writer_key::WriterKey;
use crate::plan::{BackupPlan, Size};
use crate::report::run::RunReport;
use crate::report::text::{count, plain, plural, short_hash, size};
use crate::verify::{Depth, Fault, Finding, Options, VerifyReport, distrust, verify};

/// The number of snapshots and items of one finding that the table lists.
const MAX_LISTED: usize = 8;

/// Arguments of `kbak verify`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak verify --repo s3://backups/prod --signer kbak.pub
  kbak verify --repo … --signer … --read-all
  kbak verify --repo … --signer … --sample 5% --expect-head sha256:9b1f…
  kbak verify --repo … --signer … --identity owner.key
  kbak verify --plan nightly.yaml
      the whole repository of the plan, with the plan's access, signers and receivers of notices

By default it verifies signatures, the chain of snapshots, and that every object that a snapshot
needs exists with its size. --read-all reads every byte and compares it with the object's name,
--sample reads some packs. With --identity every chunk that snapshots need is decrypted. Only that
needs a private key.

Exit codes: 0 no finding, 2 a newer kbak is needed, 3 an epoch does not open with the identity, there
is no snapshot, or only older ones need bad packs that --distrust-key recorded, 4 an object is damaged, missing or tampered with, 5 the store cannot be reached.")]
pub struct VerifyArgs {
    /// Take the repository, the access to it, the signers (`writer.signersFile`), the memory limit and the
    /// receivers of notices from this plan
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Read every byte of every object
    #[arg(long, conflicts_with = "sample")]
    pub read_all: bool,
    /// Read this share of the packs, chosen at random: 5% or 0.05
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    pub sample: Option<f64>,
    /// Sign a record of the bad packs with this writer's key: restores look for copies, and the next backup
    /// stores the data of those in the open epoch again
    #[arg(long, value_name = "FILE")]
    pub distrust_key: Option<PathBuf>,
    /// The hash of a snapshot that the chain must contain, as an earlier run printed it
    #[arg(long, value_name = "HASH", value_parser = parse_head)]
    pub expect_head: Option<ObjectHash>,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().map_err(|_| "a share is 5% or 0.05".to_owned())? / unit;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("a share is above 0 and at most 100%".into()) }
}

fn parse_head(text: &str) -> Result<ObjectHash, String> {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    text.parse().map_err(|_| "a head is sha256: and 64 hex digits, as kbak backup prints it".into())
}

/// Runs `kbak verify`.
pub(crate) fn run(args: &VerifyArgs, console: &Console) -> Result<Exit, Failure> {
    let run = RunOutput { args: &args.run, format: args.output.output, console };
    let plan = read_plan(args, &run)?;
    let notices = plan.as_ref().map(|plan| Notices::of_verify(&plan.spec)).unwrap_or_default();
    let name = plan.as_ref().map(BackupPlan::name);
    let place = args.repository.store.repo.clone();
    let place = place.or_else(|| Some(plan.as_ref()?.spec.repository.url.clone())).unwrap_or_default();
    let Inputs { repository, identities, key, warning } = read_inputs(args, plan.as_ref())
        .map_err(|failure| run.report_failed_start("verify", &place, name, failure, &notices))?;
    let memory = args.run.memory.or_else(|| Some(plan.as_ref()?.spec.limits.memory));
    let memory = memory.map(Size::get);
    let mut report = run_report::start("verify", &place, name);
    let display = run.start_display(memory);
    let reporter = display.reporter();
    if let Some(warning) = warning {
        reporter.warn("writer", warning);
    }
    let options = Options {
        which: reading::snapshot_selector(&args.repository.reader, "latest"),
        depth: match (args.read_all, args.sample) {
            (true, _) => Depth::All,
            (false, Some(share)) => Depth::Sample(share),
            (false, None) => Depth::Presence,
        },
        expect_head: args.expect_head,
        identities,
        memory: memory.map_or(READER_MEMORY, |memory| memory / 2),
    };
    let outcome = until_signalled(async {
        notices.send_start(&reporter).await;
        let view = reading::open_repository(&repository, &reporter).await?;
        let verdict = verify(&view, &options).await?;
        let records = match &key {
            Some(key) => distrust(&view, key, &verdict).await?,
            None => 0,
        };
        Ok((verdict, records))
    });
    let (verdict, records) = match outcome {
        Ok(done) => done,
        Err(failure) => {
            return run.finish(report, Some(&failure), display, &reporter, &notices);
        }
    };
    fill_report(&mut report, &verdict);
    if records > 0 {
        let text = plural(records, "record of bad packs was signed", "records of bad packs were signed");
        report.facts.push(("distrust".into(), format!("{text}: the open epoch's data is stored anew")));
    }
    let report = run_report::complete(report, None, display, &reporter, &notices);
    run.write_files(&report);
    if run.format == OutputFormat::Table {
        output::write_text(&render_findings(&verdict))?;
    } else {
        output::write_value(&verdict, run.format)?;
    }
    run.summarize(report)
}

/// Reads the plan, if one is given.
fn read_plan(args: &VerifyArgs, run: &RunOutput<'_>) -> Result<Option<BackupPlan>, Failure> {
    let plan = args.plan.as_deref().map(load).transpose();
    let plan =
        plan.map_err(|failure| run.report_failed_start("verify", "", None, failure, &Notices::default()))?;
    Ok(plan.map(|checked| checked.plan))
}

/// The repository and keys that the arguments and the plan name.
struct Inputs {
    /// The options of the repository.
    repository: ReadArgs,
    identities: Vec<Arc<Identity>>,
    /// The writer's key that signs distrust records.
    key: Option<WriterKey>,
    /// A warning about the file of that key.
    warning: Option<String>,
}

/// Reads the keys that the arguments name, and combines the arguments with the plan.
fn read_inputs(args: &VerifyArgs, plan: Option<&BackupPlan>) -> Result<Inputs, Failure> {
    check_memory(args.run.memory)?;
    let repository = match plan {
        Some(plan) => args.repository.with_plan(&plan.spec)?,
        None => args.repository.clone(),
    };
    let identities = match args.repository.reader.identity.is_empty() {
        true => Vec::new(),
        false => reading::required_identities(&args.repository.reader)?,
    };
    let (key, warning) = match args.distrust_key.as_deref().map(read_writer_key).transpose()? {
        Some((key, warning)) => (Some(key), warning),
        None => (None, None),
    };
    Ok(Inputs { repository, identities, key, warning })
}

fn fill_report(report: &mut RunReport, verdict: &VerifyReport) {
    report.exit = verdict.outcome();
    report.last_success = (report.exit == Exit::Safe).then(Timestamp::now);
    report.repository.clone_from(&verdict.repository);
    let checked = &verdict.checked;
    let count_of =
        |test: fn(&&Finding) -> bool| -> u64 { verdict.findings.iter().filter(test).count() as u64 };
    let (healed, distrusted) = (count_of(|finding| finding.healed), count_of(|finding| finding.distrusted));
    let obsolete = count_of(|finding| finding.obsolete);
    let left_out = verdict.findings_left_out - verdict.orphans_left_out;
    let wrong = verdict.findings.len() as u64 + left_out - count_of(|one| one.is_settled());
    let newer = verdict.findings.iter().all(|one| one.fault == Fault::Newer || one.is_settled());
    let snapshots = plural(checked.snapshots, "snapshot", "snapshots");
    report.verdict = match (wrong, newer) {
        (0, _) if checked.snapshots == 0 => "no snapshot is stored: nothing is safe".to_owned(),
        (0, _) if distrusted > 0 => format!(
            "{snapshots} verified, older ones without {}, which a signed record names",
            plural(distrusted, "bad pack", "bad packs")
        ),
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
            format!(
                "{}: copies of all their chunks are stored elsewhere",
                plural(healed, "bad pack", "bad packs")
            ),
        );
    }
    if obsolete > 0 {
        let objects = plural(obsolete + verdict.orphans_left_out, "damaged object", "damaged objects");
        fact("not needed", format!("{objects}, without which every snapshot restores"));
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
fn render_findings(verdict: &VerifyReport) -> String {
    let mut text = String::new();
    for finding in &verdict.findings {
        render_finding(&mut text, finding);
    }
    if verdict.findings_left_out > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "and {} more", count(verdict.findings_left_out));
    }
    text
}

fn render_finding(text: &mut String, finding: &Finding) {
    let mark = if finding.is_settled() { "·" } else { "✗" };
    let _ = writeln!(text, "{mark} {}", plain(&finding.object));
    let _ = writeln!(text, "    {}: {}", finding.fault.word(), plain(&finding.detail));
    for touched in finding.snapshots.iter().take(MAX_LISTED) {
        let mut items = touched.items.iter().map(|item| plain(item).into_owned()).collect::<Vec<_>>();
        let more = items.len().saturating_sub(MAX_LISTED);
        items.truncate(MAX_LISTED);
        let items = match (items.is_empty(), more) {
            (true, _) => String::new(),
            (false, 0) => format!(": {}", items.join(", ")),
            (false, more) => format!(": {} and {more} more", items.join(", ")),
        };
        let (seq, hash) = (touched.sequence, short_hash(&touched.hash.to_string()));
        let _ = writeln!(text, "    touches snapshot {seq:06} ({hash}) of plan {}{items}", touched.plan.plan);
    }
    let more = finding.snapshots.len().saturating_sub(MAX_LISTED) as u64;
    if more > 0 {
        let _ = writeln!(text, "    and {}", plural(more, "more snapshot", "more snapshots"));
    }
    let _ = writeln!(text, "  → {}", finding.remedy);
}
