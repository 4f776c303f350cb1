//! Objects of a cluster's own infrastructure, as tables. An application is restored without them, because
//! another cluster has its own or they describe old machines, disks and networks. They are backed up as
//! evidence and for a rebuild.

use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::KindInfo;
use crate::plan::{Glob, Profile};
use crate::target::kubernetes::{label, text};

/// The contents of a row, which decide the least profile that restores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InfrastructureClass {
    /// Settings that a user chose.
    Settings,
    /// Records of a controller about the machines of one cluster.
    State,
}

use InfrastructureClass::{Settings, State};

/// Group, resources, class and reason. Group and resources are globs, separated by spaces.
const KINDS: &[(&str, &str, InfrastructureClass, &str)] = &[
    (
        "longhorn.io",
        "settings backuptargets recurringjobs backingimages",
        Settings,
        "Longhorn's settings name this cluster's nodes and disks",
    ),
    ("longhorn.io", "*", State, "Longhorn's records of replicas on disks that are elsewhere"),
    (
        "ceph.rook.io",
        "*",
        Settings,
        "Rook would form a Ceph cluster on these nodes, or look for one that is gone",
    ),
    ("objectbucket.io", "objectbuckets", State, "a bucket in the old Rook cluster"),
    ("openebs.io", "*", State, "OpenEBS' records of pools and replicas on old nodes"),
    ("cstor.openebs.io", "*", State, "OpenEBS' records of pools and replicas on old nodes"),
    ("local.openebs.io", "*", State, "OpenEBS' records of volumes on old nodes"),
    ("zfs.openebs.io", "*", State, "OpenEBS' records of volumes on old nodes"),
    ("topolvm.io", "*", State, "TopoLVM's logical volumes on old nodes"),
    ("internal.linstor.linbit.com", "*", State, "LINSTOR's records of resources on old nodes"),
    ("piraeus.io", "*", Settings, "Piraeus would form a storage cluster on these nodes"),
    ("csi.storage.k8s.io", "*", State, "a CSI driver's records"),
    (
        "snapshot.storage.k8s.io",
        "volumesnapshots volumesnapshotcontents",
        State,
        "a snapshot in the old storage system",
    ),
    (
        "groupsnapshot.storage.k8s.io",
        "volumegroupsnapshots volumegroupsnapshotcontents",
        State,
        "a snapshot in the old storage system",
    ),
    (
        "cilium.io",
        "ciliumnodes ciliumendpoints ciliumendpointslices ciliumidentities ciliumnodeconfigs \
         ciliumbgpnodeconfigs ciliumbgpnodeconfigoverrides ciliumcidrgroups",
        State,
        "Cilium's records of nodes, addresses and identities",
    ),
    (
        "crd.projectcalico.org",
        "ipamblocks ipamhandles ipamconfigs blockaffinities clusterinformations \
         caliconodestatuses hostendpoints",
        State,
        "Calico's records of nodes and addresses",
    ),
    (
        "crd.projectcalico.org",
        "ippools ipreservations bgp* felixconfigurations kubecontrollersconfigurations",
        Settings,
        "Calico's settings for this cluster's network",
    ),
    ("projectcalico.org", "*", State, "Calico's own API shows what crd.projectcalico.org holds"),
    ("operator.tigera.io", "*", Settings, "installs Calico into this cluster"),
    ("k8s.ovn.org", "egress* adminpolicybased* userdefined*", State, "OVN's records of nodes"),
    ("whereabouts.cni.cncf.io", "*", State, "addresses given out in the old cluster"),
    ("multicluster.x-k8s.io", "*", State, "made by another cluster of the set"),
    ("submariner.io", "*", State, "joins to other clusters"),
    ("cluster.x-k8s.io", "*", Settings, "Cluster API would create or take over machines"),
    ("*.cluster.x-k8s.io", "*", Settings, "Cluster API would create or take over machines"),
    ("machine.openshift.io", "*", Settings, "creates or takes over machines"),
    ("machineconfiguration.openshift.io", "*", State, "what OpenShift set up on its nodes"),
    ("config.openshift.io", "*", Settings, "the settings of one OpenShift cluster"),
    ("operator.openshift.io", "*", Settings, "the settings of one OpenShift cluster"),
    ("imageregistry.operator.openshift.io", "*", Settings, "the settings of one OpenShift cluster"),
    ("karpenter.sh", "nodeclaims", State, "machines of the old cluster"),
    ("karpenter.sh", "nodepools", Settings, "Karpenter would create machines"),
    ("karpenter.k8s.aws", "*", Settings, "Karpenter would create machines"),
    ("k3s.cattle.io", "etcdsnapshotfiles", State, "snapshots on nodes of the old cluster"),
    (
        "k3s.cattle.io helm.cattle.io",
        "addons helmcharts helmchartconfigs",
        Settings,
        "installed by k3s and RKE2",
    ),
    ("management.cattle.io", "*", Settings, "Rancher's own records of its clusters"),
    ("node.k8s.io", "nodefeatures", State, "what a node reports"),
    ("nfd.k8s-sigs.io", "nodefeatures nodefeaturegroups", State, "what a node reports"),
    ("wgpolicyk8s.io", "policyreports clusterpolicyreports", State, "reports that a scanner writes anew"),
    ("openreports.io", "*", State, "reports that a scanner writes anew"),
    ("aquasecurity.github.io", "*reports", State, "reports that a scanner writes anew"),
    ("reports.kyverno.io", "*", State, "reports that a scanner writes anew"),
    (
        "kyverno.io",
        "admissionreports clusteradmissionreports backgroundscanreports",
        State,
        "reports that a scanner writes anew",
    ),
    (
        "velero.io",
        "backups restores podvolumebackups podvolumerestores datauploads datadownloads backuprepositories deletebackuprequests downloadrequests serverstatusrequests",
        State,
        "Velero's records of runs in the old cluster",
    ),
];

