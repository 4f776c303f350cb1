//! The kinds that the target cluster serves.

use std::collections::HashMap;

use super::change::{ApiMove, api_move};
use crate::kubernetes::{ApiError, Cluster, KindInfo, discover};

/// The kinds that can be created, by group and plural.
#[derive(Debug, Default)]
pub(crate) struct ServedKinds {
    served: HashMap<(String, String), Vec<KindInfo>>,
}

impl ServedKinds {
    /// Reads the served kinds from the cluster.
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self, ApiError> {
        let mut served: HashMap<(String, String), Vec<KindInfo>> = HashMap::new();
        for kind in discover(cluster).await?.served {
            served.entry((kind.group.clone(), kind.plural.clone())).or_default().push(kind);
        }
        Ok(Self { served })
    }

    /// Finds the kind for a stored one: in its own version, in the version it moved to, or in the server's
    /// first.
    pub(crate) fn find(&self, stored: &KindInfo) -> Option<ServedKind<'_>> {
        if let Some(kind) = self.find_exact(&stored.group, &stored.version, &stored.plural) {
            return Some(ServedKind { kind, api_move: None });
        }
        if let Some(moved) = api_move(&stored.group, &stored.version, &stored.plural)
            && let Some(kind) = self.find_exact(moved.group, moved.version, &stored.plural)
        {
            return Some(ServedKind { kind, api_move: Some(moved) });
        }
        let versions = self.served.get(&(stored.group.clone(), stored.plural.clone()))?;
        versions.first().map(|kind| ServedKind { kind, api_move: None })
    }

    /// Returns the version in which a kind is served, if `api_version` is not.
    pub(crate) fn version_of(&self, api_version: &str, kind: &str) -> Option<String> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let mut same = self.served.values().flatten().filter(|served| served.kind == kind);
        if same.clone().any(|served| served.api_version() == api_version) {
            return None;
        }
        let of_group = same.clone().find(|served| served.group == group);
        // Built-in kinds moved from one group to another.
        let moved = same.find(|served| !group.contains('.') && !served.group.contains('.'));
        of_group.or(moved).map(KindInfo::api_version)
    }

    /// Finds the kind that an owner reference names.
    pub(crate) fn find_by_kind(&self, api_version: &str, kind: &str) -> Option<&KindInfo> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let same = self.served.values().flatten().filter(|one| one.kind == kind && one.group == group);
        same.max_by_key(|one| one.api_version() == api_version)
    }

    fn find_exact(&self, group: &str, version: &str, plural: &str) -> Option<&KindInfo> {
        let versions = self.served.get(&(group.to_owned(), plural.to_owned()))?;
        versions.iter().find(|kind| kind.version == version)
    }
}

/// The place of a kind in the target's API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedKind<'a> {
    /// The kind as it is served.
    pub(crate) kind: &'a KindInfo,
    /// The conversion, if the kind moved.
    pub(crate) api_move: Option<ApiMove>,
}
