//! State that all creates of a restore share: volumes, and namespaces that stay in deletion.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use serde_json::Value;

use crate::kubernetes::{ApiError, Cluster, KindInfo};
use crate::runtime::lock;
use crate::target::kubernetes::{
    ObjectRef, Outcome, Refusal, RefusalCause, VOLUME_IN_USE, annotation,
    change::{WITHOUT_DATA, clear_volume_name, mark_without_data},
    get_object, path_segment, text,
};

#[derive(Debug, Default)]
pub(crate) struct RestoreState {
    /// PersistentVolumes of the snapshot that could be restored and are not selected.
    left_out: HashSet<String>,
    /// Existing PersistentVolumes and their claims.
    volumes: tokio::sync::Mutex<HashMap<String, VolumeBinding>>,
    /// PersistentVolumes that this restore could not create so far.
    missing: Mutex<HashSet<String>>,
    /// Namespaces that were not deleted in time.
    terminating: Mutex<HashSet<String>>,
}

/// The reason of a claim that is restored without its data.
pub const NO_DATA: &str = "NoData";

#[derive(Debug)]
enum VolumeBinding {
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
pub(crate) enum ClaimVolume {
    /// It is not available to the claim, which gets an empty one. `is_left_out`: the snapshot holds it, and it
    /// is not selected.
    Unavailable { volume: String, is_left_out: bool },
    /// It is available to the claim.
    Available,
    /// It belongs to the claim with this UID; if that is gone, the controller does not bind the volume again.
    BoundTo(String),
    /// It may not be read.
    Unreadable(Refusal),
    /// It may still be created.
    Pending(Refusal),
}

impl RestoreState {
    /// Returns the state before a restore; `left_out` are restorable volumes that are not selected, and
    /// `can_select` is true if their selection would restore them.
    pub(crate) fn new(left_out: HashSet<String>, can_select: bool) -> Self {
        Self { left_out: if can_select { left_out } else { HashSet::new() }, ..Self::default() }
    }

    /// Records a volume that a restore will create, for the plan.
    pub(crate) async fn expect_volume(&self, name: &str, body: &Value) {
        self.volumes.lock().await.insert(name.to_owned(), VolumeBinding::new(body));
    }

    /// Returns the state of the volume that a claim names, and removes an unavailable one from the claim.
    pub(crate) async fn claim_volume(
        &self,
        cluster: &Cluster,
        body: &mut Value,
        object: &ObjectRef,
        foreign: bool,
    ) -> Result<ClaimVolume, ApiError> {
        let volume = text(body, "/spec/volumeName").to_owned();
        if object.resource != "persistentvolumeclaims" || volume.is_empty() {
            return Ok(ClaimVolume::Available);
        }
        let volume = self.volume_for(cluster, &volume, object, foreign).await?;
        if matches!(volume, ClaimVolume::Unavailable { .. }) {
            clear_volume_name(body);
        }
        Ok(volume)
    }

    fn unavailable(&self, volume: &str) -> ClaimVolume {
        let is_left_out = self.left_out.contains(volume);
        ClaimVolume::Unavailable { volume: volume.to_owned(), is_left_out }
    }

    pub(super) fn add_terminating(&self, namespaces: &HashSet<String>) {
        lock(&self.terminating).extend(namespaces.iter().cloned());
    }

    pub(super) fn is_terminating(&self, namespace: &str) -> bool {
        lock(&self.terminating).contains(namespace)
    }

    /// Records the outcome of a volume for its claim. If the cluster is `foreign`, a volume that is refused
    /// for good is not waited for: its claim gets a volume of that cluster.
    pub(crate) fn record(&self, object: &ObjectRef, outcome: &Outcome, foreign: bool) {
        if object.resource == "persistentvolumes" {
            let mut missing = lock(&self.missing);
            match outcome {
                // It stays with its claim, so the restored one is not made to wait for it.
                Outcome::Failed(refusal) if refusal.reason == VOLUME_IN_USE => missing.remove(&object.name),
                Outcome::Failed(refusal) if !foreign || refusal.cause.is_transient() => {
                    missing.insert(object.name.clone())
                }
                _ => missing.remove(&object.name),
            };
        }
    }

