//! The configuration of other backup tools: schedules of Velero and K8up, annotations of pods, and CronJobs
//! that dump a database. Commands are never kept, because they may contain a password.

mod dump_cron_jobs;
mod schedules;

use std::collections::BTreeMap;

pub use dump_cron_jobs::DumpCronJob;
use dump_cron_jobs::{dump_tool_in, to_dump_cron_job};
pub use schedules::{
    HookName, K8upSchedule, KubernetesSelector, SelectorTerm, VeleroHooks, VeleroSchedule, VeleroTemplate,
};
use schedules::{to_k8up_schedule, to_velero_schedule};

use super::bounded_list::{Form, ListScope};
use super::object_parts::MetadataOnly;
use super::tool_annotations;
use crate::kubernetes::{ApiError, Cluster, KindInfo, discover};
use crate::report::coverage::UnreadResource;

/// The configuration of other backup tools in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolConfigs {
    /// Schedules of Velero.
    pub velero: Vec<VeleroSchedule>,
    /// Schedules of K8up.
    pub k8up: Vec<K8upSchedule>,
    /// Pods with annotations of either tool, one for each set of annotations in a namespace.
    pub pods: Vec<AnnotatedPod>,
    /// CronJobs that dump a database.
    pub dumps: Vec<DumpCronJob>,
    /// Resources that could not be read, or not to the end.
    pub unread: Vec<UnreadResource>,
}

/// A pod with annotations of a backup tool; it stands for all pods with the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotatedPod {
    /// The pods' namespace.
    pub namespace: String,
    /// The name of one of the pods.
    pub pod: String,
    /// The annotations. Those with a command have an empty value.
    pub annotations: BTreeMap<String, String>,
    /// The dump tool in a command, if there is one.
    pub dump_tool: Option<&'static str>,
}

/// Reads the configuration of other backup tools. Fails if the kinds of the cluster cannot be discovered.
pub async fn read_tool_configs(cluster: &Cluster) -> Result<ToolConfigs, ApiError> {
    let mut configs = ToolConfigs::default();
    let scope = ListScope { cluster, namespaces: &[] };
    let unread = &mut configs.unread;
    for kind in &discover(cluster).await?.kinds {
        match (kind.group.as_str(), kind.plural.as_str()) {
            ("velero.io", "schedules") => {
                configs.velero = scope.read(kind, Form::Whole, unread, to_velero_schedule).await;
            }
            ("k8up.io", "schedules") => {
                configs.k8up = scope.read(kind, Form::Whole, unread, to_k8up_schedule).await;
            }
            _ => {}
        }
    }
    let pods = KindInfo::from_path_parts("", "v1", "pods");
    configs.pods = scope.read(&pods, Form::Metadata, unread, annotated_pod).await;
    // The pods of one workload have the same annotations.
    let key = |pod: &AnnotatedPod| (pod.namespace.clone(), pod.annotations.clone(), pod.pod.clone());
    configs.pods.sort_by_cached_key(key);
    configs.pods.dedup_by(|a, b| (&a.namespace, &a.annotations) == (&b.namespace, &b.annotations));
    let cron_jobs = KindInfo::from_path_parts("batch", "v1", "cronjobs");
    configs.dumps = scope.read(&cron_jobs, Form::Whole, unread, to_dump_cron_job).await;
    Ok(configs)
}

fn annotated_pod(object: MetadataOnly) -> Option<AnnotatedPod> {
    let mut annotations = tool_annotations(&object.metadata.annotations);
    let mut dump_tool = None;
    for (key, value) in &mut annotations {
        if key.ends_with("command") {
            dump_tool = dump_tool.or(dump_tool_in(value));
            value.clear();
        }
    }
    let (namespace, pod) = (object.metadata.namespace, object.metadata.name);
    (!annotations.is_empty()).then_some(AnnotatedPod { namespace, pod, annotations, dump_tool })
}
