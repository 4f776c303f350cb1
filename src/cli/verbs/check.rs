//! `kbak check`: tries everything that a plan needs, and reports the findings.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use crate::check::{CheckJob, Checked, ClusterJob, DatabaseJob, Finding, Unresolved, Weight, check};
use crate::cli::failure::{Exit, Failure, explained};
use crate::cli::options::declared::DeclaredArgs;
use crate::cli::options::{OutputArgs, Progress};
use crate::cli::options::{sources, store};
use crate::cli::shell::console::{Console, PassphrasePrompt};
use crate::cli::shell::output;
use crate::cli::shell::output::Format;
use crate::cli::shell::style::{Style, padded, width};
use crate::cli::shell::{run_end, signals};
use crate::inventory::coverage;
use crate::keys::writer_key::epoch_path;
use crate::kubernetes::Deadlines;
use crate::plan::{self, BackupPlan, Problem, Spec};
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::report::text::{plain, plural, span};
use crate::runtime::Runtime;

/// Arguments of `kbak check`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak check --plan nightly.yaml

  kbak check --plan nightly.yaml -o json | jq -r '.findings[] | select(.weight == \"problem\")'

  kbak check --repo s3://backups/laptop --recipient \"age1…\" --writer-key writer.key --resources
      without a plan's file

Nothing is written but the store's probe, which the last line names. Exit codes: 0 nothing stands in
the way of a backup, 2 something does (it is named, with what to do).")]
pub struct CheckArgs {
    /// The plan, as a file or as arguments.
    #[command(flatten)]
    pub declared: DeclaredArgs,
    /// How progress is shown, on standard error
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: Progress,
    /// The output format of the findings.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The deadlines of requests to the cluster: short, because the user waits for the result.
const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(30),
    tries: 2,
    wait: Duration::from_millis(250),
};

/// Runs `kbak check`.
pub(crate) fn run(args: &CheckArgs, console: &Console) -> Result<Exit, Failure> {
    let plan::Checked { plan, warnings } = args.declared.checked(None, None)?;
    let runtime = Runtime::real();
    let display = run_end::shown(args.progress, console);
    // Retries are shown as progress; their result is a finding.
    let reporter = display.reporter();
    let checked = signals::until_signalled(async {
        let job = job(&plan, warnings, runtime.clock.now(), &reporter).await?;
        let mut checked = check(&job, &runtime, &reporter).await;
        checked.findings = checked.findings.into_iter().map(explained).collect();
        Ok(checked)
    });
    drop(display.finish());
    let checked = checked?;
    match args.output.output {
        Format::Table => output::text(&table(&checked, style(console)))?,
        format => output::value(&checked, format)?,
    }
    Ok(checked.exit)
}

/// Returns the console's style if standard output is a terminal, else a plain one.
fn style(console: &Console) -> Style {
    if std::io::stdout().is_terminal() { console.style } else { Style::plain() }
}

/// Builds the list of checks from the plan.
async fn job(
    plan: &BackupPlan,
    warnings: Vec<Problem>,
    now: Timestamp,
    reporter: &Reporter,
) -> Result<CheckJob, Failure> {
    let spec = &plan.spec;
    let writer_key = spec.writer.key_file.clone();
    let epoch_file = spec.writer.epoch_file.clone().unwrap_or_else(|| epoch_path(&writer_key, plan.name()));
    let databases = spec.databases.iter().map(|database| {
        let job = sources::database_globs(&database.databases).and_then(|databases| {
            Ok(DatabaseJob { config: Box::new(sources::database_config(database)?), databases })
        });
        // Only the item's name is in the finding: its settings are in the plan.
        (
            database.item().to_string(),
            job.map_err(|failure| Unresolved { what: causes(&failure), remedy: None }),
        )
    });
    Ok(CheckJob {
        plan: plan.name().to_owned(),
        warnings,
        no_longer_accepted: sources::no_longer_accepted(&spec.accept, now),
        store: store::options(&spec.repository, None, false),
        writer_key,
        epoch_file,
        signers_file: spec.writer.signers_file.clone(),
        owners: spec.owners(),
        prompt: PassphrasePrompt::shared(None)?,
        cluster: match spec.resources.is_some() || coverage::is_wanted(spec) {
            true => Some(
                cluster(spec, now, reporter)
                    .await
                    .map_err(|failure| Unresolved { what: causes(&failure), remedy: failure.remedy }),
            ),
            false => None,
        },
        databases: databases.collect(),
        folders: spec.volumes.iter().filter_map(sources::folder_options).collect(),
    })
}

async fn cluster(spec: &Spec, now: Timestamp, reporter: &Reporter) -> Result<ClusterJob, Failure> {
    let cluster = sources::cluster_within(spec.cluster.as_ref(), DEADLINES, reporter).await?;
    let config = spec.resources.as_ref().map(|resources| {
        sources::resources_config(resources, spec.limits.memory.get()).map(|config| config.selection)
    });
    let accept = sources::accepted(&spec.accept, now);
    let absent_accepted = accept.iter().any(|(item, gap)| item == "resources" && gap == "absent");
    let coverage = coverage::is_wanted(spec).then(|| sources::watch_of(spec, cluster.clone(), accept));
    Ok(ClusterJob {
        cluster,
        selection: config.transpose()?,
        absent_accepted,
        coverage: coverage.transpose()?,
    })
}

/// Renders the findings with their remedies, and the verdict.
fn table(checked: &Checked, style: Style) -> String {
    let label = checked.findings.iter().map(|finding| width(&plain(&finding.about))).max().unwrap_or(0);
    let label = label.clamp(10, 32);
    let mut lines = Vec::new();
    for finding in &checked.findings {
        lines.extend(row(finding, label, style));
    }
    lines.push(verdict(checked, style));
    lines.join("\n") + "\n"
}

fn row(finding: &Finding, label: usize, style: Style) -> Vec<String> {
    let mark = match finding.weight {
        Weight::Good => style.good("✓"),
        Weight::Note => style.dim("·"),
        Weight::Warning => style.warn("!"),
        Weight::Problem => style.bad("✗"),
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

fn verdict(checked: &Checked, style: Style) -> String {
    let problems = plural(checked.problems, "problem", "problems");
    let warnings = plural(checked.warnings, "warning", "warnings");
    let wrote = match &checked.wrote {
        Some(what) => format!("Nothing was written but {what}."),
        None => "Nothing was written.".to_owned(),
    };
    let end = format!("exit {}", checked.exit.code());
    style.at_the_right(&format!("{problems}, {warnings}. {}", plain(&wrote)), &end)
}
