//! What becomes of a stored object, as far as the object itself and the config say: nothing here
//! asks the cluster. The plan and the restore decide by the same function, so that what was shown
//! is what is done.

mod derived;
mod gates;
mod gitops;
mod harm;
mod infrastructure;
mod meeting;
mod own;

use serde::Serialize;
use serde_json::Value;

use super::change::{self, Change, Changes, Moved, NodePorts};
use super::config::{Allow, Release, RestoreConfig, Scope};
use super::fits::Fits;
use super::made::Wants;
use super::object::{ObjectRef, Owner, each, paths, text};
use super::outcome::Refusal;
use super::target::{Place, Target};
use crate::source::kubernetes::KindInfo;

pub use derived::Derived;
pub(super) use gates::gate;
pub(super) use gitops::MARKS;
pub use gitops::Tool;
pub use infrastructure::Infrastructure;
pub(super) use meeting::{Meeting, is_there, lost, meeting, suspended};

/// Why an object is not restored, although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The cluster makes it itself.
    Derived(Derived),
    /// It belongs to the cluster's machinery, and the profile leaves that out.
    Infrastructure(Infrastructure),
    /// It bears the marks of a tool that brings it from Git.
    Git(Tool),
    /// kbak's own keys.
    OwnKeys,
}

/// What becomes of an object by itself.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is created, so.
    Create(Box<Ready>),
    /// Left out.
    Skip(Skip),
    /// Only if it is allowed; and what would be created, where its kind is served.
    Refuse(Allow, Option<Box<Ready>>),
    /// Only if a copy may.
    Hold(Release),
    /// Its kind is not served, not yet or not at all.
    Unserved,
    /// It cannot be sent.
    Unfit(Refusal),
}

/// An object that can be sent.
#[derive(Debug)]
pub(super) struct Ready {
    /// What is created.
    pub(super) body: Value,
    /// Where.
    pub(super) kind: KindInfo,
    /// Whether the backup has it in another version of the API.
    pub(super) moved: bool,
}

/// An object, judged.
#[derive(Debug)]
pub(super) struct Judged {
    /// Its name in the cluster that is restored into.
    pub(super) object: ObjectRef,
    /// The namespace that it lies in, or is, in the backup.
    pub(super) from: String,
    /// Its UID in the backup.
    pub(super) old_uid: String,
    /// What only a second write can set.
    pub(super) wants: Wants,
    /// Whether it is a release of Helm in a namespace that is mapped.
    pub(super) helm_moved: bool,
    /// What was changed in it.
    pub(super) changes: Vec<Change>,
    /// What becomes of it.
    pub(super) verdict: Verdict,
}

/// Judges objects of one kind.
pub(super) struct Judge<'a> {
    pub(super) config: &'a RestoreConfig,
    pub(super) target: &'a Target,
    pub(super) kind: &'a KindInfo,
    /// Whether this is another cluster than that of the backup, and does not take its place.
    pub(super) foreign: bool,
    /// Takes note of what is there.
    pub(super) fits: &'a Fits<'a>,
}

impl Judge<'_> {
    /// The object of a line; none if it is not selected.
    pub(super) fn judge(&self, line: &[u8]) -> Result<Option<Judged>, &'static str> {
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
            wants: Wants::default(),
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

    fn wants(&self, named: &ObjectRef, object: &Value) -> Wants {
        let owners = each(object, "/metadata/ownerReferences");
        let owners = owners.map(|reference| Owner::stored(reference, self.config, self.target));
        let status = self.config.status.iter().any(|glob| glob.matches(&named.resource));
        Wants::new(object, owners.collect(), status)
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
        if own::own_keys(self.kind, object) {
            return Some(Skip::OwnKeys);
        }
        if let Some(why) = infrastructure::infrastructure(self.kind, object, self.config.profile) {
            return Some(Skip::Infrastructure(why));
        }
        // Git knows nothing of a namespace that a restore made up.
        let data = self.config.scope.map_or(!mapped, |scope| scope == Scope::Data);
        if !data || gitops::others_need(self.kind) {
            return None;
        }
        gitops::tracked(self.kind, object).map(Skip::Git)
    }

    /// The object as it is sent, or why it is not.
    fn ready(
        &self,
        named: &ObjectRef,
        mut object: Value,
        copy: bool,
        changes: &mut Changes,
    ) -> Result<Verdict, Verdict> {
        let found = self.target.find(self.kind);
        let own = own::own_job(self.kind, &object);
        let suspend = own || (copy && !self.config.releases(Release::Jobs));
        // What somebody chose is taken where the other one stands.
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
        // What it does counts as it would be created, whatever a modifier made of it.
        if copy
            && let Some(release) = harm::held(self.kind, &object)
            && !self.config.releases(release)
        {
            return Err(Verdict::Hold(release));
        }
        if suspend && harm::suspend(self.kind, &mut object) {
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

    /// Sets the version at which the object is created, and gives its kind there.
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

/// Whether objects of several namespaces that become one are the same: that namespace itself, whose
/// labels are then those of the first.
pub(super) fn is_one(object: &ObjectRef) -> bool {
    object.resource == "namespaces"
}

/// Whether an object that is there is merged, not left alone: every namespace has this account,
/// and what was added to it is the user's.
pub(super) fn merges(object: &ObjectRef) -> bool {
    object.resource == "serviceaccounts" && object.name == "default"
}
