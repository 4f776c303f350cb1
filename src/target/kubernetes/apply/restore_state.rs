//! State that all creates of a restore share: volumes, and namespaces that stay in deletion.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use serde_json::Value;

use crate::kubernetes::{ApiError, Cluster, KindInfo};
use crate::runtime::lock;
use crate::target::kubernetes::ObjectRef;
use crate::target::kubernetes::cluster_state::look;
use crate::target::kubernetes::object::text;
use crate::target::kubernetes::outcome::{Obstacle, Outcome, Refusal};
use crate::target::kubernetes::served_kinds::segment;

/// State that all creates of a restore share.
#[derive(Debug, Default)]
pub(crate) struct RestoreState {
    /// Existing PersistentVolumes and their claims.
    volumes: tokio::sync::Mutex<HashMap<String, Volume>>,
    /// PersistentVolumes that this restore could not create so far.
    awaited: Mutex<HashSet<String>>,
    /// Namespaces that were not deleted in time.
    pub(crate) stuck: Mutex<HashSet<String>>,
}

/// The availability of a PersistentVolume to claims.
#[derive(Debug)]
enum Volume {
    Free,
    /// Bound or reserved; the UID is empty if the claim is not created yet.
    Claimed {
        namespace: String,
        name: String,
        uid: String,
    },
}

/// The state of the volume that a claim names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForClaim {
    /// It is not available to the claim.
    No,
    /// It is available to the claim.
    Yes,
    /// It belongs to the claim with this UID; if that is gone, the controller does not bind the volume again.
    Of(String),
    /// It may not be read.
    Unseen(Refusal),
    /// It may still be created.
    NotYet(Refusal),
}

impl RestoreState {
    pub(crate) fn is_stuck(&self, namespace: &str) -> bool {
        lock(&self.stuck).contains(namespace)
    }

    /// Records the outcome of a volume for its claim. If the cluster is `foreign`, a volume that is refused
    /// for good is not waited for: its claim gets a volume of that cluster.
    pub(crate) fn note(&self, object: &ObjectRef, outcome: &Outcome, foreign: bool) {
        if object.resource == "persistentvolumes" {
            let mut awaited = lock(&self.awaited);
            match outcome {
                Outcome::Failed(refusal) if !foreign || refusal.obstacle.passes() => {
                    awaited.insert(object.name.clone())
                }
                _ => awaited.remove(&object.name),
            };
        }
    }

    /// Returns the state of the volume that a claim names. `foreign`: the backup's volumes belong to another
    /// cluster.
    pub(crate) async fn volume_for(
        &self,
        cluster: &Cluster,
        volume: &str,
        claim: &ObjectRef,
        foreign: bool,
    ) -> Result<ForClaim, ApiError> {
        if lock(&self.awaited).contains(volume) {
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
    /// Returns what remains to be done for the claim, whose UID is now `claim_uid`.
    pub(crate) fn lacks(self, claim_uid: &str, created: bool) -> Option<Refusal> {
        match self {
            Self::Of(uid) if uid != claim_uid => Some(Refusal::unsent(
                "VolumeReleased",
                "its volume is there and waits for the claim that is gone; restore the volume as well, with \
                 --existing patch"
                    .to_owned(),
            )),
            // Without its volume the new claim would get an empty one.
            Self::Unseen(refusal) if created => {
                Some(Refusal { reason: "VolumeUnseen".to_owned(), ..refusal })
            }
            _ => None,
        }
    }
}
