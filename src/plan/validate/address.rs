//! Checks of the addresses of database servers. No message repeats a possible password.

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
