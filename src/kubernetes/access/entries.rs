//! The client's configuration from the entries of a kubeconfig.

use std::path::Path;

use http::Uri;
use kube::config::{AuthInfo, Cluster, ExecAuthCluster};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kubeconfig::SelectedEntries;
use super::proxy::proxy;
use super::{AccessError, bearer};
use crate::report::text::bytes_without_bom;

/// Returns the configuration of the client for the selected entries.
pub(super) fn client_config(selected: SelectedEntries) -> Result<kube::Config, AccessError> {
    let cluster_name = format!("the cluster {:?} of the kubeconfig", selected.cluster);
    let user_name = format!("the user {:?} of the kubeconfig", selected.user);
    if let Some(token) = selected.user_entry["token"].as_str()
        && bearer(token).is_none()
    {
        return Err(AccessError::invalid(user_name, "has a token with a character that no token has"));
    }
    if let Some(provider) = selected.user_entry["auth-provider"]["name"].as_str() {
        let id = selected.user_entry["auth-provider"]["config"]["id-token"].as_str();
        if provider != "oidc" || id.is_none_or(|id| bearer(id).is_none()) {
            let problem = "has an auth-provider without a usable id-token; use a credential plugin (exec)";
            return Err(AccessError::invalid(user_name, problem));
        }
    }
    let cluster: Cluster = typed(selected.cluster_entry, &cluster_name)?;
    let mut user: AuthInfo = typed(selected.user_entry, &user_name)?;
    let uses_tls = cluster.insecure_skip_tls_verify == Some(true)
        || cluster.certificate_authority.is_some()
        || cluster.certificate_authority_data.is_some()
        || user.client_certificate.is_some()
        || user.client_certificate_data.is_some();
    let server = server(cluster.server.as_deref(), uses_tls)
        .map_err(|problem| AccessError::invalid(&cluster_name, problem))?;
    let mut config = kube::Config::new(server);
    config.default_namespace = selected.namespace.unwrap_or_else(|| "default".to_owned());
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.disable_compression = cluster.disable_compression.unwrap_or(false);
    config.tls_server_name.clone_from(&cluster.tls_server_name);
    config.root_cert = authorities(&cluster, &cluster_name)?;
    config.proxy_url = proxy(&config.cluster_url, cluster.proxy_url.as_deref(), &cluster_name)?;
    if user.username.is_some() && user.password.is_none() {
        user.password = Some(String::new().into());
    }
    if let Some(exec) = &mut user.exec
        && exec.provide_cluster_info
    {
        let info = ExecAuthCluster::try_from(&cluster);
        exec.cluster =
            Some(info.map_err(|_| AccessError::invalid(&cluster_name, "has malformed certificates"))?);
    }
    config.auth_info = user;
    Ok(config)
}

/// Reads an entry. The parser's own message would quote a value.
fn typed<T: DeserializeOwned>(entry: Value, what: &str) -> Result<T, AccessError> {
    serde_json::from_value(entry).map_err(|_| AccessError::invalid(what, "has a field of the wrong type"))
}

/// Parses a server's address. Without a scheme it is a host with a port, as kubectl takes it.
fn server(text: Option<&str>, uses_tls: bool) -> Result<Uri, &'static str> {
    let text = text.ok_or("names no server")?;
    let has_scheme = text.contains("://");
    let scheme = if uses_tls { "https" } else { "http" };
    let text = if has_scheme { text.to_owned() } else { format!("{scheme}://{text}") };
    let uri: Uri = text.parse().map_err(|_| "has a server that is not an address")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => {}
        (Some("http" | "https"), _) => return Err("has a server without a host"),
        _ => return Err("has a server that begins with neither https:// nor http://"),
    }
    if uri.query().is_some() || !(has_scheme || matches!(uri.path(), "" | "/")) {
        return Err("has a server that is neither an address nor a host with a port");
    }
    Ok(uri)
}

/// Returns the certificates of the cluster's authorities; none for those of the system.
fn authorities(cluster: &Cluster, what: &str) -> Result<Option<Vec<Vec<u8>>>, AccessError> {
    use base64::Engine as _;
    let pem = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => base64::engine::general_purpose::STANDARD
            .decode(data)
            .map_err(|_| AccessError::invalid(what, "has certificate-authority-data that is not base64"))?,
        (None, Some(file)) => std::fs::read(Path::new(file)).map_err(|source| AccessError::Unreadable {
            what: format!("{what}: its certificate-authority {file}"),
            source,
        })?,
        (None, None) => return Ok(None),
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes_without_bom(&pem))
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(Some(found)),
        _ => Err(AccessError::invalid(what, "has no certificate of an authority in PEM form")),
    }
}
