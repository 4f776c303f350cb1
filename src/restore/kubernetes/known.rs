//! What all creates of a restore know together.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::ObjectRef;
use super::ground::look;
use super::object::text;
use super::outcome::{Obstacle, Outcome, Refusal};
use super::target::segment;
use crate::source::kubernetes::{ApiError, Cluster, KindInfo};

/// What all creates of a restore know together.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// PersistentVolumes that are there, and for whom.
    volumes: tokio::sync::Mutex<HashMap<String, Volume>>,
    /// PersistentVolumes that this restore could not bring so far.
    awaited: Mutex<HashSet<String>>,
    /// Namespaces whose end did not come in time.
    pub(super) stuck: Mutex<HashSet<String>>,
}

/// A PersistentVolume, as a claim sees it.
#[derive(Debug)]
enum Volume {
    Free,
    /// By a claim; its UID is empty where that is still to be created.
    Claimed {
        namespace: String,
        name: String,
        uid: String,
    },
}

/// How the volume of a claim stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ForClaim {
    /// It is not there for the claim.
    No,
    /// It waits for the claim.
    Yes,
    /// It belongs to the claim with this UID; if that is gone, the controller gives it to nobody.
    Of(String),
    /// It may not be looked at.
    Unseen(Refusal),
    /// It may still come.
    NotYet(Refusal),
}

impl Known {
    pub(super) fn is_stuck(&self, namespace: &str) -> bool {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
    }

    /// Takes note of what became of a volume, for its claim. In another cluster, `foreign`, a volume that
    /// is refused for good is not waited for: its claim gets one of that cluster.
    pub(super) fn note(&self, object: &ObjectRef, outcome: &Outcome, foreign: bool) {
        if object.resource == "persistentvolumes" {
            let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Outcome::Failed(refusal) if !foreign || refusal.obstacle.passes() => {
                    awaited.insert(object.name.clone())
                }
                _ => awaited.remove(&object.name),
            };
        }
    }

    /// How the volume that a claim names stands. `foreign`: the backup's volumes are those of another
    /// cluster.
    pub(super) async fn volume_for(
        &self,
        cluster: &Cluster,
        volume: &str,
        claim: &ObjectRef,
        foreign: bool,
    ) -> Result<ForClaim, ApiError> {
        if self.awaited.lock().unwrap_or_else(PoisonError::into_inner).contains(volume) {
            let message = format!("its volume {volume} did not come");
            return Ok(ForClaim::NotYet(Refusal::unsent("VolumeMissing", message)));
        }
        let mut volumes = self.volumes.lock().await;
        if !volumes.contains_key(volume) {
            let Some(name) = segment(volume) else { return Ok(ForClaim::No) };
            match look(cluster, &format!("/api/v1/persistentvolumes/{name}")).await? {
                Ok(found) => volumes.insert(volume.to_owned(), Volume::new(&found)),
                Err(status) => {
                    let refusal = Refusal::new(&KindInfo::named("", "v1", "persistentvolumes"), &status);
                    return Ok(match (status.code, refusal.obstacle) {
                        (404, _) => ForClaim::No,
                        (_, Obstacle::Right) if foreign => ForClaim::No,
                        (_, Obstacle::Right) => ForClaim::Unseen(refusal),
                        _ => ForClaim::NotYet(refusal),
                    });
                }
            };
        }
        Ok(match volumes.get(volume) {
            Some(Volume::Free) => ForClaim::Yes,
            Some(Volume::Claimed { namespace, name, uid })
                if *namespace == claim.namespace && *name == claim.name =>
            {
                if uid.is_empty() {
                    ForClaim::Yes
                } else {
                    ForClaim::Of(uid.clone())
                }
            }
            Some(Volume::Claimed { .. }) | None => ForClaim::No,
        })
    }
}

impl Volume {
    fn new(found: &Value) -> Self {
        let part = |at: &str| text(found, at).to_owned();
        match found.pointer("/spec/claimRef") {
            None => Self::Free,
            Some(_) => Self::Claimed {
                namespace: part("/spec/claimRef/namespace"),
                name: part("/spec/claimRef/name"),
                uid: part("/spec/claimRef/uid"),
            },
        }
    }
}

impl ForClaim {
    /// What the claim that is there now, with this UID, still needs.
    pub(super) fn lacks(self, claim_uid: &str, created: bool) -> Option<Refusal> {
        match self {
            Self::Of(uid) if uid != claim_uid => Some(Refusal::unsent(
                "VolumeReleased",
                "its volume is there and waits for the claim that is gone; restore the volume as well, with \
                 --existing patch"
                    .to_owned(),
            )),
            // Made without its volume it would get an empty one.
            Self::Unseen(refusal) if created => {
                Some(Refusal { reason: "VolumeUnseen".to_owned(), ..refusal })
            }
            _ => None,
        }
    }
}
