//! Opens a store from a user's options and adds its wrappers in the right order.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use super::deadline::{DeadlineStore, Deadlines};
use super::file::FileStore;
use super::limit::{LimitStore, Rates};
use super::operation::Operation;
use super::retry::{Patience, RetryStore};
use super::s3::S3Store;
use super::{Store, StoreError, StoreErrorKind};
use crate::report::event::Reporter;
use crate::runtime::Runtime;

/// The longest prefix in a bucket, in bytes: S3 keys have at most 1024, and kbak's take up to 512.
const MOST_PREFIX: usize = 256;

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
    /// Creates options for the store at `url`, with defaults for all else.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Sets the upload limit in bytes per second.
    #[must_use]
    pub fn upload_limit(mut self, rate: Option<NonZeroU64>) -> Self {
        self.rates.upload = rate;
        self
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

fn without_user(address: &str) -> String {
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
enum Place {
    Folder(PathBuf),
    Bucket(Bucket),
}

fn place(url: &str) -> Result<Place, String> {
    if let Some(path) = url.strip_prefix("file://") {
        return match path.starts_with('/') {
            true => Ok(Place::Folder(PathBuf::from(path))),
            false => Err("a file URL has three slashes and an absolute path: file:///srv/backups".into()),
        };
    }
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err("a repository is at s3://bucket/prefix or file:///path".into());
    };
    if rest.contains('@') {
        return Err("the URL holds credentials: give them in a credentials file".into());
    }
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // The rules for bucket names, with the capitals and underscores of old ones.
    let in_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    if !(3..=255).contains(&name.len()) || !name.bytes().all(in_name) {
        return Err(format!("{name:?} is no name of a bucket"));
    }
    let prefix = prefix.trim_end_matches('/');
    let in_prefix = |c: u8| c.is_ascii_graphic();
    let sound = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(in_prefix);
    if prefix.len() > MOST_PREFIX || !(prefix.is_empty() || prefix.split('/').all(sound)) {
        return Err(format!(
            "{prefix:?} is no prefix that kbak takes: parts of visible ASCII between single slashes"
        ));
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Place::Bucket(Bucket { name: name.to_owned(), prefix }))
}

/// Opens a store: parses the URL, checks credentials and CA, opens a folder. It sends no request to a
/// bucket yet.
pub async fn open(
    options: &StoreOptions,
    runtime: &Runtime,
    reporter: &Reporter,
) -> Result<Arc<dyn Store>, StoreError> {
    let place = place(&options.url).map_err(|text| {
        let url = without_user(&options.url);
        StoreError::new(Operation::Open, "", url, StoreErrorKind::Settings(text))
    })?;
    let store: Arc<dyn Store> = match place {
        Place::Folder(path) => Arc::new(FileStore::open(&path, options.create, runtime.clone())?),
        Place::Bucket(bucket) => Arc::new(S3Store::open(options, bucket).await?),
    };
    Ok(wrap(store, options.rates, runtime, reporter))
}

/// Adds the wrappers of every real store to `store`.
///
/// From the inside out: a deadline for each try; retries; the rate limit. The limit is outermost, so
/// that an object counts once and the wait counts toward neither deadline nor retry budget.
#[must_use]
pub fn wrap(store: Arc<dyn Store>, rates: Rates, runtime: &Runtime, reporter: &Reporter) -> Arc<dyn Store> {
    let store = Arc::new(DeadlineStore::new(store, Deadlines::default()));
    let store = Arc::new(RetryStore::new(store, Patience::default(), runtime.clone(), reporter.clone()));
    if rates == Rates::default() { store } else { Arc::new(LimitStore::new(store, rates)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_urls_are_rejected() {
        let bucket =
            |name: &str, prefix: &str| Ok(Place::Bucket(Bucket { name: name.into(), prefix: prefix.into() }));
        assert_eq!(place("s3://backups"), bucket("backups", ""));
        assert_eq!(place("s3://backups/"), bucket("backups", ""));
        assert_eq!(place("s3://backups/prod/eu"), bucket("backups", "prod/eu/"));
        assert_eq!(place("file:///srv/my backups"), Ok(Place::Folder("/srv/my backups".into())));
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
            "s3://id:key@backups",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_absent_from_debug_output() {
        let mut options = StoreOptions::new("s3://id:canary@backups");
        options.endpoint = Some("https://id:canary@host".into());
        assert!(!format!("{options:?}").contains("canary"), "{options:?}");
    }
}
