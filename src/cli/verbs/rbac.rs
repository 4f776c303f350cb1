//! `kbak rbac`: the accounts, roles and bindings that the work of a plan needs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::plan_args::load;
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::shell::signals::until_signalled;
use crate::inventory::coverage;
use crate::kubernetes::{ApiError, Cluster, RequestLimits, discover};
use crate::plan::{ClusterSpec, is_namespace};
use crate::rbac::{Manifest, Request, Task, manifests};
use crate::target::kubernetes::is_always_derived;

/// Arguments of `kbak rbac`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak rbac --plan nightly.yaml | kubectl apply -f -
      the rights of backup and verify, for the kinds that the cluster has now

  kbak rbac --plan nightly.yaml --task restore | kubectl apply -f -
      before a restore in the cluster; remove them afterwards: … | kubectl delete -f -

Every kind and verb is named; there is no wildcard, and no right to pods/exec. Run it again when
the cluster gets new kinds: until then a backup names them as gaps (exit 3).")]
pub struct RbacArgs {
    /// The plan's file
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// The work that gets rights
    #[arg(long, value_name = "TASK", value_delimiter = ',', default_value = "backup,verify")]
    pub task: Vec<RbacTask>,
    /// The namespace in which kbak runs; its accounts are there
    #[arg(long, value_name = "NAME", default_value = "kbak")]
    pub namespace: String,
    /// The start of all names
    #[arg(long, value_name = "NAME", default_value = "kbak")]
    pub name: String,
    /// A kubeconfig file [default: the plan's, the pod's ServiceAccount, KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The output format
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    pub output: ManifestFormat,
}

/// A form of manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ManifestFormat {
    /// YAML documents, for kubectl apply -f -
    Yaml,
    /// One JSON object a line
    Json,
}

/// The work that gets rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RbacTask {
    /// Backups: read what the plan selects
    Backup,
    /// Verification: an account without rights in the cluster
    Verify,
    /// Restores: create and change objects of every kind, also those that grant rights
    Restore,
}

impl From<RbacTask> for Task {
    fn from(task: RbacTask) -> Self {
        match task {
            RbacTask::Backup => Self::Backup,
            RbacTask::Verify => Self::Verify,
            RbacTask::Restore => Self::Restore,
        }
    }
}

/// Prints the manifests.
pub(crate) fn run(args: &RbacArgs, console: &Console) -> Result<Exit, Failure> {
    for (option, name) in [("--namespace", &args.namespace), ("--name", &args.name)] {
        if !is_namespace(name) {
            return Err(Failure::usage(format!("{option} {name:?}: not a valid name"))
                .remedy("use lower-case letters, digits and -, at most 63 characters"));
        }
    }
    let checked = load(&args.plan)?;
    for warning in &checked.warnings {
        console.warn(&warning.to_string());
    }
    let plan = checked.plan;
    let reporter = console.reporter();
    let given = plan.spec.cluster.clone().unwrap_or_default();
    let cluster = ClusterSpec {
        kubeconfig_file: args.kubeconfig.clone().or(given.kubeconfig_file),
        context: args.context.clone().or(given.context),
    };
    let unread = |error: ApiError| {
        let (exit, remedy) = match error.code() {
            Some(401 | 403) => {
                (Exit::Usage, "use an account that may read the API's kinds (system:discovery)")
            }
            _ => (Exit::Unreachable, "check the server of the kubeconfig and the network, and run it again"),
        };
        Failure::new(exit, "the kinds of the cluster cannot be read").because(error).remedy(remedy)
    };
    let discovered = until_signalled(async {
        let cluster = Cluster::connect(Some(&cluster), RequestLimits::default(), &reporter).await?;
        discover(&cluster).await.map_err(unread)
    })?;
    for stale in &discovered.stale {
        console.warn(&format!("{stale}: its server does not answer, so its kinds are left out"));
    }
    let found = manifests(&Request {
        plan: &plan,
        namespace: &args.namespace,
        name: &args.name,
        kinds: &discovered.kinds,
        coverage: coverage::read_kinds(&plan.spec, &discovered.kinds)?,
        restored: discovered.kinds.iter().filter(|kind| !is_always_derived(kind)).collect(),
        tasks: args.task.iter().copied().map(Task::from).collect(),
    })?;
    let format = match args.output {
        ManifestFormat::Yaml => OutputFormat::Yaml,
        ManifestFormat::Json => OutputFormat::Json,
    };
    write(&found, format)?;
    Ok(Exit::Safe)
}

fn write(found: &[Manifest], format: OutputFormat) -> Result<(), Failure> {
    let lines = found.iter().map(|manifest| output::render_line(manifest, format));
    let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
    output::write_text(&(lines.join("\n") + "\n"))
}
