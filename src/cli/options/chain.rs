//! Opens the chain of one plan for writing: the repository, the writer's key, the epoch's secret and the
//! owners, from a plan's file or from arguments.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::StoreArgs;
use crate::cli::options::keyring::{owners, pin, writer};
use crate::cli::options::store;
use crate::cli::shell::console::Console;
use crate::cli::verbs::plan::load;
use crate::format::signers::Signers;
use crate::keys::Owner;
use crate::keys::writer_key::{FileKeeper, WriterKey, epoch_path};
use crate::plan::{DEFAULT_NAME, Epoch, Repository, Spec};
use crate::repository::epoch::create::Life;
use crate::runtime::Runtime;

/// Options that select a plan's chain of snapshots.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Plan")]
pub struct ChainArgs {
    /// The plan; it names repository, keys and owners
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// The plan's name, without a file [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "plan")]
    pub plan_name: Option<String>,
    /// The writer's key, made by init
    #[arg(long, value_name = "FILE")]
    pub writer_key: Option<PathBuf>,
    /// The current epoch's secret [default: beside the writer's key]
    #[arg(long, value_name = "FILE")]
    pub epoch_file: Option<PathBuf>,
    /// A public key of an owner, who can restore; repeatable
    #[arg(long, value_name = "KEY", conflicts_with = "plan")]
    pub recipient: Vec<String>,
    /// Public keys of owners, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    pub recipients_file: Option<PathBuf>,
}

/// A chain opened for writing: its local files are read, its store is not opened yet.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The repository that holds the chain.
    pub(crate) repository: Repository,
    /// The plan's name.
    pub(crate) name: String,
    /// The writer's key.
    pub(crate) key: WriterKey,
    /// The file that keeps the epoch's secret.
    pub(crate) keeper: FileKeeper,
    /// The owners, who can decrypt.
    pub(crate) owners: Vec<Owner>,
    /// The lifetime of the plan's epochs.
    pub(crate) life: Life,
    /// The trusted signers: the writer itself, and those that are pinned.
    pub(crate) signers: Signers,
    /// True if signers are pinned beside the writer.
    pub(crate) pinned: bool,
}

impl Chain {
    /// Reads the writer's key, and the plan from its file or from the arguments.
    pub(crate) fn open(
        args: &ChainArgs,
        store: &StoreArgs,
        runtime: &Runtime,
        console: &Console,
    ) -> Result<Self, Failure> {
        let spec = args.plan.as_deref().map(load).transpose()?.map(|checked| checked.plan);
        let name = match &spec {
            Some(plan) => plan.name().to_owned(),
            None => args.plan_name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned()),
        };
        let spec: Option<Spec> = spec.map(|plan| plan.spec);
        let key_file =
            args.writer_key.clone().or_else(|| spec.as_ref().map(|spec| spec.writer.key_file.clone()));
        let key_file = key_file.ok_or_else(|| {
            Failure::new(Exit::Usage, "no writer's key is named")
                .remedy("give --plan FILE or --writer-key writer.key")
        })?;
        let epoch_file = args.epoch_file.clone().or_else(|| spec.as_ref()?.writer.epoch_file.clone());
        let epoch_file = epoch_file.unwrap_or_else(|| epoch_path(&key_file, &name));
        let key = writer(&key_file, console)?;
        let keeper = FileKeeper::new(epoch_file, &key, key.plan(&name), runtime);
        let (repository, owners, life) = match &spec {
            Some(spec) => (store.over(spec.repository.clone()), spec.owners(), life(&spec.epoch, spec)),
            None => {
                let owners = owners(&args.recipient, args.recipients_file.as_deref())?;
                (store::without_plan(store)?, owners, default_life())
            }
        };
        let signers = key.own_signers();
        let file = spec.as_ref().and_then(|spec| spec.writer.signers_file.clone());
        let mut chain = Self { repository, name, key, keeper, owners, life, signers, pinned: false };
        if let Some(file) = file {
            chain.pin(&file)?;
        }
        Ok(chain)
    }

    /// Adds the signers that `file` pins to the trusted ones.
    pub(crate) fn pin(&mut self, file: &Path) -> Result<(), Failure> {
        self.signers.extend(pin(file)?.signers);
        self.pinned = true;
        Ok(())
    }
}

/// Returns the lifetime of a plan's epochs, in seconds.
pub(crate) fn life(epoch: &Epoch, spec: &Spec) -> Life {
    Life {
        max_age: epoch.age(spec.retention.as_ref()).duration().as_secs(),
        max_run: epoch.max_run.duration().as_secs(),
        keep: spec.repository.object_lock.map(|lock| lock.keep.duration().as_secs()),
    }
}

fn default_life() -> Life {
    let epoch = Epoch::default();
    Life {
        max_age: epoch.age(None).duration().as_secs(),
        max_run: epoch.max_run.duration().as_secs(),
        keep: None,
    }
}
