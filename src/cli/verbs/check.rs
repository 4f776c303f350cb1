//! `kbak check`: tries everything that a plan needs, and reports the findings.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use crate::backup::epoch_secret::EpochSecretPlace;
use crate::backup::error::JobError;
use crate::backup::from_plan::database_source;
use crate::check::{CheckJob, CheckReport, ClusterJob, DatabaseJob, Finding, Severity, Unresolved, check};
use crate::cli::failure::{Exit, Failure, explained};
use crate::cli::options::plan_args::BackupPlanArgs;
use crate::cli::options::{OutputArgs, ProgressMode, notices, run_report, store};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::passphrase::PassphrasePrompt;
use crate::cli::shell::signals;
use crate::cli::shell::style::{Style, padded, width};
use crate::inventory::coverage::{self, CoverageCheck};
use crate::kubernetes::{Cluster, RequestLimits, Selection};
use crate::plan::{self, BackupPlan, BackupSpec, Problem};
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::report::text::{plain, plural, span};
use crate::runtime::Runtime;
use crate::source::volume::declared_folder;

/// Arguments of `kbak check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak check --plan nightly.yaml

  kbak check --plan nightly.yaml -o json | jq -r '.findings[] | select(.weight == \"problem\")'

  kbak check --repo s3://backups/laptop --recipient \"age1…\" --writer-key writer.key --resources
      without a plan's file

Only the store's probe is written, which the last line names. Exit codes: 0 no problem, 2 a problem
(each is printed with its remedy).")]
pub struct CheckArgs {
    #[command(flatten)]
    pub plan: BackupPlanArgs,
    /// The form of progress on standard error
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub progress: ProgressMode,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The deadlines of requests to the cluster: short, because the user waits for the result.
const DEADLINES: RequestLimits = RequestLimits {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(30),
    tries: 2,
    wait: Duration::from_millis(250),
};

/// Runs `kbak check`.
pub(crate) fn run(args: &CheckArgs, console: &Console) -> Result<Exit, Failure> {
    let plan::ValidPlan { plan, warnings } = args.plan.read_plan(None, None)?;
    let runtime = Runtime::real();
    let display = run_report::start_display(args.progress, console, None);
    // Retries are shown as progress; their result is a finding.
    let reporter = display.reporter();
    let checked = signals::until_signalled(async {
        let job = check_job(&plan, warnings, &runtime, &reporter).await?;
        let mut report = check(&job, &runtime, &reporter).await;
        report.findings = report.findings.into_iter().map(explained).collect();
        Ok(report)
    });
    drop(display.finish());
    let checked = checked?;
    match args.output.output {
        OutputFormat::Table => output::write_text(&render_findings(&checked, style(console)))?,
        format => output::write_value(&checked, format)?,
    }
    Ok(checked.exit)
}

/// Returns the console's style if standard output is a terminal, else a plain one.
fn style(console: &Console) -> Style {
    if std::io::stdout().is_terminal() { console.style } else { Style::plain() }
}

/// Builds the list of checks from the plan.
async fn check_job(
    plan: &BackupPlan,
    warnings: Vec<Problem>,
    runtime: &Runtime,
    reporter: &Reporter,
) -> Result<CheckJob, Failure> {
    let (spec, now) = (&plan.spec, runtime.clock.now());
    let writer_key = spec.writer.key_file.clone();
    let databases = spec.databases.iter().map(|database| {
        let job = database_source(database).map(|(config, databases)| DatabaseJob { config, databases });
        // Only the item's name is in the finding: its settings are in the plan.
        let job = job.map_err(|error| Unresolved { what: causes(&error), remedy: None });
        (database.item().to_string(), job)
    });
    Ok(CheckJob {
        plan: plan.name().to_owned(),
        warnings,
        no_longer_accepted: spec.expired_acceptances(now),
        store: store::store_options(&spec.repository, None, false),
        writer_key,
        epoch_secret: EpochSecretPlace::of(spec, plan.name()),
        signers_file: spec.writer.signers_file.clone(),
        owners: spec.owners(),
        prompt: PassphrasePrompt::shared(None)?,
        cluster: match spec.resources.is_some() || coverage::is_wanted(spec) {
            true => Some(cluster_job(spec, now, reporter).await.map_err(|error| {
                let failure = Failure::from(error);
                Unresolved { what: causes(&failure), remedy: failure.remedy }
            })),
            false => None,
        },
        databases: databases.collect(),
        folders: spec.volumes.iter().filter_map(declared_folder).collect(),
        receivers: spec.notify.clone(),
        events: notices::events_of(spec, "check", runtime),
    })
}

async fn cluster_job(spec: &BackupSpec, now: Timestamp, reporter: &Reporter) -> Result<ClusterJob, JobError> {
    let cluster = Cluster::connect(spec.cluster.as_ref(), DEADLINES, reporter).await?;
    let accept = spec.accepted_gaps(now);
    Ok(ClusterJob {
        selection: spec.resources.as_ref().map(Selection::of).transpose()?,
        absent_accepted: accept.iter().any(|(item, gap)| item == "resources" && gap == "absent"),
        coverage: match coverage::is_wanted(spec) {
            true => Some(CoverageCheck::of(spec, cluster.clone(), accept)?),
            false => None,
        },
        cluster,
    })
}

/// Renders the findings with their remedies, and the verdict.
fn render_findings(checked: &CheckReport, style: Style) -> String {
    let label = checked.findings.iter().map(|finding| width(&plain(&finding.about))).max().unwrap_or(0);
    let label = label.clamp(10, 32);
    let mut lines = Vec::new();
    for finding in &checked.findings {
        lines.extend(render_finding(finding, label, style));
    }
    lines.push(render_verdict(checked, style));
    lines.join("\n") + "\n"
}

fn render_finding(finding: &Finding, label: usize, style: Style) -> Vec<String> {
    let mark = match finding.weight {
        Severity::Good => style.good("✓"),
        Severity::Note => style.dim("·"),
        Severity::Warning => style.warn("!"),
        Severity::Problem => style.bad("✗"),
    };
    let text = format!("{} {}", padded(&plain(&finding.about), label), plain(&finding.what));
    let text = match finding.millis {
        // The mark takes two columns; the codes of its colour must not be counted.
        Some(millis) => Style { width: style.width.saturating_sub(2), ..style }
            .at_the_right(&text, &span(Duration::from_millis(millis))),
        None => text,
    };
    let indent = " ".repeat(label + 3);
    let remedy = finding.remedy.iter().flat_map(|remedy| remedy.lines()).enumerate().map(|(number, line)| {
        let arrow = if number == 0 { "→" } else { " " };
        format!("{indent}{arrow} {}", plain(line))
    });
    std::iter::once(format!("{mark} {text}")).chain(remedy).collect()
}

fn render_verdict(checked: &CheckReport, style: Style) -> String {
    let problems = plural(checked.problems, "problem", "problems");
    let warnings = plural(checked.warnings, "warning", "warnings");
    let wrote = match &checked.wrote {
        Some(what) => format!("Nothing was written but {what}."),
        None => "Nothing was written.".to_owned(),
    };
    let end = format!("exit {}", checked.exit.code());
    style.at_the_right(&format!("{problems}, {warnings}. {}", plain(&wrote)), &end)
}
