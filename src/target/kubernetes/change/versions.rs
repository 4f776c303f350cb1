//! Kinds that moved to another group or version of the API, with the conversion of their objects.
//!
//! If only the version changed, only `apiVersion` is replaced; for other kinds the table has a conversion. A
//! kind that is not served and has no row is reported, not guessed.

use serde_json::{Value, json};

use crate::target::kubernetes::{each, each_mut, map_mut, text};

/// The new place of a kind in the API, and the conversion of its objects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ApiMove {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// Converts an object; the error names the field or value that has no counterpart.
    pub(crate) convert: fn(&mut Value) -> Result<(), &'static str>,
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";
const EXTENSIONS: &str = "apiextensions.k8s.io";

/// Group, version, resources (separated by spaces) and their new place.
const TABLE: &[(&str, &str, &str, ApiMove)] = &[
    ("extensions", "v1beta1", "ingresses", to("networking.k8s.io", "v1", ingress)),
    ("networking.k8s.io", "v1beta1", "ingresses", to("networking.k8s.io", "v1", ingress)),
    ("networking.k8s.io", "v1beta1", "ingressclasses", to("networking.k8s.io", "v1", same)),
    ("extensions", "v1beta1", "networkpolicies", to("networking.k8s.io", "v1", same)),
    ("extensions", "v1beta1", "deployments daemonsets replicasets", to("apps", "v1", workload)),
    ("apps", "v1beta1", "deployments statefulsets", to("apps", "v1", workload)),
    ("apps", "v1beta2", "deployments statefulsets daemonsets replicasets", to("apps", "v1", same)),
    ("batch", "v1beta1", "cronjobs", to("batch", "v1", same)),
    ("batch", "v2alpha1", "cronjobs", to("batch", "v1", same)),
    ("policy", "v1beta1", "poddisruptionbudgets", to("policy", "v1", budget)),
    ("autoscaling", "v2beta2", "horizontalpodautoscalers", to("autoscaling", "v2", same)),
    ("autoscaling", "v2beta1", "horizontalpodautoscalers", to("autoscaling", "v2", autoscaler)),
    (RBAC, "v1beta1", "roles rolebindings clusterroles clusterrolebindings", to(RBAC, "v1", same)),
    ("scheduling.k8s.io", "v1beta1", "priorityclasses", to("scheduling.k8s.io", "v1", same)),
    ("node.k8s.io", "v1beta1", "runtimeclasses", to("node.k8s.io", "v1", same)),
    ("storage.k8s.io", "v1beta1", "storageclasses csidrivers", to("storage.k8s.io", "v1", same)),
    ("discovery.k8s.io", "v1beta1", "endpointslices", to("discovery.k8s.io", "v1", slice)),
    ("apiregistration.k8s.io", "v1beta1", "apiservices", to("apiregistration.k8s.io", "v1", same)),
    (EXTENSIONS, "v1beta1", "customresourcedefinitions", to(EXTENSIONS, "v1", definition)),
    (ADMISSION, "v1beta1", "validatingwebhookconfigurations", to(ADMISSION, "v1", webhooks)),
    (ADMISSION, "v1beta1", "mutatingwebhookconfigurations", to(ADMISSION, "v1", webhooks)),
    (FLOW_CONTROL, "v1beta3", "flowschemas prioritylevelconfigurations", to(FLOW_CONTROL, "v1", same)),
];

const fn to(
    group: &'static str,
    version: &'static str,
    convert: fn(&mut Value) -> Result<(), &'static str>,
) -> ApiMove {
    ApiMove { group, version, convert }
}

/// Returns the new place of a kind that is no longer served.
pub(crate) fn api_move(group: &str, version: &str, plural: &str) -> Option<ApiMove> {
    let is_kind = |resources: &str| resources.split(' ').any(|resource| resource == plural);
    let row = TABLE.iter().find(|(g, v, resources, _)| *g == group && *v == version && is_kind(resources));
    row.map(|(.., moved)| *moved)
}

fn same(_: &mut Value) -> Result<(), &'static str> {
    Ok(())
}

/// Sets the selector, which once defaulted to the labels of the template.
fn workload(object: &mut Value) -> Result<(), &'static str> {
    if object.pointer("/spec/selector").is_none_or(Value::is_null) {
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        let labels = labels.ok_or("a workload without selector and without labels")?;
        object["spec"]["selector"] = json!({"matchLabels": labels});
    }
    if let Some(spec) = map_mut(object, "/spec") {
        spec.remove("rollbackTo");
        spec.remove("templateGeneration");
    }
    Ok(())
}

