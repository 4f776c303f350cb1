//! How a restore knows again what a restore made, and how far it came: by what the server notes of who
//! wrote an object.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::RestoreConfig;
use super::change::{beside, carry_over};
use super::decide::{Meeting, Ready, meeting};
use super::given_up::GIVEN_UP;
use super::object::{ObjectRef, Owner, Paths, each, is_object, map_mut, text};
use crate::source::kubernetes::{ApiError, ApiStatus, Cluster};

/// Under which name the server notes what a restore wrote.
pub(super) const MANAGER: &str = "kbak";

/// What a second write is to set of an object.
#[derive(Debug)]
pub(super) struct Wants {
    /// Its owners, as the backup names them.
    pub(super) owners: Vec<Owner>,
    /// Whether a manager applied fields of it.
    pub(super) applied: bool,
    /// Whether its status was asked for.
    pub(super) status: bool,
}

/// What a second write still owes an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Owes {
    pub(super) owners: bool,
    pub(super) managers: bool,
    pub(super) status: bool,
}

impl Owes {
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }
}

impl Wants {
    /// Of an object that was just made, or replaced.
    pub(super) fn all(&self) -> Owes {
        Owes { owners: !self.owners.is_empty(), managers: self.applied, status: self.status }
    }

    /// Of one that was patched: those fields that the patch did not bring.
    pub(super) fn beside(&self, there: &Value) -> Owes {
        let owners = self.lacks_owners(there);
        Owes { owners, managers: owners && self.applied, status: self.status }
    }

    /// Of one that is there and left alone: what the restore that made it did not come to. Managers are
    /// written last, and who made the object is not among them then.
    pub(super) fn left(&self, there: &Value) -> Owes {
        if !is_made(there) {
            return Owes::default();
        }
        let owners = self.lacks_owners(there);
        let managed = each(there, "/metadata/managedFields").any(|one| text(one, "/operation") == "Apply");
        let said = each(there, "/metadata/managedFields").any(is_of_status);
        Owes {
            owners,
            managers: self.applied && (owners || (is_as_made(there) && !managed)),
            status: self.status && !said,
        }
    }

    /// Whether it has none or only some of the owners that the backup names, and no others.
    fn lacks_owners(&self, there: &Value) -> bool {
        let mut has = 0;
        let known = each(there, "/metadata/ownerReferences").map(Owner::new).all(|owner| {
            has += 1;
            self.owners.iter().any(|one| (&one.kind, &one.name) == (&owner.kind, &owner.name))
        });
        known && has < self.owners.len()
    }
}

/// Whether a restore made it: the server notes who wrote an object.
pub(super) fn is_ours(there: &Value) -> bool {
    each(there, "/metadata/managedFields").any(|fields| text(fields, "/manager") == MANAGER)
}

/// Whether a restore may have made it: of an object without fields of its own the server notes nobody.
pub(super) fn is_made(there: &Value) -> bool {
    is_ours(there) || each(there, "/metadata/managedFields").next().is_none()
}

/// Whether a restore made it and nobody has written to it since, except of its status: then it is as it
/// was made, even where an admission webhook made it differ from what was sent.
pub(super) fn is_as_made(there: &Value) -> bool {
    let quiet = |fields: &Value| text(fields, "/manager") == MANAGER || is_of_status(fields);
    is_ours(there) && each(there, "/metadata/managedFields").all(quiet)
}

fn is_of_status(fields: &Value) -> bool {
    text(fields, "/subresource") == "status"
}

/// Holds the object that is `there` against the one that would be created, with the server's help where
/// only the server knows.
pub(super) async fn meet(
    cluster: &Cluster,
    config: &RestoreConfig,
    object: &ObjectRef,
    ready: &mut Ready,
    suspended: bool,
    there: &Value,
) -> Result<Meeting, ApiError> {
    match (meeting(config, object, ready, suspended, there), object.paths(&ready.kind)) {
        (Meeting::AsMade, Some(paths)) => Ok(match remade(cluster, &paths, ready, there).await? {
            true => Meeting::Leave,
            false => Meeting::Differs,
        }),
        (met, _) => Ok(met),
    }
}

/// Whether the server would make the one that is `there` of it again. A restore made that one, but
/// perhaps of another snapshot, or with other arguments, and who takes an element out of a list leaves
/// no mark: a webhook or a default made the difference only if it makes it again. Some webhooks are
/// asked of updates, some of creates, so both are tried, without effect.
async fn remade(cluster: &Cluster, paths: &Paths, ready: &Ready, there: &Value) -> Result<bool, ApiError> {
    let mut update = ready.body.clone();
    carry_over(&ready.kind, &mut update, there);
    let mut create = ready.body.clone();
    if let Some(metadata) = map_mut(&mut create, "/metadata") {
        // Its own name is taken.
        metadata.remove("name");
        metadata.insert("generateName".to_owned(), "kbak-asks-".into());
    }
    for (method, path, mut body) in [(Method::PUT, &paths.one, update), (Method::POST, &paths.all, create)] {
        let mut answer = dry(cluster, &method, path, "Warn", body.to_string().into()).await?;
        // As when it was created.
        for (says, cut, _) in GIVEN_UP {
            if answer.as_ref().is_err_and(|status| says(status)) && cut(&mut body) {
                if method == Method::PUT {
                    carry_over(&ready.kind, &mut body, there);
                }
                answer = dry(cluster, &method, path, "Warn", body.to_string().into()).await?;
            }
        }
        // Something between may have answered in the server's place.
        let Some(mut answer) = answer.ok().filter(is_object) else { continue };
        if let Some(metadata) = map_mut(&mut answer, "/metadata") {
            metadata.remove("generateName");
            metadata.insert("name".to_owned(), there["metadata"]["name"].clone());
        }
        if let Some(object) = answer.as_object_mut() {
            object.remove("status");
        }
        if beside(&ready.kind, false, &answer, there).is_same() {
            return Ok(true);
        }
    }
    // It would make another, or cannot tell.
    Ok(false)
}

/// What the server would make of a write, told with `validation` of its fields (`Warn`, `Strict`).
pub(super) async fn dry(
    cluster: &Cluster,
    method: &Method,
    path: &str,
    validation: &str,
    body: Bytes,
) -> Result<Result<Value, Box<ApiStatus>>, ApiError> {
    let query = format!("dryRun=All&fieldManager={MANAGER}&fieldValidation={validation}");
    match cluster.send(method.clone(), path, &query, "application/json", body).await {
        Ok(answer) => Ok(Ok(serde_json::from_slice(&answer.body).unwrap_or_default())),
        Err(error) => error.refusal().map(Err),
    }
}
