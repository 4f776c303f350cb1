//! Outcomes of objects, and the report of a restore.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::kubernetes::{ApiStatus, KindInfo};
use crate::target::kubernetes::config::{Allow, Release};
use crate::target::kubernetes::denial::denier;
use crate::target::kubernetes::judge::Skip;
use crate::target::kubernetes::object::ObjectRef;
use crate::target::kubernetes::selection_usage::UnmatchedSelector;
use crate::target::kubernetes::warning::Warning;

/// The outcome of an object. Each object has exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// The object was created.
    Created,
    /// It existed, as in the backup or as a restore created it, and was left unchanged.
    Existed,
    /// It existed, differs from the backup, and was left unchanged.
    Differs,
    /// It existed and was changed to the backup's state.
    Patched,
    /// It existed and was replaced.
    Replaced,
    /// It was skipped by a rule.
    Skipped(Skip),
    /// Not created: it needs this permission.
    Refused(Allow),
    /// Not created: a copy would do harm with it.
    Held(Release),
    /// Not created: an object from another namespace was restored under the same name. Holds this one's
    /// namespace.
    Collides(String),
    /// The cluster does not serve the object's kind.
    Unserved,
    /// The server refused it in the last attempt.
    Failed(Refusal),
}

impl Outcome {
    /// True if the object exists as wanted or was skipped by a rule.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        matches!(self, Self::Created | Self::Existed | Self::Patched | Self::Replaced | Self::Skipped(_))
    }
}

/// The cause that kept an object from being created, as far as the server's answer shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// An admission webhook did not answer, or not validly.
    Webhook,
    /// A conversion webhook did not answer.
    Conversion,
    /// The namespace is being deleted.
    Terminating,
    /// The namespace does not exist.
    NoNamespace,
    /// A quota's use is not yet known.
    QuotaUnknown,
    /// A quota is exceeded.
    Quota,
    /// The server is overloaded.
    Busy,
    /// The Service that the object needs has no ready endpoint.
    NoBackend,
    /// The restore lacks a right.
    Right,
    /// An admission policy or webhook denies it.
    Denied,
    /// The existing object does not accept the change.
    Immutable,
    /// The object itself is invalid or cannot be sent.
    Object,
    /// Another cause.
    Other,
}

impl Obstacle {
    /// True if time alone may remove it.
    pub(crate) fn passes(self) -> bool {
        matches!(
            self,
            Self::Webhook
                | Self::Conversion
                | Self::Terminating
                | Self::QuotaUnknown
                | Self::Busy
                | Self::NoBackend
                | Self::Other
        )
    }

    /// Returns the remedy, if there is one.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Webhook | Self::Conversion => {
                Some("start the webhook's Service, or remove its configuration")
            }
            Self::Terminating => Some("see what holds the namespace: kubectl get namespace NAME -o yaml"),
            Self::NoNamespace => Some("create the namespace, or select it as well: --object namespaces/NAME"),
            Self::Quota => Some("raise the quota"),
            Self::Right => Some("give the restore the right; it needs those that it hands out, too"),
            Self::NoBackend => Some("see why its pods are not ready; run again when they are"),
            Self::Denied => Some(
                "see what it demands (kubectl get validatingadmissionpolicies,validatingwebhookconfigurations): \
                 change it, or the object with a RestorePlan's modify",
            ),
            Self::Immutable => {
                Some("delete the object that is there and run again: some fields can only be set anew")
            }
            Self::QuotaUnknown | Self::Busy | Self::Object | Self::Other => None,
        }
    }
}

/// The server's refusal of an object. Holds no values of the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{reason}{}{}", if .fields.is_empty() { String::new() } else { format!(" at {}", .fields.join(", ")) },
    if .message.is_empty() { String::new() } else { format!(": {}", .message) })]
pub struct Refusal {
    /// The cause of the refusal.
    pub obstacle: Obstacle,
    /// The HTTP status; 0 if the object was not sent.
    pub code: u16,
    /// The server's reason: `Invalid`, `Forbidden`.
    pub reason: String,
    /// The fields that the server names.
    pub fields: Vec<String>,
    /// The server's message, if it cannot quote the object.
    pub message: String,
}

