//! Renames namespaces and references to them, storage classes, images and hosts for the target cluster.

use serde_json::Value;

use super::{Changes, hosts};
use crate::kubernetes::KindInfo;
use crate::kubernetes::pod_spec::{for_each_container, pod_spec_mut};
use crate::plan::Mapping;
use crate::target::kubernetes::{TRACKING_MARKS, each_mut, map_mut, text};

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// Group, resource and pointers to names of namespaces; the pointers are as in hosts.rs.
const NAMESPACES: &[(&str, &str, &[&str])] = &[
    (RBAC, "rolebindings", &["/subjects/*/namespace"]),
    (RBAC, "clusterrolebindings", &["/subjects/*/namespace"]),
    (ADMISSION, "validatingwebhookconfigurations", &["/webhooks/*/clientConfig/service/namespace"]),
    (ADMISSION, "mutatingwebhookconfigurations", &["/webhooks/*/clientConfig/service/namespace"]),
    ("apiregistration.k8s.io", "apiservices", &["/spec/service/namespace"]),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        &["/spec/conversion/webhook/clientConfig/service/namespace"],
    ),
    ("", "persistentvolumes", &["/spec/claimRef/namespace"]),
    (GATEWAY, "httproutes", &["/spec/parentRefs/*/namespace", "/spec/rules/*/backendRefs/*/namespace"]),
    (GATEWAY, "grpcroutes", &["/spec/parentRefs/*/namespace", "/spec/rules/*/backendRefs/*/namespace"]),
    (GATEWAY, "tlsroutes", &["/spec/parentRefs/*/namespace"]),
    (GATEWAY, "referencegrants", &["/spec/from/*/namespace"]),
];
/// The label by which policies select a namespace.
const NAME: &str = "kubernetes.io/metadata.name";
/// The annotation that holds the storage class of old claims.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Applies the mapping to `object` and its references, including its own namespace.
pub(crate) fn apply_mapping(kind: &KindInfo, object: &mut Value, mapping: &Mapping, changes: &mut Changes) {
    if !mapping.namespaces.is_empty() {
        namespaces(kind, object, mapping, changes);
    }
    classes(kind, object, mapping, changes);
    images(kind, object, mapping, changes);
    hosts::map_hosts(kind, object, mapping, changes);
}

fn namespaces(kind: &KindInfo, object: &mut Value, mapping: &Mapping, changes: &mut Changes) {
    let own = if kind.resource() == "namespaces" { "/metadata/name" } else { "/metadata/namespace" };
    let from = text(object, own);
    if mapping.namespaces.get(from).is_some_and(|to| to != from) {
        object.pointer_mut(own).into_iter().for_each(|value| replace(value, mapping, changes));
        if kind.resource() == "namespaces"
            && let Some(labels) = map_mut(object, "/metadata/labels")
        {
            // The server sets this label.
            labels.remove(NAME);
        }
        unmark(object, changes);
    }
    let of = NAMESPACES.iter().find(|(group, plural, _)| *group == kind.group && *plural == kind.plural);
    for pointer in of.into_iter().flat_map(|(.., pointers)| *pointers) {
        hosts::for_each_at(object, pointer, &mut |value| replace(value, mapping, changes));
    }
    if (kind.group.as_str(), kind.plural.as_str()) == ("networking.k8s.io", "networkpolicies") {
        for peers in ["/spec/ingress/*/from/*", "/spec/egress/*/to/*"] {
            hosts::for_each_at(object, peers, &mut |peer| {
                let labels =
                    map_mut(peer, "/namespaceSelector/matchLabels").and_then(|all| all.get_mut(NAME));
                if let Some(name) = labels {
                    replace(name, mapping, changes);
                }
                for term in each_mut(peer, "/namespaceSelector/matchExpressions") {
                    if text(term, "/key") == NAME {
                        hosts::for_each_at(term, "/values/*", &mut |value| replace(value, mapping, changes));
                    }
                }
            });
        }
    }
    if kind.group == "rbac.authorization.k8s.io" {
        hosts::for_each_at(object, "/subjects/*/name", &mut |name| accounts(name, mapping, changes));
    }
}