fn ingress(object: &mut Value) -> Result<(), &'static str> {
    fn backend(old: &Value) -> Value {
        if let Some(resource) = old.get("resource") {
            return json!({ "resource": resource });
        }
        let port = match &old["servicePort"] {
            Value::String(name) => json!({ "name": name }),
            number => json!({ "number": number }),
        };
        json!({"service": {"name": old["serviceName"], "port": port}})
    }
    if let Some(spec) = map_mut(object, "/spec")
        && let Some(old) = spec.remove("backend")
    {
        spec.insert("defaultBackend".into(), backend(&old));
    }
    for rule in each_mut(object, "/spec/rules") {
        for path in each_mut(rule, "/http/paths") {
            let new = backend(&path["backend"]);
            path["backend"] = new;
            if path["pathType"].is_null() {
                path["pathType"] = Value::from("ImplementationSpecific");
            }
        }
    }
    Ok(())
}

/// Refuses an empty selector, which once matched no pod and now matches all.
fn budget(object: &mut Value) -> Result<(), &'static str> {
    let selector = object.pointer("/spec/selector");
    let none =
        selector.is_none_or(|all| all.as_object().is_some_and(serde_json::Map::is_empty) || all.is_null());
    if none {
        return Err("an empty selector meant no pod in policy/v1beta1 and means all pods in policy/v1");
    }
    Ok(())
}

fn autoscaler(object: &mut Value) -> Result<(), &'static str> {
    for metric in each_mut(object, "/spec/metrics") {
        let of = text(metric, "/type").to_owned();
        let (place, value, average, utilization, name, selector) = match of.as_str() {
            "Resource" => ("resource", "", "targetAverageValue", "targetAverageUtilization", "", ""),
            "ContainerResource" => {
                ("containerResource", "", "targetAverageValue", "targetAverageUtilization", "", "")
            }
            "Pods" => ("pods", "", "targetAverageValue", "", "metricName", "selector"),
            "Object" => ("object", "targetValue", "averageValue", "", "metricName", "selector"),
            "External" => {
                ("external", "targetValue", "targetAverageValue", "", "metricName", "metricSelector")
            }
            _ => return Err("a metric of a kind that autoscaling/v2 does not know"),
        };
        let Some(source) = metric.get_mut(place).and_then(Value::as_object_mut) else { continue };
        if of == "Object"
            && let Some(described) = source.remove("target")
        {
            source.insert("describedObject".into(), described);
        }
        let target = if let Some(found) = source.remove(utilization) {
            json!({"type": "Utilization", "averageUtilization": found})
        } else if let Some(found) = source.remove(average) {
            json!({"type": "AverageValue", "averageValue": found})
        } else if let Some(found) = source.remove(value) {
            json!({"type": "Value", "value": found})
        } else {
            return Err("a metric without a target");
        };
        source.insert("target".into(), target);
        if let Some(found) = source.remove(name) {
            let chosen = source.remove(selector);
            let mut metric = json!({ "name": found });
            if let Some(chosen) = chosen {
                metric["selector"] = chosen;
            }
            source.insert("metric".into(), metric);
        }
    }
    Ok(())
}

fn slice(object: &mut Value) -> Result<(), &'static str> {
    for endpoint in each_mut(object, "/endpoints").filter_map(Value::as_object_mut) {
        if let Some(topology) = endpoint.remove("topology") {
            for (label, field) in
                [("kubernetes.io/hostname", "nodeName"), ("topology.kubernetes.io/zone", "zone")]
            {
                if let Some(value) = topology.get(label) {
                    endpoint.insert(field.into(), value.clone());
                }
            }
        }
    }
    Ok(())
}

/// Sets the defaults of v1beta1 in fields of webhooks. Refuses side effects that v1 does not allow.
fn webhooks(object: &mut Value) -> Result<(), &'static str> {
    if each(object, "/webhooks").any(|hook| !matches!(text(hook, "/sideEffects"), "None" | "NoneOnDryRun")) {
        return Err("a webhook whose sideEffects are not None or NoneOnDryRun, which v1 refuses");
    }
    for hook in each_mut(object, "/webhooks").filter_map(Value::as_object_mut) {
        hook.entry("admissionReviewVersions").or_insert_with(|| json!(["v1beta1"]));
        hook.entry("failurePolicy").or_insert_with(|| json!("Ignore"));
        hook.entry("matchPolicy").or_insert_with(|| json!("Exact"));
        hook.entry("timeoutSeconds").or_insert_with(|| json!(30));
    }
    Ok(())
}

