//! The caller's own rights, as the API server reviews them.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{ApiError, Cluster};

/// The path at which a caller asks for their own rights.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The use of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Access {
    /// The verb: `create`.
    pub verb: &'static str,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource's name in paths: `deployments`.
    pub plural: String,
    /// The namespace; empty for all of them, and for resources without namespaces.
    pub namespace: String,
}

#[derive(Deserialize)]
struct AccessReview {
    status: AccessStatus,
}

#[derive(Deserialize)]
struct AccessStatus {
    allowed: bool,
}

/// Returns true if the caller has the right. Fails with [`ApiError`] if the server does not answer that.
pub async fn is_allowed(cluster: &Cluster, access: &Access) -> Result<bool, ApiError> {
    let Access { verb, group, plural, namespace } = access;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": plural, "namespace": namespace}},
    });
    let body = Bytes::from(review.to_string());
    let answer = cluster.send(Method::POST, REVIEWS, "", "application/json", body).await?;
    let review = serde_json::from_slice::<AccessReview>(&answer.body)
        .map_err(|_| cluster.malformed(REVIEWS, "it is no review of access"))?;
    Ok(review.status.allowed)
}
