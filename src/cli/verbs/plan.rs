//! `kbak plan`: prints the schema of plan files, checks one, or drafts one from a cluster.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::sources;
use crate::cli::options::{OutputArgs, Progress, StoreArgs};
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::output::Format;
use crate::cli::shell::run_end;
use crate::cli::shell::signals::until_signalled;
use crate::inventory::existing_backup_tools::read_tool_configs;
use crate::inventory::plan_draft::Draft;
use crate::inventory::{Wanted, read_inventory};
use crate::keys::private_file::folder_of;
use crate::kubernetes::ApiError;
use crate::plan::{self, Checked, Cluster, PlanError, Problem, Repository, RestorePlan};

/// Arguments of `kbak plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The action.
    #[command(subcommand)]
    pub action: PlanAction,
}

/// The actions of `kbak plan`.
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
        /// The output format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Read a plan and say what is wrong with it; nothing is connected to
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
        /// The output format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write a commented plan from what a cluster holds, and from what Velero, K8up and CronJobs that
    /// dump were told
    #[command(after_long_help = "\
Examples:
  kbak plan init > nightly.yaml

  kbak plan init --repo s3://backups/prod --endpoint https://s3.example.eu \\
      --recipient \"age1…\" --recipient \"age1…\" > nightly.yaml

  kbak plan init --from velero/daily > daily.yaml
      what that Schedule of Velero selects, when it runs and how long it keeps

Nothing is written to the cluster, and the value of no Secret is read.")]
    Init(Box<InitArgs>),
}

/// Arguments of `kbak plan init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The plan's name
    #[arg(long, value_name = "NAME", default_value = plan::DEFAULT_NAME)]
    pub plan_name: String,
    /// A public key of an owner, who can restore; repeatable
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// The writer's key, made by init
    #[arg(long, value_name = "FILE", default_value = "writer.key")]
    pub writer_key: PathBuf,
    /// Take over this Schedule of Velero [default: the only one that is not paused]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub from: Option<String>,
    /// A kubeconfig file [default: the pod's ServiceAccount, KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Options for the repository's store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// The kinds of plans that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanKind {
    /// BackupPlan
    Backup,
    /// RestorePlan
    Restore,
}

/// Runs the chosen action.
pub(crate) fn run(args: PlanArgs, console: &Console) -> Result<Exit, Failure> {
    match args.action {
        PlanAction::Schema { kind, output } => {
            let schema = match kind {
                PlanKind::Backup => plan::schema(),
                PlanKind::Restore => plan::restore_schema(),
            };
            output::value(&schema, output.output)?;
            Ok(Exit::Safe)
        }
        PlanAction::Check { file, output } => check(&file, output.output, console),
        PlanAction::Init(args) => init(&args, console),
    }
}

/// Drafts a plan from the cluster and writes it to standard output.
fn init(args: &InitArgs, console: &Console) -> Result<Exit, Failure> {
    for recipient in &args.recipient {
        plan::recipient_argument(recipient).map_err(|error| error.failure("--recipient"))?;
    }
    let repository = args.store.repo.is_some().then(|| args.store.over(Repository::default()));
    let display = run_end::shown(Progress::Auto, console);
    let reporter = display.reporter();
    let found = until_signalled(async {
        let spec = Cluster { kubeconfig_file: args.kubeconfig.clone(), context: args.context.clone() };
        let cluster = sources::cluster(Some(&spec), &reporter).await?;
        let meter = reporter.meter("cluster", "lists");
        let wanted = Wanted { services: true, ..Wanted::default() };
        let inventory = read_inventory(&cluster, &wanted, &meter).await.map_err(unreachable)?;
        let tool_configs = read_tool_configs(&cluster).await.map_err(unreachable)?;
        meter.end();
        Ok((inventory, tool_configs, cluster.server().to_owned()))
    });
    drop(display.finish());
    let (inventory, tool_configs, server) = found?;
    // The plan may be stored in another folder, and its relative paths start there.
    let kubeconfig = args.kubeconfig.as_ref().map(std::path::absolute).transpose();
    let kubeconfig = kubeconfig
        .map_err(|error| Failure::new(Exit::Usage, "--kubeconfig names no file").because(error))?
        .map(|file| file.display().to_string());
    let draft = Draft {
        name: &args.plan_name,
        repository: repository.as_ref(),
        recipients: &args.recipient,
        writer_key: &args.writer_key.display().to_string(),
        kubeconfig: kubeconfig.as_deref(),
        context: args.context.as_deref(),
        server: &server,
        inventory: &inventory,
        tool_configs: &tool_configs,
        from: args.from.as_deref(),
    };
    let text = draft.text().map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    output::text(&text)?;
    // The draft must be a valid plan, except for values that only a person can fill in.
    match plan::parse(&text) {
        Ok(_) => console.good("the plan can be used: kbak check --plan FILE tries all of it"),
        Err(PlanError { problems }) => {
            for problem in &problems {
                console.warn(&problem.to_string());
            }
        }
    }
    Ok(Exit::Safe)
}

