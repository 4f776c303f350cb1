//! Checks of addresses: database server, receiver of notices. No message repeats a possible password.

use std::path::{Component, Path};

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
