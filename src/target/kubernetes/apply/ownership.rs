//! Detects objects that a restore created and the second writes that they still need, by the field managers
//! that the server records.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::kubernetes::{ApiError, ApiStatus, Cluster};
use crate::target::kubernetes::RestoreConfig;
use crate::target::kubernetes::apply::given_up::GIVEN_UP;
use crate::target::kubernetes::change::{beside, carry_over, lacks};
use crate::target::kubernetes::judge::{ExistingAction, Ready, reconcile};
use crate::target::kubernetes::object::{ObjectRef, Owner, Paths, each, each_mut, is_object, map_mut, text};

/// The field manager name of a restore.
pub(crate) const MANAGER: &str = "kbak";

/// The fields of an object that a second write sets.
#[derive(Debug, Default)]
pub(crate) struct SecondWrite {
    /// The owners in the backup, as the target names them.
    pub(crate) owners: Vec<Owner>,
    /// True if a modifier set the owners; they are then part of the create.
    modified: bool,
    /// The managers of its fields, if any used apply: only those need a second write.
    managers: Vec<Manager>,
    /// The status, if its restore was requested.
    status: Option<Value>,
    /// True if the backup has another version of the API, in which the status may differ.
    moved: bool,
}

/// A field manager's name, operation, subresource and time.
#[derive(Debug, PartialEq, Eq)]
struct Manager([String; 4]);

impl Manager {
    fn new(entry: &Value) -> Self {
        Self(["/manager", "/operation", "/subresource", "/time"].map(|part| text(entry, part).to_owned()))
    }
}

/// The difference between the owners of an existing object and those in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owned {
    /// They are the same.
    Same,
    /// Some are missing, and there are no others.
    Lacks,
    /// There are other owners.
    Other,
}

/// The second writes that an object still needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PendingWrites {
    pub(crate) owners: bool,
    pub(crate) managers: bool,
    pub(crate) status: bool,
}

impl PendingWrites {
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

impl SecondWrite {
    /// Returns the second writes for a `stored` object; `owners` are named as in the target. `status`:
    /// restore its status.
    pub(crate) fn new(stored: &Value, owners: Vec<Owner>, status: bool) -> Self {
        let managers = || each(stored, "/metadata/managedFields");
        let applied = managers().any(|one| text(one, "/operation") == "Apply");
        Self {
            owners,
            modified: false,
            managers: managers().filter(|_| applied).map(Manager::new).collect(),
            status: stored.get("status").filter(|_| status).cloned(),
            moved: false,
        }
    }

    /// Removes the writes that the create already does.
    pub(crate) fn beyond(&mut self, ready: &Ready) {
        self.moved = ready.moved;
        if !ready.kind.has("status") {
            self.status = None;
        }
        if ready.body.pointer("/metadata/ownerReferences").is_some() {
            self.owners = each(&ready.body, "/metadata/ownerReferences").map(Owner::new).collect();
            self.modified = true;
        }
    }

    /// Returns the writes for an object that was just created or replaced.
    pub(crate) fn all(&self) -> PendingWrites {
        let managers = !self.managers.is_empty();
        PendingWrites { owners: self.links(), managers, status: self.status.is_some() }
    }

    /// True if a second write sets owners.
    pub(crate) fn links(&self) -> bool {
        !self.owners.is_empty() && !self.modified
    }

    /// Returns the writes for an object that was `there`, after `met` was carried out.
    pub(crate) fn after(&self, met: &ExistingAction, there: &Value) -> PendingWrites {
        match met {
            ExistingAction::Differs | ExistingAction::AsMade => PendingWrites::default(),
            // The other users of a shared object decide its owners.
            ExistingAction::Leave | ExistingAction::Merge(_) => self.left(there),
            ExistingAction::Patch(_) => self.beside(there),
            ExistingAction::Replace => self.all(),
        }
    }

    /// Returns the writes that a patch of the object does not cover.
    fn beside(&self, there: &Value) -> PendingWrites {
        let owners = self.links() && self.owned(there) != Owned::Same;
        let left = self.left(there);
        let managers = left.managers || (owners && self.may_manage(there));
        PendingWrites { owners, managers, status: self.lacks_status(there) || (self.moved && left.status) }
    }

