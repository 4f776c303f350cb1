//! Cleans the environment at the start. A variable that is set and empty counts as unset (Compose files and pods
//! make such ones), and a line break at the end of a value is dropped (a Secret that `echo` made has one).
//!
//! Libraries and child processes read the environment, too, so that `main` changes it once for all of them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// The variables that kbak, its libraries and its child processes read, by the beginning of their names.
const PREFIXES: &[&str] = &["AWS_", "PG", "KUBE", "KBAK_", "SSL_CERT_"];
/// The variables with other names.
const NAMES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SECRET_ACCESS_KEY"];
/// Variables whose values may begin or end with blanks: secrets and paths.
const WITH_BLANKS: &[&str] = &["PGPASSWORD", "KUBECONFIG"];

/// A variable to change: its new value, or none if it is removed.
pub type Correction = (OsString, Option<OsString>);

/// Returns the variables of `environment` to change.
pub fn corrections(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Correction> {
    let changed = |(name, value): (OsString, OsString)| {
        let text = name.to_str().filter(|name| is_read(name))?;
        let clean = trimmed(value.as_bytes(), WITH_BLANKS.contains(&text));
        if clean.is_empty() {
            return Some((name, None));
        }
        (clean.len() < value.len()).then(|| (name, Some(OsString::from_vec(clean.to_vec()))))
    };
    environment.into_iter().filter_map(changed).collect()
}

fn is_read(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn trimmed(value: &[u8], with_blanks: bool) -> &[u8] {
    if !with_blanks {
        return value.trim_ascii();
    }
    let end = value.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
    end.map_or(&[], |last| &value[..=last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_are_removed_and_line_breaks_trimmed() {
        for (name, value, expected) in [
            ("AWS_PROFILE", "", Some(None)),
            ("AWS_REGION", "eu-west-1\n", Some(Some("eu-west-1"))),
            ("AWS_REGION", " eu-west-1\r\n", Some(Some("eu-west-1"))),
            ("AWS_SESSION_TOKEN", "\n", Some(None)),
            ("AWS_ACCESS_KEY_ID", "id", None),
            ("PGPASSWORD", "", Some(None)),
            ("PGPASSWORD", " secret \n", Some(Some(" secret "))),
            ("PGPASSWORD", " secret ", None),
            ("KUBECONFIG", "/a b :/c\r\n", Some(Some("/a b :/c"))),
            ("KUBERNETES_SERVICE_HOST", " ", Some(None)),
            ("https_proxy", "", Some(None)),
            ("HTTP_PROXY", "http://proxy:3128\n", Some(Some("http://proxy:3128"))),
            ("no_proxy", "\t", Some(None)),
            ("EDITOR", "", None),
            ("HOME", "/root\n", None),
        ] {
            let got = corrections([(name.into(), value.into())]);
            let wanted = expected.map(|value| (OsString::from(name), value.map(OsString::from)));
            assert_eq!(got, wanted.into_iter().collect::<Vec<_>>(), "{name}={value:?}");
        }
    }
}
