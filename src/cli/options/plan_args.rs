//! Reads plans: from files, or a backup plan from arguments alone.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::database_url::parse_database_url;
use super::{StoreArgs, check_memory, store};
use crate::cli::failure::Failure;
use crate::keys::private_file::folder_of;
use crate::plan::{self, ClusterSpec, PlanArguments, Rate, RestorePlan, RunLimits, Size, ValidPlan};

/// Options for the name, the keys and the owners of a plan, which its file may hold too.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Plan")]
pub struct PlanPartArgs {
    /// The name of a plan without a file [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "plan")]
    pub plan_name: Option<String>,
    /// The writer's key, written by init
    #[arg(long, value_name = "FILE")]
    pub writer_key: Option<PathBuf>,
    /// The current epoch's secret [default: beside the writer's key]
    #[arg(long, value_name = "FILE")]
    pub epoch_file: Option<PathBuf>,
    /// A public key of an owner, who can restore; repeatable
    #[arg(long, value_name = "KEY", conflicts_with = "plan")]
    pub recipient: Vec<String>,
}

/// Options for a plan's file, or for a plan from arguments alone.
#[derive(Debug, Args)]
pub struct BackupPlanArgs {
    /// The plan's file
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub plan: Option<PathBuf>,
    #[command(flatten)]
    pub selected: PlanPartArgs,
    /// Back up a folder; repeatable
    #[arg(long, value_name = "FOLDER", conflicts_with = "plan", help_heading = "Without a plan")]
    pub path: Vec<PathBuf>,
    /// Exclude paths of every folder, in the syntax of .gitignore; repeatable
    #[arg(long, value_name = "PATTERN", requires = "path", help_heading = "Without a plan")]
    pub exclude: Vec<String>,
    /// Back up a database: postgresql://user@host:port/name?sslmode=…; repeatable
    #[arg(long, value_name = "URL", conflicts_with = "plan", help_heading = "Without a plan")]
    pub database: Vec<String>,
    /// Read the databases' password from this file
    #[arg(long, value_name = "FILE", requires = "database", help_heading = "Without a plan")]
    pub database_password_file: Option<PathBuf>,
    /// Back up the cluster's resources
    #[arg(long, conflicts_with = "plan", help_heading = "Without a plan")]
    pub resources: bool,
    /// A kubeconfig file [default: the pod's ServiceAccount, KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Without a plan")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME", help_heading = "Without a plan")]
    pub context: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
}

impl BackupPlanArgs {
    /// Returns the checked plan: its file with overrides by arguments, or a plan from arguments alone.
    pub(crate) fn read_plan(&self, memory: Option<Size>, upload: Option<Rate>) -> Result<ValidPlan, Failure> {
        check_memory(memory)?;
        let mut checked = match &self.plan {
            Some(file) => load(file)?,
            None => {
                let plan = self.short_form(memory, upload)?.into_plan();
                plan.map_err(|error| error.failure("the command line"))?
            }
        };
        let spec = &mut checked.plan.spec;
        spec.repository = self.store.apply_to(std::mem::take(&mut spec.repository));
        spec.limits.memory = memory.unwrap_or(spec.limits.memory);
        spec.limits.upload = upload.or(spec.limits.upload);
        if let Some(file) = &self.selected.writer_key {
            spec.writer.key_file.clone_from(file);
        }
        if let Some(file) = &self.selected.epoch_file {
            spec.writer.epoch_file = Some(file.clone());
            spec.writer.epoch_secret = None;
        }
        if self.context.is_some() || self.kubeconfig.is_some() {
            let mut cluster = spec.cluster.take().unwrap_or_default();
            cluster.context = self.context.clone().or(cluster.context);
            cluster.kubeconfig_file = self.kubeconfig.clone().or(cluster.kubeconfig_file);
            spec.cluster = Some(cluster);
        }
        Ok(checked)
    }