impl Refusal {
    /// Returns the refusal of an object that was not sent.
    pub(crate) fn unsent(reason: &str, message: String) -> Self {
        let reason = reason.to_owned();
        Self { obstacle: Obstacle::Object, code: 0, reason, fields: Vec::new(), message }
    }

    /// Returns the refusal for a success without an object.
    pub(crate) fn no_object() -> Self {
        let message = "what answers is no API server: it says yes and shows no object";
        Self::unsent("NoObject", message.to_owned())
    }

    /// Returns the parts of a refusal that may be shown. Messages about invalid fields quote values, and any
    /// about a Secret may; only reason and fields are kept of those.
    pub(crate) fn new(kind: &KindInfo, status: &ApiStatus) -> Self {
        let obstacle = obstacle(status);
        let quotes = matches!(status.code, 400 | 422) || kind.resource() == "secrets";
        let mut fields: Vec<String> = status.causes.iter().map(|cause| cause.field.clone()).collect();
        fields.extend(unknown_fields(&status.message));
        fields.retain(|field| !field.is_empty());
        fields.dedup();
        let message = match (quotes, obstacle) {
            // The policy or webhook that denies chooses the code and the message.
            (_, Obstacle::Denied) => denier(&status.message).unwrap_or_default(),
            (true, Obstacle::Webhook) => webhook(&status.message).map(str::to_owned).unwrap_or_default(),
            (true, _) => String::new(),
            (false, _) => status.message.clone(),
        };
        Self { obstacle, code: status.code, reason: status.reason.clone(), fields, message }
    }

    /// Returns the parts that may be shown of a refusal to change an existing object.
    pub(crate) fn of_change(kind: &KindInfo, status: &ApiStatus) -> Self {
        let refusal = Self::new(kind, status);
        if status.code != 422 || refusal.obstacle != Obstacle::Object {
            return refusal;
        }
        let message = "the one that is there does not take the change: some fields may not be changed";
        Self { obstacle: Obstacle::Immutable, message: message.to_owned(), ..refusal }
    }

    /// Returns the name of the webhook that did not answer.
    pub(crate) fn webhook(&self) -> Option<&str> {
        webhook(&self.message).or(Some(self.message.as_str())).filter(|_| self.obstacle == Obstacle::Webhook)
    }
}

/// Returns the name in `failed calling webhook "NAME": …`.
fn webhook(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("failed calling webhook \"")?;
    rest.split_once('"').map(|(name, _)| name)
}

/// Returns the paths in `strict decoding error: unknown field "spec.x"`: names, no values.
fn unknown_fields(message: &str) -> Vec<String> {
    if !message.contains("strict decoding error") {
        return Vec::new();
    }
    let parts = message.split("unknown field \"").skip(1);
    parts.filter_map(|part| part.split_once('"').map(|(field, _)| field.to_owned())).collect()
}

fn obstacle(status: &ApiStatus) -> Obstacle {
    let says = |text: &str| status.message.contains(text);
    match status.code {
        _ if says("conversion webhook for") => Obstacle::Conversion,
        _ if says("failed calling webhook") => Obstacle::Webhook,
        _ if denier(&status.message).is_some() => Obstacle::Denied,
        403 if status.causes.iter().any(|cause| cause.reason == "NamespaceTerminating") => {
            Obstacle::Terminating
        }
        403 if says("is being terminated") => Obstacle::Terminating,
        403 if says("status unknown for quota") => Obstacle::QuotaUnknown,
        403 if says("exceeded quota") => Obstacle::Quota,
        403 => Obstacle::Right,
        404 if says("namespaces \"") => Obstacle::NoNamespace,
        429 => Obstacle::Busy,
        400 | 413 | 415 | 422 => Obstacle::Object,
        _ => Obstacle::Other,
    }
}

