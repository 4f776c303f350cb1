//! Opens the chain of one plan for writing: the repository, the writer's key, the epoch's secret and the
//! owners, from a plan's file or from arguments.

use crate::backup::epoch_secret::EpochSecretPlace;
use crate::backup::from_plan::epoch_durations;
use std::path::{Path, PathBuf};

use clap::Args;

use super::key_files::{read_owners, read_pin, read_writer_key};
use super::plan_args::{PlanPartArgs, load};
use super::{StoreArgs, store};
use crate::cli::failure::Failure;
use crate::cli::shell::console::Console;
use crate::format::signers::Signers;
use crate::keys::Owner;
use crate::keys::epoch_file::epoch_path;
use crate::keys::writer_key::WriterKey;
use crate::plan::{BackupSpec, DEFAULT_PLAN_NAME, RepositorySpec};
use crate::repository::epoch::create::EpochDurations;

/// Options that select a plan's chain of snapshots.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Plan")]
pub struct ChainArgs {
    /// The plan's file, with repository, keys and owners
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    #[command(flatten)]
    pub selected: PlanPartArgs,
    /// Public keys of owners, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    pub recipients_file: Option<PathBuf>,
}

/// A chain opened for writing: its local files are read, its store is not opened yet.
#[derive(Debug)]
pub(crate) struct WritableChain {
    pub(crate) repository: RepositorySpec,
    pub(crate) name: String,
    pub(crate) key: WriterKey,
    /// The place that keeps the epoch's secret.
    pub(crate) epoch_secret: EpochSecretPlace,
    pub(crate) owners: Vec<Owner>,
    pub(crate) durations: EpochDurations,
    /// The trusted signers: the writer itself, and those that are pinned.
    pub(crate) signers: Signers,
    /// True if signers are pinned beside the writer.
    pub(crate) pinned: bool,
}

impl WritableChain {
    /// Reads the writer's key, and the plan from its file or from the arguments.
    pub(crate) fn open(args: &ChainArgs, store: &StoreArgs, console: &Console) -> Result<Self, Failure> {
        let ChainArgs { plan, selected: args, recipients_file } = args;
        let spec = plan.as_deref().map(load).transpose()?.map(|checked| checked.plan);
        let name = match &spec {
            Some(plan) => plan.name().to_owned(),
            None => args.plan_name.clone().unwrap_or_else(|| DEFAULT_PLAN_NAME.to_owned()),
        };
        let spec: Option<BackupSpec> = spec.map(|plan| plan.spec);
        let key_file = args.writer_key.clone().or_else(|| Some(spec.as_ref()?.writer.key_file.clone()));
        let key_file = key_file.ok_or_else(|| {
            Failure::usage("no writer's key is given").remedy("give --plan FILE or --writer-key writer.key")
        })?;
        let epoch_secret = match (&args.epoch_file, &spec) {
            (Some(file), _) => EpochSecretPlace::File(file.clone()),
            (None, Some(spec)) => EpochSecretPlace::of(spec, &name),
            (None, None) => EpochSecretPlace::File(epoch_path(&key_file, &name)),
        };
        let (key, warning) = read_writer_key(&key_file)?;
        if let Some(warning) = warning {
            console.warn(&warning);
        }
        let durations = epoch_durations(spec.as_ref());
        let (repository, owners) = match &spec {
            Some(spec) => (store.apply_to(spec.repository.clone()), spec.owners()),
            None => {
                let owners = read_owners(&args.recipient, recipients_file.as_deref())?;
                (store::repository_argument(store)?, owners)
            }
        };
        let signers = key.own_signers();
        let file = spec.as_ref().and_then(|spec| spec.writer.signers_file.clone());
        let mut chain =
            Self { repository, name, key, epoch_secret, owners, durations, signers, pinned: false };
        if let Some(file) = file {
            chain.pin_signers(&file)?;
        }
        Ok(chain)
    }

    /// Adds the signers that `file` pins to the trusted ones.
    pub(crate) fn pin_signers(&mut self, file: &Path) -> Result<(), Failure> {
        self.signers.extend(read_pin(file)?.signers);
        self.pinned = true;
        Ok(())
    }
}
