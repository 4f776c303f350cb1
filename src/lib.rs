//! kbak makes encrypted, verifiable, restorable backups of Kubernetes clusters.
//!
//! Data flows one way. Each arrow is a type, so plaintext cannot reach a store and
//! unauthenticated bytes cannot reach a target:
//!
//! ```text
//! Source ── Stream ──> segments, chunks ──> compressed ──> Pack ──> Sealed ──> stored ──> Manifest
//! Manifest ──> chunk list ──> whole or ranged reads ──> authenticated plaintext ──> Target
//! ```
//!
//! The modules, lowest first: [`report`] holds events and run reports, [`runtime`] the clock,
//! randomness and workers; [`mod@format`] is the repository format as pure functions between bytes and
//! types; [`store`] keeps immutable objects, [`keys`] opens them; [`pipeline`] turns streams into packs
//! and back; [`repository`] opens, commits and reads snapshots. [`source`] and [`target`] are the two
//! ends, [`kubernetes`] talks to an API server for both, [`inventory`] lists what a cluster holds.
//! [`backup`], [`restore`], [`verify`], [`compare`] and [`check`] compose them, [`notify`] tells others how a run
//! ended; [`cli`] is the command line.
//!
//! A folder, backed up into a store in memory and restored from it:
//!
//! ```
//! # use std::sync::{Arc, Mutex};
//! # use kbak::backup::{coordinator::backup, from_plan::epoch_durations, item::*, job::*};
//! # use kbak::keys::{Identity, NoPrompt, OwnerKey, Prompt, epoch_file::FileSecretStore, writer_key::WriterKey};
//! # use kbak::report::event::Reporter;
//! # use kbak::repository::epoch::create::EpochSettings;
//! # use kbak::repository::read::reader::{RepositoryReader, SnapshotSelector};
//! # use kbak::restore::{error::ItemError, job::*};
//! # use kbak::store::{Store, memory::MemoryStore};
//! # use kbak::{format, runtime::Runtime};
//! # struct Results(Mutex<Vec<Restored>>);
//! # impl RestoreObserver for Results {
//! #     fn finished(&self, _: &format::body::Item, result: Result<Restored, ItemError>) {
//! #         self.0.lock().unwrap().push(result.unwrap());
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let (source, target) = (folder.path().join("source"), folder.path().join("target"));
//! std::fs::create_dir(&source)?;
//! std::fs::write(source.join("letter"), "kept")?;
//!
//! let (runtime, reporter) = (Runtime::real(), Reporter::silent());
//! let store: Arc<dyn Store> = Arc::new(MemoryStore::new(runtime.clock.clone()));
//! store.put(&format::marker::marker()).await?;
//! let prompt: Arc<dyn Prompt> = Arc::new(NoPrompt);
//! let owner = OwnerKey::generate(&runtime, "owner");
//! let key = WriterKey::generate(&runtime);
//! let (keeper, signers) = (
//!     FileSecretStore::new(folder.path().join("epoch"), &key, key.plan("nightly"), &runtime),
//!     key.own_signers(),
//! );
//! let job = BackupJob {
//!     plan: "nightly".into(),
//!     host: "laptop".into(),
//!     items: vec![ItemJob {
//!         name: "path/source".into(),
//!         work: ItemSource::Folder { path: source, options: Default::default() },
//!     }],
//!     epoch: EpochSettings {
//!         owners: vec![owner.public()],
//!         life: epoch_durations(None),
//!         parameters: Default::default(),
//!         new_epoch: true,
//!         change_owners: false,
//!         prompt: prompt.clone(),
//!     },
//!     memory: 128 << 20,
//!     level: None,
//!     prove: true,
//!     use_cache: true,
//!     next: None,
//!     accept: Vec::new(),
//!     coverage: None,
//! };
//! let context = BackupContext {
//!     store: &store, key: &key, keeper: &keeper, signers: &signers, runtime: &runtime, reporter: &reporter,
//! };
//! let report = backup(job, context).await?;
//! assert_eq!(report.committed.seq, 1);
//!
//! let repository =
//!     RepositoryReader { store, signers: signers.into(), runtime: runtime.clone(), reporter: reporter.clone() };
//! let latest = SnapshotSelector { snapshot: "latest".into(), ..Default::default() };
//! let (plan, snapshot) = repository.select(&latest).await?;
//! let identity = Identity::parse("owner", owner.to_text().as_bytes(), &prompt)?.into();
//! let snapshot = repository.open(&plan, &snapshot, &[identity], 64 << 20).await?;
//! let job = RestoreJob {
//!     snapshot: &snapshot,
//!     items: snapshot.body().items.iter().collect(),
//!     paths: None,
//!     folder: Some(FolderTarget::Directory { to: target.clone(), options: Default::default() }),
//!     database: None,
//!     resources: None,
//!     runtime: &runtime,
//!     reporter: &reporter,
//! };
//! job.run(&Results(Mutex::default())).await?;
//! assert_eq!(std::fs::read_to_string(target.join("letter"))?, "kept");
//! # Ok(())
//! # }
//! ```
//!
//! docs/architecture.md says which folder may import which; the glossary is docs/glossary.md, the
//! byte-level format docs/format.md.

#![forbid(unsafe_code)]

pub mod backup;
pub mod check;
pub mod cli;
pub mod compare;
pub mod format;
pub mod fs;
pub mod inventory;
pub mod keys;
pub mod kubernetes;
pub mod notify;
pub mod pipeline;
pub mod plan;
pub mod rbac;
pub mod report;
pub mod repository;
pub mod restore;
pub mod runtime;
pub mod source;
pub mod store;
pub mod target;
pub mod verify;
