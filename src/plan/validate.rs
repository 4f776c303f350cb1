//! Checks that types cannot express: impossible values, empty selections, settings that exclude each other,
//! duplicate names.

use std::collections::HashMap;
use std::path::{Component, Path};

use super::items::{Database, Engine, ItemName, Method, Tls, Transport, Volume, is_name};
use super::problem::{Problem, ProblemKind as Kind};
use super::running::{UNCOVERED, is_uncovered_item};
use super::selection::{Glob, selector_problem};
use super::spec::{BackupPlan, ClusterScoped, EpochAge, LockMode, Patterns, Repository, Resources};
use super::value::{Period, Size};

/// The minimum of a run's memory limit.
pub const LEAST_MEMORY: Size = Size::mebi(64);

/// Returns all problems of a plan, without their positions.
pub(super) fn problems(plan: &BackupPlan) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    let spec = &plan.spec;
    found.name(&plan.metadata.name);
    found.repository(&spec.repository);
    found.recipients(plan);
    found.epoch(plan);
    if spec.writer.epoch_file.is_some() && spec.writer.epoch_secret.is_some() {
        found.contradiction("spec.writer.epochSecret", "epochFile and epochSecret exclude each other");
    }
    if spec.resources.is_none() && spec.databases.is_empty() && spec.volumes.is_empty() {
        let message = "the plan selects nothing: no resources, no databases, no volumes";
        found.add(
            Problem::new(Kind::Empty, "spec", message).remedy("add resources: {} for all of the cluster"),
        );
    }
    if let Some(resources) = &spec.resources {
        found.resources(resources);
    }
    for (number, database) in spec.databases.iter().enumerate() {
        found.database(&format!("spec.databases[{number}]"), database);
    }
    for (number, volume) in spec.volumes.iter().enumerate() {
        found.volume(&format!("spec.volumes[{number}]"), volume);
    }
    found.duplicates(plan);
    found.accepted(plan);
    found.limits(plan);
    found.0
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    fn bad(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Problem::new(Kind::BadValue, field, message));
    }

    fn contradiction(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Problem::new(Kind::Contradiction, field, message));
    }

    fn name(&mut self, name: &str) {
        if !is_name(name) || name.contains('.') {
            self.add(
                Problem::new(Kind::BadValue, "metadata.name", format!("{name:?} is no name for a plan"))
                    .remedy("lower-case letters, digits and -, at most 63, as in nightly-prod"),
            );
        }
    }

    fn repository(&mut self, repository: &Repository) {
        let file = match repository_url(&repository.url) {
            Ok(file) => file,
            Err(message) => {
                self.add(
                    Problem::new(Kind::BadValue, "spec.repository.url", message)
                        .remedy("write s3://bucket/prefix or file:///folder"),
                );
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
        if let Some(Err(message)) = repository.endpoint.as_deref().map(endpoint) {
            self.add(
                Problem::new(Kind::BadValue, "spec.repository.endpoint", message)
                    .remedy("write the store's address as in https://s3.example.eu"),
            );
        }
    }

    fn recipients(&mut self, plan: &BackupPlan) {
        let recipients = &plan.spec.recipients;
        if recipients.is_empty() {
            self.add(
                Problem::new(Kind::Empty, "spec.recipients", "no recipients: nobody could restore")
                    .remedy("add the owners' public keys: kbak keygen makes one"),
            );
        }
        for (number, recipient) in recipients.iter().enumerate() {
            let owner = recipient.owner();
            if recipients[..number].iter().any(|other| other.owner().recipient == owner.recipient) {
                let message = format!("{} stands here a second time", owner.name());
                self.add(Problem::new(Kind::Duplicate, format!("spec.recipients[{number}]"), message));
            }
        }
    }

    fn epoch(&mut self, plan: &BackupPlan) {
        let epoch = &plan.spec.epoch;
        let lock = plan.spec.repository.object_lock;
        let compliance = lock.is_some_and(|lock| lock.mode == LockMode::Compliance);
        match epoch.max_age {
            EpochAge::Auto if compliance => self.add(
                Problem::new(
                    Kind::Contradiction,
                    "spec.epoch.maxAge",
                    "auto and a compliance lock exclude each other: nobody could delete before a date you did not choose",
                )
                .remedy("name the period, as in epoch: {maxAge: 30d}"),
            ),
            EpochAge::Fixed(age) if !(Period::days(30)..=Period::days(365)).contains(&age) => {
                self.bad("spec.epoch.maxAge", format!("{age} is not from 30d to 365d"));
            }
            EpochAge::Fixed(age) if epoch.max_run >= age => {
                self.contradiction("spec.epoch.maxRun", format!("a run of {} outlasts an epoch of {age}", epoch.max_run));
            }
            _ if !(Period::seconds(60)..=Period::days(14)).contains(&epoch.max_run) => {
            self.bad("spec.epoch.maxRun", format!("{} is not from 1m to 14d", epoch.max_run));
            }
            _ => {}
        }
        if let Some(lock) = lock
            && !(Period::days(1)..=Period::days(3650)).contains(&lock.keep)
        {
            self.bad("spec.repository.objectLock.keep", format!("{} is not from 1d to 3650d", lock.keep));
        }
    }

    fn globs(&mut self, field: &str, patterns: &[String]) -> bool {
        let before = self.0.len();
        for (number, pattern) in patterns.iter().enumerate() {
            if let Err(error) = Glob::new(pattern) {
                self.bad(format!("{field}[{number}]"), error.to_string());
            }
        }
        self.0.len() == before
    }

    /// Checks that the patterns are globs and can match something.
    fn patterns(&mut self, field: &str, patterns: &Patterns, of: &str) {
        let fine = self.globs(&format!("{field}.include"), &patterns.include)
            & self.globs(&format!("{field}.exclude"), &patterns.exclude);
        if !fine {
            return;
        }
        // An exclude that matches a pattern's text excludes all the pattern matches, except for odd globs.
        let excludes: Vec<Glob> = patterns.exclude.iter().filter_map(|p| Glob::new(p).ok()).collect();
        let gone = |include: &String| excludes.iter().any(|glob| glob.matches(include));
        if patterns.include.is_empty() {
            let message = format!("include is empty: no {of} is selected");
            self.add(
                Problem::new(Kind::Empty, format!("{field}.include"), message).remedy("leave it out for all"),
            );
        } else if patterns.include.iter().all(gone) {
            let message = format!("exclude takes away all that include takes: no {of} is selected");
            self.add(Problem::new(Kind::Empty, format!("{field}.exclude"), message));
        }
    }

    fn resources(&mut self, resources: &Resources) {
        let namespaced = resources.cluster_scoped == ClusterScoped::None
            || resources.cluster_scoped == ClusterScoped::Auto
            || !resources.namespaces.include.is_empty();
        if namespaced {
            self.patterns("spec.resources.namespaces", &resources.namespaces, "namespace");
        }
        self.patterns("spec.resources.kinds", &resources.kinds, "kind");
        if let Some(problem) = resources.selector.as_deref().and_then(selector_problem) {
            self.bad("spec.resources.selector", problem);
        }
    }

    fn database(&mut self, field: &str, database: &Database) {
        if !is_name(&database.name) || database.name == "resources" {
            self.add(
                Problem::new(
                    Kind::BadValue,
                    format!("{field}.name"),
                    format!("{:?} is no name for a database", database.name),
                )
                .remedy("lower-case letters, digits, - and ., at most 63, and not resources"),
            );
        }
        self.database_place(field, database);
        if database.databases.is_empty() {
            let message = "databases is empty: no database is selected";
            self.add(
                Problem::new(Kind::Empty, format!("{field}.databases"), message)
                    .remedy("leave it out for all"),
            );
        }
        for (number, pattern) in database.databases.iter().enumerate() {
            if let Err(error) = Glob::of_any(pattern) {
                self.bad(format!("{field}.databases[{number}]"), error.to_string());
            }
        }
        let users = [database.user.is_some(), database.user_file.is_some(), database.secret_ref.is_some()];
        if users.iter().filter(|given| **given).count() > 1 {
            self.contradiction(field, "user, userFile and secretRef exclude each other");
        }
        if database.password_file.is_some() && database.secret_ref.is_some() {
            self.contradiction(
                format!("{field}.passwordFile"),
                "passwordFile and secretRef exclude each other",
            );
        }
        if database.ca_file.is_some() && database.tls == Tls::AllowPlaintext {
            self.contradiction(format!("{field}.caFile"), "caFile proves nothing with tls: allow-plaintext");
        }
        match (&database.command, database.engine) {
            (None, Engine::Command) => {
                self.add(Problem::new(
                    Kind::MissingField,
                    field,
                    "the engine command needs command: {dump, restore}",
                ));
            }
            (Some(_), engine) if engine != Engine::Command => {
                self.contradiction(format!("{field}.command"), "command belongs to the engine command");
            }
            (Some(recipe), _) if recipe.dump.is_empty() || recipe.restore.is_empty() => {
                self.bad(format!("{field}.command"), "dump and restore both need at least a program");
            }
            _ => {}
        }
    }

    fn database_place(&mut self, field: &str, database: &Database) {
        let transport = database.transport();
        let places = [database.service.is_some(), database.host.is_some(), database.pod.is_some()];
        match places.iter().filter(|given| **given).count() {
            0 if database.engine == Engine::Command => {}
            0 => self.add(
                Problem::new(Kind::MissingField, field, "nothing says where the database is")
                    .remedy("add namespace and service, or host, or pod for exec"),
            ),
            1 => {}
            _ => self.contradiction(field, "service, host and pod exclude each other"),
        }
        if database.service.is_some() && database.namespace.is_none() {
            self.add(Problem::new(Kind::MissingField, field, "a service needs its namespace"));
        }
        if (transport == Transport::Exec) != database.pod.is_some() {
            let message = "transport: exec and pod belong together";
            self.contradiction(format!("{field}.transport"), message);
        }
        if transport != Transport::Job && database.image.is_some() {
            self.contradiction(format!("{field}.image"), "image belongs to transport: job");
        }
        if database.container.is_some() && database.pod.is_none() {
            self.contradiction(format!("{field}.container"), "container needs pod");
        }
        if database.port == Some(0) {
            self.bad(format!("{field}.port"), "0 is no port");
        }
        if let Some(Err(message)) = database.host.as_deref().map(host) {
            self.add(
                Problem::new(Kind::BadValue, format!("{field}.host"), message)
                    .remedy("write the host alone; port, user and passwordFile are fields of their own"),
            );
        }
    }

    fn volume(&mut self, field: &str, volume: &Volume) {
        match (&volume.path, volume.claims.is_empty() && volume.selector.is_none()) {
            (Some(path), true) => self.folder(field, path, volume),
            (Some(_), false) => self.contradiction(field, "path and claims exclude each other"),
            (None, true) => self.add(
                Problem::new(Kind::Empty, field, "the volume selects nothing")
                    .remedy("add path, or namespace and claims"),
            ),
            (None, false) => self.claims(field, volume),
        }
        let mut lines = ignore::gitignore::GitignoreBuilder::new("/");
        for (number, line) in volume.exclude.iter().enumerate() {
            if let Err(error) = lines.add_line(None, line) {
                self.bad(format!("{field}.exclude[{number}]"), format!("{line:?} is no pattern: {error}"));
            }
        }
    }

    fn folder(&mut self, field: &str, path: &Path, volume: &Volume) {
        let text = path.to_string_lossy();
        if !path.is_absolute() || !path.components().all(is_plain) || (text.len() > 1 && text.ends_with('/'))
        {
            let message = format!("{text:?} is no absolute path in its plain form");
            self.add(
                Problem::new(Kind::BadValue, format!("{field}.path"), message)
                    .remedy("write it from /, without .. and without a slash at the end"),
            );
        }
        if let Some(name) = volume.name.as_deref().filter(|name| !is_name(name)) {
            self.bad(format!("{field}.name"), format!("{name:?} is no name for a folder"));
        }
        if volume.namespace.is_some() {
            self.contradiction(format!("{field}.namespace"), "a path has no namespace");
        }
        if volume.method.is_some_and(|method| method != Method::Live) {
            self.contradiction(format!("{field}.method"), "a path is read live; snapshots are for claims");
        }
    }

    fn claims(&mut self, field: &str, volume: &Volume) {
        if volume.namespace.is_none() {
            self.add(Problem::new(Kind::MissingField, field, "claims need their namespace"));
        }
        if !volume.claims.is_empty() && volume.selector.is_some() {
            self.contradiction(format!("{field}.selector"), "claims and selector exclude each other");
        }
        if volume.name.is_some() {
            self.contradiction(format!("{field}.name"), "name is for a path; claims have names");
        }
        self.globs(&format!("{field}.claims"), &volume.claims);
        if let Some(problem) = volume.selector.as_deref().and_then(selector_problem) {
            self.bad(format!("{field}.selector"), problem);
        }
    }

    fn duplicates(&mut self, plan: &BackupPlan) {
        let mut seen: HashMap<ItemName, String> = HashMap::new();
        for (item, field) in declared(plan) {
            if let Some(first) = seen.get(&item) {
                let message = format!("{item} is declared a second time; first in {first}");
                self.add(
                    Problem::new(Kind::Duplicate, field, message)
                        .remedy("name it once; items have one state"),
                );
            } else {
                seen.insert(item, field);
            }
        }
    }

    fn accepted(&mut self, plan: &BackupPlan) {
        let items: Vec<ItemName> = declared(plan).into_iter().map(|(item, _)| item).collect();
        let open = plan.spec.volumes.iter().any(|volume| volume.selector.is_some());
        for (number, accept) in plan.spec.accept.iter().enumerate() {
            let field = format!("spec.accept[{number}]");
            if accept.reason.trim().is_empty() {
                self.bad(format!("{field}.reason"), "a gap is accepted for a reason");
            }
            if accept.gap == UNCOVERED {
                if !is_uncovered_item(&accept.item) {
                    let message = format!("{:?} is nothing that coverage tells of", accept.item);
                    self.add(Problem::new(Kind::BadValue, format!("{field}.item"), message).remedy(
                        "write volume/NS/NAME, database/NS/NAME, secret/NS/NAME or namespace/NAME; globs are fine",
                    ));
                }
                continue;
            }
            let Some(item) = ItemName::parse(&accept.item) else {
                self.bad(format!("{field}.item"), format!("{:?} is no item", accept.item));
                continue;
            };
            if !open && !items.iter().any(|declared| covers(declared, &item)) {
                let names: Vec<String> = items.iter().map(ToString::to_string).collect();
                let message = format!("{item} is not declared by this plan");
                let remedy = match super::read::suggest(&accept.item, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are: {}", names.join(", ")),
                };
                self.add(Problem::new(Kind::BadValue, format!("{field}.item"), message).remedy(remedy));
            }
            if !is_name(&accept.gap) || accept.gap.contains('.') {
                self.bad(format!("{field}.gap"), format!("{:?} is no code of a gap", accept.gap));
            }
        }
    }

    fn limits(&mut self, plan: &BackupPlan) {
        let limits = &plan.spec.limits;
        if limits.memory < LEAST_MEMORY {
            self.bad("spec.limits.memory", format!("{} is under the least, {LEAST_MEMORY}", limits.memory));
        }
        if limits.parallel.is_some_and(|count| !(1..=64).contains(&count)) {
            self.bad("spec.limits.parallel", "it is not from 1 to 64");
        }
        if plan.spec.retention.is_some_and(|retention| retention.keeps_nothing()) {
            self.add(
                Problem::new(Kind::Contradiction, "spec.retention", "this retention keeps nothing")
                    .remedy("give at least one rule more than 0, as in keepDaily: 14"),
            );
        }
        if plan.spec.schedule.is_some_and(|schedule| schedule.next < Period::seconds(60)) {
            self.bad("spec.schedule.next", "it is under 1m");
        }
    }
}

/// Returns every item with the field that declares it.
fn declared(plan: &BackupPlan) -> Vec<(ItemName, String)> {
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
fn covers(declared: &ItemName, item: &ItemName) -> bool {
    match (declared, item) {
        (ItemName::Volume { namespace, claim }, ItemName::Volume { namespace: other, claim: one }) => {
            namespace == other && Glob::new(claim).is_ok_and(|glob| glob.matches(one))
        }
        _ => declared == item,
    }
}

/// Returns `true` if the repository is a folder, or the problem of its address. An address that carries a
/// password is never repeated.
fn repository_url(text: &str) -> Result<bool, String> {
    if text.contains('@') {
        return Err("the address carries credentials, or an @; credentials stand in a file".into());
    }
    if let Some(path) = text.strip_prefix("file://") {
        let path = Path::new(path);
        let fine = path.is_absolute() && path.components().all(is_plain);
        return if fine { Ok(true) } else { Err(format!("{text:?} names no folder from /")) };
    }
    let Some(rest) = text.strip_prefix("s3://") else {
        return Err(format!("{text:?} is no repository's address"));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let letters = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let bucket_fine = (3..=255).contains(&bucket.len()) && bucket.chars().all(letters);
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let parts_fine = prefix.is_empty()
        || prefix.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(['?', '#', '\\']));
    match (bucket_fine, parts_fine) {
        (true, true) => Ok(false),
        (false, _) => Err(format!("{bucket:?} is no name of a bucket")),
        (true, false) => Err(format!("{prefix:?} is no prefix in a bucket")),
    }
}

/// Checks a host name, an IP address or the folder of a socket. A possible password is not repeated.
fn host(text: &str) -> Result<(), String> {
    if text.contains('@') || text.contains("://") {
        return Err("this is an address with more than a host; it is not repeated here, because it may \
                    hold a password"
            .into());
    }
    let fine = if text.starts_with('/') {
        !text.contains(char::is_control) && Path::new(text).components().all(is_plain)
    } else {
        let letter = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        // A single colon would separate a port; IPv6 addresses have more.
        let address = text.matches(':').count() != 1 && (text.contains(':') || !text.contains('%'));
        (1..=255).contains(&text.len()) && !text.starts_with('-') && text.chars().all(letter) && address
    };
    if fine { Ok(()) } else { Err(format!("{text:?} is no host name, address or folder of a socket")) }
}

/// True if a part of a path is the root or a name, not `.` or `..`.
fn is_plain(part: Component<'_>) -> bool {
    matches!(part, Component::RootDir | Component::Normal(_))
}

fn endpoint(text: &str) -> Result<(), String> {
    if text.contains('@') {
        return Err("the endpoint carries credentials; they stand in a file".into());
    }
    let uri: http::Uri = text.parse().map_err(|_| format!("{text:?} is no address"))?;
    match (uri.scheme_str(), uri.host(), uri.query()) {
        (Some("http" | "https"), Some(host), None) if !host.is_empty() => Ok(()),
        _ => Err(format!("{text:?} is no https or http address")),
    }
}