/// Maps the namespace in the user and group names that the API server gives to service accounts.
fn accounts(name: &mut Value, mapping: &Mapping, changes: &mut Changes) {
    changes.rename("namespace", name, |from| {
        if let Some(namespace) = from.strip_prefix("system:serviceaccounts:") {
            let to = mapping.namespaces.get(namespace)?;
            return Some(format!("system:serviceaccounts:{to}"));
        }
        let (namespace, account) = from.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let to = mapping.namespaces.get(namespace)?;
        Some(format!("system:serviceaccount:{to}:{account}"))
    });
}

fn replace(value: &mut Value, mapping: &Mapping, changes: &mut Changes) {
    changes.rename("namespace", value, |from| mapping.namespaces.get(from).cloned());
}

/// Removes the tracking marks of Argo CD and Flux from a copy: they would adopt the object and delete it.
fn unmark(object: &mut Value, changes: &mut Changes) {
    for place in ["/metadata/labels", "/metadata/annotations"] {
        let Some(marks) = map_mut(object, place) else { continue };
        for mark in TRACKING_MARKS {
            if marks.remove(mark).is_some() {
                changes.dropped(mark);
            }
        }
    }
}

fn classes(kind: &KindInfo, object: &mut Value, mapping: &Mapping, changes: &mut Changes) {
    if mapping.storage_classes.is_empty() {
        return;
    }
    let mut class = |value: &mut Value| {
        changes.rename("class", value, |from| mapping.storage_classes.get(from).cloned());
    };
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "persistentvolumeclaims" | "persistentvolumes") => {
            hosts::for_each_at(object, "/spec/storageClassName", &mut class);
            let old = map_mut(object, "/metadata/annotations").and_then(|all| all.get_mut(OLD_CLASS));
            old.into_iter().for_each(&mut class);
        }
        ("apps", "statefulsets") => {
            hosts::for_each_at(object, "/spec/volumeClaimTemplates/*/spec/storageClassName", &mut class);
        }
        _ => {}
    }
    if let Some(spec) = pod_spec_mut(kind, object) {
        let at = "/volumes/*/ephemeral/volumeClaimTemplate/spec/storageClassName";
        hosts::for_each_at(spec, at, &mut class);
    }
}

