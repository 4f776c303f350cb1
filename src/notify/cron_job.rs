//! Events on the CronJob that started a run, as `kubectl describe cronjob` shows them.

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{NoticeLimits, RunEnd, Unsent, content};
use crate::kubernetes::{Access, ApiError, Cluster, RequestLimits, is_allowed};
use crate::plan::ClusterSpec;
use crate::report::error::causes;
use crate::report::event::Reporter;
use crate::report::outcome::Outcome;
use crate::report::text::plain;

/// The largest CronJob, in bytes: etcd takes no more.
const MAX_OBJECT: usize = 2 << 20;

/// The longest message of an Event, in bytes.
const MAX_MESSAGE: usize = 1024;

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

/// A reason why no Event can be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsRefused {
    /// The failure with its causes, in one line.
    pub message: String,
    /// The rules to add, if a right is missing.
    pub remedy: Option<String>,
}

impl CronJobEvents {
    /// Tries what an Event needs, without creating one: reads the CronJob, and asks whether Events may be created.
    ///
    /// # Errors
    /// [`EventsRefused`]
    pub async fn try_rights(&self, limits: NoticeLimits) -> Result<(), EventsRefused> {
        let refused = |message, remedy| EventsRefused { message, remedy };
        let tried = async {
            let (cluster, namespace, _) = self.find(limits).await?;
            let events =
                Access { verb: "create", group: String::new(), plural: "events".to_owned(), namespace };
            is_allowed(&cluster, &events).await
        };
        match timeout(limits.total, tried).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(refused("may not create events".to_owned(), Some(self.rules()))),
            Ok(Err(error)) => Err(refused(causes(&error), self.rule(&error))),
            Err(_) => Err(refused(format!("no answer within {:?}", limits.total), None)),
        }
    }

    /// Creates the Event. It needs `get` of the CronJob, whose UID an Event names, and `create` of Events.
    pub(super) async fn send(&self, end: RunEnd<'_>, limits: NoticeLimits) -> Result<(), Unsent> {
        let unsent = |message, remedy| Unsent { receiver: format!("CronJob {}", self.name), message, remedy };
        match timeout(limits.total, self.create(end, limits)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unsent(causes(&error), self.rule(&error))),
            Err(_) => Err(unsent(format!("no answer within {:?}", limits.total), None)),
        }
    }

    /// Returns the connection, the namespace and the UID of the CronJob.
    async fn find(&self, limits: NoticeLimits) -> Result<(Cluster, String, String), ApiError> {
        let request_limits =
            RequestLimits { answer: limits.answer, tries: limits.tries, ..RequestLimits::default() };
        let cluster = Cluster::connect(self.cluster.as_ref(), request_limits, &Reporter::silent()).await?;
        let namespace = cluster.namespace().to_owned();
        let path = format!("/apis/batch/v1/namespaces/{namespace}/cronjobs/{}", self.name);
        let found = cluster.get(&path, "", MAX_OBJECT).await?;
        let found: CronJob = serde_json::from_slice(&found.body)
            .map_err(|_| cluster.malformed(&path, "it is no CronJob with a UID"))?;
        Ok((cluster, namespace, found.metadata.uid))
    }

    async fn create(&self, end: RunEnd<'_>, limits: NoticeLimits) -> Result<(), ApiError> {
        let (cluster, namespace, uid) = self.find(limits).await?;
        let event = self.event(end, &namespace, &uid);
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let sent =
            cluster.send(Method::POST, &path, "", "application/json", Bytes::from(event.to_string())).await;
        match sent {
            // The answer to the first try was lost.
            Err(error) if error.repeated && error.code() == Some(409) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Returns the Event. It has counts and no names, because more people may read Events than logs; but it names
    /// changed owners, whom the plan names, too: an owner who was added unnoticed could read coming backups.
    fn event(&self, end: RunEnd<'_>, namespace: &str, uid: &str) -> serde_json::Value {
        let (kind, reason) = match end.report.exit {
            Outcome::Safe => ("Normal", "BackupComplete"),
            Outcome::Partial => ("Warning", "BackupPartial"),
            Outcome::Interrupted => ("Warning", "BackupInterrupted"),
            _ => ("Warning", "BackupFailed"),
        };
        let owners = end.report.facts_named("owners").map(|text| format!("; owners: {}", plain(text)));
        let mut message = content::summary(end) + &owners.collect::<String>();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        // Events have times in whole seconds.
        let at = Timestamp::from_second(end.report.finished.as_second()).unwrap_or(end.report.finished);
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{}.{}", self.name, self.id), "namespace": namespace},
            "involvedObject": {
                "apiVersion": "batch/v1", "kind": "CronJob",
                "name": self.name, "namespace": namespace, "uid": uid,
            },
            "type": kind, "reason": reason, "message": message,
            "source": {"component": "kbak", "host": self.host},
            "reportingComponent": "kbak", "reportingInstance": self.host,
            "firstTimestamp": at.to_string(), "lastTimestamp": at.to_string(), "count": 1,
        })
    }

    /// Returns the rules to add, if a right is missing.
    fn rule(&self, error: &ApiError) -> Option<String> {
        (error.code() == Some(403)).then(|| self.rules())
    }

    fn rules(&self) -> String {
        format!(
            "add to a Role of this namespace: {{apiGroups: [\"\"], resources: [events], verbs: [create]}} and \
             {{apiGroups: [batch], resources: [cronjobs], resourceNames: [{}], verbs: [get]}}",
            self.name
        )
    }
}
