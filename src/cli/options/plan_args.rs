//! The arguments of a backup plan: its file, or a plan from arguments alone.

use std::path::{Path, PathBuf};

use clap::Args;

use super::database_url::parse_database_url;
use super::plan_file::load;
use super::{StoreArgs, check_memory, store};
use crate::cli::failure::{Exit, Failure};
use crate::plan::{ClusterSpec, PlanArguments, Rate, RunLimits, Size, ValidPlan};

/// Options for a plan's file, or for a plan from arguments alone.
#[derive(Debug, Args)]
pub struct BackupPlanArgs {
    /// The plan's file
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub plan: Option<PathBuf>,
    /// The name of a plan without a file [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "plan", help_heading = "Plan")]
    pub plan_name: Option<String>,
    /// The writer's key, written by init
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub writer_key: Option<PathBuf>,
    /// The current epoch's secret [default: beside the writer's key]
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub epoch_file: Option<PathBuf>,
    /// A public key of an owner, who can restore; repeatable
    #[arg(long, value_name = "KEY", conflicts_with = "plan", help_heading = "Plan")]
    pub recipient: Vec<String>,
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
            None => self
                .short_form(memory, upload)?
                .into_plan()
                .map_err(|error| error.failure("the command line"))?,
        };
        let spec = &mut checked.plan.spec;
        spec.repository = self.store.apply_to(std::mem::take(&mut spec.repository));
        spec.limits.memory = memory.unwrap_or(spec.limits.memory);
        spec.limits.upload = upload.or(spec.limits.upload);
        if let Some(file) = &self.writer_key {
            spec.writer.key_file.clone_from(file);
        }
        if let Some(file) = &self.epoch_file {
            spec.writer.epoch_file = Some(file.clone());
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
        let missing =
            |what: &str, remedy: &str| Failure::new(Exit::Usage, what.to_owned()).remedy(remedy.to_owned());
        if self.path.is_empty() && self.database.is_empty() && !self.resources {
            let remedy = "give --plan FILE, or --path, --database or --resources";
            return Err(missing("no plan and no item to back up is given", remedy));
        }
        let writer_key = self.writer_key.clone().ok_or_else(|| {
            missing("no writer's key is given", "give --writer-key writer.key, which kbak init wrote")
        })?;
        let absolute = |path: &PathBuf| {
            let path = absolute_path(path)?;
            if path.to_str().is_none() {
                let what = format!("{} is not UTF-8; back up the folder above it", path.display());
                return Err(Failure::new(Exit::Usage, what));
            }
            Ok(path)
        };
        let password = self.database_password_file.as_deref();
        let cluster = ClusterSpec { kubeconfig_file: self.kubeconfig.clone(), context: self.context.clone() };
        Ok(PlanArguments {
            name: self.plan_name.clone(),
            repository: store::repository_argument(&self.store)?,
            recipients: self.recipient.clone(),
            writer_key,
            epoch_file: self.epoch_file.clone(),
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
    let absolute = std::path::absolute(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: not a path", path.display())).because(error)
    })?;
    if absolute.components().any(|part| part == Component::ParentDir) {
        // Only the file system can resolve `..` after a link.
        return std::fs::canonicalize(&absolute).map_err(|error| {
            Failure::new(Exit::Usage, format!("{}: not a folder", path.display())).because(error)
        });
    }
    Ok(absolute.components().collect())
}
