//! Secrets that cannot be recreated: keys that decrypt files in Git, CAs, ACME accounts.
//!
//! Recognised by a label, a name, or a custom resource that names them. No Secret's value is requested.

use std::collections::BTreeMap;

use super::bounded_list::{Form, ListScope};
use super::known_names::{LABELLED_SECRETS, NAMED_SECRETS};
use super::object_parts::{Object, ObjectMeta, object_parts};
use super::{Inventory, IrreplaceableSecret};
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
    for kind in discovered.kinds.iter().filter(|kind| names_secrets(kind)) {
        let unread = &mut inventory.unread;
        let found = match (kind.group.as_str(), kind.plural.as_str()) {
            ("cert-manager.io", "issuers" | "clusterissuers") => {
                scope.read(kind, Form::Whole, unread, issuer_secrets(kind)).await
            }
            ("cert-manager.io", _) => scope.read(kind, Form::Whole, unread, ca_secret).await,
            _ => scope.read(kind, Form::Whole, unread, decryption_secret).await,
        };
        named.extend(found.into_iter().flatten());
    }
    let secrets = KindInfo::from_path_parts("", "v1", "secrets");
    let keep = |secret: Secret| to_irreplaceable(secret.metadata, &named);
    inventory.irreplaceable_secrets = scope.read(&secrets, Form::Metadata, &mut inventory.unread, keep).await;
}

/// True for kinds whose objects name Secrets that cannot be recreated.
pub(super) fn names_secrets(kind: &KindInfo) -> bool {
    matches!(
        (kind.group.as_str(), kind.plural.as_str()),
        ("cert-manager.io", "issuers" | "clusterissuers" | "certificates")
            | ("kustomize.toolkit.fluxcd.io", "kustomizations")
    )
}

object_parts! {
    struct Secret {
        metadata: SecretMeta,
    }
    /// All that is read of a Secret's metadata: annotations may repeat the values (kubectl apply).
    struct SecretMeta {
        name: String,
        namespace: String,
        labels: BTreeMap<String, String>,
    }
    struct IssuerSpec {
        ca: Ca,
        acme: Acme,
    }
    struct Ca {
        secret_name: String,
    }
    struct Acme {
        private_key_secret_ref: Reference,
    }
    struct CertificateSpec {
        #[serde(rename = "isCA")]
        is_ca: bool,
        secret_name: String,
    }
    struct KustomizationSpec {
        decryption: Decryption,
    }
    struct Decryption {
        secret_ref: Reference,
    }
    struct Reference {
        name: String,
    }
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

/// Returns the Secrets of a CA issuer and of an ACME account.
fn issuer_secrets(kind: &KindInfo) -> impl Fn(Object<IssuerSpec>) -> Option<Vec<ReferencedSecret>> {
    let is_cluster_issuer = !kind.namespaced;
    move |Object { metadata: ObjectMeta { name: issuer, namespace, .. }, spec }| {
        // The flag --cluster-resource-namespace sets another namespace, so only the name is compared.
        let (namespace, place) = match is_cluster_issuer {
            true => (None, format!("ClusterIssuer {issuer}, in {CLUSTER_ISSUERS} by default")),
            false => (Some(namespace), format!("Issuer {issuer}")),
        };
        let keys = [
            (spec.ca.secret_name, "the CA"),
            (spec.acme.private_key_secret_ref.name, "the ACME account key"),
        ];
        let keys = keys.into_iter().filter(|(name, _)| !name.is_empty());
        let secret = |(name, what)| ReferencedSecret {
            namespace: namespace.clone(),
            name,
            description: format!("{what} of {place}"),
        };
        let secrets: Vec<_> = keys.map(secret).collect();
        (!secrets.is_empty()).then_some(secrets)
    }
}

/// Returns the Secret of a certificate that signs others.
fn ca_secret(certificate: Object<CertificateSpec>) -> Option<Vec<ReferencedSecret>> {
    let CertificateSpec { is_ca, secret_name } = certificate.spec;
    let ObjectMeta { name, namespace, .. } = certificate.metadata;
    let description = format!("the CA of Certificate {name}");
    (is_ca && !secret_name.is_empty())
        .then(|| vec![ReferencedSecret { namespace: Some(namespace), name: secret_name, description }])
}

/// Returns the Secret with the key that Flux decrypts with.
fn decryption_secret(kustomization: Object<KustomizationSpec>) -> Option<Vec<ReferencedSecret>> {
    let name = kustomization.spec.decryption.secret_ref.name;
    let ObjectMeta { name: by, namespace, .. } = kustomization.metadata;
    let description = format!("the decryption key of Kustomization {by}");
    (!name.is_empty()).then(|| vec![ReferencedSecret { namespace: Some(namespace), name, description }])
}
