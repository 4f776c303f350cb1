//! The pin: the keys whose signatures are valid, per writer and namespace. An OpenSSH allowed_signers
//! file (ssh-keygen(1), "ALLOWED SIGNERS"), so that `ssh-keygen -Y verify` takes the same file.
//!
//! ```text
//! # comment
//! # kbak-cut-off ssh-ed25519 AAAA… none a reason ([`super::revocation`])
//! <writer id> namespaces="kbak-epoch-v1,kbak-manifest-v1" ssh-ed25519 AAAA… comment
//! ```
//!
//! A principal is a writer's id. kbak reads a strict subset of OpenSSH's syntax. It rejects what it does
//! not implement (certificate authorities, validity dates, patterns, keys for every namespace) with the
//! line's number, because ignoring an option would make the pin wider than it says.

use super::namespace::Namespace;
use super::revocation::Revocation;
use super::signing_key::{KeyError, PublicKey};
use crate::report::text::without_bom;

/// The longest signers file that is read, in bytes.
pub const MAX_SIGNERS: usize = 1 << 20;

/// One pinned key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The ids, in hex, of the writers in whose part of the repository the key may sign.
    pub principals: Vec<String>,
    /// The namespaces that it may sign for. Those of other programs are kept and have no effect.
    pub namespaces: Vec<String>,
    /// The public key.
    pub key: PublicKey,
    /// The comment after the key, for people.
    pub comment: String,
}

/// The pinned keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    signers: Vec<Signer>,
    revoked: Vec<Revocation>,
}

/// The reason that a line of a signers file is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the signers file: {kind}")]
pub struct SignersError {
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The kind of error.
    pub kind: SignersErrorKind,
}

/// The kind of error in a line of a signers file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignersErrorKind {
    /// The file is larger than [`MAX_SIGNERS`].
    #[error("the file is larger than {MAX_SIGNERS} bytes")]
    TooLarge,
    /// The line ends before the key.
    #[error("principals, namespaces=\"…\" and a key are required")]
    Incomplete,
    /// A quote is not closed, or is in a place where none may be.
    #[error("a quote is not closed")]
    Quote,
    /// A pattern is given instead of an exact name.
    #[error("{0:?} is a pattern: name each writer and each namespace in full")]
    Pattern(String),
    /// An option that kbak does not implement.
    #[error("the option {0:?} is not supported: it would be ignored, so the line is refused")]
    Option(String),
    /// The line has no `namespaces=` option.
    #[error("it has no namespaces option: the key would be valid for every namespace")]
    NoNamespaces,
    /// The key is malformed or of another type.
    #[error("{0}")]
    Key(KeyError),
    /// The line begins like a revocation and is none.
    #[error("it revokes a key, and has {0}")]
    CutOff(&'static str),
    /// The file contains a private key. The message does not show it.
    #[error("the file of public keys contains a private key: remove it, and create a new one")]
    Private,
}

impl Signers {
    /// Reads an allowed_signers file.
    pub fn parse(text: &str) -> Result<Self, SignersError> {
        if text.len() > MAX_SIGNERS {
            return Err(SignersError { line: 0, kind: SignersErrorKind::TooLarge });
        }
        let (mut signers, mut revoked) = (Vec::new(), Vec::new());
        for (number, line) in without_bom(text).lines().enumerate() {
            let line = line.trim();
            if let Some(revocation) = Revocation::parse_line(line) {
                let wrong = |what| SignersError { line: number + 1, kind: SignersErrorKind::CutOff(what) };
                revoked.push(revocation.map_err(wrong)?);
                continue;
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = Signer::parse(line).map_err(|kind| SignersError { line: number + 1, kind })?;
            signers.push(signer);
        }
        Ok(Self { signers, revoked })
    }

    /// Returns the keys that the file itself revokes.
    pub fn revoked(&self) -> &[Revocation] {
        &self.revoked
    }

    /// Revokes a key.
    pub fn revoke(&mut self, revocation: Revocation) {
        self.revoked.push(revocation);
    }

    /// Adds a pinned key.
    pub fn add(&mut self, signer: Signer) {
        self.signers.push(signer);
    }

    /// Adds the keys of another pin.
    pub fn extend(&mut self, other: Self) {
        self.signers.extend(other.signers);
        self.revoked.extend(other.revoked);
    }

    /// Returns the keys that are pinned for `principal` and `namespace`. A key that the file itself revokes signs
    /// nothing any more; of its manifests and epochs, the chain tells which were good before.
    pub fn lookup<'a>(
        &'a self,
        principal: &'a str,
        namespace: Namespace,
    ) -> impl Iterator<Item = PublicKey> + 'a {
        let signs_chain = matches!(namespace, Namespace::Manifest | Namespace::Epoch);
        self.signers
            .iter()
            .filter(move |signer| {
                (signs_chain || !self.revoked.iter().any(|revoked| revoked.key == signer.key))
                    && signer.principals.iter().any(|p| p == principal)
                    && signer.namespaces.iter().any(|n| n == namespace.as_str())
            })
            .map(|signer| signer.key)
    }

    /// Returns all keys, in the order of the file.
    pub fn all(&self) -> &[Signer] {
        &self.signers
    }

    /// Returns all principals, each once, in the order of the file.
    pub fn principals(&self) -> Vec<&str> {
        let mut seen = Vec::new();
        for principal in self.signers.iter().flat_map(|signer| &signer.principals) {
            if !seen.contains(&principal.as_str()) {
                seen.push(principal);
            }
        }
        seen
    }

    /// Returns `true` if no key is pinned.
    pub fn is_empty(&self) -> bool {
        self.signers.is_empty()
    }

    /// Returns the text of the file: one line per key, and one per revoked key.
    pub fn to_text(&self) -> String {
        let signers = self.signers.iter().map(|signer| signer.to_line() + "\n");
        signers.chain(self.revoked.iter().map(|revocation| revocation.to_line() + "\n")).collect()
    }
}

