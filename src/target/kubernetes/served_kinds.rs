//! The kinds that the target cluster serves.

use std::collections::HashMap;

use crate::kubernetes::{ApiError, Cluster, KindInfo, discover};
use crate::target::kubernetes::change::{Moved, moved};

/// The kinds that can be created, by group and plural.
#[derive(Debug, Default)]
pub(crate) struct Target {
    served: HashMap<(String, String), Vec<KindInfo>>,
}

impl Target {
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
    pub(crate) fn find(&self, stored: &KindInfo) -> Option<Place<'_>> {
        if let Some(kind) = self.at(&stored.group, &stored.version, &stored.plural) {
            return Some(Place { kind, moved: None });
        }
        if let Some(moved) = moved(&stored.group, &stored.version, &stored.plural)
            && let Some(kind) = self.at(moved.group, moved.version, &stored.plural)
        {
            return Some(Place { kind, moved: Some(moved) });
        }
        let versions = self.served.get(&(stored.group.clone(), stored.plural.clone()))?;
        versions.first().map(|kind| Place { kind, moved: None })
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
    pub(crate) fn named(&self, api_version: &str, kind: &str) -> Option<&KindInfo> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let same = self.served.values().flatten().filter(|one| one.kind == kind && one.group == group);
        same.max_by_key(|one| one.api_version() == api_version)
    }

    fn at(&self, group: &str, version: &str, plural: &str) -> Option<&KindInfo> {
        let versions = self.served.get(&(group.to_owned(), plural.to_owned()))?;
        versions.iter().find(|kind| kind.version == version)
    }
}

/// The place of a kind in the target's API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The kind as it is served.
    pub(crate) kind: &'a KindInfo,
    /// The conversion, if the kind moved.
    pub(crate) moved: Option<Moved>,
}

/// Escapes a name as one path segment. None if no object can have it: the API forbids names that could lead
/// elsewhere.
pub(crate) fn segment(name: &str) -> Option<String> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) || name.len() > 253 {
        return None;
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(segment)
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn names_that_leave_their_path_are_rejected() {
        for bad in ["", ".", "..", "a/b", "../x", "%2e%2e"] {
            assert_eq!(segment(bad), None, "{bad}");
        }
        assert_eq!(segment("system:node?x=1#y").as_deref(), Some("system:node%3Fx%3D1%23y"));
    }
}
