//! `kbak keys cut-off`: revokes a key in the pin, and spreads the revocation through the repository.

use std::path::Path;

use clap::Args;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::key_files::{read_required_pin, read_text};
use crate::cli::options::{ReadArgs, reading};
use crate::cli::shell::console::Console;
use crate::cli::shell::prompt;
use crate::cli::shell::signals::until_signalled;
use crate::format::ids::{ObjectHash, RepositoryId, WriterId};
use crate::format::revocation::{MAX_LAST_GOOD, Revocation};
use crate::format::sign::{Namespace, PublicKey, SigningKey};
use crate::format::signers::Signers;
use crate::keys::private_file;
use crate::report::text::plural;
use crate::repository::chain::Snapshot;
use crate::repository::read::reader::{RepositoryReader, SnapshotSelector, StoredPlan};
use crate::repository::records::Records;
use crate::repository::write::revoke::{RevokeError, revoke};
use crate::runtime::Runtime;

/// The word for no last good snapshot.
const NONE: &str = "none";
/// The remedy if numbers of snapshots cannot be looked up.
const BY_HASH: &str = "the repository cannot be read, so name the last good snapshots by their whole hashes (sha256:…), as runs printed \
     them, or none: then the pin is written all the same";

pub(super) const CUT_OFF_HELP: &str = "\
Examples:
  kbak keys cut-off --key SHA256:4YcK… --last-good 41 --why \"the node was taken\" \\
    --repo s3://backups/prod --signer kbak.pub --identity owner.key
  kbak keys cut-off --key SHA256:4YcK… --last-good none --why \"never ours\" …

What the key signed after the last good snapshots counts no more, neither snapshots nor epochs. The line goes
into --signer first: who reads with this file needs nothing from the bucket, and nobody who holds the bucket
can undo it. With a whole hash (sha256:…) or none for --last-good it is written even if the bucket cannot be read. The record in the repository only spreads it. Give the changed kbak.pub to everybody who
restores, and to the plan (writer.signersFile); then give the writer a new key, as docs/keys.md says.";

/// Arguments of `kbak keys cut-off`.
#[derive(Debug, Args)]
pub struct CutOffArgs {
    /// The key: its fingerprint (SHA256:…) or its line in kbak.pub (ssh-ed25519 …)
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The last snapshot that still counts, by number or hash; repeatable, one a plan; none: nothing counts
    #[arg(long, value_name = "SNAPSHOT", required = true)]
    pub last_good: Vec<String>,
    /// The reason, for whoever reads it later
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub repository: ReadArgs,
}

/// Runs `kbak keys cut-off`.
pub(super) fn run(args: &CutOffArgs, console: &Console) -> Result<Exit, Failure> {
    let reader = &args.repository.reader;
    let file = reader.signer.as_deref();
    let pin = read_required_pin(file)?.signers;
    let (key, writers) = find_key(&args.key, &pin)?;
    let identities = reading::required_identities(reader)?;
    let owner = identities.iter().filter_map(|identity| identity.signing()).find(|key| {
        let pinned = |writer: &WriterId| {
            pin.lookup(&writer.to_string(), Namespace::Trust).any(|pinned| pinned == key.public())
        };
        writers.iter().all(pinned)
    });
    let owner = owner.ok_or_else(|| {
        Failure::usage("no identity can sign a revocation that counts").remedy(
            "give an owner's identity with a signing key that is pinned for kbak-trust-v1 in --signer",
        )
    })?;
    let file = file.ok_or_else(|| Failure::usage("no signer is pinned"))?;
    let revocation = until_signalled(async {
        let found = match read_plans(args, &writers, console).await {
            // A wrong argument; anything else may be the thief's work.
            Err(failure) if failure.exit == Exit::Usage => return Err(failure),
            found => found,
        };
        let (last_good, found) = match found {
            Ok(found) => (last_good(&args.last_good, &found.plans)?, Ok(found)),
            Err(failure) => match whole_hashes(&args.last_good) {
                Some(hashes) => (hashes, Err(failure)),
                None => return Err(failure.remedy(BY_HASH)),
            },
        };
        let revocation = Revocation { key, last_good, why: args.why.trim().to_owned() };
        confirm(args, &revocation, found.as_ref().ok()).await?;
        write_line(file, &revocation)?;
        console.success(&format!("{} revokes {}", file.display(), key.fingerprint()));
        spread(found, &revocation, owner).await?;
        Ok(revocation)
    })?;
    console.success(&format!(
        "the repository spreads it: {}",
        plural(writers.len() as u64, "writer", "writers")
    ));
    let good = if revocation.last_good.is_empty() {
        "nothing"
    } else {
        "the last good snapshots and their ancestors"
    };
    console.line(&format!("  of what it signed, {good} still counts"));
    console.line("  → give this kbak.pub to everybody who restores, and to the plan (writer.signersFile)");
    console.line("  → give the writer a new key, as docs/keys.md says");
    Ok(Exit::Safe)
}

