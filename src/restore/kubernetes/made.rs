//! How a restore knows again what a restore made, and how far it came: by what the server notes of who
//! wrote an object.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::RestoreConfig;
use super::change::{beside, carry_over, lacks};
use super::decide::{Meeting, Ready, meeting};
use super::given_up::GIVEN_UP;
use super::object::{ObjectRef, Owner, Paths, each, each_mut, is_object, map_mut, text};
use crate::source::kubernetes::{ApiError, ApiStatus, Cluster};

/// Under which name the server notes what a restore wrote.
pub(super) const MANAGER: &str = "kbak";

/// What a second write is to set of an object.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Its owners, as the backup names them.
    pub(super) owners: Vec<Owner>,
    /// Whether a modifier says who they are; then they come with the object itself.
    modified: bool,
    /// Who manages fields of it, if somebody applied some: only then a second write says so.
    managers: Vec<Manager>,
    /// Its status, if that was asked for.
    status: Option<Value>,
    /// Whether the backup has it in another version of the API, which may say a status otherwise.
    moved: bool,
}

/// Who wrote fields, how and when.
#[derive(Debug, PartialEq, Eq)]
struct Manager([String; 4]);

impl Manager {
    fn new(entry: &Value) -> Self {
        Self(["/manager", "/operation", "/subresource", "/time"].map(|part| text(entry, part).to_owned()))
    }
}

/// How the owners of an object that is there stand to those in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owned {
    /// They are the same.
    Same,
    /// Some are missing, and no other is there.
    Lacks,
    /// It has others, too.
    Other,
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
    /// Of a `stored` object, with `owners` as they are named in the target. `status`: whether its status
    /// was asked for.
    pub(super) fn new(stored: &Value, owners: Vec<Owner>, status: bool) -> Self {
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

    /// Leaves to the create what it brings by itself.
    pub(super) fn beyond(&mut self, ready: &Ready) {
        self.moved = ready.moved;
        if !ready.kind.has("status") {
            self.status = None;
        }
        if ready.body.pointer("/metadata/ownerReferences").is_some() {
            self.owners = each(&ready.body, "/metadata/ownerReferences").map(Owner::new).collect();
            self.modified = true;
        }
    }

    /// Of an object that was just made, or replaced.
    pub(super) fn all(&self) -> Owes {
        let managers = !self.managers.is_empty();
        Owes { owners: self.links(), managers, status: self.status.is_some() }
    }

    /// Whether a second write sets owners.
    pub(super) fn links(&self) -> bool {
        !self.owners.is_empty() && !self.modified
    }

    /// Of one that was `there`, once `met` is done.
    pub(super) fn after(&self, met: &Meeting, there: &Value) -> Owes {
        match met {
            Meeting::Differs | Meeting::AsMade => Owes::default(),
            // Others, who share it, say whose it is.
            Meeting::Leave | Meeting::Merge(_) => self.left(there),
            Meeting::Patch(_) => self.beside(there),
            Meeting::Replace => self.all(),
        }
    }

    /// Of one that is, or was, patched: what the patch does not bring.
    fn beside(&self, there: &Value) -> Owes {
        let owners = self.links() && self.owned(there) != Owned::Same;
        let left = self.left(there);
        let managers = left.managers || (owners && self.may_manage(there));
        Owes { owners, managers, status: self.lacks_status(there) || (self.moved && left.status) }
    }

    /// Of one that is there and left alone: what the restore that made it did not come to. Managers are
    /// written last, and who made the object is not among them then.
    fn left(&self, there: &Value) -> Owes {
        if !is_made(there) {
            return Owes::default();
        }
        let owners = self.links() && self.owned(there) == Owned::Lacks;
        let managed = each(there, "/metadata/managedFields").any(|one| text(one, "/operation") == "Apply");
        let said = each(there, "/metadata/managedFields").any(is_of_status);
        Owes {
            owners,
            managers: self.may_manage(there) && (owners || (is_ours(there) && !managed)),
            status: self.status.is_some() && !said,
        }
    }

    /// How the owners of the one that is `there` stand to those in the backup. Their UIDs are others in
    /// another cluster, and so may their versions be.
    fn owned(&self, there: &Value) -> Owned {
        let owners: Vec<Owner> = each(there, "/metadata/ownerReferences").map(Owner::new).collect();
        // One may be named twice, by the UID of one that is gone, too.
        let all_in = |these: &[Owner], those: &[Owner]| these.iter().all(|a| those.iter().any(|b| a.is(b)));
        match (all_in(&owners, &self.owners), all_in(&self.owners, &owners)) {
            (true, true) => Owned::Same,
            (true, false) if !self.modified => Owned::Lacks,
            _ => Owned::Other,
        }
    }

    /// Whether the one that is `there` has its owners, or those that are missing are still owed by the
    /// restore that made it: they come later, whatever the config says.
    pub(super) fn is_owned(&self, there: &Value) -> bool {
        match self.owned(there) {
            Owned::Same => true,
            Owned::Lacks => is_made(there),
            Owned::Other => false,
        }
    }

    /// Whether managers are to be written, and nobody else has written by now: his entry would be lost.
    fn may_manage(&self, there: &Value) -> bool {
        let known = |entry: &Value| {
            text(entry, "/manager") == MANAGER
                || is_of_status(entry)
                || self.managers.contains(&Manager::new(entry))
        };
        !self.managers.is_empty() && each(there, "/metadata/managedFields").all(known)
    }

    /// Whether the status that was asked for is not that of the one that is `there`.
    pub(super) fn lacks_status(&self, there: &Value) -> bool {
        self.status.clone().filter(|_| !self.moved).is_some_and(|mut status| {
            observe(&mut status, &there["metadata"]["generation"]);
            lacks(&status, &there["status"])
        })
    }
}

