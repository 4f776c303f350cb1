//! Checks the writer's files, the pin and the owners: everything that encrypting and signing needs.

use std::path::Path;

use tokio::time::Instant;

use super::{CheckJob, Finding};
use crate::format::signers::Signers;
use crate::keys::Owner;
use crate::keys::epoch_file::StoredSecret;
use crate::keys::writer_key::{WriterFileError, WriterKey};
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::runtime::Runtime;

/// The text that is encrypted to each owner as a test.
const CHALLENGE: &[u8] = b"kbak check";
/// The maximum size of a pin, in bytes.
const MAX_PIN: u64 = 1 << 20;

/// The findings about keys, and the keys for the checks that need them.
pub(super) struct Keys {
    pub(super) key: Option<WriterKey>,
    /// The epoch secrets in the file; `None` if the file does not exist or cannot be used.
    pub(super) held: Option<Vec<StoredSecret>>,
    /// The writer's own key and those that are pinned.
    pub(super) signers: Signers,
    /// `true` if any signer is pinned beside the writer.
    pub(super) pinned: bool,
    pub(super) findings: Vec<Finding>,
}

pub(super) async fn check(job: &CheckJob, runtime: &Runtime, reporter: &Reporter) -> Keys {
    let mut keys =
        Keys { key: None, held: None, signers: Signers::default(), pinned: false, findings: Vec::new() };
    keys.writer(&job.writer_key);
    if let Some(key) = keys.key.clone() {
        keys.signers.extend(key.own_signers());
        keys.epoch_secret(job, &key, runtime, reporter).await;
    }
    if let Some(file) = &job.signers_file {
        keys.pin(file);
    }
    keys.owners(job, runtime).await;
    keys
}

impl Keys {
    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn writer(&mut self, file: &Path) {
        match WriterKey::read(file) {
            Ok((key, warning)) => {
                self.add(match warning {
                    Some(warning) => Finding::warning("writer", warning),
                    None => Finding::good("writer", format!("{} signs as {}", file.display(), key.writer)),
                });
                self.key = Some(key);
            }
            Err(error) => self.add(Finding::error("writer", error)),
        }
    }

    /// Checks that the epoch's secret is private and this writer's, and can be replaced when an epoch ends.
    async fn epoch_secret(
        &mut self,
        job: &CheckJob,
        key: &WriterKey,
        runtime: &Runtime,
        reporter: &Reporter,
    ) {
        let place = &job.epoch_secret;
        let keeper = match place.open(key, &job.plan, runtime, reporter).await {
            Ok(keeper) => keeper,
            Err(error) => return self.add(Finding::problem("writer", causes(&error))),
        };
        match keeper.load().await {
            // The store decides whether a secret is needed: a first run creates it.
            Ok(None) => {}
            Ok(Some(held)) => {
                self.add(Finding::good("writer", format!("{place} holds the epoch's secret")));
                self.held = Some(held.secrets);
            }
            Err(error) => return self.add(Finding::error("writer", error)),
        }
        match keeper.check_writable().await {
            Ok(()) => {}
            Err(error @ WriterFileError::NotWritable { .. }) => {
                let remedy =
                    "a new epoch's secret is written there: make the folder writable for this account";
                self.add(Finding::warning("writer", causes(&error)).remedy(remedy));
            }
            Err(error) => self.add(Finding::error("writer", error)),
        }
    }

    fn pin(&mut self, file: &Path) {
        let read = std::fs::File::open(file);
        let read = read.and_then(|file| std::io::read_to_string(std::io::Read::take(file, MAX_PIN)));
        let label = file.display();
        let failed =
            |what: String| Finding::problem("signers", what).remedy("give kbak.pub, which kbak init wrote");
        let finding = match read {
            Err(error) => failed(format!("{label}: the pinned signers cannot be read: {}", causes(&error))),
            Ok(text) => match Signers::parse(&text) {
                Ok(signers) if !signers.is_empty() => {
                    self.signers.extend(signers);
                    self.pinned = true;
                    Finding::good("signers", format!("{label} pins who may sign"))
                }
                Ok(_) => failed(format!("{label}: it pins nobody")),
                Err(error) => failed(format!("{label}: no OpenSSH allowed signers: {}", causes(&error))),
            },
        };
        self.add(finding);
    }

    /// Encrypts a few bytes to each owner, because a missing plugin would end a run at its next epoch.
    async fn owners(&mut self, job: &CheckJob, runtime: &Runtime) {
        let began = Instant::now();
        let (owners, prompt) = (job.owners.clone(), job.prompt.clone());
        let tried = runtime.workers.run(move || {
            let each = |owner: &Owner| owner.recipient.encrypt(CHALLENGE, &prompt).map(|_| owner.name());
            owners.iter().map(|owner| (owner.name(), each(owner))).collect::<Vec<_>>()
        });
        let tried = tried.await;
        let good: Vec<String> = tried.iter().filter_map(|(_, tried)| tried.as_ref().ok().cloned()).collect();
        if !good.is_empty() {
            let what = format!("{} can be encrypted to: {}", plural_owners(good.len()), good.join(", "));
            self.add(Finding::good("owners", what).took(began));
        }
        for (name, tried) in tried {
            if let Err(error) = tried {
                let what = format!("nothing can be encrypted to {name}: {}", causes(&error));
                let remedy = "check the recipient; a plugin must be on PATH";
                self.add(Finding::problem("owners", what).remedy(remedy));
            }
        }
        if let [_] = job.owners.as_slice() {
            let what = "only one owner: who loses that one key loses every backup";
            self.add(Finding::warning("owners", what).remedy("add a second recipient, kept elsewhere"));
        }
    }
}

fn plural_owners(count: usize) -> String {
    crate::report::text::plural(count as u64, "owner", "owners")
}
