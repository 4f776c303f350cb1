//! A credential plugin (`exec` of a kubeconfig): runs it, checks its answer, and runs it again before its token
//! expires. The client would run it without a deadline, and panic on a token that no header can carry.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{AccessError, bearer};

/// The longest time that a plugin may take: a person may have to log in.
const DEADLINE: Duration = Duration::from_secs(300);
/// The time before its expiry at which a token is replaced.
const MARGIN: Duration = Duration::from_secs(60);
const WHAT: &str = "the credential plugin";

/// A plugin, and the token that it gave last. Cheap to clone; its `Debug` output hides the token.
#[derive(Debug, Clone)]
pub(in crate::kubernetes) struct Plugin {
    exec: Arc<ExecConfig>,
    current: Arc<Mutex<(HeaderValue, Option<Timestamp>)>>,
}

/// The answer of a plugin (client.authentication.k8s.io, ExecCredential).
#[derive(Deserialize)]
struct Answer {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<Timestamp>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Plugin {
    /// Runs the plugin. A certificate goes into `user`; returns the plugin if it gave a token.
    pub(super) async fn start(exec: ExecConfig, user: &mut AuthInfo) -> Result<Option<Self>, AccessError> {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let status = run(&exec).await?;
        if let (Some(certificate), Some(key)) = (&status.client_certificate_data, &status.client_key_data) {
            user.client_certificate_data = Some(STANDARD.encode(certificate));
            user.client_key_data = Some(STANDARD.encode(key).into());
        }
        let Some(token) = &status.token else { return Ok(None) };
        let current = (header(token)?, status.expiration_timestamp);
        Ok(Some(Self { exec: Arc::new(exec), current: Arc::new(Mutex::new(current)) }))
    }

    /// Returns the header of a request; runs the plugin again if its token expires.
    pub(in crate::kubernetes) async fn header(&self) -> Result<HeaderValue, AccessError> {
        let mut current = self.current.lock().await;
        if current.1.is_some_and(|expires| Timestamp::now() + MARGIN >= expires) {
            let status = run(&self.exec).await?;
            let token = status.token.ok_or_else(|| AccessError::invalid(WHAT, "gave no token any more"))?;
            *current = (header(&token)?, status.expiration_timestamp);
        }
        Ok(current.0.clone())
    }
}

fn header(token: &str) -> Result<HeaderValue, AccessError> {
    bearer(token.trim())
        .ok_or_else(|| AccessError::invalid(WHAT, "gave a token with a character that no token has"))
}

/// Runs the plugin. No message shows its output, its arguments or its environment.
async fn run(exec: &ExecConfig) -> Result<Status, AccessError> {
    let command = exec.command.as_ref().ok_or_else(|| AccessError::invalid(WHAT, "has no command"))?;
    let interactive = exec.interactive_mode != Some(ExecInteractiveMode::Never);
    let mut info = json!({
        "kind": "ExecCredential", "apiVersion": exec.api_version, "spec": {"interactive": interactive},
    });
    if let Some(cluster) = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info) {
        info["spec"]["cluster"] = serde_json::to_value(cluster).unwrap_or_default();
    }
    let mut run = tokio::process::Command::new(command);
    run.args(exec.args.iter().flatten()).env("KUBERNETES_EXEC_INFO", info.to_string()).kill_on_drop(true);
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            run.env(name, value);
        }
    }
    run.stdout(Stdio::piped());
    run.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
    run.stderr(if interactive { Stdio::inherit() } else { Stdio::null() });
    let output = tokio::time::timeout(DEADLINE, run.output())
        .await
        .map_err(|_| AccessError::invalid(WHAT, format!("did not end within {} s", DEADLINE.as_secs())))?;
    let output = output.map_err(AccessError::PluginNotRun)?;
    if !output.status.success() {
        return Err(AccessError::invalid(WHAT, format!("failed: {}", output.status)));
    }
    let stdout = Zeroizing::new(output.stdout);
    let malformed = || AccessError::invalid(WHAT, "gave an answer that cannot be understood");
    let answer: Answer = serde_json::from_slice(&stdout).map_err(|_| malformed())?;
    answer.status.ok_or_else(malformed)
}
