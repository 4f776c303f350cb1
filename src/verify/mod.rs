//! Verify: compares the objects in a store with those that pinned keys signed.
//!
//! Without a key it proves signatures, the chain, and the presence and size of everything that a
//! snapshot needs. On request it also proves that every byte is the one that was stored, since names
//! are hashes. With an owner's identity it opens everything down to every chunk. It reports what it
//! did not check.

mod chain;
mod contents;
mod distrust;
mod finding;
mod findings;
mod hints;
mod listing;
mod named_objects;
mod objects;
mod proven;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use crate::format::layout::{self, EpochPath, ObjectClass, ObjectKey};
use crate::format::record::RecordError;
use crate::report::{error::causes, event::Meter};
use crate::repository::chain::Snapshot;
use crate::repository::read::open::{read_marker, validate_marker};
use crate::repository::read::reader::{RepositoryReader, StoredPlan};
use crate::repository::signed_listing::Unsigned;
use crate::repository::{error::RepositoryError, fetched::Fetched, records::Records};
use crate::store::listing::folders;

pub use distrust::{DistrustError, distrust};
pub use finding::{AffectedSnapshot, Fault, Finding, ObjectKind, PlanRef};
pub use findings::{Findings, LeftOut, MAX_FINDINGS};
use named_objects::NamedObjects;
pub use report::{Depth, DomainRef, Head, Options, Totals, VerifyReport};

/// The result of a step of the verification. A fault in the repository is no error.
type Result<T, E = RepositoryError> = std::result::Result<T, E>;

/// Most folders of writers that are told apart in a bucket.
const MAX_WRITERS: usize = 100;

struct Check<'a> {
    view: &'a RepositoryReader,
    options: &'a Options,
    meter: Arc<Meter>,
    findings: Findings,
    totals: Totals,
    not_checked: BTreeSet<String>,
    closed: Vec<EpochId>,
    heads: Vec<Head>,
    /// Domains whose index, scan cache, lists or catalogs are wrong.
    resets: BTreeSet<DomainRef>,
    /// The plan whose chain is being checked.
    plan: Option<PlanRef>,
    chain: Vec<Snapshot>,
}

/// Verifies the part of `view` that `options` select. Fails with [`RepositoryError`] if the store cannot be
/// read, or no writer is pinned. A fault in the repository is no error: it is in the verdict.
pub async fn verify(view: &RepositoryReader, options: &Options) -> Result<VerifyReport> {
    let mut check = Check {
        view,
        options,
        meter: view.reporter.meter("verify", "plans"),
        findings: Findings::default(),
        totals: Totals::default(),
        not_checked: BTreeSet::new(),
        closed: Vec::new(),
        heads: Vec::new(),
        resets: BTreeSet::new(),
        plan: None,
        chain: Vec::new(),
    };
    check.marker().await?;
    let found = view.find_plans(&options.which).await?;
    let plans: Vec<(WriterId, NameId)> =
        found.iter().flat_map(|of| of.plans.iter().map(|plan| (of.writer, *plan))).collect();
    if plans.is_empty() {
        // kbak init creates the first epoch.
        let detail = "nothing of any pinned writer is there, not even an epoch";
        check.findings.add(view.store.describe(), ObjectKind::Plan, Fault::Missing, detail);
    }
    check.report_unpinned_writers(&plans).await?;
    check.meter.add_total(plans.len() as u64);
    let mut expected = options.expect_head.is_none();
    for of in &found {
        check.unsigned(&of.names.unsigned);
        let records = check.records(of.writer).await?;
        for plan in &of.plans {
            let view = view.plan(of, *plan, &records).await?;
            check.unsigned(&view.epochs.unsigned);
            check.unsigned(&view.chain.unsigned);
            // A rejected manifest has a finding of its own.
            let rejected = |head: ObjectHash| chain::names(&view, head);
            expected |=
                options.expect_head.is_some_and(|head| view.chain.get(head).is_some() || rejected(head));
            check.check_plan(&view, &records).await?;
            check.meter.add_done(1);
        }
    }
    if let Some(head) = options.expect_head.filter(|_| !expected) {
        let detail =
            format!("snapshot sha256:{head}, which was seen before, is in no chain of a pinned writer");
        check.findings.add(view.store.describe(), ObjectKind::Plan, Fault::RolledBack, detail);
    }
    check.meter.end();
    Ok(check.verdict())
}

