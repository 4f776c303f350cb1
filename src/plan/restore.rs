//! The restore plan: selection, mapping and changes of objects. Doc comments become the descriptions of the
//! JSON Schema, those of fields also the table in docs/restore-resources.md.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::labels::LabelSelector;
use super::problem::{PlanError, Problem, ProblemKind as Kind};
use super::selection::Glob;
use super::spec::{ApiVersion, Metadata, Patterns};

/// The one value of `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub enum RestoreKind {
    /// What this type is.
    #[default]
    RestorePlan,
}

/// What comes back into a cluster, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestorePlan {
    /// Always `kbak.dev/v1`.
    pub api_version: ApiVersion,
    /// Always `RestorePlan`.
    pub kind: RestoreKind,
    /// The plan's name.
    pub metadata: Metadata,
    /// What it says.
    pub spec: RestoreSpec,
}

/// What a restore's plan says. Arguments of `kbak restore` are added to it, or go before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestoreSpec {
    /// What comes back. Default: everything.
    pub select: Select,
    /// What is called otherwise in the cluster that is restored into.
    pub map: Map,
    /// Changes to objects, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modify: Vec<Modify>,
    /// What comes back although it gives rights, changes what others may create, or is privileged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<AllowName>,
    /// What a copy may do, or `none`. Default: nothing, and what is held back counts as missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub release: Vec<ReleaseName>,
    /// The cluster takes the place of the one in the backup: nothing is held back or suspended.
    pub takeover: bool,
    /// What happens to an object that is there and differs. Default: it is left alone, and counts
    /// as missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<ExistingName>,
    /// How much of the cluster's own machinery comes back.
    pub profile: ProfileName,
    /// Whether objects come back that Argo CD or Flux bring. Default: `data`, and `all` into
    /// namespaces that are mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeName>,
    /// Kinds whose status is restored, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
    /// Keep the node ports of Services, also those that a cluster gave, and in a copy.
    pub node_ports: bool,
}

/// What comes back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Select {
    /// Namespaces, by name or glob, as they are called in the backup.
    pub namespaces: Patterns,
    /// Kinds, as `plural.group` (`deployments.apps`, `secrets`), by name or glob.
    pub kinds: Patterns,
    /// A label selector, as kubectl takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Objects: `deployments.apps/shop/web`, `namespaces/shop`. Alone, only they come back; beside
    /// other selections, they as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
}

/// What is called otherwise: from its name in the backup to its name now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Map {
    /// Namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_classes: BTreeMap<String, String>,
    /// Images, by the text that they begin with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Host names, and what lies beneath them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, String>,
}

/// A change to the objects that `match` chooses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Modify {
    /// Which objects; all that is said must fit. Names are those of the backup.
    pub r#match: Match,
    /// A JSON merge patch (RFC 7396).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<Value>,
    /// A JSON patch (RFC 6902): `[{op: replace, path: /spec/replicas, value: 1}]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
}

/// Which objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// Kinds, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Namespaces, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Names, by name or glob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// A regular expression that the whole name matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_regex: Option<String>,
    /// A label selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

/// What is refused unless it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AllowName {
    /// Roles and their bindings.
    Rbac,
    /// Webhook configurations and admission policies.
    Webhooks,
    /// CustomResourceDefinitions.
    Crds,
    /// APIServices with a service behind them.
    Apiservices,
    /// Pods that the level `baseline` of Pod Security refuses.
    Privileged,
}

/// What a copy holds back unless it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseName {
    /// CronJobs and Jobs run.
    Jobs,
    /// Ingresses, Gateways and their routes.
    Ingress,
    /// What external-dns publishes.
    Dns,
    /// Certificates and issuers that ask an ACME server.
    Acme,
    /// Services of the type LoadBalancer.
    Loadbalancers,
    /// Nothing: that it is held back is what is wanted.
    None,
}

/// What happens to what is there and differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExistingName {
    /// It is left alone.
    Skip,
    /// What the backup says is merged into it.
    Patch,
    /// It is replaced, unless somebody changes it meanwhile.
    Replace,
}

/// How much of the cluster's own machinery comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    /// None of it.
    #[default]
    App,
    /// Its settings.
    Rebuild,
    /// Its settings and its state.
    Everything,
}

/// Whether objects come back that Git holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScopeName {
    /// Only what Git does not hold.
    Data,
    /// All.
    All,
}

