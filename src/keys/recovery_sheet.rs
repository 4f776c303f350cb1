//! The files that `init` makes for people: the recovery sheet, the pin, and Kubernetes Secrets.

use askama::Template;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::format::signers::{Signer, Signers};
use crate::format::{sign::Namespace, timestamp};
use crate::keys::Owner;
use crate::keys::writer_key::WriterKey;
use crate::report::text::without_bom;

/// The location of a bucket, without credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositoryLocation {
    /// The URL as for `--repo`: `s3://bucket/prefix` or `file:///folder`.
    pub url: String,
    /// The endpoint, for stores other than Amazon S3.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// True if the bucket is in the path, not in the host name.
    pub path_style: bool,
}

impl RepositoryLocation {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("address", self.url.clone())];
        facts.extend(self.endpoint.clone().map(|endpoint| ("endpoint", endpoint)));
        facts.extend(self.region.clone().map(|region| ("region", region)));
        if self.path_style {
            facts.push(("style", "bucket in the path".to_owned()));
        }
        facts
    }

    fn flags(&self) -> String {
        let mut flags = String::new();
        for (flag, value) in [("endpoint", &self.endpoint), ("region", &self.region)] {
            if let Some(value) = value {
                flags.push_str(&format!(" --{flag} {value}"));
            }
        }
        if self.path_style {
            flags.push_str(" --path-style");
        }
        flags
    }
}

/// An owner and the result of their challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenOwner {
    /// The owner.
    pub owner: Owner,
    /// True if the owner has shown that they can decrypt.
    pub proven: bool,
}

/// The contents of a recovery sheet.
#[derive(Debug, Clone)]
pub struct RecoverySheet<'a> {
    /// The time at which it was made.
    pub created: Timestamp,
    /// The location of the bucket.
    pub place: &'a RepositoryLocation,
    /// The writer's key. Only its ids and public key are printed.
    pub key: &'a WriterKey,
    /// The names of its plans.
    pub plans: &'a [String],
    /// The owners who can decrypt.
    pub owners: &'a [ProvenOwner],
    /// The pin.
    pub signers: &'a Signers,
}

struct OwnerLine {
    name: String,
    recipient: String,
    fingerprint: String,
    signing: Option<String>,
    proven: bool,
}

macro_rules! sheet {
    ($name:ident, $path:literal) => {
        #[derive(Template)]
        #[template(path = $path)]
        struct $name {
            created: String,
            place: Vec<(&'static str, String)>,
            repository: String,
            writer: String,
            plans: Vec<String>,
            owners: Vec<OwnerLine>,
            signers: String,
            url: String,
            flags: String,
            prefix: String,
        }

        impl $name {
            fn of(sheet: &RecoverySheet<'_>) -> Self {
                let plans = sheet.plans.iter().map(|plan| format!("{plan} (id {})", sheet.key.plan(plan)));
                Self {
                    created: timestamp::to_seconds(sheet.created).to_string(),
                    place: sheet.place.facts(),
                    repository: sheet.key.repository.to_string(),
                    writer: sheet.key.writer.to_string(),
                    plans: plans.collect(),
                    owners: sheet.owners.iter().map(OwnerLine::of).collect(),
                    signers: sheet.signers.to_text(),
                    url: sheet.place.url.clone(),
                    flags: sheet.place.flags(),
                    prefix: format!("{}/", sheet.key.writer),
                }
            }
        }
    };
}

sheet!(TextSheet, "recovery.txt");
sheet!(HtmlSheet, "recovery.html");

impl OwnerLine {
    fn of(proven: &ProvenOwner) -> Self {
        let ProvenOwner { owner, proven } = proven;
        Self {
            name: owner.name(),
            recipient: owner.recipient.to_string(),
            fingerprint: owner.recipient.id().to_string(),
            signing: owner.signing.map(|key| key.fingerprint()),
            proven: *proven,
        }
    }
}

impl RecoverySheet<'_> {
    /// Renders the sheet as plain text.
    pub fn to_text(&self) -> Result<String, askama::Error> {
        // The template engine drops the last newline.
        TextSheet::of(self).render().map(|text| text + "\n")
    }

    /// Renders the sheet as one self-contained HTML page.
    pub fn to_html(&self) -> Result<String, askama::Error> {
        HtmlSheet::of(self).render()
    }
}

/// Returns the pin of a new repository: the writer's key and the owners' signing keys.
#[must_use]
pub fn signers_of(key: &WriterKey, owners: &[Owner]) -> Signers {
    let mut signers = Signers::default();
    signers.add(key.signer());
    for owner in owners {
        if let Some(signing) = owner.signing {
            let comment = format!("owner {}", owner.name());
            signers.add(Signer::new(&key.writer.to_string(), &Namespace::OWNER, signing, &comment));
        }
    }
    signers
}

const OWNER_LINE: &str = "# owner: ";

/// Returns the text of kbak.pub: the pin, and the owners as comments, so that their names can
/// be shown for fingerprints in a bucket.
#[must_use]
pub fn pin_text(key: &WriterKey, signers: &Signers, owners: &[Owner]) -> String {
    let mut text = format!(
        "# kbak: who signs in repository {}. Give this file to --signer; it is an OpenSSH\n\
         # allowed_signers file. Keep it apart from the bucket: it is what a forgery fails on.\n",
        key.repository
    );
    for owner in owners {
        text.push_str(&format!("{OWNER_LINE}{} {}\n", owner.recipient, owner.comment));
    }
    text.push_str(&signers.to_text());
    text
}

/// Returns the owners named in a pin's comments: only for showing names, never for encryption.
#[must_use]
pub fn owners_in_pin(text: &str) -> Vec<Owner> {
    without_bom(text).lines().filter_map(|line| line.strip_prefix(OWNER_LINE)?.parse().ok()).collect()
}

/// Returns a Kubernetes Secret with one file, as YAML for `kubectl apply -f -`, kubeseal or SOPS.
#[must_use]
pub fn secret_yaml(name: &str, namespace: &str, file: &str, content: &str) -> Zeroizing<String> {
    let data = Zeroizing::new(BASE64_STANDARD.encode(content));
    Zeroizing::new(format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {}\n  namespace: {}\n  labels:\n    \
         app.kubernetes.io/name: kbak\ntype: Opaque\ndata:\n  {}: {}\n",
        quoted(name),
        quoted(namespace),
        quoted(file),
        data.as_str()
    ))
}

/// Quotes a YAML string as JSON, which every YAML parser reads as a string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
