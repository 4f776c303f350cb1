//! Decides about a stored object from the object and the config alone, without asking the cluster. The plan
//! and the restore use the same function, so that a restore does what was shown.

mod allow;
mod derived;
mod gitops;
mod infrastructure;
mod kbak_objects;
mod reconcile;
mod side_effects;

use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::KindInfo;
use crate::target::kubernetes::apply::ownership::SecondWrite;
use crate::target::kubernetes::change;
use crate::target::kubernetes::change::{Change, Changes, Moved, NodePorts};
use crate::target::kubernetes::config::{Allow, Release, RestoreConfig, Scope};
use crate::target::kubernetes::object::{ObjectRef, Owner, each, paths, text};
use crate::target::kubernetes::outcome::Refusal;
use crate::target::kubernetes::selection_usage::SelectionUsage;
use crate::target::kubernetes::served_kinds::{Place, Target};

pub(crate) use crate::target::kubernetes::judge::allow::gate;
pub use crate::target::kubernetes::judge::derived::Derived;
pub(crate) use crate::target::kubernetes::judge::gitops::MARKS;
pub use crate::target::kubernetes::judge::gitops::Tool;
pub use crate::target::kubernetes::judge::infrastructure::Infrastructure;
pub(crate) use crate::target::kubernetes::judge::reconcile::{
    ExistingAction, is_there, lost, reconcile, suspended,
};

/// The reason why an object is not restored although it has no fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The cluster makes the object itself.
    Derived(Derived),
    /// The object is infrastructure, which the profile excludes.
    Infrastructure(Infrastructure),
    /// The object has the marks of a tool that creates it from Git.
    Git(Tool),
    /// The object holds kbak's own keys.
    OwnKeys,
}

/// The decision about an object by itself.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Create this.
    Create(Box<Ready>),
    /// Skip the object.
    Skip(Skip),
    /// Refuse it unless it is allowed; with the object to create, if its kind is served.
    Refuse(Allow, Option<Box<Ready>>),
    /// Hold it back unless a copy may have this effect.
    Hold(Release),
    /// The kind is not served, or not yet.
    Unserved,
    /// The object cannot be sent.
    Unfit(Refusal),
}

/// An object that can be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The object to create.
    pub(crate) body: Value,
    /// The kind as the target serves it.
    pub(crate) kind: KindInfo,
    /// True if the backup has another version of the API.
    pub(crate) moved: bool,
}

/// An object with its decision.
#[derive(Debug)]
pub(crate) struct Judged {
    /// The object's name in the target cluster.
    pub(crate) object: ObjectRef,
    /// The object's namespace in the backup, or its name if it is a namespace.
    pub(crate) from: String,
    /// The object's UID in the backup.
    pub(crate) old_uid: String,
    /// Fields that only a second write can set.
    pub(crate) wants: SecondWrite,
    /// True if it is a Helm release in a mapped namespace.
    pub(crate) helm_moved: bool,
    /// The changes made to the object.
    pub(crate) changes: Vec<Change>,
    /// The decision.
    pub(crate) verdict: Verdict,
}

/// Decides about objects of one kind.
pub(crate) struct Judge<'a> {
    pub(crate) config: &'a RestoreConfig,
    pub(crate) target: &'a Target,
    pub(crate) kind: &'a KindInfo,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub(crate) foreign: bool,
    /// Records which selectors match an object.
    pub(crate) fits: &'a SelectionUsage<'a>,
}

