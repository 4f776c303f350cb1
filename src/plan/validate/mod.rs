//! Checks that types cannot express: impossible values, empty selections, settings that exclude each other,
//! duplicate names.

mod address;
mod items;
mod notify;
mod restore;

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::items::{ItemName, is_item_name};
use super::problem::{Problem, ProblemKind as Kind, suggest};
use super::run_settings::is_uncovered_item;
use super::selection::{Glob, is_namespace};
use super::spec::{BackupPlan, EpochAge, LockMode, NamePatterns, RepositorySpec};
use super::value::{Period, Size};
use crate::report::coverage::UNCOVERED;
use crate::store::options::{StoreLocation, check_endpoint, parse_url};

pub use address::check_receiver_address;
pub(super) use restore::restore_problems;

/// The zstd levels that a run can compress with. Higher ones take tens of MiB for each processor.
pub const COMPRESSION_LEVELS: RangeInclusive<u8> = 1..=9;
/// The minimum of a run's memory limit.
pub const MIN_MEMORY: Size = Size::mebi(64);

const AUTO_WITH_COMPLIANCE: &str = "auto and a compliance lock exclude each other: nobody could delete before a \
                                    date that you did not choose";
const UNCOVERED_ITEMS: &str =
    "write volume/NS/NAME, database/NS/NAME, secret/NS/NAME or namespace/NAME; globs are fine";

/// Returns all problems of a plan, without their positions.
pub(super) fn backup_problems(plan: &BackupPlan) -> Vec<Problem> {
    let mut found = Problems(Vec::new());
    let spec = &plan.spec;
    found.check_name(&plan.metadata.name);
    found.check_repository(&spec.repository);
    found.check_recipients(plan);
    found.check_epoch(plan);
    if spec.writer.epoch_file.is_some() && spec.writer.epoch_secret.is_some() {
        found.contradiction("spec.writer.epochSecret", "epochFile and epochSecret exclude each other");
    }
    let is_secret_name = |name: &str| name.len() <= 253 && name.split('.').all(is_namespace);
    if let Some(name) = spec.writer.epoch_secret.as_deref().filter(|name| !is_secret_name(name)) {
        found.bad_value("spec.writer.epochSecret", format!("{name:?} is not a name of a Secret"));
    }
    if spec.resources.is_none() && spec.databases.is_empty() && spec.volumes.is_empty() {
        let message = "the plan selects nothing: no resources, no databases, no volumes";
        found.add(Kind::Empty, "spec", message).set_remedy("add resources: {} for all of the cluster");
    }
    if let Some(resources) = &spec.resources {
        found.check_resources(resources);
    }
    for (number, database) in spec.databases.iter().enumerate() {
        found.check_database(&format!("spec.databases[{number}]"), database);
    }
    for (number, volume) in spec.volumes.iter().enumerate() {
        found.check_volume(&format!("spec.volumes[{number}]"), volume);
    }
    found.check_duplicates(plan);
    found.check_accepted_gaps(plan);
    found.check_limits(plan);
    found.check_receivers(&spec.notify);
    found.0
}

