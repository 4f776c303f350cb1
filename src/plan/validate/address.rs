//! Checks of addresses: repository, database host, store endpoint, receiver of notices. No message repeats a possible password.

use std::path::{Component, Path};

/// Returns `true` if the repository is a folder, or the problem of its address. An address that carries a
/// password is never repeated.
pub(super) fn repository_url(text: &str) -> Result<bool, String> {
    if text.contains('@') {
        return Err("the address contains credentials, or an @; put credentials into a file".into());
    }
    if let Some(path) = text.strip_prefix("file://") {
        let path = Path::new(path);
        let fine = path.is_absolute() && path.components().all(is_plain);
        return if fine { Ok(true) } else { Err(format!("{text:?} is not the absolute path of a folder")) };
    }
    let Some(rest) = text.strip_prefix("s3://") else {
        return Err(format!("{text:?} is not the address of a repository"));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let letters = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let bucket_fine = (3..=255).contains(&bucket.len()) && bucket.chars().all(letters);
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let parts_fine = prefix.is_empty()
        || prefix.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(['?', '#', '\\']));
    match (bucket_fine, parts_fine) {
        (true, true) => Ok(false),
        (false, _) => Err(format!("{bucket:?} is not a valid name of a bucket")),
        (true, false) => Err(format!("{prefix:?} is not a valid prefix in a bucket")),
    }
}

/// Checks a host name, an IP address or the folder of a socket. A possible password is not repeated.
pub(super) fn host(text: &str) -> Result<(), String> {
    if text.contains('@') || text.contains("://") {
        return Err("this is an address with more than a host; it is not shown, because it may contain a \
                    password"
            .into());
    }
    let fine = if text.starts_with('/') {
        !text.contains(char::is_control) && Path::new(text).components().all(is_plain)
    } else {
        let letter = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        // A single colon would separate a port; IPv6 addresses have more.
        let address = text.matches(':').count() != 1 && (text.contains(':') || !text.contains('%'));
        (1..=255).contains(&text.len()) && !text.starts_with('-') && text.chars().all(letter) && address
    };
    if fine {
        Ok(())
    } else {
        Err(format!("{text:?} is not a host name, an address or the folder of a socket"))
    }
}

/// True if a part of a path is the root or a name, not `.` or `..`.
pub(super) fn is_plain(part: Component<'_>) -> bool {
    matches!(part, Component::RootDir | Component::Normal(_))
}

pub(super) fn endpoint(text: &str) -> Result<(), String> {
    if text.contains('@') {
        return Err("the endpoint contains credentials; put them into a file".into());
    }
    let uri: http::Uri = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
    match (uri.scheme_str(), uri.host(), uri.query()) {
        (Some("http" | "https"), Some(host), None) if !host.is_empty() => Ok(()),
        _ => Err(format!("{text:?} is not an https or http address")),
    }
}

/// Checks the address of a receiver of notices. It is often a secret as a whole: no error repeats it.
///
/// # Errors
/// The reason why it is not the address of a receiver.
pub fn check_receiver_address(text: &str) -> Result<http::Uri, &'static str> {
    let uri: http::Uri = text.parse().map_err(|_| "it is not an address")?;
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("it contains credentials before an @, which are not sent");
    }
    if text.contains('#') {
        return Err("it has a part after #, which is not sent");
    }
    match uri.scheme_str() {
        Some("http" | "https") if !authority.host().is_empty() => Ok(uri),
        _ => Err("it starts with neither https:// nor http://"),
    }
}
