//! Arguments for the restore of resources: selection, mapping and policy. Together with a RestorePlan they
//! form the config of a restore.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::sources;
use crate::cli::verbs::restore::RestoreArgs;
use crate::plan::{
    self, ExistingName, Modify, ObjectName, Patterns, ProfileName, ReleaseName, RestoreSpec, ScopeName,
};
use crate::target::kubernetes::{
    Allow, Existing, Mapping, Modifier, Profile, Release, RestoreConfig, Scope, Selected,
};

/// Arguments of `kbak restore` for Kubernetes resources.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Resources")]
pub struct ResourceArgs {
    /// Only objects of this namespace (or the --object in it); FROM:TO renames it; repeatable
    #[arg(long, value_name = "NAME[:TO]")]
    pub namespace: Vec<String>,
    /// Not objects of this namespace; repeatable
    #[arg(long, value_name = "NAME")]
    pub exclude_namespace: Vec<String>,
    /// Only objects of this kind, as in deployments.apps; repeatable
    #[arg(long, value_name = "KIND")]
    pub kind: Vec<String>,
    /// Only objects with these labels, as kubectl takes them
    #[arg(long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// This object, as in deployments.apps/shop/web; repeatable
    #[arg(long, value_name = "OBJECT")]
    pub object: Vec<String>,
    /// A RestorePlan: selection, mappings, modifiers; arguments are added to it
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// What of the cluster's own machinery comes back [default: app]
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<ProfileArg>,
    /// Whether objects come back that Argo CD or Flux bring [default: data; all where --namespace maps]
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<ScopeArg>,
    /// What happens to objects that are there and differ [default: skip, and exit 3]
    #[arg(long, value_name = "HOW")]
    pub existing: Option<ExistingArg>,
    /// What a copy may do; none: what is held back is not missed
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub release: Vec<ReleaseArg>,
    /// This cluster takes the place of the one in the backup: nothing is held back or suspended
    #[arg(long)]
    pub takeover: bool,
    /// Restore the status of objects of this kind, by name or glob; repeatable
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub restore_status: Vec<String>,
    /// Another storage class; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub map_class: Vec<String>,
    /// Another beginning of images' names; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub map_image: Vec<String>,
    /// Another host name, and what lies beneath it; repeatable
    #[arg(long, value_name = "FROM=TO")]
    pub map_host: Vec<String>,
    /// Keep the node ports of Services, also those that the cluster gave, and in a copy
    #[arg(long)]
    pub preserve_nodeports: bool,
    /// Do it only if the plan's hash begins so, as --dry-run printed it
    #[arg(long, value_name = "HASH")]
    pub plan_hash: Option<String>,
    /// Write what became of each object there, one line of JSON each
    #[arg(long, value_name = "FILE")]
    pub outcomes: Option<PathBuf>,
}

/// The part of the cluster's infrastructure that is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// Nothing: applications only
    App,
    /// Its settings
    Rebuild,
    /// Its settings and its state
    Everything,
}

/// The handling of objects that Git holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// Only what Git does not hold
    Data,
    /// All
    All,
}

/// The handling of existing objects that differ from the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExistingArg {
    /// They are left alone
    Skip,
    /// What the backup says is merged into them
    Patch,
    /// They are replaced, unless somebody changes them meanwhile
    Replace,
}

/// The side effects that `--release` permits in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReleaseArg {
    /// Run CronJobs and Jobs, let Argo CD sync by itself
    Jobs,
    /// Have Ingresses, Gateways and routes
    Ingress,
    /// Have what external-dns publishes
    Dns,
    /// Have certificates and issuers that ask an ACME server
    Acme,
    /// Have Services of the type LoadBalancer, or with external addresses
    Loadbalancers,
    /// Nothing of it, and that is what is wanted
    None,
}

