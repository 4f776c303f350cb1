//! The access to a cluster: its address, its certificates and the caller's identity, from a kubeconfig or from
//! the ServiceAccount of a pod.
//!
//! kubectl is the measure: a kubeconfig that it takes is taken here, and a wrong one is refused with the name of
//! the wrong entry. No message quotes a value, because a kubeconfig holds tokens and keys.

mod entries;
mod kubeconfig;
mod plugin;
mod proxy;
mod token_file;

use std::path::PathBuf;

use http::HeaderValue;
use kube::config::AuthInfo;

use crate::plan::ClusterSpec;
use kubeconfig::Kubeconfig;
use plugin::Plugin;
use token_file::TokenFile;

/// Any error, as the client gives it.
pub(super) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why there is no access to a cluster.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    #[error("{what} cannot be read")]
    Unreadable { what: String, source: std::io::Error },
    #[error("{what} {problem}")]
    Invalid { what: String, problem: String },
    #[error("the credential plugin cannot be run")]
    PluginNotRun(#[source] std::io::Error),
    #[error("there is no kubeconfig: {0}")]
    Missing(String),
}

impl AccessError {
    fn invalid(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), problem: problem.into() }
    }
}

/// The place from which the access to a cluster comes.
#[derive(Debug)]
pub(super) enum AccessSource {
    /// One file, which must exist.
    File(PathBuf),
    /// The files of `KUBECONFIG`. Those that do not exist are skipped.
    List(Vec<PathBuf>),
    /// The ServiceAccount of the pod.
    Pod,
}

impl AccessSource {
    /// Finds the place: the file of the plan or the arguments, `KUBECONFIG`, the pod, `~/.kube/config`.
    pub(super) fn find(spec: &ClusterSpec) -> Result<Self, AccessError> {
        if let Some(file) = spec.kubeconfig_file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
            return Ok(Self::File(file.clone()));
        }
        let given = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let files: Vec<PathBuf> =
            std::env::split_paths(&given).filter(|file| !file.as_os_str().is_empty()).collect();
        if !files.is_empty() {
            return Ok(Self::List(files));
        }
        let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
        if in_pod && spec.context.is_none() {
            return Ok(Self::Pod);
        }
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let home =
            home.ok_or_else(|| AccessError::Missing("HOME is not set, and KUBECONFIG neither".into()))?;
        Ok(Self::File(home.join(".kube/config")))
    }

    /// Returns the place's name for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::List(files) => {
                let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                format!("KUBECONFIG ({})", files.join(", "))
            }
            Self::Pod => "the pod's ServiceAccount".to_owned(),
        }
    }
}

/// The configuration of the client, and the token that each request carries.
pub(super) struct ClusterAccess {
    pub(super) config: kube::Config,
    pub(super) token: Option<Token>,
    /// The name of the context; none in a pod.
    pub(super) context: Option<String>,
}

/// The source of the token that each request carries.
#[derive(Debug, Clone)]
pub(super) enum Token {
    /// A file.
    File(TokenFile),
    /// A credential plugin.
    Plugin(Plugin),
}

impl Token {
    /// Returns the header of a request.
    pub(super) async fn header(&self) -> Result<HeaderValue, AccessError> {
        match self {
            Self::File(file) => Ok(file.header()),
            Self::Plugin(plugin) => plugin.header().await,
        }
    }
}

/// Reads the access from its place.
pub(super) async fn read_access(
    source: &AccessSource,
    spec: &ClusterSpec,
) -> Result<ClusterAccess, AnyError> {
    let (mut config, context) = match source {
        AccessSource::Pod => (kube::Config::incluster()?, None),
        AccessSource::File(file) => {
            from_kubeconfig(Kubeconfig::read(std::slice::from_ref(file), false)?, spec)?
        }
        AccessSource::List(files) => from_kubeconfig(Kubeconfig::read(files, true)?, spec)?,
    };
    config.default_namespace = config.default_namespace.trim().to_owned();
    let token = take_token(&mut config.auth_info).await?;
    Ok(ClusterAccess { config, token, context })
}

fn from_kubeconfig(
    kubeconfig: Kubeconfig,
    spec: &ClusterSpec,
) -> Result<(kube::Config, Option<String>), AccessError> {
    let context = spec.context.as_deref().map(str::trim).filter(|context| !context.is_empty());
    let selected = kubeconfig.select(context)?;
    let name = selected.context.clone();
    Ok((entries::client_config(selected)?, Some(name)))
}

/// Takes the token over from the client, which panics on a token that no header can carry, and does not trim
/// the one in a file. As kubectl does, a file is preferred to a token in the kubeconfig.
async fn take_token(user: &mut AuthInfo) -> Result<Option<Token>, AccessError> {
    if user.auth_provider.is_some() || user.username.is_some() {
        return Ok(None);
    }
    let Some(file) = user.token_file.take() else {
        return match user.exec.take().filter(|_| user.token.is_none()) {
            Some(exec) => Ok(Plugin::start(exec, user).await?.map(Token::Plugin)),
            None => Ok(None),
        };
    };
    match TokenFile::read(file.into()) {
        Ok(token) => {
            (user.token, user.exec) = (None, None);
            Ok(Some(Token::File(token)))
        }
        Err(_) if user.token.is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the header of a bearer token; none if no header can carry it.
fn bearer(token: &str) -> Option<HeaderValue> {
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut value = is_token.then(|| HeaderValue::try_from(format!("Bearer {token}")).ok())??;
    value.set_sensitive(true);
    Some(value)
}