impl Judge<'_> {
    /// Decides about the object of a line; none if it is not selected.
    pub(crate) fn judge(&self, line: &[u8]) -> Result<Option<Judged>, &'static str> {
        let object: Value = serde_json::from_slice(line).map_err(|_| "it is not JSON")?;
        let (namespace, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        if name.is_empty() {
            return Err("it is no object with a name");
        }
        if self.kind.namespaced && namespace.is_empty() {
            return Err("it has no namespace");
        }
        let resource = self.kind.resource();
        let place = self.kind.namespaced.then_some(namespace);
        let labels = object.pointer("/metadata/labels").unwrap_or(&Value::Null);
        let selected = self.config.selects(&resource, place, name, labels);
        let named = ObjectRef {
            resource,
            kind: self.kind.kind.clone(),
            namespace: place.unwrap_or_default().to_owned(),
            name: name.to_owned(),
        };
        self.fits.note(&named, self.kind.namespaced, &object, selected);
        if !selected {
            return Ok(None);
        }
        Ok(Some(self.decide(named, object)))
    }

    fn decide(&self, named: ObjectRef, object: Value) -> Judged {
        let space = if named.resource == "namespaces" { &named.name } else { &named.namespace };
        let mapped = self.config.maps(space);
        let mut judged = Judged {
            object: self.renamed(&named),
            from: space.clone(),
            old_uid: text(&object, "/metadata/uid").to_owned(),
            wants: SecondWrite::default(),
            helm_moved: mapped && gitops::helm_release(self.kind, &object),
            changes: Vec::new(),
            verdict: Verdict::Unserved,
        };
        let skip = self.skip(&object, mapped);
        self.fits.note_rule(&named, self.kind.namespaced, skip);
        if let Some(skip) = skip {
            judged.verdict = Verdict::Skip(skip);
            return judged;
        }
        judged.wants = self.wants(&named, &object);
        let copy = self.foreign || mapped;
        let mut changes = Changes::default();
        judged.verdict = self.ready(&named, object, copy, &mut changes).unwrap_or_else(|verdict| verdict);
        if let Verdict::Create(ready) | Verdict::Refuse(_, Some(ready)) = &judged.verdict {
            judged.wants.beyond(ready);
        }
        if !matches!(judged.verdict, Verdict::Hold(_)) {
            judged.changes = changes.into_vec();
        }
        judged
    }

    fn wants(&self, named: &ObjectRef, object: &Value) -> SecondWrite {
        let owners = each(object, "/metadata/ownerReferences");
        let owners = owners.map(|reference| Owner::stored(reference, self.config, self.target));
        let status = self.config.status.iter().any(|glob| glob.matches(&named.resource));
        SecondWrite::new(object, owners.collect(), status)
    }

    fn renamed(&self, named: &ObjectRef) -> ObjectRef {
        let mut object = named.clone();
        let space = if named.resource == "namespaces" { &mut object.name } else { &mut object.namespace };
        if let Some(to) = self.config.mapping.namespaces.get(space.as_str()) {
            to.clone_into(space);
        }
        object
    }

    fn skip(&self, object: &Value, mapped: bool) -> Option<Skip> {
        if let Some(why) = derived::derived(self.kind, object) {
            return Some(Skip::Derived(why));
        }
        if kbak_objects::own_keys(self.kind, object) {
            return Some(Skip::OwnKeys);
        }
        if let Some(why) = infrastructure::infrastructure(self.kind, object, self.config.profile) {
            return Some(Skip::Infrastructure(why));
        }
        // A mapped namespace is not in Git, so its objects are restored by default.
        let data = self.config.scope.map_or(!mapped, |scope| scope == Scope::Data);
        if !data || gitops::others_need(self.kind) {
            return None;
        }
        gitops::tracked(self.kind, object).map(Skip::Git)
    }

    /// Returns the object as it is sent, or the reason why it is not.
    fn ready(
        &self,
        named: &ObjectRef,
        mut object: Value,
        copy: bool,
        changes: &mut Changes,
    ) -> Result<Verdict, Verdict> {
        let found = self.target.find(self.kind);
        let own = kbak_objects::own_job(self.kind, &object);
        let suspend = own || (copy && !self.config.releases(Release::Jobs));
        // In a copy, chosen ports may be in use by the original.
        let node_ports = match (self.config.node_ports, copy) {
            (true, _) => NodePorts::All,
            (false, true) => NodePorts::None,
            (false, false) => NodePorts::Chosen,
        };
        let own_status = found.as_ref().is_none_or(|place| place.kind.has("status"));
        let builtin = !self.kind.group.contains('.') || self.kind.group.ends_with(".k8s.io");
        let options = change::Options { status: own_status || builtin, node_ports };
        change::cut(self.kind, &mut object, options, changes);
        let kind = self.place(found, &mut object, changes)?;
        change::map(self.kind, &mut object, self.config, changes);
        change::modify(named, &mut object, &self.config.modifiers, changes)
            .map_err(|error| Verdict::Unfit(Refusal::unsent("Modifier", error.to_string())))?;
        // Checked after the modifiers, because they may change the object's effects.
        if copy
            && let Some(release) = side_effects::held(self.kind, &object)
            && !self.config.releases(release)
        {
            return Err(Verdict::Hold(release));
        }
        if suspend && side_effects::suspend(self.kind, &mut object) {
            changes.add(Change::Suspended { own });
        }
        let refused = gate(self.kind, &object).filter(|gate| !self.config.allow.contains(gate));
        let Some(kind) = kind else {
            return Err(refused.map_or(Verdict::Unserved, |gate| Verdict::Refuse(gate, None)));
        };
        if paths(&kind, text(&object, "/metadata/namespace"), text(&object, "/metadata/name")).is_none() {
            return Err(Verdict::Unfit(Refusal::unsent("InvalidName", String::new())));
        }
        let moved = kind.api_version() != self.kind.api_version();
        let ready = Box::new(Ready { body: object, kind, moved });
        Ok(match refused {
            None => Verdict::Create(ready),
            Some(gate) => Verdict::Refuse(gate, Some(ready)),
        })
    }

    /// Sets the version in which the object is created, and returns its kind in the target.
    fn place(
        &self,
        found: Option<Place<'_>>,
        object: &mut Value,
        changes: &mut Changes,
    ) -> Result<Option<KindInfo>, Verdict> {
        let Some(Place { kind, moved }) = found else { return Ok(None) };
        if let Some(Moved { convert, .. }) = moved {
            convert(object)
                .map_err(|why| Verdict::Unfit(Refusal::unsent("RemovedVersion", why.to_owned())))?;
        }
        let (from, to) = (self.kind.api_version(), kind.api_version());
        if from != to {
            changes.add(Change::Version { from, to: to.clone() });
        }
        object["apiVersion"] = Value::from(to);
        object["kind"] = Value::from(kind.kind.clone());
        Ok(Some(kind.clone()))
    }
}

/// True if several namespaces mapped to one name count as one object. Its labels are those of the first.
pub(crate) fn is_one(object: &ObjectRef) -> bool {
    object.resource == "namespaces"
}

/// True if an existing object is merged instead of left unchanged: every namespace has this account, and its
/// additions are the user's.
pub(crate) fn merges(object: &ObjectRef) -> bool {
    object.resource == "serviceaccounts" && object.name == "default"
}
