//! Events on the CronJob that started a run, as `kubectl describe cronjob` shows them.

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{NoticeLimits, RunEnd, Unsent, content};
use crate::kubernetes::{ApiError, Cluster, RequestLimits};
use crate::plan::ClusterSpec;
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::report::outcome::Outcome;

/// The largest CronJob, in bytes: etcd takes no more.
const MAX_OBJECT: usize = 2 << 20;

/// The CronJob that gets an Event at the end of each run.
#[derive(Debug, Clone)]
pub struct CronJobEvents {
    /// The CronJob's name. Its namespace is that of the pod, or of the context.
    pub name: String,
    /// The access to the cluster.
    pub cluster: Option<ClusterSpec>,
    /// The pod, which the Event names as its source.
    pub host: String,
    /// A text that no other run has, for the Event's name.
    pub id: String,
}

#[derive(Deserialize)]
struct CronJob {
    metadata: CronJobMetadata,
}

#[derive(Deserialize)]
struct CronJobMetadata {
    uid: String,
}

impl CronJobEvents {
    /// Creates the Event. It needs `get` of the CronJob, whose UID an Event names, and `create` of Events.
    pub(super) async fn send(&self, end: RunEnd<'_>, limits: NoticeLimits) -> Result<(), Unsent> {
        let unsent = |message, remedy| Unsent { receiver: format!("CronJob {}", self.name), message, remedy };
        match timeout(limits.total, self.create(end, limits)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unsent(causes(&error), self.rule(&error))),
            Err(_) => Err(unsent(format!("no answer within {:?}", limits.total), None)),
        }
    }

    async fn create(&self, end: RunEnd<'_>, limits: NoticeLimits) -> Result<(), ApiError> {
        let request_limits =
            RequestLimits { answer: limits.answer, tries: limits.tries, ..RequestLimits::default() };
        let cluster = Cluster::connect(self.cluster.as_ref(), request_limits, &Reporter::silent()).await?;
        let namespace = cluster.namespace().to_owned();
        let path = format!("/apis/batch/v1/namespaces/{namespace}/cronjobs/{}", self.name);
        let found = cluster.get(&path, "", MAX_OBJECT).await?;
        let found: CronJob = serde_json::from_slice(&found.body)
            .map_err(|_| cluster.malformed(&path, "it is no CronJob with a UID"))?;
        let event = self.event(end, &namespace, &found.metadata.uid);
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let sent =
            cluster.send(Method::POST, &path, "", "application/json", Bytes::from(event.to_string())).await;
        match sent {
            // The answer to the first try was lost.
            Err(error) if error.repeated && error.code() == Some(409) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Returns the Event. It has counts and no names, because more people may read Events than logs.
    fn event(&self, end: RunEnd<'_>, namespace: &str, uid: &str) -> serde_json::Value {
        let (kind, reason) = match end.report.exit {
            Outcome::Safe => ("Normal", "BackupComplete"),
            Outcome::Partial => ("Warning", "BackupPartial"),
            Outcome::Interrupted => ("Warning", "BackupInterrupted"),
            _ => ("Warning", "BackupFailed"),
        };
        // Events have times in whole seconds.
        let at = Timestamp::from_second(end.report.finished.as_second()).unwrap_or(end.report.finished);
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}.{}", self.name, self.id), "namespace": namespace},
            "involvedObject": {
                "apiVersion": "batch/v1", "kind": "CronJob",
                "name": self.name, "namespace": namespace, "uid": uid,
            },
            "type": kind, "reason": reason, "message": content::summary(end),
            "source": {"component": "kbak", "host": self.host},
            "reportingComponent": "kbak", "reportingInstance": self.host,
            "firstTimestamp": at.to_string(), "lastTimestamp": at.to_string(), "count": 1,
        })
    }

    /// Returns the rules to add, if a right is missing.
    fn rule(&self, error: &ApiError) -> Option<String> {
        (error.code() == Some(403)).then(|| {
            format!(
                "add to a Role of this namespace: {{apiGroups: [\"\"], resources: [events], verbs: [create]}} and \
                 {{apiGroups: [batch], resources: [cronjobs], resourceNames: [{}], verbs: [get]}}",
                self.name
            )
        })
    }
}
