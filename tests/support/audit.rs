//! The API server's log of requests (`--audit` of tests/cluster), as rights name them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kbak::kubernetes::Cluster;
use serde_json::Value;

/// A verb on a kind: `("list", "apps", "deployments")`. A subresource is part of the plural.
pub type Right = (String, String, String);

/// The requests of an account.
#[derive(Debug, Default)]
pub struct Requests {
    /// The rights of all requests that were allowed.
    pub used: BTreeSet<Right>,
    /// The requests that were forbidden.
    pub forbidden: BTreeSet<(Right, String)>,
}

/// Returns the requests of an account so far, also of those who act as it.
pub async fn requests_of(cluster: &Cluster, log: &Path, account: &str) -> Requests {
    // A line comes a moment after its answer: those before this one are complete when it is there.
    static MARKERS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let marker = MARKERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let marker = format!("/api/v1/namespaces/default/configmaps/marker-{marker}");
    let _ = cluster.get(&marker, "", 1 << 20).await;
    for _ in 0..200 {
        let text = std::fs::read_to_string(log).expect("an audit log");
        if text.contains(&marker) {
            return read(&text, account);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{marker} is not in the audit log");
}

fn read(text: &str, account: &str) -> Requests {
    let mut found = Requests::default();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let user = [&event["impersonatedUser"], &event["user"]];
        let user = user.into_iter().find_map(|user| user["username"].as_str()).unwrap_or_default();
        let part = |field: &str| event["objectRef"][field].as_str().unwrap_or_default().to_owned();
        // Discovery and the version name no object.
        if user != account || event["objectRef"].is_null() {
            continue;
        }
        let plural = match part("subresource").as_str() {
            "" => part("resource"),
            subresource => format!("{}/{subresource}", part("resource")),
        };
        let right = (event["verb"].as_str().expect("a verb").to_owned(), part("apiGroup"), plural);
        // A quota or a webhook forbids with the same status what the account may do.
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            found.forbidden.insert((right, event["requestURI"].as_str().unwrap_or_default().to_owned()));
        } else {
            found.used.insert(right);
        }
    }
    found
}

/// Returns the rights in roles, as `kbak rbac -o json` prints them.
pub fn rights_in(manifests: &str) -> BTreeSet<Right> {
    let mut found = BTreeSet::new();
    for line in manifests.lines() {
        let manifest: Value = serde_json::from_str(line).expect("JSON");
        let list = |rule: &Value, field: &str| -> Vec<String> {
            let words = rule[field].as_array().into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        for rule in manifest["rules"].as_array().into_iter().flatten() {
            for verb in list(rule, "verbs") {
                for group in list(rule, "apiGroups") {
                    for plural in list(rule, "resources") {
                        found.insert((verb.clone(), group.clone(), plural));
                    }
                }
            }
        }
    }
    found
}