impl Check<'_> {
    fn not_checked(&mut self, what: impl Into<String>) {
        self.not_checked.insert(what.into());
    }

    fn unsigned(&mut self, unsigned: &Unsigned) {
        self.not_checked.extend(unsigned.describe());
    }

    /// Records that the next backup must not believe the hints of a domain.
    fn reset(&mut self, path: &EpochPath, domain: NameId) {
        let plan = PlanRef { writer: path.writer, plan: path.plan };
        self.resets.insert(DomainRef { plan, epoch: path.epoch, domain });
    }

    /// Records that the fault of `object` affects the snapshots at these positions in the chain.
    fn mark_affected(&mut self, object: &str, users: &[named_objects::SnapshotIndex]) {
        for user in users {
            self.mark_affected_item(object, *user, None);
        }
    }

    fn mark_affected_item(&mut self, object: &str, user: named_objects::SnapshotIndex, item: Option<&str>) {
        let (Some(plan), Some(snapshot)) = (self.plan, self.chain.get(user)) else { return };
        let (sequence, hash) = (snapshot.envelope().seq, snapshot.manifest.hash());
        self.findings.mark_affected(object, plan, sequence, hash, item);
    }

    async fn marker(&mut self) -> Result<()> {
        let key = layout::marker();
        let (fault, detail) = match read_marker(&self.view.store).await? {
            Fetched::Valid(_) => return Ok(()),
            Fetched::Corrupt => (Fault::Altered, "it does not hold what it holds in every repository"),
            Fetched::Missing => {
                if !self.view.has_pinned_writer().await? {
                    return validate_marker(&self.view.store, &Fetched::Missing);
                }
                (Fault::Missing, "a pinned writer's folder is there without it")
            }
        };
        self.findings.add(key.as_str(), ObjectKind::Marker, fault, detail);
        Ok(())
    }

    /// Reports the folders of writers that are not checked.
    async fn report_unpinned_writers(&mut self, plans: &[(WriterId, NameId)]) -> Result<()> {
        let there = folders(&self.view.store, "", MAX_WRITERS).await?;
        if !there.complete {
            let what = format!("more than {MAX_WRITERS} folders beside the pinned writers'");
            self.not_checked(what);
        }
        for folder in there.names {
            let Ok(writer) = folder.parse::<WriterId>() else {
                self.not_checked(format!("{folder}/: it is no writer's folder"));
                continue;
            };
            if !self.view.writers().contains(&writer) {
                self.not_checked(format!("writer {writer}: no key of it is pinned with --signer"));
            } else if !plans.iter().any(|(other, _)| *other == writer) {
                self.not_checked(format!("writer {writer}: it has no plan, or none that was asked for"));
            }
        }
        Ok(())
    }

    async fn check_plan(&mut self, plan: &StoredPlan, records: &Records) -> Result<()> {
        let place = PlanRef { writer: plan.writer, plan: plan.plan };
        self.plan = Some(place);
        self.chain = plan.chain.iter().cloned().collect();
        self.totals.plans += 1;
        self.totals.epochs += plan.epochs.all.len() as u64;
        self.totals.snapshots += self.chain.len() as u64;
        // Two runs at once make two heads, and both are reported.
        self.heads.extend(plan.chain.heads().into_iter().map(|head| Head {
            plan: place,
            sequence: head.envelope().seq,
            hash: head.manifest.hash(),
        }));
        let mut wanted = named_objects::named_objects(&self.chain);
        self.epochs(plan, wanted.keys().copied());
        self.check_chain(plan);
        self.check_revocations(plan, records);
        self.check_wraps(plan, records).await?;
        for stored in &plan.epochs.all {
            wanted.entry(stored.epoch.epoch).or_default();
        }
        for (epoch, wanted) in &mut wanted {
            let path = EpochPath { writer: plan.writer, plan: plan.plan, epoch: *epoch };
            objects::check(self, path, wanted).await?;
        }
        if !self.options.identities.is_empty() {
            contents::check(self, plan, &mut wanted).await?;
        } else if self.options.depth != Depth::All {
            self.add_recorded_packs(plan, records, &mut wanted).await?;
        }
        self.mark_closed(plan, &wanted);
        self.mark_distrusted(plan, records, &wanted);
        self.mark_healed(&wanted);
        Ok(())
    }

    /// Marks bad packs of which snapshots name whole copies.
    fn mark_healed(&mut self, wanted: &BTreeMap<EpochId, NamedObjects>) {
        for key in self.packs_with_copies(wanted) {
            self.findings.mark_restorable(key.as_str());
        }
    }

    /// Returns the packs of which a snapshot names whole copies, all of them good.
    fn packs_with_copies(&self, wanted: &BTreeMap<EpochId, NamedObjects>) -> BTreeSet<ObjectKey> {
        let mut packs = BTreeSet::new();
        for envelope in self.chain.iter().map(Snapshot::envelope) {
            let Some(wanted) = wanted.get(&envelope.epoch) else { continue };
            for heal in envelope.heals.iter().filter(|heal| heal.whole) {
                let Some(domain) = wanted.domains.get(&heal.domain) else { continue };
                if heal.by.iter().all(|pack| domain.has_good(pack)) {
                    packs.insert(envelope.path().in_domain(heal.domain, ObjectClass::Pack, heal.bad));
                }
            }
        }
        packs
    }

    /// Adds packs that were not all read, that signed records call bad, and that have no whole copies.
    async fn add_recorded_packs(
        &mut self,
        plan: &StoredPlan,
        records: &Records,
        wanted: &mut BTreeMap<EpochId, NamedObjects>,
    ) -> Result<()> {
        let healed = self.packs_with_copies(wanted);
        for (epoch, wanted) in wanted {
            let path = EpochPath { writer: plan.writer, plan: plan.plan, epoch: *epoch };
            for (id, domain) in &mut wanted.domains {
                let (known, _) = records.distrusted(plan.plan, *epoch, *id);
                let is_open = |pack: &&ObjectHash| {
                    domain.wants(pack) && !healed.contains(&path.in_domain(*id, ObjectClass::Pack, **pack))
                };
                let unseen: Vec<_> = known.difference(&domain.bad).filter(is_open).copied().collect();
                domain.bad.extend(unseen.iter().copied());
                let keys = unseen.iter().map(|pack| path.in_domain(*id, ObjectClass::Pack, *pack));
                let keys: Vec<ObjectKey> = keys.collect();
                for key in &keys {
                    let detail = "a signed record says so, and this run has not read it";
                    self.findings.add(key.as_str(), ObjectKind::Pack, Fault::Altered, detail);
                }
                objects::users_of_bad(self, path, *id, domain).await?;
            }
        }
        Ok(())
    }

    /// Marks the bad packs of epochs that a successor closed.
    fn mark_closed(&mut self, plan: &StoredPlan, wanted: &BTreeMap<EpochId, NamedObjects>) {
        for (epoch, wanted) in wanted.iter().filter(|(id, _)| plan.epochs.successors(**id).next().is_some()) {
            let path = EpochPath { writer: plan.writer, plan: plan.plan, epoch: *epoch };
            for (id, domain) in &wanted.domains {
                for pack in &domain.bad {
                    self.findings.mark_closed(path.in_domain(*id, ObjectClass::Pack, *pack).as_str());
                }
            }
        }
    }

    /// Marks the bad packs that signed records name already.
    fn mark_distrusted(
        &mut self,
        plan: &StoredPlan,
        records: &Records,
        wanted: &BTreeMap<EpochId, NamedObjects>,
    ) {
        let opened = !self.options.identities.is_empty();
        let newest = plan.chain.heads().into_iter().map(|head| head.manifest.hash()).collect();
        for (epoch, wanted) in wanted {
            let path = EpochPath { writer: plan.writer, plan: plan.plan, epoch: *epoch };
            for (id, domain) in &wanted.domains {
                let (known, _) = records.distrusted(plan.plan, *epoch, *id);
                for pack in domain.bad.intersection(&known) {
                    let key = path.in_domain(*id, ObjectClass::Pack, *pack);
                    self.findings.mark_distrusted(key.as_str(), &newest, opened);
                }
            }
        }
    }

    async fn records(&mut self, writer: WriterId) -> Result<Records> {
        let records = self.view.records(writer).await?;
        self.unsigned(&records.unsigned);
        for (key, error) in &records.rejected {
            let fault = match error {
                RecordError::Name => Fault::Altered,
                RecordError::Signed(error) if error.is_newer() => Fault::Newer,
                RecordError::Signed(_) | RecordError::WrongPath { .. } => Fault::Signature,
            };
            self.findings.add(key.as_str(), ObjectKind::Record, fault, causes(error));
        }
        Ok(records)
    }

    fn verdict(mut self) -> VerifyReport {
        let opens = !self.options.identities.is_empty();
        match self.options.depth {
            _ if opens => {}
            Depth::All => self.not_checked("what is in the packs: --identity opens them"),
            Depth::Sample(_) | Depth::Presence => {
                let left = self.totals.packs - self.totals.packs_read.min(self.totals.packs);
                if left > 0 {
                    self.not_checked(format!("the bytes of {left} packs: --read-all reads them"));
                }
            }
        }
        if self.options.expect_head.is_none() {
            self.not_checked(
                "whether the newest snapshots were removed: --expect-head with a hash that was kept elsewhere",
            );
        }
        self.findings.mark_obsolete(&self.heads.iter().map(|head| head.hash).collect());
        let (findings, left_out) = self.findings.finish();
        VerifyReport {
            repository: self.view.store.describe(),
            checked: self.totals,
            heads: self.heads,
            resets: self.resets.into_iter().collect(),
            not_checked: self.not_checked.into_iter().collect(),
            findings,
            findings_left_out: left_out.all,
            orphans_left_out: left_out.orphans,
            closed_epochs: self.closed,
        }
    }
}