/// Reads the RestorePlan, if one is given, and adds the arguments to it.
pub(crate) fn spec(args: &RestoreArgs) -> Result<RestoreSpec, Failure> {
    let given = &args.resources;
    let mut spec = match &given.plan {
        Some(file) => crate::cli::verbs::plan::load_restore(file)?.spec,
        None => RestoreSpec::default(),
    };
    if !given.namespace.is_empty() {
        spec.select.namespaces.include.clear();
    }
    for namespace in &given.namespace {
        let (from, to) = match namespace.split_once(':') {
            Some((from, to)) => (from, Some(to)),
            None => (namespace.as_str(), None),
        };
        spec.select.namespaces.include.push(from.to_owned());
        if let Some(to) = to {
            if !plan::is_namespace(from) || !plan::is_namespace(to) {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("--namespace {namespace}: no names of namespaces"),
                )
                .remedy("write FROM:TO, as in shop:shop-test"));
            }
            spec.map.namespaces.insert(from.to_owned(), to.to_owned());
        }
    }
    spec.select.namespaces.exclude.extend(given.exclude_namespace.iter().cloned());
    if !given.kind.is_empty() {
        spec.select.kinds.include.clone_from(&given.kind);
    }
    spec.select.selector = given.selector.clone().or(spec.select.selector);
    spec.select.objects.extend(given.object.iter().cloned());
    spec.status.extend(given.restore_status.iter().cloned());
    leave_to_objects(&mut spec, given);
    for (option, pairs, map) in [
        ("--map-class", &given.map_class, &mut spec.map.storage_classes),
        ("--map-image", &given.map_image, &mut spec.map.images),
        ("--map-host", &given.map_host, &mut spec.map.hosts),
    ] {
        add(option, pairs, map)?;
    }
    spec.allow.extend(args.allow.iter().filter_map(|allowed| allowed.of_resources()));
    let released = given.release.iter().map(|release| match release {
        ReleaseArg::Jobs => ReleaseName::Jobs,
        ReleaseArg::Ingress => ReleaseName::Ingress,
        ReleaseArg::Dns => ReleaseName::Dns,
        ReleaseArg::Acme => ReleaseName::Acme,
        ReleaseArg::Loadbalancers => ReleaseName::Loadbalancers,
        ReleaseArg::None => ReleaseName::None,
    });
    spec.release.extend(released);
    spec.takeover |= given.takeover;
    spec.node_ports |= given.preserve_nodeports;
    if let Some(existing) = given.existing {
        spec.existing = Some(match existing {
            ExistingArg::Skip => ExistingName::Skip,
            ExistingArg::Patch => ExistingName::Patch,
            ExistingArg::Replace => ExistingName::Replace,
        });
    }
    if let Some(profile) = given.profile {
        spec.profile = match profile {
            ProfileArg::App => ProfileName::App,
            ProfileArg::Rebuild => ProfileName::Rebuild,
            ProfileArg::Everything => ProfileName::Everything,
        };
    }
    if let Some(scope) = given.scope {
        spec.scope = Some(if scope == ScopeArg::Data { ScopeName::Data } else { ScopeName::All });
    }
    Ok(spec)
}

/// Deselects a whole namespace if `--object` names an object in it. Beside the whole namespace the object
/// would be redundant, so it is meant alone, and `--namespace` only maps it.
fn leave_to_objects(spec: &mut RestoreSpec, given: &ResourceArgs) {
    let select = &mut spec.select;
    if given.namespace.is_empty() || select.kinds.include != ["*"] || select.selector.is_some() {
        return;
    }
    let objects = given.object.iter().filter_map(|object| object.parse::<ObjectName>().ok());
    let homes: Vec<String> =
        objects.filter_map(|object| object.namespace.map(|home| home.as_str().to_owned())).collect();
    select.namespaces.include.retain(|namespace| !homes.contains(namespace));
}

fn add(option: &str, pairs: &[String], map: &mut BTreeMap<String, String>) -> Result<(), Failure> {
    for pair in pairs {
        let (from, to) =
            pair.split_once('=').filter(|(from, to)| !from.is_empty() && !to.is_empty()).ok_or_else(
                || Failure::new(Exit::Usage, format!("{option} {pair}: no mapping")).remedy("write FROM=TO"),
            )?;
        map.insert(from.to_owned(), to.to_owned());
    }
    Ok(())
}

/// Refuses options that change objects in a restore to files. Files hold objects as they were backed up,
/// and a user who applies them would expect the changes.
pub(crate) fn refuse_for_files(spec: &RestoreSpec) -> Result<(), Failure> {
    let map = &spec.map;
    let tool_configs = [
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
        (spec.profile != ProfileName::default(), "--profile"),
        (spec.scope.is_some(), "--scope"),
    ];
    let asked: Vec<&str> = tool_configs.iter().filter(|(asked, _)| *asked).map(|(_, what)| *what).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let what =
        format!("--resources-to writes objects as they are in the backup, without {}", asked.join(", "));
    Err(Failure::new(Exit::Usage, what)
        .remedy("leave that out and change the files, or restore with --cluster"))
}

