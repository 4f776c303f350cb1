//! Reads a credentials file: the AWS style (`[default]`, `aws_access_key_id = …`) or plain `KEY=value`
//! lines, as a Kubernetes Secret holds them.
//!
//! The file is read again whenever the SDK refreshes its credentials (every 15 minutes), so that a
//! rotated Secret takes effect in a long run.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use zeroize::Zeroizing;

use crate::report::text::without_bom;
use crate::store::StoreErrorKind;

/// The largest credentials file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The reason that a credentials file is rejected. Never holds a value from the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsFileError {
    #[error("cannot read the credentials file {0}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("the credentials file {0} is larger than 64 KiB")]
    TooLarge(PathBuf),
    #[error("the credentials file {0} holds no {1}")]
    Incomplete(PathBuf, &'static str),
    #[error("the {1} in the credentials file {0} contains a character that is not visible ASCII")]
    Characters(PathBuf, &'static str),
    #[error("the credentials file {0} has no profile `{1}`, which AWS_PROFILE names")]
    NoProfile(PathBuf, String),
    #[error("the credentials file {0} has several profiles and none is named `default`: set AWS_PROFILE")]
    SeveralProfiles(PathBuf),
}

impl CredentialsFileError {
    /// Returns the kind of failure of the store.
    pub(super) fn kind(&self) -> StoreErrorKind {
        match self {
            Self::Unreadable(..) => StoreErrorKind::CredentialsFile(self.to_string()),
            _ => StoreErrorKind::Settings(self.to_string()),
        }
    }
}

/// True if a text can be part of a header of a request. The SDK panics on others.
pub(super) fn is_header_safe(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The reason that credentials from elsewhere are rejected. Never holds a value.
#[derive(Debug, thiserror::Error)]
#[error("the {0} contains a character that is not visible ASCII")]
struct UnusableCredentials(&'static str);

/// The credentials of another provider, checked before the SDK signs with them.
#[derive(Debug)]
pub(super) struct CheckedCredentials(pub(super) SharedCredentialsProvider);

impl ProvideCredentials for CheckedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let credentials = self.0.provide_credentials().await?;
            match unusable_part(&credentials) {
                Some(part) => Err(CredentialsError::invalid_configuration(UnusableCredentials(part))),
                None => Ok(credentials),
            }
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.fallback_on_interrupt()
    }
}

/// Returns the name of the part that no header can carry.
fn unusable_part(credentials: &Credentials) -> Option<&'static str> {
    if !is_header_safe(credentials.access_key_id()) {
        return Some("access key id");
    }
    credentials.session_token().is_some_and(|token| !is_header_safe(token)).then_some("session token")
}

/// Provides the credentials in a file to the SDK.
#[derive(Clone)]
pub(super) struct FileCredentials {
    path: PathBuf,
    profile: Option<String>,
}

impl fmt::Debug for FileCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileCredentials({})", self.path.display())
    }
}

impl FileCredentials {
    /// Uses the file at `path`: the section named `profile`, else `default`, else the only one.
    pub(super) fn new(path: &Path, profile: Option<String>) -> Self {
        Self { path: path.to_owned(), profile }
    }

    /// Reads the file now.
    pub(super) fn load(&self) -> Result<Credentials, CredentialsFileError> {
        let unreadable = |error| CredentialsFileError::Unreadable(self.path.clone(), error);
        let file = std::fs::File::open(&self.path).map_err(unreadable)?;
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE {
            return Err(CredentialsFileError::TooLarge(self.path.clone()));
        }
        self.parse(without_bom(&text))
    }

