//! Secrets that cannot be recreated: keys that decrypt files in Git, CAs, ACME accounts.
//!
//! They are recognised by a label, by a name, or because a custom resource names them. The value of a Secret
//! is never requested.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::bounded_list::{Form, ListScope};
use super::known_names::{LABELLED_SECRETS, NAMED_SECRETS};
use super::{Inventory, IrreplaceableSecret, ObjectMeta, PAGE_LARGE, PAGE_SMALL};
use crate::kubernetes::{Discovered, KindInfo};

/// The namespace where cert-manager looks for the Secrets of ClusterIssuers by default.
const CLUSTER_ISSUERS: &str = "cert-manager";

/// A Secret that a custom resource names; without a namespace it may be in any.
struct ReferencedSecret {
    namespace: Option<String>,
    name: String,
    description: String,
}

pub(super) async fn read_irreplaceable_secrets(
    scope: &ListScope<'_>,
    discovered: &Discovered,
    inventory: &mut Inventory,
) {
    let mut named = Vec::new();
    for kind in &discovered.kinds {
        let found = match (kind.group.as_str(), kind.plural.as_str()) {
            ("cert-manager.io", "issuers" | "clusterissuers") => {
                scope.all(kind, Form::Whole, PAGE_SMALL, issuer_secrets(kind)).await
            }
            ("cert-manager.io", "certificates") => scope.all(kind, Form::Whole, PAGE_SMALL, ca_secret).await,
            ("kustomize.toolkit.fluxcd.io", "kustomizations") => {
                scope.all(kind, Form::Whole, PAGE_SMALL, decryption_secret).await
            }
            _ => continue,
        };
        named.extend(found.into_kept(&mut inventory.unread).into_iter().flatten());
    }
    let secrets = KindInfo::from_path_parts("", "v1", "secrets");
    let keep = |secret: Secret| to_irreplaceable(secret.metadata, &named);
    inventory.irreplaceable_secrets =
        scope.all(&secrets, Form::Metadata, PAGE_LARGE, keep).await.into_kept(&mut inventory.unread);
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

/// Returns the Secret with its description, if it cannot be recreated.
fn to_irreplaceable(meta: SecretMeta, named: &[ReferencedSecret]) -> Option<IrreplaceableSecret> {
    let description = find_referenced(&meta.namespace, &meta.name, named)
        .or_else(|| find_known(&meta.namespace, &meta.name, &meta.labels))?;
    Some(IrreplaceableSecret { namespace: meta.namespace, name: meta.name, description, labels: meta.labels })
}

fn find_referenced(namespace: &str, name: &str, named: &[ReferencedSecret]) -> Option<String> {
    let matches = |one: &&ReferencedSecret| {
        one.name == name && one.namespace.as_deref().is_none_or(|ns| ns == namespace)
    };
    named.iter().find(matches).map(|one| one.description.clone())
}

fn find_known(namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let labelled = LABELLED_SECRETS
        .iter()
        .find(|(label, value, _)| labels.get(*label).is_some_and(|has| value.is_empty() || has == value));
    let named =
        || NAMED_SECRETS.iter().find(|(ns, known, _)| *known == name && (ns.is_empty() || *ns == namespace));
    labelled.or_else(named).map(|(_, _, description)| (*description).to_owned())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    name: String,
}

/// Returns the Secrets of a CA issuer and of an ACME account.
fn issuer_secrets(kind: &KindInfo) -> impl Fn(Issuer) -> Option<Vec<ReferencedSecret>> {
    let is_cluster_issuer = !kind.namespaced;
    move |issuer: Issuer| {
        // The flag --cluster-resource-namespace sets another namespace, so only the name is compared.
        let namespace = match is_cluster_issuer {
            true => None,
            false => Some(issuer.metadata.namespace.clone()),
        };
        let by = issuer.metadata.name;
        let place = if is_cluster_issuer {
            format!("ClusterIssuer {by}, in {CLUSTER_ISSUERS} by default")
        } else {
            format!("Issuer {by}")
        };
        let ca = issuer.spec.ca.secret_name;
        let acme = issuer.spec.acme.private_key_secret_ref.name;
        let one = |name: String, what: &str| ReferencedSecret {
            namespace: namespace.clone(),
            name,
            description: format!("{what} of {place}"),
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
    metadata: ObjectMeta,
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
    metadata: ObjectMeta,
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
fn ca_secret(certificate: Certificate) -> Option<Vec<ReferencedSecret>> {
    let CertificateSpec { is_ca, secret_name } = certificate.spec;
    let ObjectMeta { name, namespace, .. } = certificate.metadata;
    let description = format!("the CA of Certificate {name}");
    (is_ca && !secret_name.is_empty())
        .then(|| vec![ReferencedSecret { namespace: Some(namespace), name: secret_name, description }])
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Kustomization {
    metadata: ObjectMeta,
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
fn decryption_secret(kustomization: Kustomization) -> Option<Vec<ReferencedSecret>> {
    let name = kustomization.spec.decryption.secret_ref.name;
    let ObjectMeta { name: by, namespace, .. } = kustomization.metadata;
    let description = format!("the decryption key of Kustomization {by}");
    (!name.is_empty()).then(|| vec![ReferencedSecret { namespace: Some(namespace), name, description }])
}