/// Namespace, resources, names, class and reason, for objects that a cluster's installer creates.
const NAMED: &[(&str, &str, &str, InfrastructureClass, &str)] = &[
    (
        "kube-system",
        "configmaps",
        "kubeadm-config kubelet-config* kube-proxy coredns cluster-dns",
        Settings,
        "the installer wrote it for these nodes",
    ),
    ("kube-public", "configmaps", "cluster-info", Settings, "names the old API server and its CA"),
    (
        "kube-system",
        "daemonsets.apps deployments.apps services serviceaccounts",
        "kube-proxy coredns kube-dns metrics-server",
        Settings,
        "the installer creates it",
    ),
    (
        "kube-system",
        "daemonsets.apps deployments.apps statefulsets.apps serviceaccounts",
        "cilium* calico* canal* flannel* kube-flannel* weave* kube-router* aws-node* azure-cni* antrea* \
         kindnet* csi-* *-csi-* *-csi cloud-controller-manager* *-cloud-controller-manager \
         konnectivity-agent* kube-vip*",
        Settings,
        "the network and storage of these nodes",
    ),
    ("kube-flannel", "*", "*", Settings, "the network of these nodes"),
    ("calico-system", "*", "*", Settings, "the network of these nodes, made by the Tigera operator"),
    ("calico-apiserver", "*", "*", Settings, "made by the Tigera operator"),
    ("tigera-operator", "*", "*", Settings, "the network of these nodes"),
    ("longhorn-system", "*", "*", Settings, "Longhorn on these nodes and disks"),
    ("rook-ceph", "*", "*", Settings, "Ceph on these nodes and disks"),
    ("openebs", "*", "*", Settings, "OpenEBS on these nodes and disks"),
    ("capi-*", "*", "*", Settings, "Cluster API would create or take over machines"),
    ("openshift-*", "*", "*", Settings, "belongs to one OpenShift cluster"),
    ("gmp-system", "*", "*", Settings, "installed by the provider"),
    ("gke-managed-*", "*", "*", Settings, "installed by the provider"),
];

