//! `kbak plan`: prints the schema of plan files, checks one, or drafts one from a cluster.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::plan_args::read_text;
use crate::cli::options::{OutputArgs, ProgressMode, StoreArgs, run_report};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::signals::until_signalled;
use crate::inventory::existing_backup_tools::read_tool_configs;
use crate::inventory::plan_draft::{PlanDraft, ValuesError};
use crate::inventory::{InventoryOptions, read_inventory};
use crate::keys::private_file;
use crate::kubernetes::{ApiError, Cluster, KindInfo, RequestLimits, discover};
use crate::plan::{self, ClusterSpec, PlanError, Problem, RepositorySpec, ValidPlan};

/// Arguments of `kbak plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
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
      for the plans of kbak restore --plan

  kbak plan schema -o yaml")]
    Schema {
        /// The kind of plan
        #[arg(value_name = "KIND", default_value = "backup")]
        kind: PlanKind,
        /// The output format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Check a plan's file, without any connection
    #[command(after_long_help = "\
Examples:
  kbak plan check nightly.yaml
  kubectl get configmap nightly -o jsonpath='{.data.plan\\.yaml}' | kbak plan check -
  kbak plan check nightly.yaml -o json

Exit codes: 0 the plan is valid, 2 it is not.")]
    Check {
        /// The plan; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The output format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write a commented plan for a cluster, from its objects and from the settings of Velero, K8up and
    /// CronJobs that dump databases
    #[command(after_long_help = "\
Examples:
  kbak plan init > nightly.yaml

  kbak plan init --repo s3://backups/prod --endpoint https://s3.example.eu \\
      --recipient \"age1…\" --recipient \"age1…\" > nightly.yaml

  kbak plan init --from velero/daily > daily.yaml
      with the selection, times and retention of that Schedule of Velero

  kbak plan init --values values.yaml --repo s3://backups/prod --endpoint https://s3.example.eu \\
      --recipient \"age1…\" --recipient \"age1…\"
  helm install kbak deploy/chart -n kbak -f values.yaml --set-file signers=kbak.pub
      as values of the Helm chart, plan and all

Nothing is written to the cluster, and no value of a Secret is read.")]
    Init(Box<PlanInitArgs>),
}

/// Arguments of `kbak plan init`.
#[derive(Debug, Args)]
pub struct PlanInitArgs {
    /// The plan's name
    #[arg(long, value_name = "NAME", default_value = plan::DEFAULT_PLAN_NAME)]
    pub plan_name: String,
    /// A public key of an owner, who can restore; repeatable
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// The writer's key, written by init
    #[arg(long, value_name = "FILE", default_value = "writer.key")]
    pub writer_key: PathBuf,
    /// Write values of the Helm chart, with the plan in them, to this new file instead
    #[arg(long, value_name = "FILE", requires_all = ["repo", "recipient"], conflicts_with = "writer_key")]
    pub values: Option<PathBuf>,
    /// Convert this Schedule of Velero [default: the only one that is not paused]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub from: Option<String>,
    /// A kubeconfig file [default: the pod's ServiceAccount, KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
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
            output::write_value(&schema, output.output)?;
            Ok(Exit::Safe)
        }
        PlanAction::Check { file, output } => check(&file, output.output, console),
        PlanAction::Init(args) => init(&args, console),
    }
}