/// The most versions of a definition that is converted: each gets a copy of what once applied to all.
const MAX_VERSIONS: usize = 100;

/// Copies the settings that once applied to all versions into each version.
fn definition(object: &mut Value) -> Result<(), &'static str> {
    let Some(spec) = map_mut(object, "/spec") else { return Err("a definition without spec") };
    let schema = spec.remove("validation");
    let subresources = spec.remove("subresources");
    let columns = spec.remove("additionalPrinterColumns");
    let version = spec.remove("version");
    if !spec.contains_key("versions") {
        let name = version.ok_or("a definition without a version")?;
        spec.insert("versions".into(), json!([{"name": name, "served": true, "storage": true}]));
    }
    let versions = spec.get("versions").and_then(Value::as_array).map_or(0, Vec::len);
    if versions > MAX_VERSIONS {
        return Err("a definition of more than a hundred versions, each of which would get the whole schema");
    }
    let preserve = spec.remove("preserveUnknownFields") != Some(Value::Bool(false));
    for of in spec.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(of) = of.as_object_mut() else { continue };
        if !of.contains_key("schema") {
            let whole = schema.clone().unwrap_or_else(|| json!({"openAPIV3Schema": {"type": "object"}}));
            of.insert("schema".into(), whole);
        }
        if preserve
            && let Some(root) = of.get_mut("schema").and_then(|schema| schema.get_mut("openAPIV3Schema"))
        {
            root["x-kubernetes-preserve-unknown-fields"] = Value::Bool(true);
            if root.get("type").is_none() {
                root["type"] = Value::from("object");
            }
        }
        for (field, value) in [("subresources", &subresources), ("additionalPrinterColumns", &columns)] {
            if let Some(value) = value
                && !of.contains_key(field)
            {
                of.insert(field.into(), value.clone());
            }
        }
        if let Some(columns) = of.get_mut("additionalPrinterColumns") {
            for column in columns.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                if let Some(path) = column.remove("JSONPath") {
                    column.insert("jsonPath".into(), path);
                }
            }
        }
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut)
        && let Some(client) = conversion.remove("webhookClientConfig")
    {
        let reviews = conversion.remove("conversionReviewVersions").unwrap_or_else(|| json!(["v1beta1"]));
        conversion
            .insert("webhook".into(), json!({"clientConfig": client, "conversionReviewVersions": reviews}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(group: &str, version: &str, plural: &str, mut object: Value) -> Result<Value, &'static str> {
        (api_move(group, version, plural).expect("a row").convert)(&mut object).map(|()| object)
    }

    #[test]
    fn objects_of_removed_versions_are_converted() {
        let old = json!({"spec": {"backend": {"serviceName": "a", "servicePort": 80},
            "rules": [{"http": {"paths": [{"path": "/", "backend": {"serviceName": "b", "servicePort": "http"}}]}}]}});
        let new = json!({"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}},
            "rules": [{"http": {"paths": [{"path": "/", "pathType": "ImplementationSpecific",
                "backend": {"service": {"name": "b", "port": {"name": "http"}}}}]}}]}});
        assert_eq!(converted("extensions", "v1beta1", "ingresses", old), Ok(new));
        let old = json!({"spec": {"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 80}},
            {"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "1k"}}]}});
        let new = json!({"spec": {"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1k"}}}]}});
        assert_eq!(converted("autoscaling", "v2beta1", "horizontalpodautoscalers", old), Ok(new));
        converted("policy", "v1beta1", "poddisruptionbudgets", json!({"spec": {"selector": {}}}))
            .expect_err("an empty selector changed its meaning");
        converted(
            "admissionregistration.k8s.io",
            "v1beta1",
            "validatingwebhookconfigurations",
            json!({"webhooks": [{"name": "a"}]}),
        )
        .expect_err("unknown side effects");
        let old = json!({"spec": {"version": "v1", "subresources": {"status": {}}, "validation": {"openAPIV3Schema": {"type": "object"}}}});
        let new = converted("apiextensions.k8s.io", "v1beta1", "customresourcedefinitions", old)
            .expect("a definition");
        assert_eq!(new.pointer("/spec/versions/0/subresources"), Some(&json!({"status": {}})));
    }
}
