//! Objects that need `--allow`, because they grant rights, change admission or can leave their container.

use serde_json::Value;

use crate::kubernetes::KindInfo;
use crate::kubernetes::pod_spec::{containers, pod_spec, pod_spec_path};
use crate::plan::Permission;
use crate::target::kubernetes::{each, map, text};

pub(crate) fn required_permission(kind: &KindInfo, object: &Value) -> Option<Permission> {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("rbac.authorization.k8s.io", _) => Some(Permission::Rbac),
        ("admissionregistration.k8s.io", _) => Some(Permission::Webhooks),
        ("apiextensions.k8s.io", _) => Some(Permission::Crds),
        ("apiregistration.k8s.io", _) => Some(Permission::Apiservices),
        // EKS reads the mapping of users from this ConfigMap.
        ("", "configmaps") => {
            let named = ["/metadata/namespace", "/metadata/name"].map(|at| text(object, at));
            (named == ["kube-system", "aws-auth"]).then_some(Permission::Rbac)
        }
        ("", "persistentvolumes") => {
            let host = object.pointer("/spec/hostPath").is_some_and(|path| !path.is_null());
            host.then_some(Permission::Privileged)
        }
        _ => {
            let (at, spec) = (pod_spec_path(kind)?, pod_spec(kind, object)?);
            (is_privileged(spec) || has_refused_apparmor(object, at)).then_some(Permission::Privileged)
        }
    }
}

/// Prefix of AppArmor annotations; the name of a container follows.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// True if an annotation of the pod or template whose spec is at `spec` sets an AppArmor profile that
/// `baseline` refuses.
fn has_refused_apparmor(object: &Value, spec: &str) -> bool {
    let annotations = format!("{}/metadata/annotations", spec.strip_suffix("/spec").unwrap_or_default());
    let profile = |(name, profile): (&String, &Value)| {
        let profile = profile.as_str().unwrap_or_default();
        let fine = matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
        name.starts_with(APPARMOR) && !fine
    };
    map(object, &annotations).is_some_and(|all| all.iter().any(profile))
}

/// Capabilities that `baseline` lets a container add.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sysctls that `baseline` lets a pod set.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
/// SELinux types that `baseline` lets a pod have.
const SELINUX: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// True if the level `baseline` of the Pod Security Standards refuses a pod.
fn is_privileged(spec: &Value) -> bool {
    let host = ["hostNetwork", "hostPID", "hostIPC"].iter().any(|field| spec[*field] == true);
    let paths = each(spec, "/volumes").any(|volume| !volume["hostPath"].is_null());
    let sysctls =
        each(spec, "/securityContext/sysctls").any(|sysctl| !SYSCTLS.contains(&text(sysctl, "/name")));
    host || paths
        || sysctls
        || is_unconfined(&spec["securityContext"])
        || containers(spec).any(is_privileged_container)
}

fn is_privileged_container(container: &Value) -> bool {
    let context = &container["securityContext"];
    let added = each(context, "/capabilities/add")
        .any(|added| !added.as_str().is_some_and(|name| CAPABILITIES.contains(&name)));
    let ports = each(container, "/ports").any(|port| port["hostPort"].as_u64().unwrap_or(0) != 0);
    let probes =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let hosts = probes.iter().any(|probe| {
        ["httpGet", "tcpSocket"].iter().any(|how| !text(container, &format!("{probe}/{how}/host")).is_empty())
    });
    let proc = !matches!(text(context, "/procMount"), "" | "Default");
    context["privileged"] == true || added || ports || hosts || proc || is_unconfined(context)
}

/// True if `baseline` refuses a setting that pods and containers share.
fn is_unconfined(context: &Value) -> bool {
    let profile = |of: &str| text(context, &format!("/{of}/type")) == "Unconfined";
    let selinux = !SELINUX.contains(&text(context, "/seLinuxOptions/type"))
        || ["user", "role"]
            .iter()
            .any(|field| !text(context, &format!("/seLinuxOptions/{field}")).is_empty());
    context.pointer("/windowsOptions/hostProcess") == Some(&Value::Bool(true))
        || profile("seccompProfile")
        || profile("appArmorProfile")
        || selinux
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn needed(group: &str, plural: &str, object: Value) -> Option<Permission> {
        required_permission(&KindInfo::from_path_parts(group, "v1", plural), &object)
    }

    #[test]
    fn apparmor_profiles_in_annotations_are_checked() {
        for (profile, wanted) in [
            ("unconfined", Some(Permission::Privileged)),
            ("runtime/default", None),
            ("localhost/mine", None),
        ] {
            let annotations =
                json!({"container.apparmor.security.beta.kubernetes.io/a": profile, "other": "unconfined"});
            let pod =
                json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "a"}]}});
            assert_eq!(needed("", "pods", pod.clone()), wanted, "{profile}");
            assert_eq!(needed("", "podtemplates", json!({"template": pod})), wanted, "{profile}");
            assert_eq!(
                needed("apps", "deployments", json!({"spec": {"template": pod}})),
                wanted,
                "{profile}"
            );
            let job = json!({"spec": {"template": pod}});
            assert_eq!(needed("batch", "cronjobs", json!({"spec": {"jobTemplate": job}})), wanted);
        }
    }

    #[test]
    fn host_paths_and_aws_auth_need_permission() {
        let volume = json!({"spec": {"hostPath": {"path": "/"}}});
        assert_eq!(needed("", "persistentvolumes", volume), Some(Permission::Privileged));
        assert_eq!(needed("", "persistentvolumes", json!({"spec": {"nfs": {"path": "/"}}})), None);
        let named = |namespace: &str| json!({"metadata": {"namespace": namespace, "name": "aws-auth"}});
        assert_eq!(needed("", "configmaps", named("kube-system")), Some(Permission::Rbac));
        assert_eq!(needed("", "configmaps", named("shop")), None);
    }

    #[test]
    fn pods_that_baseline_refuses_are_privileged() {
        let plain = json!({"securityContext": {"runAsNonRoot": true, "sysctls": [{"name": "net.ipv4.tcp_rmem"}]},
            "containers": [{"name": "a", "ports": [{"containerPort": 80}],
                "securityContext": {"capabilities": {"add": ["CHOWN"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]});
        assert!(!is_privileged(&plain));
        for (pointer, value) in [
            ("/hostNetwork", json!(true)),
            ("/hostPID", json!(true)),
            ("/volumes", json!([{"name": "x", "hostPath": {"path": "/"}}])),
            ("/securityContext/sysctls/0/name", json!("kernel.msgmax")),
            ("/securityContext/seccompProfile", json!({"type": "Unconfined"})),
            ("/containers/0/securityContext/privileged", json!(true)),
            ("/containers/0/securityContext/capabilities/add/0", json!("SYS_ADMIN")),
            ("/containers/0/securityContext/procMount", json!("Unmasked")),
            ("/containers/0/ports/0/hostPort", json!(80)),
            ("/containers/0/securityContext/seLinuxOptions", json!({"type": "spc_t"})),
            ("/initContainers", json!([{"securityContext": {"privileged": true}}])),
            ("/ephemeralContainers", json!([{"securityContext": {"privileged": true}}])),
            ("/containers/0/livenessProbe", json!({"httpGet": {"host": "10.0.0.1"}})),
        ] {
            let mut spec = plain.clone();
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
            match spec.pointer_mut(parent).expect("a parent") {
                Value::Array(list) => list[field.parse::<usize>().expect("a number")] = value,
                map => map[field] = value,
            }
            assert!(is_privileged(&spec), "{pointer}");
        }
    }
}
