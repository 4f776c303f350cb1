//! A first plan for a cluster, with comments: findings, their sources, and settings that could not be taken
//! over. Pure: an inventory and the configuration of other tools in, YAML out.
//!
//! The text is a plan that [`crate::plan::parse`] accepts as soon as repository and recipients are filled in.
//! Features that this version does not support yet are written as comments, never left out.

mod cron;
mod databases;
mod imported_config;
mod values;
mod yaml;

pub use imported_config::ScheduleNotFound;
pub use values::ValuesError;

use super::existing_backup_tools::ToolConfigs;
use super::{Inventory, IrreplaceableSecret};
use crate::plan::RepositorySpec;
use crate::report::coverage::UnreadResource;
use crate::report::text::plural;
use databases::DatabaseSection;
use imported_config::ImportedConfig;
use yaml::{Yaml, quoted};

/// The input of a plan draft.
#[derive(Debug)]
pub struct PlanDraft<'a> {
    /// The plan's name.
    pub name: &'a str,
    /// The repository, as far as it was given.
    pub repository: Option<&'a RepositorySpec>,
    /// The public keys of the owners.
    pub recipients: &'a [String],
    /// The writer's key file.
    pub writer_key: &'a str,
    /// The absolute path of the kubeconfig, if one was given.
    pub kubeconfig: Option<&'a str>,
    /// The context of the kubeconfig, if one was given.
    pub context: Option<&'a str>,
    /// The cluster's address.
    pub server: &'a str,
    /// The cluster's inventory.
    pub inventory: &'a Inventory,
    /// The configuration of other backup tools.
    pub tool_configs: &'a ToolConfigs,
    /// A schedule of Velero to take over, as `namespace/name`; `None` for the only one there is.
    pub from: Option<&'a str>,
}

/// The maximum number of names in a comment.
const MAX_NAMES: usize = 12;

