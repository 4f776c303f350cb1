//! Creates an S3 client from options: endpoint, region, credentials, trust, proxies, time limits.

use std::time::Duration;

use aws_config::default_provider::region::DefaultRegionChain;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::TrustStore;
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};

use super::{body::LimitedConnector, credentials::FileCredentials};
use crate::store::{StoreError, StoreErrorKind, https, operation::Operation, options::StoreOptions};

/// The time limit of a connection with its TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// The region for stores that have none. Every signature names one.
const NO_REGION: &str = "us-east-1";

pub(super) struct Connection {
    pub(super) client: Client,
    /// The address of the store, for people.
    pub(super) address: String,
}

/// Prepares a client. Nothing is sent to the store.
pub(super) async fn connect(options: &StoreOptions) -> Result<Connection, StoreError> {
    let fail =
        |text: String| StoreError::new(Operation::Open, "", &*options.url, StoreErrorKind::Settings(text));
    let endpoint = endpoint(options);
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint).map_err(fail)?;
    }
    let region = region(options, endpoint.is_some()).await;
    // Pinned: a newer version changes timeouts, retries and checksums by its own judgement.
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(region.clone());
    if let Some(path) = &options.credentials_file {
        let credentials = FileCredentials::new(path, std::env::var("AWS_PROFILE").ok());
        // Loaded once now, so that a wrong path is reported first.
        let loaded = credentials.load();
        loaded.map_err(|error| fail(error.to_string()).because(error))?;
        loader = loader.credentials_provider(credentials);
    }
    let http = http_client(options, endpoint.as_deref()).map_err(fail)?;
    let shared = loader.load().await;
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .disable_clock_skew_correction(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(options.path_style.unwrap_or(endpoint.is_some()));
    if let Ok(name) = AppName::new("kbak") {
        config = config.app_name(name);
    }
    if let Some(endpoint) = &endpoint {
        config = config.endpoint_url(endpoint);
    }
    let address = endpoint.unwrap_or_else(|| format!("AWS {region}"));
    Ok(Connection { client: Client::from_conf(config.build()), address })
}

/// Returns the endpoint of the options, or else of the AWS environment variables.
fn endpoint(options: &StoreOptions) -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let ours = options.endpoint.clone();
    ours.or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"))
}

fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: http::Uri = endpoint.parse().map_err(|_| "the endpoint is not an address".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("the endpoint {endpoint} starts with neither https:// nor http://"));
    }
    match uri.authority() {
        None => Err(format!("the endpoint {endpoint} names no host")),
        // The message leaves out the endpoint: it holds a password.
        Some(authority) if authority.as_str().contains('@') => {
            Err("the endpoint holds credentials: give them in a credentials file".into())
        }
        Some(_) => Ok(()),
    }
}

/// Returns the region of the options, else of the environment or the profile. A custom endpoint is
/// not AWS: then only the environment is read, and no metadata service is asked.
async fn region(options: &StoreOptions, own_endpoint: bool) -> Region {
    if let Some(region) = &options.region {
        return Region::new(region.clone());
    }
    let variable =
        || ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| std::env::var(name).ok());
    let found = if own_endpoint {
        variable().map(Region::new)
    } else {
        DefaultRegionChain::builder().build().region().await
    };
    found.unwrap_or_else(|| Region::from_static(NO_REGION))
}

/// Creates a client that trusts the given CA only, or the system's; no CA for plain HTTP.
fn http_client(options: &StoreOptions, endpoint: Option<&str>) -> Result<SharedHttpClient, String> {
    let trust = match &options.ca_file {
        Some(path) => https::read_ca(path)?,
        None if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) => TrustStore::empty(),
        None => TrustStore::default(),
    };
    let connector = SharedHttpConnector::new(LimitedConnector(https::connector(trust, CONNECT)?));
    Ok(http_client_fn(move |_, _| connector.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_endpoints_are_rejected_without_quoting_credentials() {
        for good in ["https://s3.example.eu", "http://127.0.0.1:8333", "https://host/s3"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in ["s3.example.eu", "ftp://s3.example.eu", "", "https://"] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
        let error = check_endpoint("https://id:canary@host").unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}
