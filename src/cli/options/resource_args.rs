//! Arguments for the restore of resources: selection, mapping and policy, added to a RestorePlan.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::restore_values::Allowed;
use crate::cli::failure::Failure;
use crate::plan::{self, ExistingPolicy, ObjectName, Profile, RestoreSpec, Scope, SideEffect};

/// Arguments of `kbak restore` for Kubernetes resources.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Resources")]
pub struct ResourceArgs {
    /// Only objects of this namespace (or the --object in it); FROM:TO renames it; repeatable
    #[arg(long, value_name = "NAME[:TO]")]
    pub namespace: Vec<String>,
    /// Exclude objects of this namespace; repeatable
    #[arg(long, value_name = "NAME")]
    pub exclude_namespace: Vec<String>,
    /// Only objects of this kind, as in deployments.apps; repeatable
    #[arg(long, value_name = "KIND")]
    pub kind: Vec<String>,
    /// Only objects with these labels, in the syntax of kubectl
    #[arg(long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only this object, as in deployments.apps/shop/web; repeatable
    #[arg(long, value_name = "OBJECT")]
    pub object: Vec<String>,
    /// A RestorePlan: selection, mappings, modifiers; arguments are added to it
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// The infrastructure of the cluster that is restored [default: app]
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<Profile>,
    /// The objects that are restored if Argo CD or Flux manage some [default: data; all where
    /// --namespace maps]
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<Scope>,
    /// The handling of existing objects that differ [default: skip, and exit 3]
    #[arg(long, value_name = "ACTION")]
    pub existing: Option<ExistingPolicy>,
    /// The side effects that a copy may have; none: objects that are held back are no gap
    #[arg(long, value_name = "EFFECT", value_delimiter = ',')]
    pub release: Vec<SideEffect>,
    /// This cluster takes the place of the one in the backup: nothing is held back or suspended
    #[arg(long)]
    pub takeover: bool,
    /// Restore the status of objects of this kind, by name or glob; repeatable
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub restore_status: Vec<String>,
    /// Replace a storage class; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub map_class: Vec<String>,
    /// Replace a prefix of image names; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub map_image: Vec<String>,
    /// Replace a host name, also in its subdomains; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub map_host: Vec<String>,
    /// Keep the node ports of Services, also those that the cluster assigned, and in a copy
    #[arg(long)]
    pub preserve_nodeports: bool,
    /// Restore only if the plan's hash has this prefix, as --dry-run printed it
    #[arg(long, value_name = "HASH")]
    pub plan_hash: Option<String>,
    /// Write the outcome of each object to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub outcomes: Option<PathBuf>,
}

/// Reads the RestorePlan, if one is given, and adds the arguments to it.
pub(crate) fn spec(given: &ResourceArgs, allow: &[Allowed]) -> Result<RestoreSpec, Failure> {
    let mut spec = match &given.plan {
        Some(file) => super::plan_args::load_restore(file)?.spec,
        None => RestoreSpec::default(),
    };
    add_namespaces(&mut spec, &given.namespace)?;
    spec.select.namespaces.exclude.extend(given.exclude_namespace.iter().cloned());
    if !given.kind.is_empty() {
        spec.select.kinds.include.clone_from(&given.kind);
    }
    spec.select.selector = given.selector.clone().or(spec.select.selector);
    spec.select.objects.extend(given.object.iter().cloned());
    spec.status.extend(given.restore_status.iter().cloned());
    deselect_namespaces_of_objects(&mut spec, given);
    for (option, pairs, map) in [
        ("--map-class", &given.map_class, &mut spec.map.storage_classes),
        ("--map-image", &given.map_image, &mut spec.map.images),
        ("--map-host", &given.map_host, &mut spec.map.hosts),
    ] {
        add_mapping(option, pairs, map)?;
    }
    spec.allow.extend(allow.iter().filter_map(|allowed| allowed.of_resources()));
    spec.release.extend(&given.release);
    spec.takeover |= given.takeover;
    spec.node_ports |= given.preserve_nodeports;
    spec.existing = given.existing.or(spec.existing);
    spec.profile = given.profile.unwrap_or(spec.profile);
    spec.scope = given.scope.or(spec.scope);
    Ok(spec)
}

/// Selects the namespaces instead of those of the plan; `FROM:TO` also maps one.
fn add_namespaces(spec: &mut RestoreSpec, namespaces: &[String]) -> Result<(), Failure> {
    if !namespaces.is_empty() {
        spec.select.namespaces.include.clear();
    }
    for namespace in namespaces {
        let (from, to) = match namespace.split_once(':') {
            Some((from, to)) => (from, Some(to)),
            None => (namespace.as_str(), None),
        };
        spec.select.namespaces.include.push(from.to_owned());
        if let Some(to) = to {
            if !plan::is_namespace(from) || !plan::is_namespace(to) {
                let what = format!("--namespace {namespace}: these are not valid names of namespaces");
                return Err(Failure::usage(what).remedy("write FROM:TO, as in shop:shop-test"));
            }
            spec.map.namespaces.insert(from.to_owned(), to.to_owned());
        }
    }
    Ok(())
}

/// Deselects a whole namespace if `--object` names an object in it. Beside the whole namespace the object
/// would be redundant, so it is meant alone, and `--namespace` only maps it.
fn deselect_namespaces_of_objects(spec: &mut RestoreSpec, given: &ResourceArgs) {
    let select = &mut spec.select;
    if given.namespace.is_empty() || select.kinds.include != ["*"] || select.selector.is_some() {
        return;
    }
    let objects = given.object.iter().filter_map(|object| object.parse::<ObjectName>().ok());
    let namespaces: Vec<String> =
        objects.filter_map(|object| object.namespace.map(|name| name.as_str().to_owned())).collect();
    select.namespaces.include.retain(|namespace| !namespaces.contains(namespace));
}

fn add_mapping(option: &str, pairs: &[String], map: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    for pair in pairs {
        let (from, to) =
            pair.split_once('=').filter(|(from, to)| !from.is_empty() && !to.is_empty()).ok_or_else(
                || Failure::usage(format!("{option} {pair}: this is not a mapping")).remedy("write FROM=TO"),
            )?;
        map.insert(from.to_owned(), to.to_owned());
    }
    Ok(())
}

/// Refuses options that change objects in a restore to files. Files hold objects as they were backed up,
/// and a user who applies them would expect the changes.
pub(crate) fn refuse_for_files(spec: &RestoreSpec) -> Result<(), Failure> {
    let map = &spec.map;
    let options = [
        (!map.namespaces.is_empty(), "another namespace (--namespace FROM:TO)"),
        (!map.storage_classes.is_empty(), "another class (--map-class)"),
        (!map.images.is_empty(), "other images (--map-image)"),
        (!map.hosts.is_empty(), "other hosts (--map-host)"),
        (!spec.modify.is_empty(), "the plan's modifiers (modify)"),
        (spec.existing.is_some(), "--existing"),
        (spec.takeover, "--takeover"),
        (!spec.release.is_empty(), "--release"),
        (!spec.status.is_empty(), "--restore-status"),
        (spec.node_ports, "--preserve-nodeports"),
        (spec.profile != Profile::default(), "--profile"),
        (spec.scope.is_some(), "--scope"),
    ];
    let given: Vec<&str> = options.iter().filter(|(given, _)| *given).map(|(_, what)| *what).collect();
    if given.is_empty() {
        return Ok(());
    }
    let what =
        format!("--resources-to writes objects as they are in the backup, without {}", given.join(", "));
    Err(Failure::usage(what).remedy("leave that out and change the files, or restore with --cluster"))
}