/// Builds the config of a restore. `cluster_uid` is the UID of the cluster in the backup.
pub(crate) fn config(spec: &RestoreSpec, cluster_uid: Option<String>) -> Result<RestoreConfig, Failure> {
    let select = &spec.select;
    let bad = |what: &str, error: &dyn std::error::Error| {
        Failure::new(Exit::Usage, what.to_owned()).because(error.to_string())
    };
    let labels = select.selector.as_deref().map(str::parse).transpose();
    let objects = select.objects.iter().map(|object| object.parse::<ObjectName>());
    let objects: Result<Vec<ObjectName>, _> = objects.collect();
    let objects = objects.map_err(|error| bad("--object names none", &error))?;
    let some = |patterns: &Patterns| match patterns.include.as_slice() {
        [all] if all == "*" => Ok(Vec::new()),
        include => sources::globs(include),
    };
    Ok(RestoreConfig {
        allow: spec.allow.iter().map(|allow| allow_of(*allow)).collect(),
        namespaces: some(&select.namespaces)?,
        exclude_namespaces: sources::globs(&select.namespaces.exclude)?,
        kinds: some(&select.kinds)?,
        exclude_kinds: sources::globs(&select.kinds.exclude)?,
        labels: labels.map_err(|error: plan::LabelSelectorError| bad("--selector is none", &error))?,
        objects: objects
            .into_iter()
            .map(|ObjectName { resource, namespace, name }| Selected { resource, namespace, name })
            .collect(),
        mapping: Mapping {
            namespaces: spec.map.namespaces.clone(),
            classes: spec.map.storage_classes.clone(),
            images: spec.map.images.clone(),
            hosts: spec.map.hosts.clone(),
        },
        modifiers: spec.modify.iter().map(modifier).collect::<Result<_, _>>()?,
        profile: match spec.profile {
            ProfileName::App => Profile::App,
            ProfileName::Rebuild => Profile::Rebuild,
            ProfileName::Everything => Profile::Everything,
        },
        scope: spec.scope.map(|scope| if scope == ScopeName::Data { Scope::Data } else { Scope::All }),
        existing: spec.existing.map(|existing| match existing {
            ExistingName::Skip => Existing::Skip,
            ExistingName::Patch => Existing::Patch,
            ExistingName::Replace => Existing::Replace,
        }),
        release: (!spec.release.is_empty())
            .then(|| spec.release.iter().filter_map(|release| release_of(*release)).collect()),
        takeover: spec.takeover,
        cluster_uid,
        status: sources::globs(&spec.status)?,
        node_ports: spec.node_ports,
        ..RestoreConfig::default()
    })
}

fn allow_of(allow: plan::AllowName) -> Allow {
    match allow {
        plan::AllowName::Rbac => Allow::Rbac,
        plan::AllowName::Webhooks => Allow::Webhooks,
        plan::AllowName::Crds => Allow::Crds,
        plan::AllowName::Apiservices => Allow::Apiservices,
        plan::AllowName::Privileged => Allow::Privileged,
    }
}

fn release_of(release: ReleaseName) -> Option<Release> {
    match release {
        ReleaseName::Jobs => Some(Release::Jobs),
        ReleaseName::Ingress => Some(Release::Ingress),
        ReleaseName::Dns => Some(Release::Dns),
        ReleaseName::Acme => Some(Release::Acme),
        ReleaseName::Loadbalancers => Some(Release::Loadbalancers),
        ReleaseName::None => None,
    }
}

/// Builds a modifier. The plan's check has already refused invalid ones.
fn modifier(modify: &Modify) -> Result<Modifier, Failure> {
    let bad = |error: String| Failure::new(Exit::Usage, "a modifier is none").because(error);
    let chosen = &modify.r#match;
    let regex = chosen.name_regex.as_deref().map(regex::Regex::new).transpose();
    let patch = modify.patch.clone().map(serde_json::from_value).transpose();
    Ok(Modifier {
        kinds: sources::globs(&chosen.kinds)?,
        namespaces: sources::globs(&chosen.namespaces)?,
        names: sources::globs(&chosen.names)?,
        name_regex: regex.map_err(|error| bad(error.to_string()))?,
        labels: chosen
            .selector
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error: plan::LabelSelectorError| bad(error.to_string()))?,
        merge: modify.merge.clone(),
        patch: patch.map_err(|error| bad(error.to_string()))?,
    })
}
