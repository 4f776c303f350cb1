//! Pods that never begin: the Job's events or the pod's state name the obstacle, and the run succeeds when it is
//! gone.

use std::time::Duration;

use serde_json::{Value, json};

use super::installed::Installed;
use crate::support::control_plane::{create, delete, get};
use crate::support::wait::until;

/// An obstacle: the path and object that make it, or values of the chart, and the words that name it.
struct Obstacle {
    name: &'static str,
    made: Option<(&'static str, Value)>,
    values: &'static [&'static str],
    reason: &'static str,
}

fn obstacles() -> Vec<Obstacle> {
    let limits = json!([{"type": "Container", "max": {"memory": "128Mi"}}]);
    // Nothing answers there.
    let hook = json!({
        "name": "pods.demo.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "failurePolicy": "Fail", "clientConfig": {"url": "https://192.0.2.1:9/"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kbak"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    });
    vec![
        Obstacle {
            name: "quota",
            made: Some(("/api/v1/namespaces/kbak/resourcequotas", json!({"spec": {"hard": {"pods": "0"}}}))),
            values: &[],
            reason: "exceeded quota",
        },
        Obstacle {
            name: "limits",
            made: Some(("/api/v1/namespaces/kbak/limitranges", json!({"spec": {"limits": limits}}))),
            values: &[],
            reason: "maximum memory usage per Container is 128Mi",
        },
        Obstacle {
            name: "webhook",
            made: Some((
                "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
                json!({"webhooks": [hook]}),
            )),
            values: &[],
            reason: "failed calling webhook",
        },
        Obstacle {
            name: "pod-security",
            made: None,
            values: &["extraVolumes[0].name=host", "extraVolumes[0].hostPath.path=/"],
            reason: "violates PodSecurity \"restricted:latest\"",
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_that_never_begin_are_explained_and_run_when_the_obstacle_is_gone() {
    let Some(kbak) = Installed::start().await else { return };
    for obstacle in obstacles() {
        forbidden(&kbak, obstacle).await;
    }
    image_that_cannot_be_pulled(&kbak).await;
}

/// The Job has no pod, and an event with the reason.
async fn forbidden(kbak: &Installed, obstacle: Obstacle) {
    let Obstacle { name, made, values, reason } = obstacle;
    kbak.helm("upgrade", values);
    if let Some((path, mut object)) = made.clone() {
        object["metadata"] = json!({"name": name});
        create(&kbak.cluster, path, object).await;
    }
    kbak.start_job("backup", name).await;
    let message = refusal(kbak, name).await;
    assert!(message.contains(reason), "{name}: {message}");
    let job = get(&kbak.cluster, &format!("/apis/batch/v1/namespaces/kbak/jobs/{name}")).await;
    assert!(kbak.pods(name).await.is_empty() && job["status"]["conditions"].is_null(), "{name}: {job:#}");
    if let Some((path, _)) = made {
        // The Job goes on by itself.
        delete(&kbak.cluster, &format!("{path}/{name}")).await;
        assert!(kbak.ended(name).await, "{name}");
    } else {
        kbak.delete_job(name).await;
    }
}

/// Waits for the event of a Job whose pod is refused, which `kubectl describe job` shows.
async fn refusal(kbak: &Installed, job: &str) -> String {
    for _ in 0..600 {
        let events = get(&kbak.cluster, "/api/v1/namespaces/kbak/events").await;
        let mut events = events["items"].as_array().expect("items").iter();
        let of_job =
            |event: &&Value| event["involvedObject"]["name"] == job && event["reason"] == "FailedCreate";
        if let Some(event) = events.find(of_job) {
            return event["message"].as_str().expect("a message").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no event says why {job} has no pod");
}

/// The pod waits with the reason, until its deadline ends it.
async fn image_that_cannot_be_pulled(kbak: &Installed) {
    let deadline = "backup.activeDeadlineSeconds=10";
    kbak.helm(
        "upgrade",
        &[
            "image.repository=kbak.test/absent",
            "image.pullPolicy=IfNotPresent",
            "backup.backoffLimit=0",
            deadline,
        ],
    );
    kbak.start_job("backup", "no-image").await;
    let query = "/api/v1/namespaces/kbak/pods";
    let waiting =
        |pods: &Value| waiting_reason(pods, "no-image").is_some_and(|why| why.contains("ImagePull"));
    until(&kbak.cluster, query, waiting).await;
    assert!(!kbak.ended("no-image").await);
    let pods = kbak.pods("no-image").await;
    assert_eq!((pods.len(), pods[0]["status"]["reason"].as_str()), (1, Some("DeadlineExceeded")));
}

/// Returns the reason why the pod of a Job waits.
fn waiting_reason<'a>(pods: &'a Value, job: &str) -> Option<&'a str> {
    let mut pods = pods["items"].as_array()?.iter();
    let pod = pods.find(|pod| pod["metadata"]["labels"]["job-name"] == job)?;
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str()
}
