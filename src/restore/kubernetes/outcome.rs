//! What became of objects.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::config::{Allow, Release};
use super::decide::Skip;
use super::denial::denier;
use super::fits::Absent;
use super::object::ObjectRef;
use super::warning::Warning;
use crate::source::kubernetes::{ApiStatus, KindInfo};

/// What became of an object. Each object gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// It was created.
    Created,
    /// One of that name was there, as in the backup or as a restore made it, and was left alone.
    Existed,
    /// One of that name was there, is not as in the backup, and was left alone.
    Differs,
    /// One of that name was there, and was brought to what the backup says.
    Patched,
    /// One of that name was there, and was replaced.
    Replaced,
    /// Left out.
    Skipped(Skip),
    /// Not created, because it was not allowed.
    Refused(Allow),
    /// Not created, because a copy would do harm with it.
    Held(Release),
    /// Two objects of the backup would have the same name here, and the first one came; not that of
    /// this namespace.
    Collides(String),
    /// The cluster does not serve its kind.
    Unserved,
    /// The server refused it to the last.
    Failed(Refusal),
}

impl Outcome {
    /// Whether it is there now, or was not asked for.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        matches!(self, Self::Created | Self::Existed | Self::Patched | Self::Replaced | Self::Skipped(_))
    }
}

/// What kept an object from being created, as far as it can be told from the server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// An admission webhook did not answer, or not as one does.
    Webhook,
    /// A conversion webhook did not answer.
    Conversion,
    /// The namespace is being deleted.
    Terminating,
    /// The namespace is not there.
    NoNamespace,
    /// A quota's use is not counted yet.
    QuotaUnknown,
    /// A quota is used up.
    Quota,
    /// The server has too much to do.
    Busy,
    /// The Service behind it has no endpoint that is ready.
    NoBackend,
    /// A right is missing.
    Right,
    /// An admission policy or webhook denies it.
    Denied,
    /// The one that is there does not take the change.
    Immutable,
    /// The object itself is not accepted, or cannot be sent.
    Object,
    /// Something else.
    Other,
}

impl Obstacle {
    /// Whether time alone may lift it.
    pub(super) fn passes(self) -> bool {
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

    /// What to do about it.
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

/// Why the server refused an object. Holds no values of the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{reason}{}{}", if .fields.is_empty() { String::new() } else { format!(" at {}", .fields.join(", ")) },
    if .message.is_empty() { String::new() } else { format!(": {}", .message) })]
pub struct Refusal {
    /// What kind of obstacle it is.
    pub obstacle: Obstacle,
    /// The HTTP status; 0 if the object was not sent.
    pub code: u16,
    /// The server's reason: `Invalid`, `Forbidden`.
    pub reason: String,
    /// The fields that the server names.
    pub fields: Vec<String>,
    /// The server's words, where they cannot quote the object.
    pub message: String,
}

impl Refusal {
    /// An object that was not sent.
    pub(super) fn unsent(reason: &str, message: String) -> Self {
        let reason = reason.to_owned();
        Self { obstacle: Obstacle::Object, code: 0, reason, fields: Vec::new(), message }
    }

    /// A yes without an object.
    pub(super) fn no_object() -> Self {
        let message = "what answers is no API server: it says yes and shows no object";
        Self::unsent("NoObject", message.to_owned())
    }

    /// What may be said of a refusal. A message about invalid fields quotes their values, and any
    /// message about a Secret may; then only reason and fields are named.
    pub(super) fn new(kind: &KindInfo, status: &ApiStatus) -> Self {
        let obstacle = obstacle(status);
        let quotes = matches!(status.code, 400 | 422) || kind.resource() == "secrets";
        let mut fields: Vec<String> = status.causes.iter().map(|cause| cause.field.clone()).collect();
        fields.extend(unknown_fields(&status.message));
        fields.retain(|field| !field.is_empty());
        fields.dedup();
        let message = match (quotes, obstacle) {
            // Who denies chooses the code and the words.
            (_, Obstacle::Denied) => denier(&status.message).unwrap_or_default(),
            (true, Obstacle::Webhook) => webhook(&status.message).map(str::to_owned).unwrap_or_default(),
            (true, _) => String::new(),
            (false, _) => status.message.clone(),
        };
        Self { obstacle, code: status.code, reason: status.reason.clone(), fields, message }
    }

    /// What may be said of a refusal to change an object that is there.
    pub(super) fn of_change(kind: &KindInfo, status: &ApiStatus) -> Self {
        let refusal = Self::new(kind, status);
        if status.code != 422 || refusal.obstacle != Obstacle::Object {
            return refusal;
        }
        let message = "the one that is there does not take the change: some fields may not be changed";
        Self { obstacle: Obstacle::Immutable, message: message.to_owned(), ..refusal }
    }

    /// The name of the webhook that did not answer.
    pub(super) fn webhook(&self) -> Option<&str> {
        webhook(&self.message).or(Some(self.message.as_str())).filter(|_| self.obstacle == Obstacle::Webhook)
    }
}

/// The name in `failed calling webhook "NAME": …`.
fn webhook(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("failed calling webhook \"")?;
    rest.split_once('"').map(|(name, _)| name)
}

/// The paths in `strict decoding error: unknown field "spec.x"`: names, no values.
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

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Objects created.
    pub created: u64,
    /// Objects that were there already, as in the backup or as a restore made them.
    pub existed: u64,
    /// Objects that were there and brought to what the backup says.
    pub patched: u64,
    /// Objects that were there and replaced.
    pub replaced: u64,
    /// Objects that were there, are otherwise than in the backup, and were left alone.
    pub differing: u64,
    /// Objects left out, by rule.
    pub skipped: BTreeMap<Skip, u64>,
    /// Objects not allowed.
    pub refused: BTreeMap<Allow, u64>,
    /// Objects held back.
    pub held: BTreeMap<Release, u64>,
    /// Objects that came back suspended.
    pub suspended: u64,
    /// Objects whose name another object of the backup has here.
    pub collided: u64,
    /// Objects of kinds that the cluster does not serve, by resource.
    pub unserved: BTreeMap<String, u64>,
    /// Objects that the server refused to the last.
    pub failed: u64,
    /// The first thousand of them.
    pub failures: Vec<(ObjectRef, Refusal)>,
    /// The first hundred objects that are not there for another reason.
    pub missing: Vec<(ObjectRef, Outcome)>,
    /// Objects whose owners were set again.
    pub relinked: u64,
    /// Owner references left out, because the owner is not there.
    pub owners_lost: u64,
    /// Objects whose managers of fields were set again.
    pub managed: u64,
    /// Objects whose status was restored.
    pub status: u64,
    /// Objects whose status, managers or owners could not be set.
    pub unfinished: Vec<(ObjectRef, Refusal)>,
    /// Rounds that were needed.
    pub rounds: u32,
    /// The server's warnings and kbak's own, each once, at most a hundred.
    pub warnings: BTreeSet<Warning>,
    /// What was asked for and nothing in the snapshot fits.
    pub absent: Vec<Absent>,
    /// Whether the cluster is another one than that of the backup, and does not take its place.
    pub foreign: bool,
    /// Whether somebody said what is to happen with what is held back.
    pub release_said: bool,
    /// Whether somebody said what is to happen with what is there.
    pub existing_said: bool,
}

impl RestoreReport {
    /// Whether everything that was wanted is there. What is held back, or is there and differs, is
    /// wanted unless somebody said otherwise.
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
    fn obstacles_are_told_from_what_the_server_says() {
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
