//! Brings one object into the cluster: creates it, or does with the one that is there what the
//! config says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::change::{beside, carry_over, unbind};
use super::config::RestoreConfig;
use super::decide::{Judged, Meeting, Ready, Verdict, is_there, lost, suspended};
use super::given_up::GIVEN_UP;
use super::ground::{Present, look};
use super::hooks::backends;
use super::known::{ForClaim, Known};
use super::made::{MANAGER, Owes, Wants, is_made, is_ours, meet};
use super::object::{Paths, is_object, text};
use super::outcome::{Obstacle, Outcome, Refusal};
use super::warning::{Warning, pruned, told};
use super::{ObjectRef, RestoreError};
use crate::source::kubernetes::{ApiError, ApiStatus, Cluster, KindInfo};

/// How often a replacement is tried again when somebody changes the object meanwhile.
const TRIES: u32 = 5;
/// Failures of webhooks, one after the other, after which a kind is left for another round: each
/// may have taken ten seconds or more.
const DEAD: u32 = 64;

/// What became of a line.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    /// Its object.
    pub(super) object: ObjectRef,
    /// The object's UID in the backup.
    pub(super) old_uid: String,
    /// Its UID now, where it is there.
    pub(super) new_uid: String,
    /// What a second write is to set, where a restore made it: this one or one before.
    pub(super) owes: Owes,
    /// Whether it came back suspended.
    pub(super) suspended: bool,
    /// What became of it.
    pub(super) outcome: Outcome,
    /// What is still to be done with it, which kbak does not do by itself.
    pub(super) unfinished: Option<Refusal>,
    /// Whether another try may go better.
    pub(super) again: bool,
    /// What the server warned of, and what was given up.
    pub(super) warnings: Vec<Warning>,
}

/// Stops asking a webhook that is dead.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    last: Mutex<Option<Refusal>>,
}

impl Breaker {
    fn open(&self) -> Option<Refusal> {
        let last = || self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        (self.failures.load(Ordering::Relaxed) >= DEAD).then(last).flatten()
    }

    fn note(&self, refusal: Option<&Refusal>) {
        match refusal.filter(|refusal| refusal.obstacle == Obstacle::Webhook) {
            Some(refusal) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(refusal.clone());
            }
            None => self.failures.store(0, Ordering::Relaxed),
        }
    }
}

/// Brings objects of one kind.
pub(super) struct Creator<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) config: &'a RestoreConfig,
    pub(super) known: &'a Known,
    pub(super) breaker: &'a Breaker,
    /// Which objects of the kind are there.
    pub(super) present: &'a Present,
    /// Whether this is another cluster than that of the backup, and does not take its place.
    pub(super) foreign: bool,
    /// Whether Services behind webhooks are waited for: where nothing runs, none gets ready.
    pub(super) backends: bool,
}

impl Creator<'_> {
    /// Brings one object. An error ends the restore; what concerns only this object is an outcome.
    pub(super) async fn bring(&self, judged: Judged) -> Result<Attempt, RestoreError> {
        let wants = judged.wants;
        let mut attempt = Attempt {
            owes: Owes::default(),
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
                    // Nothing is asked for that is not there already.
                    attempt.outcome = Outcome::Existed;
                    text(&there, "/metadata/uid").clone_into(&mut attempt.new_uid);
                }
                return Ok(attempt);
            }
            verdict => {
                // A definition may still come.
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
        wants: &Wants,
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
        // A create is counted against quotas and asked of webhooks also where it then is refused.
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

    /// The one that is there under an object's name, if it may be read.
    async fn there(&self, paths: &Paths, object: &ObjectRef) -> Result<Option<Value>, ApiError> {
        match self.present.may_have(object) {
            true => Ok(look(self.cluster, &paths.one).await?.ok()),
            false => Ok(None),
        }
    }

    /// How the volume that a claim names stands; one that is not there for it is set aside.
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
        wants: &Wants,
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

    /// That the object's namespace is being deleted, and did not go in time.
    fn stuck(&self, object: &ObjectRef) -> Option<Refusal> {
        self.known.is_stuck(&object.namespace).then(|| {
            let message = format!("Namespace {} is still being deleted", object.namespace);
            Refusal { obstacle: Obstacle::Terminating, ..Refusal::unsent("NamespaceTerminating", message) }
        })
    }

    /// Why it is not sent now.
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
                // Something between may have answered in the server's place.
                Ok(if is_object(&there) { Made::New(there, answer.warnings) } else { Made::Unknown })
            }
            Err(error) => {
                let repeated = error.repeated;
                error.refusal().map(|status| Made::Refused { status, repeated })
            }
        }
    }

    /// One of that name is there: `found`, if it was read already.
    async fn meet(
        &self,
        mut ready: Ready,
        paths: &Paths,
        mut found: Option<Value>,
        repeated: bool,
        wants: &Wants,
        attempt: Attempt,
    ) -> Result<Attempt, RestoreError> {
        for _ in 0..TRIES {
            let looked = match found.take() {
                Some(there) => Ok(there),
                None => look(self.cluster, &paths.one).await?,
            };
            let there = match looked {
                Ok(there) => there,
                // Gone again, which another round makes good; or nobody can say how it is.
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
                return Ok(Attempt { again: true, ..with(Outcome::Failed(refusal), Owes::default()) });
            }
            // If the answer to an earlier try of the same create was lost, it is ours.
            let mine = || is_ours(&there) || same(&ready, &there);
            if repeated && there.pointer("/metadata/ownerReferences").is_none() && mine() {
                return Ok(with(Outcome::Created, wants.all()));
            }
            let suspended = attempt.suspended;
            let met = meet(self.cluster, self.config, &attempt.object, &mut ready, wants, suspended, &there)
                .await?;
            let owes = wants.after(&met, &there);
            let (made, outcome) = match &met {
                Meeting::Leave => return Ok(with(Outcome::Existed, owes)),
                Meeting::Differs | Meeting::AsMade => return Ok(with(Outcome::Differs, owes)),
                Meeting::Patch(None) => return Ok(with(Outcome::Patched, owes)),
                Meeting::Merge(patch) | Meeting::Patch(Some(patch)) => {
                    let kind = "application/merge-patch+json";
                    (self.write(Method::PATCH, &paths.one, kind, patch).await?, Outcome::Patched)
                }
                Meeting::Replace => {
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
                    return Ok(Attempt { again, ..with(Outcome::Failed(refusal), Owes::default()) });
                }
            }
        }
        let message = "somebody changes it all the time".to_owned();
        let refusal = Refusal { obstacle: Obstacle::Other, ..Refusal::unsent("Conflict", message) };
        Ok(Attempt { outcome: Outcome::Failed(refusal), again: true, ..attempt })
    }
}

/// An object of which the server left fields out is there, and is not what the backup says.
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

/// Whether nobody is noted to have written the one that is there, and it is as it was sent: of an object
/// without fields the server notes nobody.
fn same(ready: &Ready, there: &Value) -> bool {
    is_made(there) && beside(&ready.kind, ready.moved, &ready.body, there).is_same()
}

/// Nobody can say whether it is there; another round looks.
fn unknown(attempt: Attempt) -> Attempt {
    Attempt { outcome: Outcome::Failed(Refusal::no_object()), again: true, ..attempt }
}

/// What became of a write.
enum Made {
    New(Value, Vec<String>),
    /// A success whose answer is no object of an API server.
    Unknown,
    Refused {
        status: Box<ApiStatus>,
        repeated: bool,
    },
}