fn images(kind: &KindInfo, object: &mut Value, mapping: &Mapping, changes: &mut Changes) {
    if mapping.images.is_empty() {
        return;
    }
    let Some(spec) = pod_spec_mut(kind, object) else { return };
    for_each_container(spec, |container| {
        let Some(image) = container.get_mut("image") else { return };
        changes.rename("image", image, |from| {
            let prefixes = mapping.images.iter().filter(|(prefix, _)| from.starts_with(prefix.as_str()));
            let (prefix, to) = prefixes.max_by_key(|(prefix, _)| prefix.len())?;
            Some(format!("{to}{}", &from[prefix.len()..]))
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(group: &str, plural: &str) -> KindInfo {
        KindInfo::from_path_parts(group, "v1", plural)
    }

    fn mapping() -> Mapping {
        let pairs = |all: &[(&str, &str)]| {
            all.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
        };
        Mapping {
            namespaces: pairs(&[("shop", "shop-test")]),
            storage_classes: pairs(&[("fast", "standard")]),
            images: pairs(&[("docker.io/", "mirror.example/"), ("docker.io/library/", "lib.example/")]),
            hosts: pairs(&[("example.com", "test.example.com")]),
        }
    }

    fn mapped(group: &str, plural: &str, mut object: Value) -> Value {
        apply_mapping(&kind(group, plural), &mut object, &mapping(), &mut Changes::default());
        object
    }

    #[test]
    fn references_to_a_mapped_namespace_are_renamed() {
        let binding = mapped(
            "rbac.authorization.k8s.io",
            "rolebindings",
            json!({"metadata": {"namespace": "shop"}, "subjects": [{"namespace": "shop"}, {"namespace": "other"}, {"kind": "User"}]}),
        );
        assert_eq!(binding["metadata"]["namespace"], "shop-test");
        assert_eq!(binding["subjects"][0]["namespace"], "shop-test");
        assert_eq!(binding["subjects"][1]["namespace"], "other");
        let hook = json!({"webhooks": [{"clientConfig": {"service": {"namespace": "shop"}}}]});
        let hook = mapped("admissionregistration.k8s.io", "validatingwebhookconfigurations", hook);
        assert_eq!(hook["webhooks"][0]["clientConfig"]["service"]["namespace"], "shop-test");
        let space = json!({"metadata": {"name": "shop", "labels": {NAME: "shop", "argocd.argoproj.io/instance": "x"}}});
        assert_eq!(mapped("", "namespaces", space)["metadata"], json!({"name": "shop-test", "labels": {}}));
        let policy = json!({"metadata": {"namespace": "a"}, "spec": {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {NAME: "shop"}}}]}]}});
        let policy = mapped("networking.k8s.io", "networkpolicies", policy);
        assert_eq!(
            policy.pointer("/spec/ingress/0/from/0/namespaceSelector/matchLabels"),
            Some(&json!({NAME: "shop-test"}))
        );
    }

    #[test]
    fn classes_images_and_hosts_are_mapped() {
        let set = json!({"spec": {"volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}],
            "template": {"spec": {"containers": [{"image": "docker.io/library/nginx:1"}, {"image": "docker.io/me/x"}, {"image": "quay.io/x"}]}}}});
        let set = mapped("apps", "statefulsets", set);
        assert_eq!(
            set.pointer("/spec/volumeClaimTemplates/0/spec/storageClassName"),
            Some(&json!("standard"))
        );
        let image = |at: usize| set.pointer(&format!("/spec/template/spec/containers/{at}/image")).cloned();
        assert_eq!(image(0), Some(json!("lib.example/nginx:1")));
        assert_eq!(image(1), Some(json!("mirror.example/me/x")));
        assert_eq!(image(2), Some(json!("quay.io/x")));
        let ingress = json!({"spec": {"rules": [{"host": "shop.example.com"}, {"host": "badexample.com"}], "tls": [{"hosts": ["example.com"]}]}});
        assert_eq!(
            mapped("networking.k8s.io", "ingresses", ingress)["spec"],
            json!({"rules": [{"host": "shop.test.example.com"}, {"host": "badexample.com"}], "tls": [{"hosts": ["test.example.com"]}]})
        );
    }

    #[test]
    fn accounts_selectors_classes_and_aliases_are_mapped() {
        let mut changes = Changes::default();
        let mut binding = json!({"metadata": {"namespace": "shop"}, "subjects": [
            {"kind": "Group", "name": "system:serviceaccounts:shop"},
            {"kind": "User", "name": "system:serviceaccount:shop:web"},
            {"kind": "Group", "name": "system:serviceaccounts"}]});
        apply_mapping(
            &kind("rbac.authorization.k8s.io", "rolebindings"),
            &mut binding,
            &mapping(),
            &mut changes,
        );
        let names: Vec<&str> = (0..3).map(|at| text(&binding["subjects"][at], "/name")).collect();
        assert_eq!(
            names,
            [
                "system:serviceaccounts:shop-test",
                "system:serviceaccount:shop-test:web",
                "system:serviceaccounts"
            ]
        );
        let terms = json!([{"key": NAME, "operator": "In", "values": ["shop", "other"]},
            {"key": "team", "operator": "In", "values": ["shop"]}]);
        let mut policy =
            json!({"spec": {"egress": [{"to": [{"namespaceSelector": {"matchExpressions": terms}}]}]}});
        apply_mapping(&kind("networking.k8s.io", "networkpolicies"), &mut policy, &mapping(), &mut changes);
        let terms = policy.pointer("/spec/egress/0/to/0/namespaceSelector/matchExpressions");
        assert_eq!(
            terms.map(|terms| (terms[0]["values"].clone(), terms[1]["values"].clone())),
            Some((json!(["shop-test", "other"]), json!(["shop"])))
        );
        let claim = json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "fast"}}}});
        let mut pod = json!({"spec": {"volumes": [claim]}});
        apply_mapping(&kind("", "pods"), &mut pod, &mapping(), &mut changes);
        let class = "/spec/volumes/0/ephemeral/volumeClaimTemplate/spec/storageClassName";
        assert_eq!(text(&pod, class), "standard");
        let alias = "nginx.ingress.kubernetes.io/server-alias";
        let mut ingress = json!({"metadata": {"annotations": {alias: "a.example.com,b.example.org"}}});
        apply_mapping(&kind("networking.k8s.io", "ingresses"), &mut ingress, &mapping(), &mut changes);
        assert_eq!(ingress["metadata"]["annotations"][alias], "a.test.example.com,b.example.org");
    }
}