/// Labels of objects that an installer's add-on manager creates.
const LABELS: &[(&str, &str, &str)] = &[
    ("addonmanager.kubernetes.io/mode", "Reconcile", "the add-on manager creates it"),
    ("addonmanager.kubernetes.io/mode", "EnsureExists", "the add-on manager creates it"),
    ("objectset.rio.cattle.io/owner-gvk", "k3s.cattle.io/v1, Kind=Addon", "k3s creates it"),
];

/// The reason why an object is infrastructure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Infrastructure(pub &'static str);

/// Returns the reason if `object` is infrastructure and `profile` excludes it.
pub(crate) fn infrastructure_reason(
    kind: &KindInfo,
    object: &Value,
    profile: Profile,
) -> Option<Infrastructure> {
    let left_out = |class: InfrastructureClass| match class {
        Settings => profile < Profile::Rebuild,
        State => profile < Profile::Everything,
    };
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let resource = kind.resource();
    if let Some((_, _, class, why)) =
        KINDS.iter().find(|(groups, plurals, ..)| any(groups, &kind.group) && any(plurals, &kind.plural))
    {
        return left_out(*class).then_some(Infrastructure(why));
    }
    if !namespace.is_empty()
        && let Some((.., class, why)) = NAMED.iter().find(|(place, resources, names, ..)| {
            any(place, namespace) && any(resources, &resource) && any(names, name)
        })
    {
        return left_out(*class).then_some(Infrastructure(why));
    }
    let labelled = LABELS.iter().find(|(key, value, _)| label(object, key) == *value);
    labelled.filter(|_| left_out(Settings)).map(|(.., why)| Infrastructure(why))
}

fn any(patterns: &'static str, name: &str) -> bool {
    patterns.split_whitespace().any(|pattern| Glob::from_static(pattern).matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(group: &str, plural: &str) -> KindInfo {
        KindInfo::from_path_parts(group, "v1", plural)
    }

    #[test]
    fn rebuild_restores_settings_but_not_state() {
        let of = |group: &str, plural: &str, namespace: &str, name: &str, profile| {
            let object = json!({"metadata": {"namespace": namespace, "name": name}});
            infrastructure_reason(&kind(group, plural), &object, profile).is_some()
        };
        assert!(of("longhorn.io", "replicas", "longhorn-system", "r", Profile::Rebuild));
        assert!(!of("longhorn.io", "replicas", "longhorn-system", "r", Profile::Everything));
        assert!(of("longhorn.io", "settings", "longhorn-system", "s", Profile::App));
        assert!(!of("longhorn.io", "settings", "longhorn-system", "s", Profile::Rebuild));
        assert!(of("infrastructure.cluster.x-k8s.io", "awsmachines", "x", "m", Profile::App));
        assert!(of("", "configmaps", "kube-system", "kubeadm-config", Profile::App));
        // Sealing keys in the same namespace cannot be recreated.
        assert!(!of("", "secrets", "kube-system", "sealed-secrets-key", Profile::App));
        assert!(!of("apps", "deployments", "shop", "coredns", Profile::App));
    }

    #[test]
    fn every_row_has_patterns_and_a_reason() {
        for (groups, plurals, _, why) in KINDS {
            assert!(!why.is_empty(), "{groups}");
            for pattern in groups.split_whitespace().chain(plurals.split_whitespace()) {
                Glob::new(pattern).expect("a pattern");
            }
        }
        for (place, resources, names, _, why) in NAMED {
            assert!(!why.is_empty(), "{place}");
            for pattern in [place, resources, names].into_iter().flat_map(|all| all.split_whitespace()) {
                Glob::new(pattern).expect("a pattern");
            }
        }
    }
}