impl PlanDraft<'_> {
    /// Returns the plan's text. Fails if the schedule named by `from` does not exist.
    pub fn text(&self) -> Result<String, ScheduleNotFound> {
        let imported = ImportedConfig::of(self.tool_configs, self.from)?;
        let databases = DatabaseSection::of(self.inventory, self.tool_configs);
        let mut yaml = Yaml::default();
        self.header(&mut yaml);
        yaml.line(0, "apiVersion: kbak.dev/v1");
        yaml.line(0, "kind: BackupPlan");
        yaml.line(0, "metadata:");
        yaml.line(1, &format!("name: {}", quoted(self.name)));
        yaml.line(0, "spec:");
        self.repository(&mut yaml);
        self.resources(&mut yaml, &imported);
        databases.write(&mut yaml);
        self.volumes(&mut yaml);
        imported.write_rest(&mut yaml);
        yaml.gap();
        yaml.line(1, "coverage: warn    # name what appears later and is not declared; strict: exit 3");
        Ok(yaml.text())
    }

    fn header(&self, yaml: &mut Yaml) {
        yaml.comment(0, &format!("Written by kbak plan init from the cluster at {}.", self.server));
        let note =
            "Fill in what says FILL IN, read the rest, then: kbak plan check FILE, kbak check --plan FILE";
        yaml.comment(0, note);
        let inventory = self.inventory;
        let found = [
            (inventory.namespaces.len(), "namespace", "namespaces"),
            (inventory.claims.len(), "claim", "claims"),
            (inventory.databases.len(), "database", "databases"),
            (
                inventory.irreplaceable_secrets.len(),
                "Secret that cannot be recreated",
                "Secrets that cannot be recreated",
            ),
        ];
        let found = found.map(|(number, one, many)| plural(number as u64, one, many));
        yaml.comment(0, &format!("Found: {}.", found.join(", ")));
        for UnreadResource { what, why, rule } in inventory.unread.iter().chain(&self.tool_configs.unread) {
            let rule = rule.as_ref().map(|rule| format!("; add the rule {rule}")).unwrap_or_default();
            yaml.comment(0, &format!("NOT READ: {what}: {why}{rule}"));
        }
        yaml.gap();
    }

    fn repository(&self, yaml: &mut Yaml) {
        yaml.line(1, "repository:");
        match self.repository {
            Some(repository) => {
                yaml.line(2, &format!("url: {}", quoted(&repository.url)));
                let optional = [("endpoint", &repository.endpoint), ("region", &repository.region)];
                for (name, value) in optional {
                    yaml.optional(2, name, value.as_deref());
                }
                if let Some(path_style) = repository.path_style {
                    yaml.line(2, &format!("pathStyle: {path_style}"));
                }
                let files =
                    [("credentialsFile", &repository.credentials_file), ("caFile", &repository.ca_file)];
                for (name, file) in files {
                    yaml.optional(2, name, file.as_ref().map(|file| file.display().to_string()).as_deref());
                }
            }
            None => {
                let note = "# s3://bucket/prefix, with endpoint: and credentialsFile: where needed";
                yaml.line(2, &format!("url: FILL IN    {note}"));
            }
        }
        if self.recipients.is_empty() {
            yaml.line(1, "recipients: []    # FILL IN the owners' public keys: kbak keygen makes one");
        } else {
            yaml.line(1, "recipients:");
            for recipient in self.recipients {
                yaml.line(2, &format!("- {}", quoted(recipient)));
            }
        }
        yaml.line(1, "writer:");
        yaml.line(2, &format!("keyFile: {}    # made by kbak init", quoted(self.writer_key)));
        let note = "also made by kbak init: then check knows which owners are proven";
        yaml.comment(2, &format!("signersFile: kbak.pub    # {note}"));
        let cluster = [("kubeconfigFile", self.kubeconfig), ("context", self.context)];
        if cluster.iter().any(|(_, value)| value.is_some()) {
            yaml.line(1, "cluster:");
        }
        for (name, value) in cluster {
            yaml.optional(2, name, value);
        }
        yaml.gap();
    }

    fn resources(&self, yaml: &mut Yaml, imported: &ImportedConfig<'_>) {
        imported.write_source(yaml);
        let names: Vec<&str> = self.inventory.namespaces.iter().map(String::as_str).collect();
        yaml.comment(1, &format!("The cluster's namespaces: {}", shortened(&names)));
        for secret in &self.inventory.irreplaceable_secrets {
            let IrreplaceableSecret { namespace, name, description, .. } = secret;
            let text = format!("Cannot be recreated: Secret {namespace}/{name}: {description}");
            yaml.comment(1, &text);
        }
        if !self.inventory.irreplaceable_secrets.is_empty() {
            let text = "Keep those namespaces and Secrets: without the keys, what they decrypt is lost.";
            yaml.comment(1, text);
        }
        imported.write_resources(yaml);
        yaml.gap();
    }

    /// Writes claims as comments, because this version has no movers.
    fn volumes(&self, yaml: &mut Yaml) {
        let others: Vec<_> = self.inventory.claims.iter().filter(|claim| claim.database.is_none()).collect();
        let of_databases = self.inventory.claims.len() - others.len();
        if of_databases > 0 {
            let of_databases = plural(of_databases as u64, "claim belongs", "claims belong");
            yaml.comment(1, &format!("{of_databases} to the databases above: a dump is their backup."));
        }
        if !others.is_empty() {
            let note =
                "Claims in the cluster are not yet supported by this version (docs/limits.md): mount a";
            yaml.comment(1, note);
            yaml.comment(1, "volume where kbak runs and use path:, or accept the gap.");
            yaml.comment(1, "volumes:");
        }
        for claim in others {
            let details = [claim.size.clone(), claim.class.as_ref().map(|class| format!("class {class}"))];
            let mut details: Vec<String> = details.into_iter().flatten().collect();
            if claim.tool_annotations.get("k8up.io/backup").is_some_and(|value| value == "false") {
                details.push("K8up was set to skip it".to_owned());
            }
            let details =
                if details.is_empty() { String::new() } else { format!("    # {}", details.join(", ")) };
            let line =
                format!("- {{namespace: {}, claims: [{}]}}", quoted(&claim.namespace), quoted(&claim.name));
            yaml.comment(1, &format!("  {line}{details}"));
        }
        imported_config::write_pod_annotations(self.tool_configs, yaml);
        yaml.gap();
    }
}

/// Joins names for a comment; beyond [`MAX_NAMES`] only their number is given.
fn shortened(names: &[&str]) -> String {
    let first = names.iter().take(MAX_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