    fn short_form(&self, memory: Option<Size>, upload: Option<Rate>) -> Result<PlanArguments, Failure> {
        let missing = |what: &str, remedy: &str| Failure::usage(what.to_owned()).remedy(remedy.to_owned());
        if self.path.is_empty() && self.database.is_empty() && !self.resources {
            let remedy = "give --plan FILE, or --path, --database or --resources";
            return Err(missing("no plan and no item to back up is given", remedy));
        }
        let writer_key = self.selected.writer_key.clone().ok_or_else(|| {
            missing("no writer's key is given", "give --writer-key writer.key, which kbak init wrote")
        })?;
        let absolute = |path: &PathBuf| {
            let path = absolute_path(path)?;
            if path.to_str().is_none() {
                let what = format!("{} is not UTF-8; back up the folder above it", path.display());
                return Err(Failure::usage(what));
            }
            Ok(path)
        };
        let password = self.database_password_file.as_deref();
        let cluster = ClusterSpec { kubeconfig_file: self.kubeconfig.clone(), context: self.context.clone() };
        Ok(PlanArguments {
            name: self.selected.plan_name.clone(),
            repository: store::repository_argument(&self.store)?,
            recipients: self.selected.recipient.clone(),
            writer_key,
            epoch_file: self.selected.epoch_file.clone(),
            paths: self.path.iter().map(absolute).collect::<Result<_, _>>()?,
            exclude: self.exclude.clone(),
            databases: self
                .database
                .iter()
                .map(|url| parse_database_url(url, password))
                .collect::<Result<_, _>>()?,
            resources: self.resources,
            cluster: (cluster != ClusterSpec::default()).then_some(cluster),
            limits: RunLimits { memory: memory.unwrap_or(Size::mebi(128)), upload, parallel: None },
        })
    }
}

/// Returns the absolute path, without `.` and `..`. Links are resolved only if the path contains `..`.
fn absolute_path(path: &Path) -> Result<PathBuf, Failure> {
    use std::path::Component;
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{}: not a path", path.display())).because(error))?;
    if absolute.components().any(|part| part == Component::ParentDir) {
        // Only the file system can resolve `..` after a link.
        return std::fs::canonicalize(&absolute)
            .map_err(|error| Failure::usage(format!("{}: not a folder", path.display())).because(error));
    }
    Ok(absolute.components().collect())
}

/// Reads a plan's file and makes its file names absolute.
pub(crate) fn load(file: &Path) -> Result<ValidPlan, Failure> {
    let (name, text) = read_text(file)?;
    let mut checked = plan::parse(&text).map_err(|error| error.failure(&name))?;
    let folder = std::path::absolute(folder_of(file))
        .map_err(|error| Failure::usage(format!("{name}: its folder has no path")).because(error))?;
    checked.plan.resolve_files(&folder);
    Ok(checked)
}

/// Reads a RestorePlan from its file.
pub(crate) fn load_restore(file: &Path) -> Result<RestorePlan, Failure> {
    let (name, text) = read_text(file)?;
    plan::parse_restore(&text).map_err(|error| error.failure(&name))
}

/// Returns the plan's name for messages and its text; `-` is standard input.
pub(crate) fn read_text(file: &Path) -> Result<(String, String), Failure> {
    let most = plan::MAX_PLAN_BYTES as u64 + 1;
    let mut text = Vec::new();
    let (name, result) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().lock().take(most).read_to_end(&mut text))
    } else {
        let read = std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut text));
        (file.display().to_string(), read)
    };
    result.map_err(|error| {
        Failure::usage(format!("{name}: the plan cannot be read"))
            .because(error)
            .remedy("give a plan's file with --plan FILE; docs/plan.md describes it")
    })?;
    let text = String::from_utf8(text)
        .map_err(|_| Failure::usage(format!("{name}: not UTF-8 text, as a plan is")))?;
    Ok((name, text))
}