    /// Returns the writes that an earlier restore did not finish on an object left unchanged. Managers are
    /// written last and remove the restore's own entry.
    fn left(&self, there: &Value) -> PendingWrites {
        if !is_made(there) {
            return PendingWrites::default();
        }
        let owners = self.links() && self.owned(there) == Owned::Lacks;
        let managed = each(there, "/metadata/managedFields").any(|one| text(one, "/operation") == "Apply");
        let said = each(there, "/metadata/managedFields").any(is_of_status);
        PendingWrites {
            owners,
            managers: self.may_manage(there) && (owners || (is_ours(there) && !managed)),
            status: self.status.is_some() && !said,
        }
    }

    /// Compares the owners of `there` with those in the backup. In another cluster their UIDs differ, and
    /// their versions may.
    fn owned(&self, there: &Value) -> Owned {
        let owners: Vec<Owner> = each(there, "/metadata/ownerReferences").map(Owner::new).collect();
        // An owner may be listed twice, also by the UID of a deleted one.
        let all_in = |these: &[Owner], those: &[Owner]| these.iter().all(|a| those.iter().any(|b| a.is(b)));
        match (all_in(&owners, &self.owners), all_in(&self.owners, &owners)) {
            (true, true) => Owned::Same,
            (true, false) if !self.modified => Owned::Lacks,
            _ => Owned::Other,
        }
    }

    /// True if `there` has its owners, or if a restore created it and still has to set the missing ones.
    /// Those are set whatever the config says.
    pub(crate) fn is_owned(&self, there: &Value) -> bool {
        match self.owned(there) {
            Owned::Same => true,
            Owned::Lacks => is_made(there),
            Owned::Other => false,
        }
    }

    /// True if managers are to be written and no other manager has written since, whose entry would be lost.
    fn may_manage(&self, there: &Value) -> bool {
        let known = |entry: &Value| {
            text(entry, "/manager") == MANAGER
                || is_of_status(entry)
                || self.managers.contains(&Manager::new(entry))
        };
        !self.managers.is_empty() && each(there, "/metadata/managedFields").all(known)
    }

