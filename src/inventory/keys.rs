//! Secrets that cannot be recreated: keys that decrypt files in Git, CAs, ACME accounts.
//!
//! They are recognised by a label, by a name, or because a custom resource names them. The value of a Secret
//! is never requested.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::inventory::list::{Form, Reach};
use crate::inventory::table::{LABELLED_KEYS, NAMED_KEYS};
use crate::inventory::{Inventory, Key, MANY, Meta, SOME};
use crate::kubernetes::{Discovered, KindInfo};

/// The namespace where cert-manager looks for the Secrets of ClusterIssuers by default.
const CLUSTER_ISSUERS: &str = "cert-manager";

/// A Secret that a custom resource names; without a namespace it may be in any.
struct Named {
    namespace: Option<String>,
    name: String,
    what: String,
}

pub(crate) async fn keys(reach: &Reach<'_>, discovered: &Discovered, inventory: &mut Inventory) {
    let mut named = Vec::new();
    for kind in &discovered.kinds {
        let looked = match (kind.group.as_str(), kind.plural.as_str()) {
            ("cert-manager.io", "issuers" | "clusterissuers") => {
                reach.all(kind, Form::Whole, SOME, issuer(kind)).await
            }
            ("cert-manager.io", "certificates") => reach.all(kind, Form::Whole, SOME, authority).await,
            ("kustomize.toolkit.fluxcd.io", "kustomizations") => {
                reach.all(kind, Form::Whole, SOME, decryption).await
            }
            _ => continue,
        };
        inventory.unseen.extend(looked.unseen);
        named.extend(looked.kept.into_iter().flatten());
    }
    let secrets = KindInfo::named("", "v1", "secrets");
    let keep = |secret: Secret| key(secret.metadata, &named);
    let looked = reach.all(&secrets, Form::Metadata, MANY, keep).await;
    inventory.unseen.extend(looked.unseen);
    inventory.keys = looked.kept;
}

/// The only part of a Secret's metadata that is read: annotations may repeat the values, as those of kubectl
/// apply do.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Secret {
    metadata: SecretMeta,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SecretMeta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}

/// Returns the key with its description, if the Secret is one.
fn key(meta: SecretMeta, named: &[Named]) -> Option<Key> {
    let what = wanted(&meta.namespace, &meta.name, named)
        .or_else(|| known(&meta.namespace, &meta.name, &meta.labels))?;
    Some(Key { namespace: meta.namespace, name: meta.name, what, labels: meta.labels })
}

fn wanted(namespace: &str, name: &str, named: &[Named]) -> Option<String> {
    let fits = |one: &&Named| one.name == name && one.namespace.as_deref().is_none_or(|ns| ns == namespace);
    named.iter().find(fits).map(|one| one.what.clone())
}

fn known(namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let labelled = LABELLED_KEYS
        .iter()
        .find(|(label, value, _)| labels.get(*label).is_some_and(|has| value.is_empty() || has == value));
    let named =
        || NAMED_KEYS.iter().find(|(ns, known, _)| *known == name && (ns.is_empty() || *ns == namespace));
    labelled.or_else(named).map(|(_, _, what)| (*what).to_owned())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    name: String,
}

/// Returns the Secrets of a CA issuer and of an ACME account.
fn issuer(kind: &KindInfo) -> impl Fn(Issuer) -> Option<Vec<Named>> {
    let everywhere = !kind.namespaced;
    move |issuer: Issuer| {
        // The flag --cluster-resource-namespace sets another namespace, so only the name is compared.
        let namespace = match everywhere {
            true => None,
            false => Some(issuer.metadata.namespace.clone()),
        };
        let by = issuer.metadata.name;
        let place = if everywhere {
            format!("ClusterIssuer {by}, in {CLUSTER_ISSUERS} by default")
        } else {
            format!("Issuer {by}")
        };
        let ca = issuer.spec.ca.secret_name;
        let acme = issuer.spec.acme.private_key_secret_ref.name;
        let one = |name: String, what: &str| Named {
            namespace: namespace.clone(),
            name,
            what: format!("{what} of {place}"),
        };
        let mut named = Vec::new();
        if !ca.is_empty() {
            named.push(one(ca, "the CA"));
        }
        if !acme.is_empty() {
            named.push(one(acme, "the ACME account key"));
        }
        (!named.is_empty()).then_some(named)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Issuer {
    metadata: Meta,
    spec: IssuerSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IssuerSpec {
    ca: Ca,
    acme: Acme,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ca {
    secret_name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Acme {
    private_key_secret_ref: Reference,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Certificate {
    metadata: Meta,
    spec: CertificateSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CertificateSpec {
    #[serde(rename = "isCA")]
    is_ca: bool,
    secret_name: String,
}

/// Returns the Secret of a certificate that signs others.
fn authority(certificate: Certificate) -> Option<Vec<Named>> {
    let CertificateSpec { is_ca, secret_name } = certificate.spec;
    let Meta { name, namespace, .. } = certificate.metadata;
    let what = format!("the CA of Certificate {name}");
    (is_ca && !secret_name.is_empty())
        .then(|| vec![Named { namespace: Some(namespace), name: secret_name, what }])
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Kustomization {
    metadata: Meta,
    spec: KustomizationSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct KustomizationSpec {
    decryption: Decryption,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Decryption {
    secret_ref: Reference,
}

/// Returns the Secret with the key that Flux decrypts with.
fn decryption(kustomization: Kustomization) -> Option<Vec<Named>> {
    let name = kustomization.spec.decryption.secret_ref.name;
    let Meta { name: by, namespace, .. } = kustomization.metadata;
    let what = format!("the decryption key of Kustomization {by}");
    (!name.is_empty()).then(|| vec![Named { namespace: Some(namespace), name, what }])
}