/// Drafts a plan from the cluster and writes it to standard output.
fn init(args: &PlanInitArgs, console: &Console) -> Result<Exit, Failure> {
    for recipient in &args.recipient {
        plan::parse_recipient_argument(recipient).map_err(|error| error.failure("--recipient"))?;
    }
    if let Some(file) = &args.values {
        private_file::check_free(file)?;
    }
    let repository = args.store.repo.is_some().then(|| args.store.apply_to(RepositorySpec::default()));
    let display = run_report::start_display(ProgressMode::Auto, console, None);
    let reporter = display.reporter();
    let found = until_signalled(async {
        let spec = ClusterSpec { kubeconfig_file: args.kubeconfig.clone(), context: args.context.clone() };
        let cluster = Cluster::connect(Some(&spec), RequestLimits::default(), &reporter).await?;
        let meter = reporter.meter("cluster", "lists");
        let options = InventoryOptions { services: true, ..InventoryOptions::default() };
        let inventory = read_inventory(&cluster, &options, &meter).await.map_err(unreachable)?;
        let tool_configs = read_tool_configs(&cluster).await.map_err(unreachable)?;
        let kinds = match args.values {
            Some(_) => discover(&cluster).await.map_err(unreachable)?.kinds,
            None => Vec::new(),
        };
        meter.end();
        Ok((inventory, tool_configs, kinds, cluster.server().to_owned()))
    });
    drop(display.finish());
    let (inventory, tool_configs, kinds, server) = found?;
    // The plan may be stored in another folder, and its relative paths start there.
    let kubeconfig = args.kubeconfig.as_ref().map(std::path::absolute).transpose();
    let kubeconfig = kubeconfig
        .map_err(|error| Failure::usage("--kubeconfig: not a path").because(error))?
        .map(|file| file.display().to_string());
    let draft = PlanDraft {
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
    if let Some(file) = &args.values {
        return write_values(&draft, &kinds, file, console);
    }
    let text = draft.text().map_err(|error| Failure::usage(error.to_string()))?;
    output::write_text(&text)?;
    // The draft must be a valid plan, except for values that only a person can fill in.
    match plan::parse(&text) {
        Ok(_) => console.success("the plan is valid: kbak check --plan FILE tests everything that it needs"),
        Err(PlanError { problems }) => {
            for problem in &problems {
                console.warn(&problem.to_string());
            }
        }
    }
    Ok(Exit::Safe)
}

/// Writes values of the chart. They hold no secret: everybody may read the file.
fn write_values(
    draft: &PlanDraft<'_>,
    kinds: &[KindInfo],
    file: &Path,
    console: &Console,
) -> Result<Exit, Failure> {
    let text = draft.values(kinds).map_err(|error| match error {
        ValuesError::Plan(error) => error.failure("the drafted plan"),
        error => Failure::usage("no values can be written").because(error),
    })?;
    private_file::create(file, 0o644, text.as_bytes())?;
    console.success(&format!("{} written: read it, and fill in what says FILL IN", file.display()));
    console.line("  helm install kbak deploy/chart -n kbak -f FILE --set-file signers=kbak.pub");
    Ok(Exit::Safe)
}

fn unreachable(error: ApiError) -> Failure {
    Failure::new(Exit::Unreachable, "the cluster cannot be read")
        .because(error)
        .remedy("check the server of the kubeconfig and the network, and run it again")
}

#[derive(Serialize)]
struct CheckReport<'a> {
    plan: Option<&'a str>,
    items: Vec<String>,
    problems: &'a [Problem],
}

fn check(file: &Path, format: OutputFormat, console: &Console) -> Result<Exit, Failure> {
    let (name, text) = read_text(file)?;
    // The kind selects the parser; a text without one is parsed as a BackupPlan.
    let is_restore = text.lines().any(|line| line.trim_end() == "kind: RestorePlan");
    let checked = if is_restore {
        plan::parse_restore(&text).map(|plan| (plan.metadata.name, Vec::new(), Vec::new()))
    } else {
        plan::parse(&text).map(|ValidPlan { plan, warnings }| {
            let items = plan.items().iter().map(ToString::to_string).collect();
            (plan.metadata.name, items, warnings)
        })
    };
    match checked {
        Ok((plan, items, problems)) if format != OutputFormat::Table => {
            let report = CheckReport { plan: Some(&plan), items, problems: &problems };
            output::write_value(&report, format)?;
            Ok(Exit::Safe)
        }
        Ok((plan, items, warnings)) => {
            for warning in &warnings {
                console.warn(&warning.to_string());
            }
            console.success(&match is_restore {
                true => format!("{name} is the RestorePlan {plan}"),
                false => format!("{name} declares {}", items.join(", ")),
            });
            Ok(Exit::Safe)
        }
        Err(PlanError { problems }) if format != OutputFormat::Table => {
            output::write_value(&CheckReport { plan: None, items: Vec::new(), problems: &problems }, format)?;
            Ok(Exit::Usage)
        }
        Err(error) => Err(error.failure(&name)),
    }
}