    /// True if the status is to be restored and `there` has another one.
    pub(crate) fn lacks_status(&self, there: &Value) -> bool {
        self.status.clone().filter(|_| !self.moved).is_some_and(|mut status| {
            observe(&mut status, &there["metadata"]["generation"]);
            lacks(&status, &there["status"])
        })
    }
}

/// Sets observed generations to the new object's generation, because generations start again.
pub(crate) fn observe(status: &mut Value, generation: &Value) {
    if generation.is_null() {
        return;
    }
    let now = |of: &mut Value| {
        if let Some(seen) = of.get_mut("observedGeneration") {
            seen.clone_from(generation);
        }
    };
    now(status);
    each_mut(status, "/conditions").for_each(now);
}

/// True if the server records a restore as a writer of the object.
pub(crate) fn is_ours(there: &Value) -> bool {
    each(there, "/metadata/managedFields").any(|fields| text(fields, "/manager") == MANAGER)
}

/// True if a restore may have created it: the server records no writer for an object without fields.
pub(crate) fn is_made(there: &Value) -> bool {
    is_ours(there) || each(there, "/metadata/managedFields").next().is_none()
}

/// True if a restore created it and only its status was written since. It is then as created, even if an
/// admission webhook changed it.
pub(crate) fn is_as_made(there: &Value) -> bool {
    let quiet = |fields: &Value| text(fields, "/manager") == MANAGER || is_of_status(fields);
    is_ours(there) && each(there, "/metadata/managedFields").all(quiet)
}

fn is_of_status(fields: &Value) -> bool {
    text(fields, "/subresource") == "status"
}

/// Compares the object that is `there` with the one that would be created. Asks the server where only it can
/// tell.
pub(crate) async fn meet(
    cluster: &Cluster,
    config: &RestoreConfig,
    object: &ObjectRef,
    ready: &mut Ready,
    wants: &SecondWrite,
    suspended: bool,
    there: &Value,
) -> Result<ExistingAction, ApiError> {
    match (reconcile(config, object, ready, wants, suspended, there), object.paths(&ready.kind)) {
        (ExistingAction::AsMade, Some(paths)) => Ok(match remade(cluster, &paths, ready, there).await? {
            true => ExistingAction::Leave,
            false => ExistingAction::Differs,
        }),
        (met, _) => Ok(met),
    }
}

/// True if the server, in a dry run, would turn the object into the one that is `there`. A restore created
/// that one, but perhaps from another snapshot or with other options, and a removed list element leaves no
/// trace. A webhook or default explains the difference only if it makes it again. Some webhooks are called
/// for updates, some for creates, so both are tried.
async fn remade(cluster: &Cluster, paths: &Paths, ready: &Ready, there: &Value) -> Result<bool, ApiError> {
    let mut update = ready.body.clone();
    carry_over(&ready.kind, &mut update, there);
    let mut create = ready.body.clone();
    if let Some(metadata) = map_mut(&mut create, "/metadata") {
        // The object's own name is taken.
        metadata.remove("name");
        metadata.insert("generateName".to_owned(), "kbak-asks-".into());
    }
    for (method, path, mut body) in [(Method::PUT, &paths.one, update), (Method::POST, &paths.all, create)] {
        let mut answer = dry(cluster, &method, path, "Warn", body.to_string().into()).await?;
        // The same fields are dropped as in a create.
        for (says, cut, _) in GIVEN_UP {
            if answer.as_ref().is_err_and(|status| says(status)) && cut(&mut body) {
                if method == Method::PUT {
                    carry_over(&ready.kind, &mut body, there);
                }
                answer = dry(cluster, &method, path, "Warn", body.to_string().into()).await?;
            }
        }
        // A proxy may have answered in the server's place.
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
    // The server would make a different object, or it cannot tell.
    Ok(false)
}

/// Returns the server's result of a write in a dry run; `validation` of its fields is `Warn` or `Strict`.
pub(crate) async fn dry(
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_compared_by_kind_name_and_role() {
        let owner = |name: &str, controller: bool| match controller {
            true => json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "controller": true}),
            false => json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name}),
        };
        let object = |owners: &[Value]| json!({"metadata": {"ownerReferences": owners}});
        let (a, b, controls) = (owner("a", false), owner("b", false), owner("a", true));
        for (wanted, there, owned) in [
            (vec![], vec![], Owned::Same),
            (vec![a.clone(), b.clone()], vec![b.clone(), a.clone()], Owned::Same),
            (vec![a.clone(), b.clone()], vec![b.clone()], Owned::Lacks),
            (vec![a.clone()], vec![b.clone()], Owned::Other),
            (vec![a.clone()], vec![controls], Owned::Other),
            (vec![], vec![a.clone()], Owned::Other),
            (vec![a.clone(), b.clone()], vec![a.clone(), a.clone()], Owned::Lacks),
            (vec![a.clone(), a.clone()], vec![a], Owned::Same),
        ] {
            let wants =
                SecondWrite { owners: wanted.iter().map(Owner::new).collect(), ..SecondWrite::default() };
            assert_eq!(wants.owned(&object(&there)), owned, "{wanted:?}");
        }
    }

    #[test]
    fn patch_keeps_pending_writes_of_an_earlier_restore() {
        let applied = json!({"manager": "argo", "operation": "Apply"});
        let object = |manager: &Value, status: u32| json!({"metadata": {"managedFields": [manager]}, "status": {"a": status}});
        let wants = SecondWrite::new(&object(&applied, 1), Vec::new(), true);
        let ours = object(&json!({"manager": MANAGER, "operation": "Update"}), 2);
        let owes = |there: &Value| wants.after(&ExistingAction::Patch(None), there);
        assert_eq!(owes(&ours), PendingWrites { owners: false, managers: true, status: true });
        assert_eq!(
            owes(&object(&applied, 2)),
            PendingWrites { owners: false, managers: false, status: true }
        );
        let moved = SecondWrite { moved: true, ..SecondWrite::new(&object(&applied, 1), Vec::new(), true) };
        assert_eq!(moved.after(&ExistingAction::Patch(None), &ours), owes(&ours), "nobody said one");
        let said = json!({"metadata": {"managedFields": [{"manager": MANAGER}, {"manager": "a", "subresource": "status"}]}});
        assert!(!moved.after(&ExistingAction::Patch(None), &said).status, "it may be said otherwise here");
    }

    #[test]
    fn observed_generations_are_set_to_the_new_one() {
        let mut status =
            json!({"observedGeneration": 9, "conditions": [{"observedGeneration": 8}, {"type": "x"}]});
        observe(&mut status, &json!(1));
        assert_eq!(
            status,
            json!({"observedGeneration": 1, "conditions": [{"observedGeneration": 1}, {"type": "x"}]})
        );
    }
}
