//! A values file of the chart: the drafted plan, and what its pods need beside it. The chart adds the paths of
//! mounted Secrets to the plan, so the plan has none here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::databases::DatabaseSection;
use super::yaml::{Yaml, flow, list, quoted};
use super::{PlanDraft, ScheduleNotFound};
use crate::kubernetes::{KindInfo, Selection};
use crate::plan::{self, BackupSpec, CoverageMode, GlobError, PlanError, RepositorySpec, ResourcesSpec};

/// Kubernetes' own kinds, which the chart's role has.
const CHART_KINDS: &str = include_str!("../../../deploy/chart/files/kinds.yaml");

/// No values can be written.
#[derive(Debug, thiserror::Error)]
pub enum ValuesError {
    /// The requested schedule does not exist.
    #[error(transparent)]
    Schedule(#[from] ScheduleNotFound),
    /// The plan is not valid, which the chart would install all the same.
    #[error("the drafted plan is not valid")]
    Plan(#[from] PlanError),
    /// The plan cannot be written as values.
    #[error("the drafted plan cannot be written")]
    Write(#[from] serde_json::Error),
    /// The plan selects kinds by an invalid pattern.
    #[error("the drafted plan has an invalid pattern")]
    Pattern(#[from] GlobError),
    /// The chart's list of kinds cannot be parsed.
    #[error("the chart's list of kinds cannot be parsed")]
    ChartKinds(#[from] Box<serde_saphyr::Error>),
}

#[derive(Deserialize)]
struct ChartKinds {
    namespaced: BTreeMap<String, Vec<String>>,
    cluster: BTreeMap<String, Vec<String>>,
}

/// Fields of a plan that the values have in another place, or that only hold outside of the cluster.
const ELSEWHERE: &[&str] = &["repository", "recipients", "writer", "cluster", "resources", "databases"];

impl PlanDraft<'_> {
    /// Returns a values file of the chart with the drafted plan. `kinds` are those of the cluster.
    ///
    /// # Errors
    /// [`ValuesError`], most of all if repository and recipients are missing.
    pub fn values(&self, kinds: &[KindInfo]) -> Result<String, ValuesError> {
        let text = self.text()?;
        let spec = plan::parse(&text)?.plan.spec;
        let databases = DatabaseSection::of(self.inventory, self.tool_configs);
        let mut yaml = Yaml::default();
        self.values_header(&text, &mut yaml);
        yaml.line(0, "plan:");
        yaml.line(1, &format!("name: {}", quoted(self.name)));
        yaml.line(1, "spec:");
        yaml.line(2, &format!("repository: {}", repository(&spec.repository)));
        yaml.line(2, "recipients:");
        for recipient in self.recipients {
            yaml.line(3, &format!("- {}", quoted(recipient)));
        }
        if let Some(resources) = &spec.resources {
            let changed = without_defaults(resources, &ResourcesSpec::default())?;
            yaml.line(2, &format!("resources: {}", flow(&changed)));
        }
        databases.write_values(&mut yaml);
        for (name, value) in other_fields(&spec)? {
            yaml.line(2, &format!("{}: {}", quoted(&name), flow(&value)));
        }
        databases.write_secrets(&mut yaml);
        store(&spec.repository, &mut yaml);
        yaml.line(0, "image: {repository: localhost/kbak}    # FILL IN where you pushed the image");
        if let Some(resources) = &spec.resources {
            extra_rules(resources, kinds, &mut yaml)?;
        }
        Ok(yaml.text())
    }

    /// Writes the source, and every comment of the plan that names a thing without a backup.
    fn values_header(&self, plan: &str, yaml: &mut Yaml) {
        yaml.comment(
            0,
            &format!("Values of the chart kbak, by kbak plan init from the cluster at {}.", self.server),
        );
        let gaps = plan.lines().filter_map(|line| line.trim().strip_prefix("# "));
        for gap in gaps.filter(|gap| gap.starts_with("NOT ") || gap.starts_with("Not taken over")) {
            yaml.comment(0, gap);
        }
        let claims = self.inventory.claims.iter().filter(|claim| claim.database.is_none());
        let claims: Vec<String> = claims.map(|claim| format!("{}/{}", claim.namespace, claim.name)).collect();
        if !claims.is_empty() {
            let names: Vec<&str> = claims.iter().map(String::as_str).collect();
            let names = super::shortened(&names);
            yaml.comment(0, &format!("NOT IN THIS PLAN: the claims {names} (docs/limits.md)"));
        }
    }
}

fn repository(repository: &RepositorySpec) -> String {
    let mut fields = vec![format!("url: {}", quoted(&repository.url))];
    for (name, value) in [("endpoint", &repository.endpoint), ("region", &repository.region)] {
        fields.extend(value.iter().map(|value| format!("{name}: {}", quoted(value))));
    }
    fields.extend(repository.path_style.iter().map(|value| format!("pathStyle: {value}")));
    format!("{{{}}}", fields.join(", "))
}

/// Returns the fields of a value that differ from those of the default.
fn without_defaults<T: serde::Serialize>(value: &T, default: &T) -> Result<Value, serde_json::Error> {
    let (mut value, default) = (serde_json::to_value(value)?, serde_json::to_value(default)?);
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, field| default.get(name) != Some(field));
    }
    Ok(value)
}

/// Returns the other fields of the plan, except those with their default.
fn other_fields(spec: &BackupSpec) -> Result<Vec<(String, Value)>, serde_json::Error> {
    // `warn` is the default of a plan that reads a cluster.
    let default = BackupSpec { coverage: Some(CoverageMode::Warn), ..BackupSpec::default() };
    let Value::Object(fields) = without_defaults(spec, &default)? else { return Ok(Vec::new()) };
    Ok(fields.into_iter().filter(|(name, _)| !ELSEWHERE.contains(&name.as_str())).collect())
}

/// Writes the Secrets of the store, with the commands that make them.
fn store(repository: &RepositorySpec, yaml: &mut Yaml) {
    if !repository.url.starts_with("s3:") {
        let note = "FILL IN extraVolumes and extraVolumeMounts: the repository is a folder of the pods";
        yaml.comment(0, note);
        return;
    }
    let file = |path: &Option<std::path::PathBuf>, key: &str| match path {
        Some(path) => format!("--from-file={key}={}", path.display()),
        None => format!("--from-file={key}"),
    };
    let from = file(&repository.credentials_file, "credentials");
    yaml.line(0, "store:");
    let make = "# kubectl -n kbak create secret generic";
    yaml.line(1, &format!("existingSecret: kbak-store    {make} kbak-store {from}"));
    if repository.ca_file.is_some() {
        let from = file(&repository.ca_file, "ca.crt");
        yaml.line(1, &format!("existingCASecret: kbak-store-ca    {make} kbak-store-ca {from}"));
    }
}

/// Writes rules for the selected kinds that the chart's role does not have.
fn extra_rules(resources: &ResourcesSpec, kinds: &[KindInfo], yaml: &mut Yaml) -> Result<(), ValuesError> {
    let chart: ChartKinds = serde_saphyr::from_str(CHART_KINDS).map_err(Box::new)?;
    let is_in_chart = |kind: &&KindInfo| {
        let has = |kinds: &BTreeMap<String, Vec<String>>| {
            kinds.get(&kind.group).is_some_and(|plurals| plurals.contains(&kind.plural))
        };
        has(&chart.namespaced) || has(&chart.cluster) || (kind.group.is_empty() && kind.plural == "secrets")
    };
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let selection = Selection::of(resources)?;
    for kind in selection.kinds(kinds).into_iter().filter(|kind| !is_in_chart(kind)) {
        groups.entry(&kind.group).or_default().push(kind.plural.clone());
    }
    if groups.is_empty() {
        return Ok(());
    }
    yaml.line(0, "rbac:");
    yaml.line(1, "extraRules:    # kinds that are not Kubernetes' own");
    for (group, mut plurals) in groups {
        plurals.sort();
        let (group, plurals) = (list(&[group.to_owned()]), list(&plurals));
        yaml.line(2, &format!("- {{apiGroups: {group}, resources: {plurals}}}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, plural: &str) -> KindInfo {
        KindInfo::from_path_parts(group, "v1", plural)
    }

    #[test]
    fn extra_rules_name_only_selected_kinds_that_the_chart_lacks() {
        let kinds = [
            kind("", "pods"),
            kind("", "secrets"),
            kind("", "events"),
            kind("apps", "deployments"),
            kind("cert-manager.io", "issuers"),
            kind("cert-manager.io", "certificates"),
            kind("gateway.networking.k8s.io", "gateways"),
        ];
        let mut yaml = Yaml::default();
        extra_rules(&ResourcesSpec::default(), &kinds, &mut yaml).expect("rules");
        assert_eq!(
            yaml.text(),
            "rbac:\n  extraRules:    # kinds that are not Kubernetes' own\n    \
             - {apiGroups: [cert-manager.io], resources: [certificates, issuers]}\n    \
             - {apiGroups: [gateway.networking.k8s.io], resources: [gateways]}\n"
        );
        let mut yaml = Yaml::default();
        extra_rules(&ResourcesSpec::default(), &kinds[..4], &mut yaml).expect("no rules");
        assert_eq!(yaml.text(), "");
    }
}
