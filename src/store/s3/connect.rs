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

use super::body::LimitedConnector;
use super::credentials::{CheckedCredentials, FileCredentials, is_header_safe};
use super::own_authority::OwnAuthorityConnector;
use crate::store::options::{StoreOptions, check_endpoint};
use crate::store::{StoreError, StoreErrorKind, https, operation::Operation};

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
    let endpoint = endpoint(options).map_err(fail)?;
    let region = region(options, endpoint.is_some()).await.map_err(fail)?;
    // Pinned: a newer version changes timeouts, retries and checksums by its own judgement. The retries here
    // are those of credential providers; without them, the SDK panics on values that it does not know.
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(region.clone())
        .retry_config(RetryConfig::standard());
    if let Some(path) = &options.credentials_file {
        let profile = variable("AWS_PROFILE").map_err(fail)?;
        let credentials = FileCredentials::new(path, profile);
        // Loaded once now, so that a wrong path is reported first.
        let loaded = credentials.load();
        loaded.map_err(|error| {
            StoreError::new(Operation::Open, "", &*options.url, error.kind()).because(error)
        })?;
        loader = loader.credentials_provider(credentials);
    } else {
        check_variables().map_err(fail)?;
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
    if let Some(provider) = shared.credentials_provider() {
        config = config.credentials_provider(CheckedCredentials(provider));
    }
    if let Ok(name) = AppName::new("kbak") {
        config = config.app_name(name);
    }
    if let Some(endpoint) = &endpoint {
        config = config.endpoint_url(endpoint);
    }
    let address = endpoint.unwrap_or_else(|| format!("AWS {region}"));
    Ok(Connection { client: Client::from_conf(config.build()), address })
}

/// Returns the value of an environment variable, without blanks and line breaks around it; none if it is
/// unset or empty.
fn variable(name: &str) -> Result<Option<String>, String> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| format!("the variable {name} is not UTF-8"))?.trim();
    if value.contains(char::is_control) {
        return Err(format!("the variable {name} contains a line break or another control character"));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// Checks the variables from which the SDK takes credentials. It would panic, or skip one without a word.
fn check_variables() -> Result<(), String> {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"] {
        if variable(name)?.is_some_and(|value| !is_header_safe(&value)) {
            return Err(format!("the variable {name} contains a character that is not visible ASCII"));
        }
    }
    let others = ["AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"];
    others.into_iter().try_for_each(|name| variable(name).map(drop))
}

/// Returns the first value that is given, with the name of its place: the option's, or a variable of `names`.
fn first_given(
    option: (&'static str, Option<&str>),
    names: &[&'static str],
) -> Result<Option<(&'static str, String)>, String> {
    if let Some(given) = option.1.map(str::trim).filter(|value| !value.is_empty()) {
        return Ok(Some((option.0, given.to_owned())));
    }
    for name in names {
        if let Some(value) = variable(name)? {
            return Ok(Some((name, value)));
        }
    }
    Ok(None)
}

/// Returns the endpoint of the options, or else of the AWS environment variables.
fn endpoint(options: &StoreOptions) -> Result<Option<String>, String> {
    let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    let given = first_given(("the repository's endpoint", options.endpoint.as_deref()), &names)?;
    let Some((place, endpoint)) = given else { return Ok(None) };
    check_endpoint(&endpoint).map_err(|problem| format!("{place}: {problem}"))?;
    Ok(Some(endpoint))
}

/// Returns the region of the options, else of the environment or the profile. A custom endpoint is
/// not AWS: then only the environment is read, and no metadata service is asked.
async fn region(options: &StoreOptions, own_endpoint: bool) -> Result<Region, String> {
    let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
    let given = match first_given(("the repository's region", options.region.as_deref()), &names)? {
        None if !own_endpoint => {
            let found = DefaultRegionChain::builder().build().region().await;
            found.map(|region| ("the region of the profile or the platform", region.to_string()))
        }
        given => given,
    };
    let (place, region) = given.unwrap_or(("the default region", NO_REGION.to_owned()));
    // A region is part of a header and of host names.
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if region.is_empty() || !region.chars().all(is_valid) {
        return Err(format!("{place}: {region:?} is not a valid region: it has letters, digits and - only"));
    }
    Ok(Region::new(region))
}

/// Creates a client that trusts the given CA only, or the system's; no CA for plain HTTP.
fn http_client(options: &StoreOptions, endpoint: Option<&str>) -> Result<SharedHttpClient, String> {
    let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let ca = options.ca_file.as_deref().map(https::read_ca).transpose()?;
    if let Some(ca) = ca.filter(|_| !is_plain) {
        let endpoint = endpoint.unwrap_or("https://s3.amazonaws.com").parse();
        let endpoint = endpoint.map_err(|_| "the endpoint is not an address".to_owned())?;
        let connector = OwnAuthorityConnector::new(ca.certificates, &endpoint, CONNECT)?;
        let connector = SharedHttpConnector::new(LimitedConnector(connector));
        return Ok(http_client_fn(move |_, _| connector.clone()));
    }
    let trust = if is_plain { TrustStore::empty() } else { TrustStore::default() };
    let connector = SharedHttpConnector::new(LimitedConnector(https::connector(trust, CONNECT)?));
    Ok(http_client_fn(move |_, _| connector.clone()))
}
