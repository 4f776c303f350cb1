//! The rights of the user who restores, as the server reviews them.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::kubernetes::{Access, ApiError, Cluster, KindInfo, is_allowed};
use crate::target::kubernetes::{Refusal, RefusalCause};

/// The most rights that are asked for; further ones count as given, and the restore finds out.
const MAX_REVIEWS: usize = 10_000;

/// Rights, each asked for once.
#[derive(Debug, Default)]
pub(super) struct Rights(Mutex<HashMap<Access, bool>>);

impl Rights {
    /// Returns a refusal if the user may not use a verb on objects of a kind in a namespace. A right that the server
    /// does not review counts as given.
    pub(super) async fn refusal(
        &self,
        cluster: &Cluster,
        verb: &'static str,
        kind: &KindInfo,
        namespace: &str,
    ) -> Result<Option<Refusal>, ApiError> {
        let access = |namespace: &str| Access {
            verb,
            group: kind.group.clone(),
            plural: kind.plural.clone(),
            namespace: namespace.to_owned(),
        };
        // Most users have a right in all namespaces or in few.
        if self.has(cluster, access("")).await?
            || (!namespace.is_empty() && self.has(cluster, access(namespace)).await?)
        {
            return Ok(None);
        }
        let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
        let message = format!("the user who restores may not {verb} {}{place}", kind.resource());
        let refusal = Refusal::not_sent("Forbidden", message).with_cause(RefusalCause::Right);
        Ok(Some(Refusal { code: 403, ..refusal }))
    }

    async fn has(&self, cluster: &Cluster, access: Access) -> Result<bool, ApiError> {
        // Held while the server is asked, so that many objects of a kind ask once.
        let mut known = self.0.lock().await;
        if let Some(allowed) = known.get(&access) {
            return Ok(*allowed);
        }
        if known.len() >= MAX_REVIEWS {
            return Ok(true);
        }
        let allowed = match is_allowed(cluster, &access).await {
            Ok(allowed) => allowed,
            Err(error) => error.refusal().map(|_| true)?,
        };
        known.insert(access, allowed);
        Ok(allowed)
    }
}
