//! `kbak plan`: the schema and the check of plan files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::options::OutputArgs;
use super::out::{self, Format};
use super::terminal::Talk;
use crate::plan::{self, Checked, PlanError, Problem, RestorePlan};
use crate::report::failure::{Exit, Failure};

/// What `kbak plan` takes.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: PlanAction,
}

/// What can be done with plans.
#[derive(Debug, Subcommand)]
pub enum PlanAction {
    /// Print the JSON Schema of plan files, for editors
    #[command(after_long_help = "\
Examples:
  kbak plan schema > backupplan.schema.json
      and begin plans with:  # yaml-language-server: $schema=backupplan.schema.json

  kbak plan schema restore > restoreplan.schema.json
      of the plans that kbak restore --plan takes

  kbak plan schema -o yaml")]
    Schema {
        /// Of which kind of plan
        #[arg(value_name = "KIND", default_value = "backup")]
        kind: PlanKind,
        /// How it is written
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Read a plan and say everything that is wrong with it; nothing is connected to
    #[command(after_long_help = "\
Examples:
  kbak plan check nightly.yaml
  kubectl get configmap nightly -o jsonpath='{.data.plan\\.yaml}' | kbak plan check -
  kbak plan check nightly.yaml -o json

Exit codes: 0 the plan can be carried out, 2 it cannot.")]
    Check {
        /// The plan; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How it is written
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Kinds of plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanKind {
    /// BackupPlan
    Backup,
    /// RestorePlan
    Restore,
}

/// Does it.
pub(super) fn run(args: PlanArgs, talk: &Talk) -> Result<Exit, Failure> {
    match args.action {
        PlanAction::Schema { kind, output } => {
            let schema = match kind {
                PlanKind::Backup => plan::schema(),
                PlanKind::Restore => plan::restore_schema(),
            };
            out::value(&schema, output.output)?;
            Ok(Exit::Safe)
        }
        PlanAction::Check { file, output } => check(&file, output.output, talk),
    }
}

#[derive(Serialize)]
struct CheckReport<'a> {
    plan: Option<&'a str>,
    items: Vec<String>,
    problems: &'a [Problem],
}

fn check(file: &Path, format: Format, talk: &Talk) -> Result<Exit, Failure> {
    let (name, text) = read_text(file)?;
    // The kind decides how it is read; a text without one is read as the plan of a backup.
    if text.lines().any(|line| line.trim_end() == "kind: RestorePlan") {
        return check_restore(&name, &text, format, talk);
    }
    match plan::parse(&text) {
        Ok(Checked { plan, warnings }) => {
            let items: Vec<String> = plan.items().iter().map(ToString::to_string).collect();
            if format != Format::Table {
                out::value(&CheckReport { plan: Some(plan.name()), items, problems: &warnings }, format)?;
                return Ok(Exit::Safe);
            }
            for warning in &warnings {
                talk.warn(&warning.to_string());
            }
            talk.good(&format!("{name} declares {}", items.join(", ")));
            Ok(Exit::Safe)
        }
        Err(PlanError { problems }) if format != Format::Table => {
            out::value(&CheckReport { plan: None, items: Vec::new(), problems: &problems }, format)?;
            Ok(Exit::Usage)
        }
        Err(error) => Err(error.failure(&name)),
    }
}

fn check_restore(name: &str, text: &str, format: Format, talk: &Talk) -> Result<Exit, Failure> {
    match plan::parse_restore(text) {
        Ok(plan) if format != Format::Table => {
            let report = CheckReport { plan: Some(&plan.metadata.name), items: Vec::new(), problems: &[] };
            out::value(&report, format)?;
            Ok(Exit::Safe)
        }
        Ok(plan) => {
            talk.good(&format!("{name} is the RestorePlan {}", plan.metadata.name));
            Ok(Exit::Safe)
        }
        Err(PlanError { problems }) if format != Format::Table => {
            out::value(&CheckReport { plan: None, items: Vec::new(), problems: &problems }, format)?;
            Ok(Exit::Usage)
        }
        Err(error) => Err(error.failure(name)),
    }
}

/// Reads a plan's file and makes its file names absolute.
///
/// # Errors
/// That it cannot be read, or everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Checked, Failure> {
    let (name, text) = read_text(file)?;
    let mut checked = plan::parse(&text).map_err(|error| error.failure(&name))?;
    let folder = file.parent().filter(|_| file != Path::new("-")).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)
        .map_err(|error| Failure::new(Exit::Usage, format!("{name}: its folder")).because(error))?;
    checked.plan.resolve_files(&folder);
    Ok(checked)
}

/// Reads a restore's plan.
///
/// # Errors
/// That it cannot be read, or everything that is wrong with it.
pub(super) fn load_restore(file: &Path) -> Result<RestorePlan, Failure> {
    let (name, text) = read_text(file)?;
    plan::parse_restore(&text).map_err(|error| error.failure(&name))
}

/// A plan's text and what it is called.
fn read_text(file: &Path) -> Result<(String, String), Failure> {
    let most = plan::MAX_TEXT as u64 + 1;
    let mut text = Vec::new();
    let (name, result) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().lock().take(most).read_to_end(&mut text))
    } else {
        let read = std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut text));
        (file.display().to_string(), read)
    };
    result.map_err(|error| {
        Failure::new(Exit::Usage, format!("{name}: the plan cannot be read"))
            .because(error)
            .remedy("give a plan's file with --plan FILE; docs/plan.md describes it")
    })?;
    let text = String::from_utf8(text)
        .map_err(|_| Failure::new(Exit::Usage, format!("{name}: a plan is UTF-8 text, and this is not")))?;
    Ok((name, text))
}
