//! What the cluster that is restored into serves.

use std::collections::HashMap;

use crate::source::kubernetes::{ApiError, Cluster, KindInfo, discover};

/// The kinds that can be created, by group and plural.
#[derive(Debug, Default)]
pub(super) struct Target {
    served: HashMap<(String, String), Vec<KindInfo>>,
}

impl Target {
    /// Asks the cluster.
    pub(super) async fn read(cluster: &Cluster) -> Result<Self, ApiError> {
        let mut served: HashMap<(String, String), Vec<KindInfo>> = HashMap::new();
        for kind in discover(cluster).await?.served {
            served.entry((kind.group.clone(), kind.plural.clone())).or_default().push(kind);
        }
        Ok(Self { served })
    }

    /// Where a stored kind is created: at its own version, or at the server's first if that is
    /// not served any more.
    pub(super) fn find(&self, stored: &KindInfo) -> Option<&KindInfo> {
        let versions = self.served.get(&(stored.group.clone(), stored.plural.clone()))?;
        versions.iter().find(|kind| kind.version == stored.version).or_else(|| versions.first())
    }
}

/// A name as one segment of a path, or none if no object can have it: the API forbids what would
/// lead elsewhere.
pub(super) fn segment(name: &str) -> Option<String> {
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
    fn no_name_leads_out_of_its_place() {
        for bad in ["", ".", "..", "a/b", "../x", "%2e%2e"] {
            assert_eq!(segment(bad), None, "{bad}");
        }
        assert_eq!(segment("system:node?x=1#y").as_deref(), Some("system:node%3Fx%3D1%23y"));
    }
}