/// Parses and checks a restore plan.
///
/// # Errors
/// Returns all problems in the order of the text, or only the first one if the text cannot be parsed as a
/// plan.
pub fn parse_restore(text: &str) -> Result<RestorePlan, PlanError> {
    let (plan, places) = super::read::typed::<RestorePlan>(text, super::schema::restore_fields)?;
    let mut problems = problems(&plan.spec);
    if problems.is_empty() {
        return Ok(plan);
    }
    for problem in &mut problems {
        problem.at = places.of(&problem.field);
    }
    problems.sort_by_key(|problem| problem.at);
    Err(PlanError { problems })
}

/// Returns the problems that types cannot express.
fn problems(spec: &RestoreSpec) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut bad = |field: String, message: String| found.push(Problem::new(Kind::BadValue, field, message));
    let select = &spec.select;
    let globs = [
        ("spec.select.namespaces.include", &select.namespaces.include),
        ("spec.select.namespaces.exclude", &select.namespaces.exclude),
        ("spec.select.kinds.include", &select.kinds.include),
        ("spec.select.kinds.exclude", &select.kinds.exclude),
        ("spec.status", &spec.status),
    ];
    for (field, patterns) in globs {
        for (number, pattern) in patterns.iter().enumerate() {
            if let Err(error) = Glob::new(pattern) {
                bad(format!("{field}[{number}]"), error.to_string());
            }
        }
    }
    selector("spec.select.selector", select.selector.as_deref(), &mut bad);
    for (number, object) in select.objects.iter().enumerate() {
        if let Err(error) = object.parse::<ObjectName>() {
            bad(format!("spec.select.objects[{number}]"), error.to_string());
        }
    }
    for (number, modify) in spec.modify.iter().enumerate() {
        let at = format!("spec.modify[{number}]");
        if modify.merge.is_none() && modify.patch.is_none() {
            bad(at.clone(), "nothing is changed: give merge or patch".into());
        }
        if let Some(patch) = &modify.patch
            && let Err(error) = serde_json::from_value::<json_patch::Patch>(patch.clone())
        {
            bad(format!("{at}.patch"), format!("this is no JSON patch: {error}"));
        }
        if let Some(regex) = &modify.r#match.name_regex
            && let Err(error) = regex::Regex::new(regex)
        {
            let line = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            bad(format!("{at}.match.nameRegex"), format!("this is no regular expression: {line}"));
        }
        let lists = [
            ("kinds", &modify.r#match.kinds),
            ("namespaces", &modify.r#match.namespaces),
            ("names", &modify.r#match.names),
        ];
        for (list, patterns) in lists {
            for (place, pattern) in patterns.iter().enumerate() {
                if let Err(error) = Glob::new(pattern) {
                    bad(format!("{at}.match.{list}[{place}]"), error.to_string());
                }
            }
        }
        selector(&format!("{at}.match.selector"), modify.r#match.selector.as_deref(), &mut bad);
    }
    for (from, to) in &spec.map.namespaces {
        if !is_namespace(from) || !is_namespace(to) {
            bad(format!("spec.map.namespaces.{from}"), format!("{from}: {to} are no names of namespaces"));
        }
    }
    if spec.release.contains(&ReleaseName::None) && spec.release.len() > 1 {
        bad("spec.release".into(), "none excludes everything else".into());
    }
    found
}

fn selector(field: &str, text: Option<&str>, bad: &mut impl FnMut(String, String)) {
    if let Some(Err(error)) = text.map(str::parse::<LabelSelector>) {
        bad(field.to_owned(), error.to_string());
    }
}

/// True if `name` is a valid name of a namespace.
#[must_use]
pub fn is_namespace(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= 63
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// An object by its name: `deployments.apps/shop/web`, `namespaces/shop`; each part may be a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// The kind: `deployments.apps`.
    pub resource: Glob,
    /// The namespace; `None` for cluster-scoped objects.
    pub namespace: Option<Glob>,
    /// The object's name.
    pub name: Glob,
}

/// A text that names no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no object: write KIND/NAMESPACE/NAME, as in deployments.apps/shop/web, or KIND/NAME")]
pub struct ObjectNameError(String);

impl std::str::FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let glob = |part: &str| Glob::new(part).map_err(|_| ObjectNameError(text.to_owned()));
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [resource, name] => Ok(Self { resource: glob(resource)?, namespace: None, name: glob(name)? }),
            [resource, namespace, name] => {
                Ok(Self { resource: glob(resource)?, namespace: Some(glob(namespace)?), name: glob(name)? })
            }
            _ => Err(ObjectNameError(text.to_owned())),
        }
    }
}
