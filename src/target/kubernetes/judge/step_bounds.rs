//! Every walk over an object that somebody else wrote takes steps in proportion to the size of the object.

use serde_json::{Value, json};

use super::{Decider, ObjectDecision, matches_existing, reconcile};
use crate::kubernetes::{KindInfo, steps_so_far};
use crate::plan::{ExistingPolicy, Glob, Mapping, Profile, Scope, SideEffect};
use crate::target::kubernetes::{Permission, Requirements, RestoreConfig, SelectionUsage, ServedKinds};

/// The most steps for one value of an object.
const STEPS_PER_VALUE: u64 = 40;

fn config(existing: Option<ExistingPolicy>) -> RestoreConfig {
    let pairs =
        |all: &[(&str, &str)]| all.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    RestoreConfig {
        allow: Permission::ALL.into(),
        release: Some([SideEffect::Ingress, SideEffect::Jobs, SideEffect::Loadbalancers].into()),
        profile: Profile::Everything,
        scope: Some(Scope::All),
        status: vec![Glob::from_static("*")],
        existing,
        mapping: Mapping {
            namespaces: pairs(&[("shop", "copy")]),
            storage_classes: pairs(&[("fast", "slow")]),
            images: pairs(&[("docker.io/", "mirror.example/")]),
            hosts: pairs(&[("example.com", "test.example.com")]),
        },
        ..RestoreConfig::default()
    }
}

fn list(size: usize, element: impl Fn(usize) -> Value) -> Value {
    (0..size).map(element).collect()
}

/// Returns a kind and the fields of an object of it, of about this many parts.
type Shape = (&'static str, &'static str, fn(usize) -> Value);

const SHAPES: &[Shape] = &[
    ("", "configmaps", |size| {
        let owner =
            |at| json!({"apiVersion": "v1", "kind": "A", "name": format!("o{at}"), "uid": format!("u{at}")});
        let manager =
            |at| json!({"manager": format!("m{at}"), "operation": "Apply", "fieldsV1": {"f:data": {}}});
        json!({"metadata": {"ownerReferences": list(size, owner), "managedFields": list(size, manager)}})
    }),
    ("", "services", |size| {
        let port = |at| json!({"port": at, "protocol": "TCP", "nodePort": 30_000 + at});
        let key = |at| (format!("k:{{\"port\":{at},\"protocol\":\"TCP\"}}"), json!({"f:nodePort": {}}));
        let keys: serde_json::Map<String, Value> = (0..size).map(key).collect();
        let manager = |at: usize| json!({"manager": format!("m{at}"), "fieldsV1": {"f:spec": {"f:ports": if at == 0 { json!(keys) } else { json!({}) }}}});
        json!({"metadata": {"managedFields": list(size, manager)}, "spec": {"type": "NodePort", "ports": list(size, port)}})
    }),
    ("networking.k8s.io", "ingresses", |size| {
        let rule = |at| json!({"host": format!("h{at}.example.com"), "http": {"paths": [{"path": "/"}]}});
        json!({"spec": {"rules": list(size, rule), "tls": [{"hosts": list(size, |at| json!(format!("t{at}.example.com")))}]}})
    }),
    ("networking.k8s.io", "networkpolicies", |size| {
        let peer = |_| json!({"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "values": ["shop", "x"]}]}});
        json!({"spec": {"ingress": list(size, |_| json!({"from": [peer(0)]})), "egress": [{"to": list(size, peer)}]}})
    }),
    (
        "rbac.authorization.k8s.io",
        "rolebindings",
        |size| json!({"subjects": list(size, |at| json!({"kind": "User", "namespace": "shop", "name": format!("system:serviceaccount:shop:a{at}")}))}),
    ),
    ("apps", "deployments", |size| {
        let container = |at| json!({"name": format!("c{at}"), "image": format!("docker.io/i{at}"), "ports": [{"hostPort": 1}]});
        json!({"spec": {"template": {"spec": {"containers": list(size, container), "volumes": list(size, |at| json!({"name": at, "hostPath": {}}))}}}})
    }),
    ("demo.io", "deeps", |size| {
        let mut nested = json!([1]);
        for _ in 0..size.min(100) {
            nested = json!([nested, {"a": 1}]);
        }
        json!({"spec": {"nested": nested, "wide": list(size, |at| json!([[[at]]]))}, "status": {"conditions": list(size, |at| json!({"observedGeneration": at}))}})
    }),
];

fn size_of(value: &Value) -> u64 {
    1 + match value {
        Value::Array(list) => list.iter().map(size_of).sum(),
        Value::Object(map) => map.values().map(size_of).sum(),
        _ => 0,
    }
}

/// Decides about the object and compares it with an existing one, as a plan and a restore do.
fn decide(kind: &KindInfo, object: &Value, existing: &Value, policy: Option<ExistingPolicy>) {
    let (config, requirements) = (config(policy), Requirements::default());
    let usage = SelectionUsage::new(&config);
    let target = ServedKinds::of(vec![kind.clone()]);
    let decider = Decider {
        config: &config,
        target: &target,
        kind,
        foreign: true,
        usage: &usage,
        requirements: &requirements,
    };
    let decided = decider.decide(object.to_string().as_bytes()).expect("a line").expect("selected");
    let ObjectDecision::Create(mut prepared) = decided.decision else { panic!("{:?}", decided.decision) };
    matches_existing(&prepared, existing);
    let action = reconcile(&config, &decided.object, &mut prepared, existing);
    action.pending_writes(&prepared.second_write, existing);
}

#[test]
fn decision_and_comparison_take_steps_in_proportion_to_the_size() {
    for (group, plural, fields) in SHAPES {
        let kind = KindInfo {
            kind: "A".into(),
            subresources: vec!["status".into()],
            ..KindInfo::from_path_parts(group, "v1", plural)
        };
        for size in [10, 3000] {
            let mut object = fields(size);
            object["metadata"]["name"] = json!("a");
            object["metadata"]["namespace"] = json!("other");
            let (mut other, most) = (object.clone(), STEPS_PER_VALUE * size_of(&object) + 1000);
            other["spec"]["other"] = json!(1);
            for policy in [None, Some(ExistingPolicy::Patch), Some(ExistingPolicy::Replace)] {
                for existing in [&object, &other] {
                    let before = steps_so_far();
                    decide(&kind, &object, existing, policy);
                    let steps = steps_so_far() - before;
                    assert!(steps <= most, "{plural} of size {size}: {steps} steps, at most {most}");
                }
            }
        }
    }
}