/// The plans of the writers whose snapshots a key may sign.
struct Found {
    view: RepositoryReader,
    plans: Vec<StoredPlan>,
}

/// Reads the plans, and no records: whoever has the key may have signed more of them than a reader lists.
async fn read_plans(args: &CutOffArgs, writers: &[WriterId], console: &Console) -> Result<Found, Failure> {
    let view = reading::open_repository(&args.repository, &console.reporter()).await?;
    let selector = SnapshotSelector { snapshot: "latest".into(), ..SnapshotSelector::default() };
    let pinned = Records::of_pin(&view.signers);
    let mut plans = Vec::new();
    for found in view.find_plans(&selector).await? {
        for plan in found.plans.iter().filter(|_| writers.contains(&found.writer)) {
            plans.push(view.plan(&found, *plan, &pinned).await?);
        }
    }
    if plans.is_empty() {
        let what = format!("{} holds no plan of this key's writer", view.store.describe());
        return Err(Failure::new(Exit::Damaged, what));
    }
    Ok(Found { view, plans })
}

/// Returns the manifests that whole hashes name, without a look at the repository; none if a name is none.
fn whole_hashes(names: &[String]) -> Option<Vec<ObjectHash>> {
    match names {
        [none] if none == NONE => Some(Vec::new()),
        names => names.iter().map(|name| name.strip_prefix("sha256:").unwrap_or(name).parse().ok()).collect(),
    }
}

/// Returns the pinned key that is meant, and the writers whose snapshots it may sign.
fn find_key(named: &str, pin: &Signers) -> Result<(PublicKey, Vec<WriterId>), Failure> {
    let named = named.trim();
    let line: Option<PublicKey> = named.parse().ok();
    let is_meant = |key: PublicKey| key.fingerprint() == named || line == Some(key);
    let found: Vec<_> = pin.all().iter().filter(|signer| is_meant(signer.key)).collect();
    let Some(first) = found.first() else {
        let mut failure = Failure::usage(format!("{named}: no pinned key is meant"));
        for signer in pin.all() {
            failure = failure.fact(signer.key.fingerprint(), signer.comment.clone());
        }
        return Err(failure.remedy("name one of these by its fingerprint"));
    };
    let mut writers: Vec<WriterId> =
        found.iter().flat_map(|signer| &signer.principals).filter_map(|id| id.parse().ok()).collect();
    writers.sort_unstable();
    writers.dedup();
    Ok((first.key, writers))
}

