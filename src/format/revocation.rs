//! An owner's revocation of a key, above all of a stolen writer key: a signed record in the store, and a line of
//! the signers file, which nobody can delete who holds the bucket.
//!
//! ```text
//! # kbak-cut-off ssh-ed25519 AAAA… <manifest SHA-256>,…|none <reason>
//! ```
//!
//! The line is a comment for ssh-keygen. kbak refuses a line with this start that it cannot read.

use serde::{Deserialize, Serialize};

use super::ids::ObjectHash;
use super::signing_key::PublicKey;

/// The start of the line in a signers file.
const START: &str = "# kbak-cut-off";

/// The most last good manifests that a revocation names.
pub const MAX_LAST_GOOD: usize = 256;

/// A key that counts no more, except for what was good before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The revoked key.
    pub key: PublicKey,
    /// The last good manifests of that key: they and their ancestors stay valid.
    pub last_good: Vec<ObjectHash>,
    /// The reason, for people.
    pub why: String,
}

impl Revocation {
    /// Returns the line of a signers file, without its end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let good: Vec<String> = self.last_good.iter().map(ToString::to_string).collect();
        let good = if good.is_empty() { "none".to_owned() } else { good.join(",") };
        let why: String = self.why.chars().filter(|c| !c.is_control()).collect();
        format!("{START} {} {good} {why}", self.key).trim_end().to_owned()
    }

    /// Reads a line of a signers file. Returns none if it is no revocation, and an error if it is a malformed one.
    #[must_use]
    pub fn parse_line(line: &str) -> Option<Result<Self, &'static str>> {
        let rest = line.strip_prefix(START)?;
        Some(Self::parse_rest(rest))
    }

    fn parse_rest(rest: &str) -> Result<Self, &'static str> {
        let mut words = rest.trim_start().splitn(4, [' ', '\t']);
        let mut next = || words.next().filter(|word| !word.is_empty());
        let key = format!("{} {}", next().ok_or("no key")?, next().ok_or("no key")?);
        let key = key.parse().map_err(|_| "no ssh-ed25519 key")?;
        let good = next().ok_or("neither last good manifests nor the word none")?;
        let last_good = match good {
            "none" => Vec::new(),
            list => list
                .split(',')
                .map(|hash| hash.strip_prefix("sha256:").unwrap_or(hash).parse())
                .collect::<Result<_, _>>()
                .map_err(|_| "a last good manifest that is no SHA-256")?,
        };
        Ok(Self { key, last_good, why: next().unwrap_or_default().trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::signing_key::SigningKey;

    #[test]
    fn line_is_read_as_it_was_written() {
        let key = SigningKey::from_seed(&[5; 32].into()).public();
        for last_good in [vec![], vec![ObjectHash([1; 32]), ObjectHash([2; 32])]] {
            let revocation = Revocation { key, last_good, why: "a node was taken".into() };
            assert_eq!(Revocation::parse_line(&revocation.to_line()), Some(Ok(revocation)));
        }
    }

    #[test]
    fn malformed_lines_are_refused_and_other_comments_are_not_read() {
        let key = SigningKey::from_seed(&[5; 32].into()).public();
        for rest in ["", " ssh-ed25519", &format!(" {key}"), &format!(" {key} 1234"), " ssh-rsa AAAA none"] {
            let read = Revocation::parse_line(&format!("{START}{rest}"));
            assert!(matches!(read, Some(Err(_))), "{rest:?}: {read:?}");
        }
        assert_eq!(Revocation::parse_line("# kbak-owner: age1"), None);
    }
}