    fn parse(&self, text: &str) -> Result<Credentials, CredentialsFileError> {
        let section = self.section(text)?;
        let missing = |what| CredentialsFileError::Incomplete(self.path.clone(), what);
        let id = value(text, section, "access_key_id").ok_or_else(|| missing("access_key_id"))?;
        let secret = value(text, section, "secret_access_key").ok_or_else(|| missing("secret_access_key"))?;
        let token = value(text, section, "session_token").map(str::to_owned);
        let credentials = Credentials::new(id, secret, token, None, "kbak credentials file");
        match unusable_part(&credentials) {
            Some(part) => Err(CredentialsFileError::Characters(self.path.clone(), part)),
            None => Ok(credentials),
        }
    }

    /// Returns the name of the section to read; `None` if the file has no sections.
    fn section<'a>(&'a self, text: &'a str) -> Result<Option<&'a str>, CredentialsFileError> {
        let names: Vec<&str> = text.lines().filter_map(header).collect();
        let profile = self.profile.as_deref().unwrap_or("default");
        match names.as_slice() {
            [] => Ok(None),
            names if names.contains(&profile) => Ok(Some(profile)),
            [only] if self.profile.is_none() => Ok(Some(only)),
            _ if self.profile.is_none() => Err(CredentialsFileError::SeveralProfiles(self.path.clone())),
            _ => Err(CredentialsFileError::NoProfile(self.path.clone(), profile.to_owned())),
        }
    }
}

/// Returns the name in a line that starts a section.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    Some(inner.strip_prefix("profile ").map_or(inner, str::trim))
}

/// Returns the value of `name` in a section; names are compared without case and without `aws_`.
fn value<'a>(text: &'a str, section: Option<&str>, name: &str) -> Option<&'a str> {
    let mut here = None;
    let mut found = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(section) = header(line) {
            here = Some(section);
        } else if here == section && !line.starts_with(['#', ';']) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let key = key.trim().trim_start_matches("export ").to_ascii_lowercase();
            if key.strip_prefix("aws_").unwrap_or(&key) == name {
                found = Some(unquoted(value.trim()));
            }
        }
    }
    found.filter(|value| !value.is_empty())
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

impl ProvideCredentials for FileCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        // A small local file, read once in 15 minutes: it may block.
        future::ProvideCredentials::ready(self.load().map_err(CredentialsError::invalid_configuration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, profile: Option<&str>) -> Result<Credentials, CredentialsFileError> {
        FileCredentials::new(Path::new("/c"), profile.map(str::to_owned)).parse(text)
    }

    #[test]
    fn aws_and_key_value_styles_are_read() {
        for text in [
            "[default]\naws_access_key_id = id\naws_secret_access_key= s=/+\n",
            "[other]\naws_access_key_id=no\n[default]\naws_access_key_id=id\naws_secret_access_key=s=/+",
            "AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=\"s=/+\"\n",
            "# mine\nexport AWS_ACCESS_KEY_ID='id'\nAWS_SECRET_ACCESS_KEY=s=/+\r\n",
            "access_key_id=id\nsecret_access_key=s=/+",
            "[cloud]\naws_access_key_id=id\naws_secret_access_key=s=/+",
        ] {
            let read = parse(text, None).unwrap();
            assert_eq!((read.access_key_id(), read.secret_access_key()), ("id", "s=/+"), "{text}");
        }
        let text = "[a]\naws_access_key_id=1\naws_secret_access_key=2\naws_session_token=3\n[b]\n";
        assert_eq!(parse(text, Some("a")).unwrap().session_token(), Some("3"));
    }

    #[test]
    fn incomplete_file_is_rejected_without_quoting_values() {
        for (text, profile) in [
            ("", None),
            ("aws_access_key_id=can\u{1}ary\naws_secret_access_key=canary\n", None),
            ("aws_access_key_id=canary\naws_secret_access_key=canary\naws_session_token=canär\n", None),
            ("aws_access_key_id=canary", None),
            ("[a]\naws_access_key_id=canary\n[b]\n", None),
            ("[a]\naws_access_key_id=canary\naws_secret_access_key=canary\n", Some("b")),
        ] {
            let error = parse(text, profile).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
