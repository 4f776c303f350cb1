//! The location of a store and the settings to reach it.

use std::fmt;
use std::path::PathBuf;

use super::limit::Rates;

/// The longest prefix in a bucket, in bytes: S3 keys have at most 1024, and kbak's take up to 512.
const MAX_PREFIX: usize = 256;

/// The location of a repository and the settings to reach it. Holds paths to secrets, never a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// `s3://bucket`, `s3://bucket/prefix` or `file:///path`.
    pub url: String,
    /// The address of the S3 service; by default `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or AWS.
    pub endpoint: Option<String>,
    /// The region for signatures; by default that of the environment or profile, else `us-east-1`.
    pub region: Option<String>,
    /// `true` puts the bucket into the path instead of the host name. By default `true` only if an
    /// endpoint is set.
    pub path_style: Option<bool>,
    /// A file with an access key, in the AWS style or as `KEY=value`; by default the SDK's chain:
    /// environment, profile, web identity, the platform's metadata.
    pub credentials_file: Option<PathBuf>,
    /// The CA certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The limits in bytes per second.
    pub rates: Rates,
    /// `true` if a missing folder is created. Buckets are never created.
    pub create: bool,
}

impl StoreOptions {
    /// Returns the place of the repository. Fails if the address is malformed, or if options for S3 are given for
    /// a folder.
    pub(super) fn location(&self) -> Result<StoreLocation, String> {
        let location = parse_url(&self.url)?;
        let only_s3 = [
            ("an endpoint", self.endpoint.is_some()),
            ("a region", self.region.is_some()),
            ("a path style", self.path_style.is_some()),
            ("a file of credentials", self.credentials_file.is_some()),
            ("a file of CA certificates", self.ca_file.is_some()),
        ];
        match (&location, only_s3.iter().find(|(_, given)| *given)) {
            (StoreLocation::Folder(_), Some((option, _))) => {
                Err(format!("{option} is for s3:// repositories; this one is a folder"))
            }
            _ => Ok(location),
        }
    }

    /// Creates options for the store at `url`, with defaults for all else.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

/// Leaves out the user information of an address, where people put passwords.
impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("url", &without_user(&self.url))
            .field("endpoint", &self.endpoint.as_deref().map(without_user))
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("credentials_file", &self.credentials_file)
            .field("ca_file", &self.ca_file)
            .field("rates", &self.rates)
            .field("create", &self.create)
            .finish()
    }
}

pub(super) fn without_user(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => address.to_owned(),
    }
}

/// A bucket and the prefix of every key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The bucket's name.
    pub name: String,
    /// The prefix: empty, or ending with a slash.
    pub prefix: String,
}

/// The folder or bucket that a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A folder, for `file:///path`.
    Folder(PathBuf),
    /// A bucket, for `s3://bucket/prefix`.
    Bucket(Bucket),
}

/// Parses the address of a repository: the only parser of such addresses, for plans and arguments alike.
/// The path of a folder is taken as it is, without %-escapes. A message never repeats a possible password.
pub fn parse_url(url: &str) -> Result<StoreLocation, String> {
    if url.contains(char::is_control) {
        return Err("the address contains a line break or another control character".into());
    }
    if let Some(path) = url.strip_prefix("file://") {
        return match path.starts_with('/') {
            true if path.trim_matches('/').is_empty() => {
                Err("a repository needs a folder of its own: file:///srv/backups".into())
            }
            true => Ok(StoreLocation::Folder(PathBuf::from(path))),
            false => Err("a file URL has three slashes and an absolute path: file:///srv/backups".into()),
        };
    }
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err(
            "this is not the address of a repository: it begins with neither s3:// nor file:///".into()
        );
    };
    if rest.contains('@') {
        return Err("the address contains credentials, or an @: give credentials in a file".into());
    }
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // The rules for bucket names, with the capitals and underscores of old ones.
    let in_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    if !(3..=255).contains(&name.len()) || !name.bytes().all(in_name) {
        return Err(format!("{name:?} is not a bucket name"));
    }
    let prefix = prefix.trim_end_matches('/');
    let in_prefix = |c: u8| c.is_ascii_graphic();
    let is_valid =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(in_prefix);
    if prefix.len() > MAX_PREFIX || !(prefix.is_empty() || prefix.split('/').all(is_valid)) {
        return Err(format!(
            "{prefix:?} is not a valid prefix: it must have parts of visible ASCII between single slashes"
        ));
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(StoreLocation::Bucket(Bucket { name: name.to_owned(), prefix }))
}

/// Checks the address of an S3 service: the only check of such addresses. A message never repeats a possible
/// password.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    if endpoint.contains('@') {
        return Err("the endpoint contains credentials: give them in a credentials file".into());
    }
    let uri: http::Uri = endpoint.parse().map_err(|_| format!("{endpoint:?} is not an address"))?;
    match (uri.scheme_str(), uri.host(), uri.query()) {
        (Some("http" | "https"), Some(host), None) if !host.is_empty() => Ok(()),
        (Some("http" | "https"), Some(_), Some(_)) => {
            Err(format!("the endpoint {endpoint} has a query, which no request could carry"))
        }
        (Some("http" | "https"), ..) => Err(format!("the endpoint {endpoint} names no host")),
        _ => Err(format!("the endpoint {endpoint} starts with neither https:// nor http://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_urls_are_rejected() {
        let bucket = |name: &str, prefix: &str| {
            Ok(StoreLocation::Bucket(Bucket { name: name.into(), prefix: prefix.into() }))
        };
        assert_eq!(parse_url("s3://backups"), bucket("backups", ""));
        assert_eq!(parse_url("s3://backups/"), bucket("backups", ""));
        assert_eq!(parse_url("s3://backups/prod/eu"), bucket("backups", "prod/eu/"));
        for path in [
            "/srv/my backups",
            "/mnt/@backups",
            "/mnt/user@nas/kbak",
            "/größe",
            "/a?b",
            "/a#b",
            "/50%",
            "/a/../b",
        ] {
            let url = format!("file://{path}");
            assert_eq!(parse_url(&url), Ok(StoreLocation::Folder(path.into())), "{url}");
        }
        for bad in [
            "",
            "backups",
            "s3://",
            "s3://a",
            "s3://b ackups",
            "s3://backups//x",
            "s3://backups/../x",
            "file://srv/x",
            "http://backups",
            "file:///srv/x\n",
            "file:///",
            "file:////",
            "s3://backups\n",
            "s3://backups/größe",
            "s3://id:key@backups",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_endpoints_are_rejected_without_quoting_credentials() {
        for good in ["https://s3.example.eu", "http://127.0.0.1:8333", "https://host/s3", "http://[::1]:8333"]
        {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "s3.example.eu",
            "ftp://s3.example.eu",
            "",
            "https://",
            "https://host?x=1",
            "https://größe",
            "h ttp://a",
        ] {
            assert!(check_endpoint(bad).is_err(), "{bad}");
        }
        let error = check_endpoint("https://id:canary@host").unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn passwords_are_absent_from_debug_output() {
        let mut options = StoreOptions::new("s3://id:canary@backups");
        options.endpoint = Some("https://id:canary@host".into());
        assert!(!format!("{options:?}").contains("canary"), "{options:?}");
    }
}
