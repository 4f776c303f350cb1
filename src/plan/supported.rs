//! Features that this version does not support yet. A plan that uses one is rejected, so that it is not taken
//! for done. A feature that only a later verb needs gives a warning.

use super::items::{DatabaseEngine, DumpTransport};
use super::problem::{Problem, ProblemKind};
use super::spec::BackupPlan;

const NOT_YET: &str = "not yet supported by this version";

/// Returns a problem for each feature that is not supported yet, and warnings for settings without effect.
pub(super) fn unsupported_features(plan: &BackupPlan) -> Vec<Problem> {
    let spec = &plan.spec;
    let mut found = Vec::new();
    let refuse = |field: String, what: &str, remedy: &str| {
        Problem::new(ProblemKind::NotYet, field, format!("{what}: {NOT_YET}")).remedy(remedy)
    };
    let mut whole = |given: bool, field: &str, what: &str, remedy: &str| {
        if given {
            found.push(refuse(format!("spec.{field}"), what, remedy));
        }
    };
    whole(spec.repository.object_lock.is_some(), "repository.objectLock", "object lock", "leave it out");
    whole(!spec.hooks.is_empty(), "hooks", "hooks", "run them around kbak");
    whole(spec.limits.parallel.is_some(), "limits.parallel", "a number of transfers", "leave it out");
    whole(spec.jobs.is_some(), "jobs", "Jobs in the cluster", "leave it out");
    for (number, database) in spec.databases.iter().enumerate() {
        let field = format!("spec.databases[{number}]");
        if database.engine != DatabaseEngine::Postgresql {
            let what = format!("the engine {}", database.engine.name());
            let remedy = "dump it into a folder and back that folder up";
            found.push(refuse(format!("{field}.engine"), &what, remedy));
        }
        if database.transport() != DumpTransport::Local {
            let what = format!("the transport {}", database.transport().name());
            found.push(refuse(format!("{field}.transport"), &what, "use transport: local, and host"));
        } else if database.service.is_some() {
            found.push(refuse(format!("{field}.service"), "finding a service", "use host"));
        }
        if database.secret_ref.is_some() {
            let remedy = "mount the Secret and use userFile and passwordFile";
            found.push(refuse(format!("{field}.secretRef"), "reading a Secret", remedy));
        }
    }
    for (number, volume) in spec.volumes.iter().enumerate() {
        if !volume.claims.is_empty() || volume.selector.is_some() {
            let field = format!("spec.volumes[{number}].claims");
            found.push(refuse(field, "claims in the cluster", "mount the volume and use path"));
        }
    }
    found.extend(warnings(plan));
    found
}

/// Returns warnings for settings that do not affect a backup, and that only a later version will use.
fn warnings(plan: &BackupPlan) -> Vec<Problem> {
    let spec = &plan.spec;
    let mut found = Vec::new();
    let mut later = |given: bool, field: &str, what: &str| {
        if given {
            let message = format!("{what}: {NOT_YET}");
            found.push(Problem::new(ProblemKind::NotYet, format!("spec.{field}"), message).warning());
        }
    };
    later(spec.retention.is_some(), "retention", "nothing is pruned");
    let databases = spec.databases.iter().enumerate();
    let volumes = spec.volumes.iter().enumerate();
    let of_resources = spec.resources.as_ref().and_then(|resources| resources.objectives);
    let objectives =
        [("objectives".to_owned(), spec.objectives), ("resources.objectives".to_owned(), of_resources)]
            .into_iter()
            .chain(databases.map(|(n, database)| (format!("databases[{n}].objectives"), database.objectives)))
            .chain(volumes.map(|(n, volume)| (format!("volumes[{n}].objectives"), volume.objectives)));
    for (field, objectives) in objectives {
        later(objectives.is_some(), &field, "objectives are not watched");
    }
    found
}