/// Generations begin anew: what was seen of the old one was seen of the new one.
pub(super) fn observe(status: &mut Value, generation: &Value) {
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
    wants: &Wants,
    suspended: bool,
    there: &Value,
) -> Result<Meeting, ApiError> {
    match (meeting(config, object, ready, wants, suspended, there), object.paths(&ready.kind)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_the_same_by_kind_name_and_role() {
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
            let wants = Wants { owners: wanted.iter().map(Owner::new).collect(), ..Wants::default() };
            assert_eq!(wants.owned(&object(&there)), owned, "{wanted:?}");
        }
    }

    #[test]
    fn a_patch_leaves_owing_what_an_earlier_restore_owed() {
        let applied = json!({"manager": "argo", "operation": "Apply"});
        let object = |manager: &Value, status: u32| json!({"metadata": {"managedFields": [manager]}, "status": {"a": status}});
        let wants = Wants::new(&object(&applied, 1), Vec::new(), true);
        let ours = object(&json!({"manager": MANAGER, "operation": "Update"}), 2);
        let owes = |there: &Value| wants.after(&Meeting::Patch(None), there);
        assert_eq!(owes(&ours), Owes { owners: false, managers: true, status: true });
        assert_eq!(owes(&object(&applied, 2)), Owes { owners: false, managers: false, status: true });
        let moved = Wants { moved: true, ..Wants::new(&object(&applied, 1), Vec::new(), true) };
        assert_eq!(moved.after(&Meeting::Patch(None), &ours), owes(&ours), "nobody said one");
        let said = json!({"metadata": {"managedFields": [{"manager": MANAGER}, {"manager": "a", "subresource": "status"}]}});
        assert!(!moved.after(&Meeting::Patch(None), &said).status, "it may be said otherwise here");
    }

    #[test]
    fn what_was_observed_is_the_new_generation() {
        let mut status =
            json!({"observedGeneration": 9, "conditions": [{"observedGeneration": 8}, {"type": "x"}]});
        observe(&mut status, &json!(1));
        assert_eq!(
            status,
            json!({"observedGeneration": 1, "conditions": [{"observedGeneration": 1}, {"type": "x"}]})
        );
    }
}
