//! Waits for changes that a cluster makes by itself.

use std::time::Duration;

use kbak::kubernetes::Cluster;
use serde_json::Value;

use super::control_plane::get;

/// Waits until the object at `path` is as `wanted`, and returns it.
pub async fn until(cluster: &Cluster, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..1200 {
        if let Ok(answer) = cluster.get(path, "", 16 << 20).await {
            let object = serde_json::from_slice(&answer.body).expect("JSON");
            if wanted(&object) {
                return object;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never is as it should: {}", get(cluster, path).await);
}

/// Waits until there is no object at `path`.
pub async fn until_gone(cluster: &Cluster, path: &str) {
    for _ in 0..1200 {
        match cluster.get(path, "", 16 << 20).await {
            Err(error) if error.code() == Some(404) => return,
            // Longer than above: the garbage collector discovers new kinds every 30 s.
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("{path} stays: {}", get(cluster, path).await);
}
