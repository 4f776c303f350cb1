//! Creates one object in the cluster, or treats the existing one as the config says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::kubernetes::{ApiError, ApiStatus, Cluster, KindInfo};
use crate::runtime::lock;
use crate::target::kubernetes::apply::given_up::GIVEN_UP;
use crate::target::kubernetes::apply::ownership::{
    MANAGER, PendingWrites, SecondWrite, is_made, is_ours, meet,
};
use crate::target::kubernetes::apply::restore_state::{ForClaim, RestoreState};
use crate::target::kubernetes::apply::webhooks::backends;
use crate::target::kubernetes::change::{beside, carry_over, unbind};
use crate::target::kubernetes::cluster_state::{Present, look};
use crate::target::kubernetes::config::RestoreConfig;
use crate::target::kubernetes::judge::{ExistingAction, Judged, Ready, Verdict, is_there, lost, suspended};
use crate::target::kubernetes::object::{Paths, is_object, text};
use crate::target::kubernetes::outcome::{Obstacle, Outcome, Refusal};
use crate::target::kubernetes::warning::{Warning, pruned, told};
use crate::target::kubernetes::{ObjectRef, RestoreError};

/// The number of attempts to change an existing object that others change meanwhile.
const TRIES: u32 = 5;
/// Consecutive webhook failures after which a kind is left to another round. Each may have taken ten seconds
/// or more.
const DEAD: u32 = 64;

/// The result of restoring one line.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// The object's name in the target cluster.
    pub(crate) object: ObjectRef,
    /// The object's UID in the backup.
    pub(crate) old_uid: String,
    /// The object's UID in the target cluster; empty if it is not known to exist.
    pub(crate) new_uid: String,
    /// Pending second writes, if this or an earlier restore created the object.
    pub(crate) owes: PendingWrites,
    /// True if the object was created suspended.
    pub(crate) suspended: bool,
    pub(crate) outcome: Outcome,
    /// Work that remains and that kbak does not do itself.
    pub(crate) unfinished: Option<Refusal>,
    /// True if another attempt may succeed.
    pub(crate) again: bool,
    /// Warnings of the server, and fields that were dropped so that it took the object.
    pub(crate) warnings: Vec<Warning>,
}

/// Stops creating objects of a kind while its webhook does not answer.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: AtomicU32,
    last: Mutex<Option<Refusal>>,
}

impl Breaker {
    fn open(&self) -> Option<Refusal> {
        let last = || lock(&self.last).clone();
        (self.failures.load(Ordering::Relaxed) >= DEAD).then(last).flatten()
    }

    fn note(&self, refusal: Option<&Refusal>) {
        match refusal.filter(|refusal| refusal.obstacle == Obstacle::Webhook) {
            Some(refusal) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                *lock(&self.last) = Some(refusal.clone());
            }
            None => self.failures.store(0, Ordering::Relaxed),
        }
    }
}

/// Creates objects of one kind.
pub(crate) struct Creator<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) config: &'a RestoreConfig,
    pub(crate) known: &'a RestoreState,
    pub(crate) breaker: &'a Breaker,
    /// The existing objects of the kind.
    pub(crate) present: &'a Present,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub(crate) foreign: bool,
    /// True if Services behind webhooks are waited for. Without nodes none becomes ready.
    pub(crate) backends: bool,
}