/// The result of a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Objects created.
    pub created: u64,
    /// Objects that existed, as in the backup or as a restore created them.
    pub existed: u64,
    /// Objects that existed and were changed to the backup's state.
    pub patched: u64,
    /// Objects that existed and were replaced.
    pub replaced: u64,
    /// Objects that existed, differ from the backup, and were left unchanged.
    pub differing: u64,
    /// Objects skipped by rule.
    pub skipped: BTreeMap<Skip, u64>,
    /// Objects that need a permission.
    pub refused: BTreeMap<Allow, u64>,
    /// Objects held back.
    pub held: BTreeMap<Release, u64>,
    /// Objects created suspended.
    pub suspended: u64,
    /// Objects not created because another object of the backup has the same name in the target.
    pub collided: u64,
    /// Objects of kinds that the cluster does not serve, by resource.
    pub unserved: BTreeMap<String, u64>,
    /// Objects that the server refused in the last attempt.
    pub failed: u64,
    /// The first thousand failures.
    pub failures: Vec<(ObjectRef, Refusal)>,
    /// The first hundred objects that are missing for another reason.
    pub missing: Vec<(ObjectRef, Outcome)>,
    /// Objects whose owners were set again.
    pub relinked: u64,
    /// Owner references left out because the owner does not exist.
    pub owners_lost: u64,
    /// Objects whose field managers were set again.
    pub managed: u64,
    /// Objects whose status was restored.
    pub status: u64,
    /// Objects with remaining work, such as status, managers or owners that could not be set.
    pub unfinished: Vec<(ObjectRef, Refusal)>,
    /// Number of rounds.
    pub rounds: u32,
    /// Warnings of the server and of kbak, each once, at most a hundred.
    pub warnings: BTreeSet<Warning>,
    /// Selectors that match no object of the snapshot.
    pub absent: Vec<UnmatchedSelector>,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub foreign: bool,
    /// True if the config says which effects a copy may have.
    pub release_said: bool,
    /// True if the config says how existing objects are treated.
    pub existing_said: bool,
}

impl RestoreReport {
    /// True if all selected objects are restored. Objects that are held back or differ count as missing,
    /// unless the config says how to treat them.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failed == 0
            && self.unserved.is_empty()
            && self.refused.is_empty()
            && self.collided == 0
            && self.unfinished.is_empty()
            && self.absent.is_empty()
            && (self.held.is_empty() || self.release_said)
            && (self.differing == 0 || self.existing_said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str) -> ApiStatus {
        ApiStatus {
            code,
            reason: String::new(),
            message: message.into(),
            causes: Vec::new(),
            retry_after: None,
        }
    }

    #[test]
    fn obstacles_are_derived_from_the_server_status() {
        for (code, message, wanted) in [
            (
                500,
                "Internal error occurred: failed calling webhook \"a.b.c\": failed to call webhook",
                Obstacle::Webhook,
            ),
            (500, "conversion webhook for x/v1, Kind=A failed: Post", Obstacle::Conversion),
            (
                403,
                "unable to create new content in namespace a because it is being terminated",
                Obstacle::Terminating,
            ),
            (403, "pods \"a\" is forbidden: status unknown for quota: q", Obstacle::QuotaUnknown),
            (403, "pods \"a\" is forbidden: exceeded quota: q", Obstacle::Quota),
            (403, "pods is forbidden: User \"x\" cannot create", Obstacle::Right),
            (404, "namespaces \"shop\" not found", Obstacle::NoNamespace),
            (422, "Service \"a\" is invalid", Obstacle::Object),
            (400, "admission webhook \"a.b.c\" denied the request: no", Obstacle::Denied),
            (
                422,
                "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
                Obstacle::Denied,
            ),
        ] {
            assert_eq!(obstacle(&status(code, message)), wanted, "{message}");
        }
        assert_eq!(
            unknown_fields("strict decoding error: unknown field \"spec.x\", unknown field \"y\""),
            ["spec.x", "y"]
        );
        assert_eq!(webhook("x: failed calling webhook \"a.b.c\": y"), Some("a.b.c"));
    }
}