/// Returns the manifests that the names mean, each exactly one.
fn last_good(names: &[String], plans: &[StoredPlan]) -> Result<Vec<ObjectHash>, Failure> {
    if names.iter().any(|name| name == NONE) {
        return match names.len() {
            1 => Ok(Vec::new()),
            _ => Err(Failure::usage("--last-good none and a snapshot contradict each other")),
        };
    }
    if names.len() > MAX_LAST_GOOD {
        return Err(Failure::usage(format!("more than {MAX_LAST_GOOD} last good snapshots")));
    }
    let mut good = Vec::new();
    for name in names {
        let found: Vec<&Snapshot> = plans.iter().flat_map(|plan| plan.chain.select(name)).collect();
        match found.as_slice() {
            [one] => good.push(one.manifest.hash()),
            [] => {
                return Err(Failure::usage(format!("--last-good {name}: there is no such snapshot"))
                    .remedy("kbak snapshots lists what there is"));
            }
            several => {
                let mut failure =
                    Failure::usage(format!("--last-good {name}: several snapshots could be meant"));
                for snapshot in several {
                    let envelope = snapshot.envelope();
                    let hash = format!("sha256:{}", snapshot.manifest.hash());
                    failure = failure.fact(format!("{:06} of plan {}", envelope.seq, envelope.plan), hash);
                }
                return Err(failure.remedy("name it by the first digits of its hash"));
            }
        }
    }
    Ok(good)
}

/// Asks on a terminal, since it cannot be undone. Without a terminal, the verb is the consent.
async fn confirm(args: &CutOffArgs, revocation: &Revocation, found: Option<&Found>) -> Result<(), Failure> {
    if args.yes || !prompt::can_ask() {
        return Ok(());
    }
    let signed = |plan: &StoredPlan| {
        let good = plan.chain.ancestors(&revocation.last_good);
        let by_key = plan.chain.iter().filter(|snapshot| snapshot.manifest.key() == revocation.key);
        by_key.filter(|snapshot| !good.contains(&snapshot.manifest.hash())).count() as u64
    };
    let lost = match found {
        Some(found) => plural(found.plans.iter().map(signed).sum(), "snapshot", "snapshots"),
        None => "every other snapshot".to_owned(),
    };
    let signer = revocation.key.fingerprint();
    let question = format!("{lost} that {signer} signed will count no more; this cannot be undone");
    prompt::confirm(&question, "answer yes, or give --yes").await
}

/// Adds the line to the signers file, unless it is there.
fn write_line(file: &Path, revocation: &Revocation) -> Result<(), Failure> {
    let mut text = read_text(file, "the pinned signers")?;
    let line = revocation.to_line();
    if text.lines().any(|known| known.trim() == line) {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&line);
    text.push('\n');
    private_file::replace_public(file, Runtime::real().random(), text.as_bytes()).map_err(|error| {
        Failure::usage(format!(
            "{}: the revocation cannot be written into it; nothing was changed",
            file.display()
        ))
        .because(error)
        .remedy("run it where the file can be written; it must come first")
    })
}

/// Stores the revocation in the part of every writer that the key may sign for.
async fn spread(
    found: Result<Found, Failure>,
    revocation: &Revocation,
    owner: &SigningKey,
) -> Result<(), Failure> {
    let not_yet = |exit: Exit| {
        Failure::new(exit, "the pin revokes the key, and the repository does not spread it yet").remedy(
            "give this kbak.pub to everybody who restores, and run it again when the repository can be read, with \
             credentials that may put objects",
        )
    };
    let Found { view, plans } = found.map_err(|failure| not_yet(failure.exit).because(failure))?;
    let mut places: Vec<(RepositoryId, WriterId)> = plans
        .iter()
        .filter_map(|plan| plan.epochs.all.first().map(|stored| (stored.epoch.repository, plan.writer)))
        .collect();
    places.sort_unstable();
    places.dedup();
    for place in places {
        revoke(&view.store, place, revocation, owner).await.map_err(|error| {
            let exit = if matches!(error, RevokeError::Sign(_)) { Exit::Bug } else { Exit::Unreachable };
            not_yet(exit).because(error)
        })?;
    }
    Ok(())
}
