//! Objects of a cluster's own infrastructure, as tables. An application is restored without them, because
//! another cluster has its own or they describe old machines, disks and networks. They are backed up as
//! evidence and for a rebuild.

use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::KindInfo;
use crate::plan::{Glob, Profile};
use crate::target::kubernetes::{label, text};

/// Groups, resources and reason of a row. Groups and resources are globs, separated by spaces.
type Row = (&'static str, &'static str, &'static str);

/// Settings that a user chose, which a rebuild restores.
const SETTINGS: &[Row] = &[
    (
        "longhorn.io",
        "settings backuptargets recurringjobs backingimages",
        "Longhorn's settings name this cluster's nodes and disks",
    ),
    ("ceph.rook.io", "*", "Rook would form a Ceph cluster on these nodes, or look for one that is gone"),
    ("piraeus.io", "*", "Piraeus would form a storage cluster on these nodes"),
    (
        "crd.projectcalico.org",
        "ippools ipreservations bgp* felixconfigurations kubecontrollersconfigurations",
        "Calico's settings for this cluster's network",
    ),
    ("operator.tigera.io", "*", "installs Calico into this cluster"),
    ("cluster.x-k8s.io *.cluster.x-k8s.io", "*", "Cluster API would create or take over machines"),
    ("machine.openshift.io", "*", "creates or takes over machines"),
    ("config.openshift.io operator.openshift.io", "*", "the settings of one OpenShift cluster"),
    ("imageregistry.operator.openshift.io", "*", "the settings of one OpenShift cluster"),
    ("karpenter.sh", "nodepools", "Karpenter would create machines"),
    ("karpenter.k8s.aws", "*", "Karpenter would create machines"),
    ("k3s.cattle.io helm.cattle.io", "addons helmcharts helmchartconfigs", "installed by k3s and RKE2"),
    ("management.cattle.io", "*", "Rancher's own records of its clusters"),
];

/// Records of a controller about the machines of one cluster. Looked up after [`SETTINGS`].
const STATE: &[Row] = &[
    ("longhorn.io", "*", "Longhorn's records of replicas on disks that are elsewhere"),
    ("objectbucket.io", "objectbuckets", "a bucket in the old Rook cluster"),
    ("openebs.io cstor.openebs.io", "*", "OpenEBS' records of pools and replicas on old nodes"),
    ("local.openebs.io zfs.openebs.io", "*", "OpenEBS' records of volumes on old nodes"),
    ("topolvm.io", "*", "TopoLVM's logical volumes on old nodes"),
    ("internal.linstor.linbit.com", "*", "LINSTOR's records of resources on old nodes"),
    ("csi.storage.k8s.io", "*", "a CSI driver's records"),
    (
        "snapshot.storage.k8s.io",
        "volumesnapshots volumesnapshotcontents",
        "a snapshot in the old storage system",
    ),
    (
        "groupsnapshot.storage.k8s.io",
        "volumegroupsnapshots volumegroupsnapshotcontents",
        "a snapshot in the old storage system",
    ),
    (
        "cilium.io",
        "ciliumnodes ciliumendpoints ciliumendpointslices ciliumidentities ciliumnodeconfigs \
         ciliumbgpnodeconfigs ciliumbgpnodeconfigoverrides ciliumcidrgroups",
        "Cilium's records of nodes, addresses and identities",
    ),
    (
        "crd.projectcalico.org",
        "ipamblocks ipamhandles ipamconfigs blockaffinities clusterinformations \
         caliconodestatuses hostendpoints",
        "Calico's records of nodes and addresses",
    ),
    ("projectcalico.org", "*", "Calico's own API shows what crd.projectcalico.org holds"),
    ("k8s.ovn.org", "egress* adminpolicybased* userdefined*", "OVN's records of nodes"),
    ("whereabouts.cni.cncf.io", "*", "addresses given out in the old cluster"),
    ("multicluster.x-k8s.io", "*", "made by another cluster of the set"),
    ("submariner.io", "*", "joins to other clusters"),
    ("machineconfiguration.openshift.io", "*", "what OpenShift set up on its nodes"),
    ("karpenter.sh", "nodeclaims", "machines of the old cluster"),
    ("k3s.cattle.io", "etcdsnapshotfiles", "snapshots on nodes of the old cluster"),
    ("node.k8s.io", "nodefeatures", "what a node reports"),
    ("nfd.k8s-sigs.io", "nodefeatures nodefeaturegroups", "what a node reports"),
    ("wgpolicyk8s.io", "policyreports clusterpolicyreports", "reports that a scanner writes anew"),
    ("openreports.io reports.kyverno.io", "*", "reports that a scanner writes anew"),
    ("aquasecurity.github.io", "*reports", "reports that a scanner writes anew"),
    (
        "kyverno.io",
        "admissionreports clusteradmissionreports backgroundscanreports",
        "reports that a scanner writes anew",
    ),
    (
        "velero.io",
        "backups restores podvolumebackups podvolumerestores datauploads datadownloads backuprepositories \
         deletebackuprequests downloadrequests serverstatusrequests",
        "Velero's records of runs in the old cluster",
    ),
];

/// Namespaces, resources, names and reason, for settings that a cluster's installer creates.
const INSTALLED: &[(&str, &str, &str, &str)] = &[
    (
        "kube-system",
        "configmaps",
        "kubeadm-config kubelet-config* kube-proxy coredns cluster-dns",
        "the installer wrote it for these nodes",
    ),
    ("kube-public", "configmaps", "cluster-info", "names the old API server and its CA"),
    (
        "kube-system",
        "daemonsets.apps deployments.apps services serviceaccounts",
        "kube-proxy coredns kube-dns metrics-server",
        "the installer creates it",
    ),
    (
        "kube-system",
        "daemonsets.apps deployments.apps statefulsets.apps serviceaccounts",
        "cilium* calico* canal* flannel* kube-flannel* weave* kube-router* aws-node* azure-cni* antrea* \
         kindnet* csi-* *-csi-* *-csi cloud-controller-manager* *-cloud-controller-manager \
         konnectivity-agent* kube-vip*",
        "the network and storage of these nodes",
    ),
    ("kube-flannel tigera-operator", "*", "*", "the network of these nodes"),
    ("calico-system", "*", "*", "the network of these nodes, made by the Tigera operator"),
    ("calico-apiserver", "*", "*", "made by the Tigera operator"),
    ("longhorn-system", "*", "*", "Longhorn on these nodes and disks"),
    ("rook-ceph", "*", "*", "Ceph on these nodes and disks"),
    ("openebs", "*", "*", "OpenEBS on these nodes and disks"),
    ("capi-*", "*", "*", "Cluster API would create or take over machines"),
    ("openshift-*", "*", "*", "belongs to one OpenShift cluster"),
    ("gmp-system gke-managed-*", "*", "*", "installed by the provider"),
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
    let row_of = |rows: &'static [Row]| {
        let is_kind = |row: &&Row| any(row.0, &kind.group) && any(row.1, &kind.plural);
        rows.iter().find(is_kind).map(|(.., why)| Infrastructure(why))
    };
    if let Some(why) = row_of(SETTINGS) {
        return (profile < Profile::Rebuild).then_some(why);
    }
    if let Some(why) = row_of(STATE) {
        return (profile < Profile::Everything).then_some(why);
    }
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let resource = kind.resource();
    let installed = INSTALLED.iter().find(|(namespaces, resources, names, _)| {
        !namespace.is_empty() && any(namespaces, namespace) && any(resources, &resource) && any(names, name)
    });
    let labelled = || LABELS.iter().find(|(key, value, _)| label(object, key) == *value);
    let why = installed.map(|(.., why)| *why).or_else(|| labelled().map(|(.., why)| *why));
    why.filter(|_| profile < Profile::Rebuild).map(Infrastructure)
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
        let installed = INSTALLED
            .iter()
            .map(|(namespaces, resources, names, why)| ([*namespaces, *resources, *names].join(" "), why));
        let kinds =
            SETTINGS.iter().chain(STATE).map(|(groups, plurals, why)| (format!("{groups} {plurals}"), why));
        for (patterns, why) in kinds.chain(installed) {
            assert!(!why.is_empty(), "{patterns}");
            for pattern in patterns.split_whitespace() {
                Glob::new(pattern).expect("a pattern");
            }
        }
    }
}