    /// Returns the state of the volume that a claim names. `foreign`: the backup's volumes belong to another
    /// cluster.
    async fn volume_for(
        &self,
        cluster: &Cluster,
        volume: &str,
        claim: &ObjectRef,
        foreign: bool,
    ) -> Result<ClaimVolume, ApiError> {
        if lock(&self.missing).contains(volume) {
            let message = format!("its volume {volume} was not restored");
            return Ok(ClaimVolume::Pending(Refusal::not_sent("VolumeMissing", message)));
        }
        let mut volumes = self.volumes.lock().await;
        if !volumes.contains_key(volume) {
            let Some(name) = path_segment(volume) else { return Ok(self.unavailable(volume)) };
            match get_object(cluster, &format!("/api/v1/persistentvolumes/{name}")).await? {
                Ok(found) => volumes.insert(volume.to_owned(), VolumeBinding::new(&found)),
                Err(status) => {
                    let refusal =
                        Refusal::new(&KindInfo::from_path_parts("", "v1", "persistentvolumes"), &status);
                    return Ok(match (status.code, refusal.cause) {
                        (404, _) => self.unavailable(volume),
                        (_, RefusalCause::Right) if foreign => self.unavailable(volume),
                        (_, RefusalCause::Right) => ClaimVolume::Unreadable(refusal),
                        _ => ClaimVolume::Pending(refusal),
                    });
                }
            };
        }
        Ok(match volumes.get(volume) {
            Some(VolumeBinding::Free) => ClaimVolume::Available,
            Some(VolumeBinding::Claimed { namespace, name, uid })
                if *namespace == claim.namespace && *name == claim.name =>
            {
                if uid.is_empty() {
                    ClaimVolume::Available
                } else {
                    ClaimVolume::BoundTo(uid.clone())
                }
            }
            // To select the volume as well would not help: it stays with its claim.
            Some(VolumeBinding::Claimed { uid, .. }) if !uid.is_empty() => {
                ClaimVolume::Unavailable { volume: volume.to_owned(), is_left_out: false }
            }
            Some(VolumeBinding::Claimed { .. }) | None => self.unavailable(volume),
        })
    }
}

impl VolumeBinding {
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

impl ClaimVolume {
    /// Marks a claim that is to be created and gets an empty volume, so that later runs name it, too.
    pub(crate) fn mark(&self, claim: &mut Value) {
        if let Self::Unavailable { volume, .. } = self {
            mark_without_data(claim, volume);
        }
    }

    /// Returns what remains to be done for a claim that exists: also what an earlier restore left undone.
    pub(crate) fn remaining_work_of_existing(self, existing: &Value, object: &ObjectRef) -> Option<Refusal> {
        if let Some(volume) = annotation(existing, WITHOUT_DATA)
            && object.resource == "persistentvolumeclaims"
        {
            let (namespace, name) = (&object.namespace, &object.name);
            let what = format!(
                "a restore made it without the data of {volume}; when its data is there: kubectl annotate pvc -n \
                 {namespace} {name} {WITHOUT_DATA}-"
            );
            return Some(Refusal::not_sent(NO_DATA, what));
        }
        self.remaining_work(text(existing, "/metadata/uid"), false)
    }

    /// Returns what remains to be done for the claim, whose UID is now `claim_uid`.
    pub(crate) fn remaining_work(self, claim_uid: &str, created: bool) -> Option<Refusal> {
        match self {
            Self::BoundTo(uid) if uid != claim_uid => Some(Refusal::not_sent(
                "VolumeReleased",
                "its volume exists and is bound to the deleted claim; restore the volume as well, with \
                 --existing patch",
            )),
            Self::Unavailable { volume, is_left_out } if created => {
                let what = match is_left_out {
                    true => format!(
                        "it gets an empty volume: its own, {volume}, is in the snapshot and is not selected (--object \
                         persistentvolumes/{volume} selects it)"
                    ),
                    false => format!(
                        "it gets an empty volume: the data of {volume} is not restored with the resources"
                    ),
                };
                Some(Refusal::not_sent(NO_DATA, what))
            }
            // Without its volume the new claim would get an empty one.
            Self::Unreadable(refusal) if created => {
                Some(Refusal { reason: "VolumeUnseen".to_owned(), ..refusal })
            }
            _ => None,
        }
    }
}