impl Creator<'_> {
    /// Restores one object. An error ends the restore; a failure of this object alone is an outcome.
    pub(crate) async fn bring(&self, judged: Judged) -> Result<Attempt, RestoreError> {
        let wants = judged.wants;
        let mut attempt = Attempt {
            owes: PendingWrites::default(),
            suspended: suspended(&judged.changes),
            object: judged.object,
            old_uid: judged.old_uid,
            new_uid: String::new(),
            outcome: Outcome::Unserved,
            unfinished: None,
            again: false,
            warnings: Vec::new(),
        };
        let ready = match judged.verdict {
            Verdict::Create(ready) => ready,
            Verdict::Refuse(allow, ready) => {
                attempt.outcome = Outcome::Refused(allow);
                if let Some(ready) = ready
                    && let Some(paths) = attempt.object.paths(&ready.kind)
                    && let Some(there) = self.there(&paths, &attempt.object).await?
                    && is_there(&ready, &wants, &there)
                {
                    // The object already exists as it would be created, so no permission is needed.
                    attempt.outcome = Outcome::Existed;
                    text(&there, "/metadata/uid").clone_into(&mut attempt.new_uid);
                }
                return Ok(attempt);
            }
            verdict => {
                // Its definition may still be created.
                attempt.again = matches!(verdict, Verdict::Unserved);
                attempt.outcome = match verdict {
                    Verdict::Skip(skip) => Outcome::Skipped(skip),
                    Verdict::Hold(release) => Outcome::Held(release),
                    Verdict::Unfit(refusal) => Outcome::Failed(refusal),
                    Verdict::Unserved | Verdict::Create(_) | Verdict::Refuse(..) => Outcome::Unserved,
                };
                return Ok(attempt);
            }
        };
        let attempt = self.create(*ready, &wants, attempt).await?;
        self.known.note(&attempt.object, &attempt.outcome, self.foreign);
        Ok(attempt)
    }

    async fn create(
        &self,
        mut ready: Ready,
        wants: &SecondWrite,
        attempt: Attempt,
    ) -> Result<Attempt, RestoreError> {
        let Some(paths) = attempt.object.paths(&ready.kind) else {
            let refusal = Refusal::unsent("InvalidName", String::new());
            return Ok(Attempt { outcome: Outcome::Failed(refusal), ..attempt });
        };
        if let Some(refusal) = self.stuck(&attempt.object) {
            return Ok(Attempt { outcome: Outcome::Failed(refusal), ..attempt });
        }
        let volume = self.volume(&mut ready.body, &attempt.object).await?;
        // A create counts against quotas and calls webhooks even if it is refused, so look first.
        let mut attempt = if let Some(there) = self.there(&paths, &attempt.object).await? {
            self.meet(ready, &paths, Some(there), false, wants, attempt).await?
        } else if let ForClaim::NotYet(refusal) = volume {
            return Ok(Attempt { outcome: Outcome::Failed(refusal), again: true, ..attempt });
        } else if let Some(refusal) = self.kept_out(&ready.kind, &ready.body).await? {
            return Ok(Attempt { outcome: Outcome::Failed(refusal), again: true, ..attempt });
        } else {
            self.send(ready, &paths, wants, attempt).await?
        };
        if attempt.unfinished.is_none() && attempt.outcome.is_fine() {
            attempt.unfinished = volume.lacks(&attempt.new_uid, attempt.outcome == Outcome::Created);
        }
        Ok(attempt)
    }

    /// Returns the existing object of that name, if it may be read.
    async fn there(&self, paths: &Paths, object: &ObjectRef) -> Result<Option<Value>, ApiError> {
        match self.present.may_have(object) {
            true => Ok(look(self.cluster, &paths.one).await?.ok()),
            false => Ok(None),
        }
    }

    /// Returns the state of the volume that a claim names, and removes an unavailable one from the claim.
    async fn volume(&self, body: &mut Value, object: &ObjectRef) -> Result<ForClaim, ApiError> {
        let volume = text(body, "/spec/volumeName").to_owned();
        if object.resource != "persistentvolumeclaims" || volume.is_empty() {
            return Ok(ForClaim::Yes);
        }
        let stands = self.known.volume_for(self.cluster, &volume, object, self.foreign).await?;
        if stands == ForClaim::No {
            unbind(body);
        }
        Ok(stands)
    }

    async fn send(
        &self,
        ready: Ready,
        paths: &Paths,
        wants: &SecondWrite,
        attempt: Attempt,
    ) -> Result<Attempt, RestoreError> {
        let Ready { mut body, kind, moved } = ready;
        let mut made = self.post(paths, &body).await?;
        let mut given_up = Vec::new();
        for (says, cut, what) in GIVEN_UP {
            if matches!(&made, Made::Refused { status, .. } if says(status)) && cut(&mut body) {
                given_up.push(Warning::Own(format!("{}: {what}", attempt.object)));
                made = self.post(paths, &body).await?;
            }
        }
        match made {
            Made::New(there, headers) => {
                let mut warnings = told(&attempt.object, &headers);
                warnings.extend(given_up);
                self.breaker.note(None);
                let new_uid = text(&there, "/metadata/uid").to_owned();
                let attempt = without_pruned(attempt, &Ready { body, kind, moved }, &there, &headers);
                Ok(Attempt { outcome: Outcome::Created, new_uid, owes: wants.all(), warnings, ..attempt })
            }
            Made::Unknown => Ok(unknown(attempt)),
            Made::Refused { status, repeated } if status.code == 409 && status.reason == "AlreadyExists" => {
                self.breaker.note(None);
                self.meet(Ready { body, kind, moved }, paths, None, repeated, wants, attempt).await
            }
            Made::Refused { status, .. } => {
                let refusal = Refusal::new(&kind, &status);
                self.breaker.note(Some(&refusal));
                let again = refusal.obstacle != Obstacle::Object;
                Ok(Attempt { outcome: Outcome::Failed(refusal), again, ..attempt })
            }
        }
    }

    /// Returns a refusal if the object's namespace was still being deleted at the deadline.
    fn stuck(&self, object: &ObjectRef) -> Option<Refusal> {
        self.known.is_stuck(&object.namespace).then(|| {
            let message = format!("Namespace {} is still being deleted", object.namespace);
            Refusal { obstacle: Obstacle::Terminating, ..Refusal::unsent("NamespaceTerminating", message) }
        })
    }

    /// Returns the reason for not sending the object now, if there is one.
    async fn kept_out(&self, kind: &KindInfo, body: &Value) -> Result<Option<Refusal>, ApiError> {
        if let Some(refusal) = self.breaker.open() {
            return Ok(Some(refusal));
        }
        if !self.backends {
            return Ok(None);
        }
        for backend in backends(kind, body) {
            if !backend.is_ready(self.cluster).await? {
                let message = format!("{backend} has no ready endpoint");
                return Ok(Some(Refusal {
                    obstacle: Obstacle::NoBackend,
                    ..Refusal::unsent("NoBackend", message)
                }));
            }
        }
        Ok(None)
    }

    async fn post(&self, paths: &Paths, body: &Value) -> Result<Made, ApiError> {
        self.write(Method::POST, &paths.all, "application/json", body).await
    }

    async fn write(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: &Value,
    ) -> Result<Made, ApiError> {
        let query = format!("fieldManager={MANAGER}&fieldValidation=Warn");
        match self.cluster.send(method, path, &query, content_type, Bytes::from(body.to_string())).await {
            Ok(answer) => {
                let there: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                // A proxy may have answered in the server's place.
                Ok(if is_object(&there) { Made::New(there, answer.warnings) } else { Made::Unknown })
            }
            Err(error) => {
                let repeated = error.repeated;
                error.refusal().map(|status| Made::Refused { status, repeated })
            }
        }
    }

    /// Treats an object whose name exists; `found` is the existing one if it was already read.
    async fn meet(
        &self,
        mut ready: Ready,
        paths: &Paths,
        mut found: Option<Value>,
        repeated: bool,
        wants: &SecondWrite,
        attempt: Attempt,
    ) -> Result<Attempt, RestoreError> {
        for _ in 0..TRIES {
            let looked = match found.take() {
                Some(there) => Ok(there),
                None => look(self.cluster, &paths.one).await?,
            };
            let there = match looked {
                Ok(there) => there,
                // It was deleted meanwhile, or it cannot be read. Another round tries again.
                Err(status) => {
                    let refusal = Refusal::new(&ready.kind, &status);
                    return Ok(Attempt { outcome: Outcome::Failed(refusal), again: true, ..attempt });
                }
            };
            let new_uid = text(&there, "/metadata/uid").to_owned();
            let with = |outcome, owes| Attempt {
                outcome,
                owes,
                new_uid: new_uid.clone(),
                suspended: false,
                ..attempt.clone()
            };
            if there.pointer("/metadata/deletionTimestamp").is_some() {
                let refusal = Refusal {
                    obstacle: Obstacle::Terminating,
                    ..Refusal::unsent("Terminating", "the one that is there is being deleted".to_owned())
                };
                return Ok(Attempt {
                    again: true,
                    ..with(Outcome::Failed(refusal), PendingWrites::default())
                });
            }
            // If the answer to an earlier attempt of the same create was lost, this restore created it.
            let mine = || is_ours(&there) || same(&ready, &there);
            if repeated && there.pointer("/metadata/ownerReferences").is_none() && mine() {
                return Ok(with(Outcome::Created, wants.all()));
            }
            let suspended = attempt.suspended;
            let met = meet(self.cluster, self.config, &attempt.object, &mut ready, wants, suspended, &there)
                .await?;
            let owes = wants.after(&met, &there);
            let (made, outcome) = match &met {
                ExistingAction::Leave => return Ok(with(Outcome::Existed, owes)),
                ExistingAction::Differs | ExistingAction::AsMade => return Ok(with(Outcome::Differs, owes)),
                ExistingAction::Patch(None) => return Ok(with(Outcome::Patched, owes)),
                ExistingAction::Merge(patch) | ExistingAction::Patch(Some(patch)) => {
                    let kind = "application/merge-patch+json";
                    (self.write(Method::PATCH, &paths.one, kind, patch).await?, Outcome::Patched)
                }
                ExistingAction::Replace => {
                    let mut whole = ready.body.clone();
                    carry_over(&ready.kind, &mut whole, &there);
                    let made = self.write(Method::PUT, &paths.one, "application/json", &whole).await?;
                    (made, Outcome::Replaced)
                }
            };
            match made {
                Made::New(now, headers) => {
                    let warnings = told(&attempt.object, &headers);
                    let attempt = with(outcome, owes);
                    let attempt = without_pruned(attempt, &ready, &now, &headers);
                    return Ok(Attempt { warnings, ..attempt });
                }
                Made::Unknown => return Ok(unknown(attempt)),
                Made::Refused { status, .. } if status.code == 409 => {}
                Made::Refused { status, .. } => {
                    let refusal = Refusal::of_change(&ready.kind, &status);
                    let again = !matches!(refusal.obstacle, Obstacle::Object | Obstacle::Immutable);
                    return Ok(Attempt { again, ..with(Outcome::Failed(refusal), PendingWrites::default()) });
                }
            }
        }
        let message = "somebody changes it all the time".to_owned();
        let refusal = Refusal { obstacle: Obstacle::Other, ..Refusal::unsent("Conflict", message) };
        Ok(Attempt { outcome: Outcome::Failed(refusal), again: true, ..attempt })
    }
}

/// Notes fields that the server pruned: the object exists but is not as in the backup.
fn without_pruned(mut attempt: Attempt, ready: &Ready, answer: &Value, headers: &[String]) -> Attempt {
    let mut fields = pruned(headers);
    if fields.is_empty() {
        fields = lost(ready, answer);
    }
    if !fields.is_empty() {
        let what = "the kind is defined otherwise here, so the server left these fields out";
        attempt.unfinished = Some(Refusal { fields, ..Refusal::unsent("Pruned", what.to_owned()) });
    }
    attempt
}

/// True if a restore may have created `there` and it equals the object that was sent. The server records no
/// manager for an object without fields.
fn same(ready: &Ready, there: &Value) -> bool {
    is_made(there) && beside(&ready.kind, ready.moved, &ready.body, there).is_same()
}

/// Returns the attempt as failed and to be retried, because the object may or may not exist.
fn unknown(attempt: Attempt) -> Attempt {
    Attempt { outcome: Outcome::Failed(Refusal::no_object()), again: true, ..attempt }
}

/// The result of a write.
enum Made {
    New(Value, Vec<String>),
    /// The answer reports success but is not an object of an API server.
    Unknown,
    Refused {
        status: Box<ApiStatus>,
        repeated: bool,
    },
}
