//! Reasons why the server or kbak itself refuses an object, without values of the object.

use serde::Serialize;

use super::TOO_DEEP;
use crate::kubernetes::{ApiStatus, KindInfo};

/// The cause that kept an object from being created, as far as the server's answer shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCause {
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
    /// Pod Security of the namespace does not allow the pod.
    PodSecurity,
    /// A LimitRange of the namespace does not allow the object.
    Limits,
    /// An object that it needs does not exist: a PriorityClass, a ServiceAccount, a RuntimeClass.
    MissingObject,
    /// Another rule of the API server's admission does not allow it.
    Admission,
    /// An admission policy or webhook denies it.
    Denied,
    /// The existing object does not accept the change.
    Immutable,
    /// The object itself is invalid or cannot be sent.
    Object,
    /// Another cause.
    Other,
}

impl RefusalCause {
    /// True if time alone may remove it.
    pub(crate) fn is_transient(self) -> bool {
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
            Self::Terminating => Some("see what keeps the namespace: kubectl get namespace NAME -o yaml"),
            Self::NoNamespace => Some("create the namespace, or select it as well: --object namespaces/NAME"),
            Self::Quota => {
                Some("raise the quota (kubectl get resourcequotas), or give the object what it demands")
            }
            Self::PodSecurity => Some(
                "change the namespace's label pod-security.kubernetes.io/enforce, or the pod with a RestorePlan's \
                 modify",
            ),
            Self::Limits => Some(
                "change the namespace's LimitRange (kubectl get limitranges), or the object with a RestorePlan's \
                 modify",
            ),
            Self::MissingObject => Some("create what it names, or select it as well: --object KIND/NAME"),
            Self::Admission => Some(
                "see which rule of the cluster refuses it (its message names it): change that rule, or the object \
                 with a RestorePlan's modify",
            ),
            Self::Right => Some("grant the restore this right; it also needs the rights that it grants"),
            Self::NoBackend => Some("see why its pods are not ready; run again when they are"),
            Self::Denied => Some(
                "see what it demands (kubectl get validatingadmissionpolicies,validatingwebhookconfigurations): \
                 change it, or the object with a RestorePlan's modify",
            ),
            Self::Immutable => {
                Some("delete the existing object and run again: some fields can only be set in a new one")
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
    #[serde(rename = "obstacle")]
    pub cause: RefusalCause,
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
    pub(crate) fn not_sent(reason: &str, message: impl Into<String>) -> Self {
        let (reason, message) = (reason.to_owned(), message.into());
        Self { cause: RefusalCause::Object, code: 0, reason, fields: Vec::new(), message }
    }

    pub(crate) fn with_cause(self, cause: RefusalCause) -> Self {
        Self { cause, ..self }
    }

    pub(crate) fn no_object() -> Self {
        Self::not_sent("NoObject", "the answer reports success but holds no object")
    }

    /// Returns the parts of a refusal that may be shown. Messages about invalid fields quote values, and any
    /// about a Secret may; only reason and fields are kept of those.
    pub(crate) fn new(kind: &KindInfo, status: &ApiStatus) -> Self {
        let cause = cause_of(status);
        let quotes = matches!(status.code, 400 | 422) || kind.resource() == "secrets";
        let mut fields: Vec<String> = status.causes.iter().map(|cause| cause.field.clone()).collect();
        fields.extend(unknown_fields(&status.message));
        fields.retain(|field| !field.is_empty());
        fields.dedup();
        let message = match (quotes, cause) {
            // The policy or webhook that denies chooses the code and the message.
            (_, RefusalCause::Denied) => denied_by(&status.message).unwrap_or_default(),
            (true, RefusalCause::Webhook) => webhook(&status.message).map(str::to_owned).unwrap_or_default(),
            (true, _) => String::new(),
            (false, _) => status.message.clone(),
        };
        Self { cause, code: status.code, reason: status.reason.clone(), fields, message }
    }

    /// Returns the parts that may be shown of a refusal to change an existing object.
    pub(crate) fn of_change(kind: &KindInfo, status: &ApiStatus) -> Self {
        let refusal = Self::new(kind, status);
        if status.code != 422 || refusal.cause != RefusalCause::Object {
            return refusal;
        }
        let message = "the existing object refuses the change: some fields may not be changed";
        Self { cause: RefusalCause::Immutable, message: message.to_owned(), ..refusal }
    }

    /// Returns the name of the webhook that did not answer.
    pub(crate) fn webhook(&self) -> Option<&str> {
        webhook(&self.message).or(Some(self.message.as_str())).filter(|_| self.cause == RefusalCause::Webhook)
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

fn cause_of(status: &ApiStatus) -> RefusalCause {
    let says = |text: &str| status.message.contains(text);
    match status.code {
        _ if status.reason == TOO_DEEP => RefusalCause::Object,
        _ if says("conversion webhook for") => RefusalCause::Conversion,
        _ if says("failed calling webhook") => RefusalCause::Webhook,
        _ if denied_by(&status.message).is_some() => RefusalCause::Denied,
        403 if status.causes.iter().any(|cause| cause.reason == "NamespaceTerminating") => {
            RefusalCause::Terminating
        }
        403 if says("is being terminated") => RefusalCause::Terminating,
        403 if says("status unknown for quota") => RefusalCause::QuotaUnknown,
        403 if says("exceeded quota") || says("failed quota") || says("insufficient quota") => {
            RefusalCause::Quota
        }
        403 => forbidden_cause(&status.message),
        404 if says("namespaces \"") => RefusalCause::NoNamespace,
        429 => RefusalCause::Busy,
        400 | 413 | 415 | 422 => RefusalCause::Object,
        _ => RefusalCause::Other,
    }
}

/// Returns the cause of a 403: authorization and admission both answer with it. Sources: `forbiddenMessage` in
/// apiserver's `responsewriters`, and the plugins of `plugin/pkg/admission`.
fn forbidden_cause(message: &str) -> RefusalCause {
    // Admission names the object: `pods "a" is forbidden: …`.
    let Some((_, reason)) = message.split_once(" is forbidden: ") else { return RefusalCause::Right };
    let says = |text: &str| reason.contains(text);
    let any = |texts: &[&str]| texts.iter().any(|text| says(text));
    let is_authorizer = reason.starts_with("User \"") && says("\" cannot ");
    // Rights that admission checks: to grant roles, to own objects, to approve certificates.
    let grants = [
        "is attempting to grant RBAC permissions",
        "cannot set blockOwnerDeletion",
        "cannot set an ownerRef",
    ];
    match () {
        () if is_authorizer || any(&grants) || says("user not permitted") => RefusalCause::Right,
        () if says("violates PodSecurity") => RefusalCause::PodSecurity,
        () if any(&["usage per ", "to request ratio per "]) => RefusalCause::Limits,
        () if any(&["no PriorityClass with name", "error looking up service account", "not found"]) => {
            RefusalCause::MissingObject
        }
        () => RefusalCause::Admission,
    }
}

/// Describes the policy or webhook that denies, if the server's message is a denial. The rest of the message
/// may quote any value of the object and is never shown.
fn denied_by(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("admission webhook \"") {
        let (name, rest) = rest.split_once('"')?;
        return (is_name(name) && rest.starts_with(" denied the request"))
            .then(|| format!("admission webhook {name} denies it"));
    }
    // The object comes first: `configmaps "a" is forbidden: `.
    let policies = ["ValidatingAdmissionPolicy '", "MutatingAdmissionPolicy '"];
    let at = policies.iter().filter_map(|policy| message.find(policy)).min()?;
    let (before, rest) = message.split_at(at);
    if !before.is_empty() && !before.ends_with(": ") {
        return None;
    }
    Some(format!("{} denies it", policy_name(rest)?))
}

/// Parses `ValidatingAdmissionPolicy 'x' with binding 'y'` at the start of a text, and removes the quotes.
pub(crate) fn policy_name(text: &str) -> Option<String> {
    let (kind, rest) = text.split_once(" '")?;
    if !matches!(kind, "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") {
        return None;
    }
    let (policy, rest) = rest.split_once("' with binding '")?;
    let (binding, _) = rest.split_once('\'')?;
    (is_name(policy) && is_name(binding)).then(|| format!("{kind} {policy} with binding {binding}"))
}

/// True if the text is a possible name of a policy or webhook.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
    !name.is_empty() && name.len() <= 253 && name.chars().all(fits)
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

    /// Answers of a server, and the cause of each.
    const ANSWERS: &[(u16, &str, RefusalCause)] = &[
        (
            500,
            "Internal error occurred: failed calling webhook \"a.b.c\": failed to call webhook",
            RefusalCause::Webhook,
        ),
        (500, "conversion webhook for x/v1, Kind=A failed: Post", RefusalCause::Conversion),
        (
            403,
            "unable to create new content in namespace a because it is being terminated",
            RefusalCause::Terminating,
        ),
        (403, "pods \"a\" is forbidden: status unknown for quota: q", RefusalCause::QuotaUnknown),
        (403, "pods \"a\" is forbidden: exceeded quota: q", RefusalCause::Quota),
        (403, "pods is forbidden: User \"x\" cannot create resource \"pods\"", RefusalCause::Right),
        (403, "pods \"a\" is forbidden: User \"x\" cannot get resource \"pods\"", RefusalCause::Right),
        (403, "made by a proxy", RefusalCause::Right),
        (
            403,
            "roles.rbac.authorization.k8s.io \"a\" is forbidden: user \"x\" (groups=[\"y\"]) is attempting to \
                 grant RBAC permissions not currently held",
            RefusalCause::Right,
        ),
        (
            403,
            "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a \
                 resource you can't set finalizers on: no RBAC policy matched",
            RefusalCause::Right,
        ),
        (
            403,
            "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation",
            RefusalCause::PodSecurity,
        ),
        (
            403,
            "pods \"a\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, minimum memory \
                 usage per Container is 1Mi]",
            RefusalCause::Limits,
        ),
        (
            403,
            "pods \"a\" is forbidden: memory max limit to request ratio per Container is 2",
            RefusalCause::Limits,
        ),
        (
            403,
            "pods \"a\" is forbidden: no PriorityClass with name high was found",
            RefusalCause::MissingObject,
        ),
        (
            403,
            "pods \"a\" is forbidden: error looking up service account shop/web: serviceaccount \"web\" not \
                 found",
            RefusalCause::MissingObject,
        ),
        (
            403,
            "pods \"a\" is forbidden: pod rejected: RuntimeClass \"gvisor\" not found",
            RefusalCause::MissingObject,
        ),
        (
            403,
            "services \"a\" is forbidden: Use of external IPs is denied by admission control.",
            RefusalCause::Admission,
        ),
        (403, "pods \"a\" is forbidden: failed quota: q: must specify limits.cpu", RefusalCause::Quota),
        (404, "namespaces \"shop\" not found", RefusalCause::NoNamespace),
        (422, "Service \"a\" is invalid", RefusalCause::Object),
        (400, "admission webhook \"a.b.c\" denied the request: no", RefusalCause::Denied),
        (
            422,
            "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            RefusalCause::Denied,
        ),
    ];

    #[test]
    fn obstacles_are_derived_from_the_server_status() {
        for (code, message, wanted) in ANSWERS {
            assert_eq!(cause_of(&status(*code, message)), *wanted, "{message}");
        }
        assert_eq!(
            unknown_fields("strict decoding error: unknown field \"spec.x\", unknown field \"y\""),
            ["spec.x", "y"]
        );
        assert_eq!(webhook("x: failed calling webhook \"a.b.c\": y"), Some("a.b.c"));
    }

    #[test]
    fn denials_are_reduced_to_names() {
        for (message, wanted) in [
            (
                "secrets \"db\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: hunter2",
                Some("ValidatingAdmissionPolicy p with binding b denies it"),
            ),
            (
                "admission webhook \"w.example.com\" denied the request: hunter2",
                Some("admission webhook w.example.com denies it"),
            ),
            ("admission webhook \"hunter2 IS SECRET\" denied the request", None),
            (
                "ConfigMap \"a\" is invalid: data: Invalid value: \"ValidatingAdmissionPolicy 'x' with binding 'y'\"",
                None,
            ),
            ("exceeded quota", None),
        ] {
            assert_eq!(denied_by(message).as_deref(), wanted, "{message}");
        }
    }
}