impl Signer {
    /// Creates a pinned key for one writer; control characters in the comment are left out.
    #[must_use]
    pub fn new(principal: &str, namespaces: &[Namespace], key: PublicKey, comment: &str) -> Self {
        let printable = |c: char| !c.is_control();
        Self {
            principals: vec![principal.to_owned()],
            namespaces: namespaces.iter().map(|n| n.as_str().to_owned()).collect(),
            key,
            comment: comment.chars().filter(|c| printable(*c)).collect::<String>().trim().to_owned(),
        }
    }

    fn parse(line: &str) -> Result<Self, SignersErrorKind> {
        if line.contains("PRIVATE KEY") || line.to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
            return Err(SignersErrorKind::Private);
        }
        let (principals, rest) = word(line)?;
        let principals = list(&principals)?;
        let mut namespaces = None;
        let mut rest = rest;
        let key = loop {
            if rest.is_empty() {
                return Err(SignersErrorKind::Incomplete);
            }
            // Options come before the key. Key types start with these prefixes and option names do not.
            if rest.starts_with("ssh-") || rest.starts_with("ecdsa-") || rest.starts_with("sk-") {
                break rest;
            }
            let (options, after) = word(rest)?;
            for option in split_unquoted(&options) {
                match option.split_once('=') {
                    Some((name, value)) if name.eq_ignore_ascii_case("namespaces") => {
                        if namespaces.is_some() {
                            return Err(SignersErrorKind::Option(name.to_owned()));
                        }
                        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                        namespaces = Some(list(value.ok_or(SignersErrorKind::Quote)?)?);
                    }
                    Some((name, _)) => return Err(SignersErrorKind::Option(shorten(name))),
                    None => return Err(SignersErrorKind::Option(shorten(option))),
                }
            }
            rest = after;
        };
        let namespaces = namespaces.ok_or(SignersErrorKind::NoNamespaces)?;
        let public = key.parse::<PublicKey>().map_err(SignersErrorKind::Key)?;
        let comment = key.splitn(3, ' ').nth(2).unwrap_or("").trim().to_owned();
        Ok(Self { principals, namespaces, key: public, comment })
    }

    fn to_line(&self) -> String {
        let (who, what) = (self.principals.join(","), self.namespaces.join(","));
        let line = format!("{who} namespaces=\"{what}\" {} {}", self.key, self.comment);
        line.trim_end().to_owned()
    }
}

/// Returns the first word, which ends at a blank outside quotes, and the rest.
fn word(text: &str) -> Result<(String, &str), SignersErrorKind> {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '\\' => return Err(SignersErrorKind::Quote),
            c if !quoted && (c == ' ' || c == '\t') => {
                return Ok((text[..at].to_owned(), text[at..].trim_start()));
            }
            _ => {}
        }
    }
    if quoted { Err(SignersErrorKind::Quote) } else { Ok((text.to_owned(), "")) }
}

/// Splits options at commas outside quotes.
fn split_unquoted(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// Reads a comma-separated list of exact names, with or without quotes around it.
fn list(text: &str) -> Result<Vec<String>, SignersErrorKind> {
    let text = match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').ok_or(SignersErrorKind::Quote)?,
        None => text,
    };
    text.split(',')
        .map(|name| match name {
            "" => Err(SignersErrorKind::Incomplete),
            name if name.contains(['*', '?', '!', '"']) => Err(SignersErrorKind::Pattern(shorten(name))),
            name => Ok(name.to_owned()),
        })
        .collect()
}

fn shorten(text: &str) -> String {
    text.chars().take(40).filter(|c| !c.is_control()).collect()
}
