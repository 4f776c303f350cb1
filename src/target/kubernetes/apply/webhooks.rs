//! Webhooks, and the readiness of the Services behind them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::kubernetes::{ApiError, Cluster, KindInfo};
use crate::target::kubernetes::{each, get_object, path_segment, text};

/// A Service behind a webhook or an APIService.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backend {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service/{}/{}", self.namespace, self.name)
    }
}

impl Backend {
    fn of(service: Option<&Value>) -> Option<Self> {
        let service = service?;
        let part = |pointer: &str| Some(text(service, pointer).to_owned()).filter(|text| !text.is_empty());
        Some(Self { namespace: part("/namespace")?, name: part("/name")? })
    }

    /// True if the Service has a ready endpoint, or if endpoints may not be read.
    pub(crate) async fn is_ready(&self, cluster: &Cluster) -> Result<bool, ApiError> {
        let (Some(namespace), Some(name)) = (path_segment(&self.namespace), path_segment(&self.name)) else {
            return Ok(false);
        };
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        let query = format!("limit=100&labelSelector=kubernetes.io%2Fservice-name%3D{name}");
        match cluster.get(&path, &query, 16 << 20).await {
            Ok(answer) => {
                let slices: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let ready =
                    |endpoint: &Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
                Ok(each(&slices, "/items").any(|slice| each(slice, "/endpoints").any(ready)))
            }
            Err(error) => error.refusal().map(|_| true),
        }
    }
}

/// Returns the Services that `object` sends requests to and that must answer, each once. Without them it would
/// refuse other writes.
pub(crate) fn backends(kind: &KindInfo, object: &Value) -> BTreeSet<Backend> {
    match kind.group.as_str() {
        "apiregistration.k8s.io" => Backend::of(object.pointer("/spec/service")).into_iter().collect(),
        "admissionregistration.k8s.io" => each(object, "/webhooks")
            .filter(|hook| text(hook, "/failurePolicy") != "Ignore")
            .filter_map(|hook| Backend::of(hook.pointer("/clientConfig/service")))
            .collect(),
        _ => BTreeSet::new(),
    }
}

/// Webhooks of the cluster that refuse all matching writes, because their Service does not answer.
#[derive(Debug, Default)]
pub(crate) struct UnreachableWebhooks(Vec<(String, Vec<Value>)>);

impl UnreachableWebhooks {
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self, ApiError> {
        let (mut dead, mut known) = (Vec::new(), BTreeMap::new());
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
            let Ok(all) = get_object(cluster, &path).await? else { continue };
            for hook in each(&all, "/items").flat_map(|config| each(config, "/webhooks")) {
                let Some(backend) = Backend::of(hook.pointer("/clientConfig/service")) else { continue };
                if text(hook, "/failurePolicy") == "Ignore" {
                    continue;
                }
                let is_ready = match known.get(&backend) {
                    Some(is_ready) => *is_ready,
                    None => backend.is_ready(cluster).await?,
                };
                known.insert(backend, is_ready);
                if !is_ready {
                    let rules = each(hook, "/rules").cloned().collect();
                    dead.push((text(hook, "/name").to_owned(), rules));
                }
            }
        }
        Ok(Self(dead))
    }

    /// Returns the first that is called when an object of `kind` is created.
    pub(crate) fn first_called(&self, kind: &KindInfo) -> Option<&str> {
        let has = |rule: &Value, field: &str, value: &str| {
            each(rule, field).any(|one| one == value || one == "*" || one == "*/*")
        };
        let asked = |rule: &Value| {
            has(rule, "/apiGroups", &kind.group)
                && has(rule, "/apiVersions", &kind.version)
                && has(rule, "/resources", &kind.plural)
                && has(rule, "/operations", "CREATE")
        };
        self.0.iter().find(|(_, rules)| rules.iter().any(asked)).map(|(name, _)| name.as_str())
    }
}