/// The problems found so far.
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, kind: Kind, field: impl Into<String>, message: impl Into<String>) -> &mut Problem {
        self.0.push(Problem::new(kind, field, message));
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    fn bad_value(&mut self, field: impl Into<String>, message: impl Into<String>) -> &mut Problem {
        self.add(Kind::BadValue, field, message)
    }

    fn contradiction(&mut self, field: impl Into<String>, message: impl Into<String>) -> &mut Problem {
        self.add(Kind::Contradiction, field, message)
    }

    fn check_name(&mut self, name: &str) {
        if !is_item_name(name) || name.contains('.') {
            let remedy = "use lower-case letters, digits and -, at most 63 characters, as in nightly-prod";
            self.bad_value("metadata.name", format!("{name:?} is not a valid name for a plan"))
                .set_remedy(remedy);
        }
    }

    fn check_repository(&mut self, repository: &RepositorySpec) {
        let file = match parse_url(&repository.url) {
            Ok(location) => matches!(location, StoreLocation::Folder(_)),
            Err(message) => {
                self.bad_value("spec.repository.url", message)
                    .set_remedy("write s3://bucket/prefix or file:///folder");
                return;
            }
        };
        let only_s3 = [
            ("endpoint", repository.endpoint.is_some()),
            ("region", repository.region.is_some()),
            ("pathStyle", repository.path_style.is_some()),
            ("credentialsFile", repository.credentials_file.is_some()),
            ("caFile", repository.ca_file.is_some()),
            ("objectLock", repository.object_lock.is_some()),
        ];
        for (field, _) in only_s3.iter().filter(|(_, given)| file && *given) {
            let message = format!("{field} is for s3:// repositories; this one is a folder");
            self.contradiction(format!("spec.repository.{field}"), message);
        }
        if let Some(Err(message)) = repository.endpoint.as_deref().map(check_endpoint) {
            self.bad_value("spec.repository.endpoint", message)
                .set_remedy("write the store's address as in https://s3.example.eu");
        }
    }

    fn check_recipients(&mut self, plan: &BackupPlan) {
        let recipients = &plan.spec.recipients;
        if recipients.is_empty() {
            self.add(Kind::Empty, "spec.recipients", "no recipients: nobody could restore")
                .set_remedy("add the owners' public keys: kbak keygen makes one");
        }
        for (number, recipient) in recipients.iter().enumerate() {
            let owner = recipient.owner();
            if recipients[..number].iter().any(|other| other.owner().recipient == owner.recipient) {
                let message = format!("{} occurs twice", owner.name());
                self.add(Kind::Duplicate, format!("spec.recipients[{number}]"), message);
            }
        }
    }

    fn check_epoch(&mut self, plan: &BackupPlan) {
        let epoch = &plan.spec.epoch;
        let lock = plan.spec.repository.object_lock;
        let compliance = lock.is_some_and(|lock| lock.mode == LockMode::Compliance);
        match epoch.max_age {
            EpochAge::Auto if compliance => self
                .contradiction("spec.epoch.maxAge", AUTO_WITH_COMPLIANCE)
                .set_remedy("name the period, as in epoch: {maxAge: 30d}"),
            EpochAge::Fixed(age) if !(Period::days(30)..=Period::days(365)).contains(&age) => {
                self.bad_value("spec.epoch.maxAge", format!("{age} is not between 30d and 365d"));
            }
            EpochAge::Fixed(age) if epoch.max_run >= age => {
                let message = format!("a run of {} outlasts an epoch of {age}", epoch.max_run);
                self.contradiction("spec.epoch.maxRun", message);
            }
            _ if !(Period::seconds(60)..=Period::days(14)).contains(&epoch.max_run) => {
                self.bad_value("spec.epoch.maxRun", format!("{} is not between 1m and 14d", epoch.max_run));
            }
            _ => {}
        }
        if let Some(lock) = lock
            && !(Period::days(1)..=Period::days(3650)).contains(&lock.keep)
        {
            let message = format!("{} is not between 1d and 3650d", lock.keep);
            self.bad_value("spec.repository.objectLock.keep", message);
        }
    }

    fn check_globs(&mut self, field: &str, patterns: &[String]) -> bool {
        let before = self.0.len();
        for (number, pattern) in patterns.iter().enumerate() {
            if let Err(error) = Glob::new(pattern) {
                self.bad_value(format!("{field}[{number}]"), error.to_string());
            }
        }
        self.0.len() == before
    }

    /// Checks that the patterns are globs and can match something.
    fn check_patterns(&mut self, field: &str, patterns: &NamePatterns, of: &str) {
        let fine = self.check_globs(&format!("{field}.include"), &patterns.include)
            & self.check_globs(&format!("{field}.exclude"), &patterns.exclude);
        if !fine {
            return;
        }
        // An exclude that matches a pattern's text excludes all the pattern matches, except for odd globs.
        let excludes: Vec<Glob> = patterns.exclude.iter().filter_map(|p| Glob::new(p).ok()).collect();
        let gone = |include: &String| excludes.iter().any(|glob| glob.matches(include));
        if patterns.include.is_empty() {
            let message = format!("include is empty: no {of} is selected");
            self.add(Kind::Empty, format!("{field}.include"), message).set_remedy("leave it out for all");
        } else if patterns.include.iter().all(gone) {
            let message = format!("exclude matches all that include matches: no {of} is selected");
            self.add(Kind::Empty, format!("{field}.exclude"), message);
        }
    }

    fn check_duplicates(&mut self, plan: &BackupPlan) {
        let mut seen: HashMap<ItemName, String> = HashMap::new();
        for (item, field) in declared_items(plan) {
            if let Some(first) = seen.get(&item) {
                let message = format!("{item} is declared twice; first in {first}");
                self.add(Kind::Duplicate, field, message)
                    .set_remedy("declare it once; an item has one state");
            } else {
                seen.insert(item, field);
            }
        }
    }

    fn check_accepted_gaps(&mut self, plan: &BackupPlan) {
        let items: Vec<ItemName> = declared_items(plan).into_iter().map(|(item, _)| item).collect();
        let open = plan.spec.volumes.iter().any(|volume| volume.selector.is_some());
        for (number, accept) in plan.spec.accept.iter().enumerate() {
            let field = format!("spec.accept[{number}]");
            if accept.reason.trim().is_empty() {
                let message = "the reason is empty; give the reason why the gap is accepted";
                self.bad_value(format!("{field}.reason"), message);
            }
            if accept.gap == UNCOVERED {
                if !is_uncovered_item(&accept.item) {
                    let message = format!("{:?} is not an item that coverage reports", accept.item);
                    self.bad_value(format!("{field}.item"), message).set_remedy(UNCOVERED_ITEMS);
                }
                continue;
            }
            let Some(item) = ItemName::parse(&accept.item) else {
                let message = format!("{:?} is not the name of an item", accept.item);
                self.bad_value(format!("{field}.item"), message);
                continue;
            };
            if !open && !items.iter().any(|declared| includes(declared, &item)) {
                let names: Vec<String> = items.iter().map(ToString::to_string).collect();
                let message = format!("{item} is not declared by this plan");
                let remedy = match suggest(&accept.item, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("write one of: {}", names.join(", ")),
                };
                self.bad_value(format!("{field}.item"), message).set_remedy(remedy);
            }
            if !is_item_name(&accept.gap) || accept.gap.contains('.') {
                self.bad_value(format!("{field}.gap"), format!("{:?} is not the code of a gap", accept.gap));
            }
        }
    }

    fn check_limits(&mut self, plan: &BackupPlan) {
        let limits = &plan.spec.limits;
        if limits.memory < MIN_MEMORY {
            let message = format!("{} is less than the minimum, {MIN_MEMORY}", limits.memory);
            self.bad_value("spec.limits.memory", message);
        }
        if limits.parallel.is_some_and(|count| !(1..=64).contains(&count)) {
            self.bad_value("spec.limits.parallel", "the number is not between 1 and 64");
        }
        if plan.spec.compression_level.is_some_and(|level| !COMPRESSION_LEVELS.contains(&level)) {
            self.bad_value("spec.compressionLevel", "the level is not between 1 and 9");
        }
        if plan.spec.retention.is_some_and(|retention| retention.keeps_nothing()) {
            self.contradiction("spec.retention", "the retention keeps no snapshot")
                .set_remedy("set at least one rule to more than 0, as in keepDaily: 14");
        }
        if plan.spec.schedule.is_some_and(|schedule| schedule.next < Period::seconds(60)) {
            self.bad_value("spec.schedule.next", "the period is less than 1m");
        }
    }
}

/// Returns every item with the field that declares it.
fn declared_items(plan: &BackupPlan) -> Vec<(ItemName, String)> {
    let spec = &plan.spec;
    let resources = spec.resources.iter().map(|_| (ItemName::Resources, "spec.resources".to_owned()));
    let databases =
        spec.databases.iter().enumerate().map(|(n, db)| (db.item(), format!("spec.databases[{n}]")));
    let volumes = spec.volumes.iter().enumerate().flat_map(|(n, volume)| {
        volume.items().into_iter().map(move |item| (item, format!("spec.volumes[{n}]")))
    });
    resources.chain(databases).chain(volumes).collect()
}

/// True if `declared`, whose claim may be a glob, includes `item`.
fn includes(declared: &ItemName, item: &ItemName) -> bool {
    match (declared, item) {
        (ItemName::Volume { namespace, claim }, ItemName::Volume { namespace: other, claim: one }) => {
            namespace == other && Glob::new(claim).is_ok_and(|glob| glob.matches(one))
        }
        _ => declared == item,
    }
}