fn unreachable(error: ApiError) -> Failure {
    Failure::new(Exit::Unreachable, "the cluster cannot be looked at").because(error)
}

#[derive(Serialize)]
struct CheckReport<'a> {
    plan: Option<&'a str>,
    items: Vec<String>,
    problems: &'a [Problem],
}

fn check(file: &Path, format: Format, console: &Console) -> Result<Exit, Failure> {
    let (name, text) = read_text(file)?;
    // The kind selects the parser; a text without one is parsed as a BackupPlan.
    if text.lines().any(|line| line.trim_end() == "kind: RestorePlan") {
        return check_restore(&name, &text, format, console);
    }
    match plan::parse(&text) {
        Ok(Checked { plan, warnings }) => {
            let items: Vec<String> = plan.items().iter().map(ToString::to_string).collect();
            if format != Format::Table {
                output::value(&CheckReport { plan: Some(plan.name()), items, problems: &warnings }, format)?;
                return Ok(Exit::Safe);
            }
            for warning in &warnings {
                console.warn(&warning.to_string());
            }
            console.good(&format!("{name} declares {}", items.join(", ")));
            Ok(Exit::Safe)
        }
        Err(PlanError { problems }) if format != Format::Table => {
            output::value(&CheckReport { plan: None, items: Vec::new(), problems: &problems }, format)?;
            Ok(Exit::Usage)
        }
        Err(error) => Err(error.failure(&name)),
    }
}

fn check_restore(name: &str, text: &str, format: Format, console: &Console) -> Result<Exit, Failure> {
    match plan::parse_restore(text) {
        Ok(plan) if format != Format::Table => {
            let report = CheckReport { plan: Some(&plan.metadata.name), items: Vec::new(), problems: &[] };
            output::value(&report, format)?;
            Ok(Exit::Safe)
        }
        Ok(plan) => {
            console.good(&format!("{name} is the RestorePlan {}", plan.metadata.name));
            Ok(Exit::Safe)
        }
        Err(PlanError { problems }) if format != Format::Table => {
            output::value(&CheckReport { plan: None, items: Vec::new(), problems: &problems }, format)?;
            Ok(Exit::Usage)
        }
        Err(error) => Err(error.failure(name)),
    }
}

/// Reads a plan's file and makes its file names absolute.
///
/// # Errors
/// If the file cannot be read, or with all problems of the plan.
pub(crate) fn load(file: &Path) -> Result<Checked, Failure> {
    let (name, text) = read_text(file)?;
    let mut checked = plan::parse(&text).map_err(|error| error.failure(&name))?;
    let folder = std::path::absolute(folder_of(file))
        .map_err(|error| Failure::new(Exit::Usage, format!("{name}: its folder")).because(error))?;
    checked.plan.resolve_files(&folder);
    Ok(checked)
}

/// Reads a RestorePlan from its file.
///
/// # Errors
/// If the file cannot be read, or with all problems of the plan.
pub(crate) fn load_restore(file: &Path) -> Result<RestorePlan, Failure> {
    let (name, text) = read_text(file)?;
    plan::parse_restore(&text).map_err(|error| error.failure(&name))
}

/// Returns the plan's name for messages and its text; `-` is standard input.
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
