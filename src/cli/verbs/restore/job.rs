//! Makes the job of a restore from the arguments, and checks the targets before anything is changed.

use std::os::unix::ffi::OsStrExt as _;

use tokio::sync::Mutex;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::database_url::parse_server_url;
use crate::cli::options::reading::{self, OpenedSnapshot};
use crate::cli::options::resource_args;
use crate::cli::options::restore_values::Allowed;
use crate::cli::shell::output::{self, OutputFormat};
use crate::cli::verbs::restore::{RestoreArgs, selected_kinds};
use crate::format::body::Item;
use crate::format::name::Name;
use crate::plan::{ClusterSpec, RestoreSpec};
use crate::report::event::Reporter;
use crate::restore::folder::Paths;
use crate::restore::job::{DatabaseTarget, FolderTarget, ResourcesTarget, RestoreJob};
use crate::restore::run::{outer_folders_first, subdirectory};
use crate::restore::streams::only_stream;
use crate::source::database::environment_password;
use crate::target::kubernetes::RestoreConfig;
use crate::target::volume::{ExistingFiles, TargetOptions};

/// The minimum length of `--plan-hash`, in hex digits.
const MIN_HASH: usize = 8;

/// Returns the selected items, outer folders before the folders inside them.
pub(super) fn items<'a>(args: &RestoreArgs, opened: &'a OpenedSnapshot) -> Result<Vec<&'a Item>, Failure> {
    // An item that is named twice is restored once.
    let mut items = reading::chosen_items(&opened.snapshot, &args.item)?;
    outer_folders_first(&mut items);
    Ok(items)
}

/// Makes the job. Invalid options are refused here, before anything is changed.
pub(super) async fn job<'a>(
    args: &RestoreArgs,
    opened: &'a OpenedSnapshot,
    items: Vec<&'a Item>,
    reporter: &'a Reporter,
) -> Result<RestoreJob<'a>, Failure> {
    check_targets(args, &items)?;
    let resources = resources(args, &items)?;
    Ok(RestoreJob {
        snapshot: &opened.snapshot,
        paths: paths(args, opened, &items).await?,
        folder: folder(args),
        database: database(args)?,
        resources,
        items,
        runtime: &opened.view.runtime,
        reporter,
    })
}

fn folder(args: &RestoreArgs) -> Option<FolderTarget> {
    if args.tar {
        return Some(FolderTarget::Archive(Mutex::new(Box::new(tokio::io::stdout()))));
    }
    let options = TargetOptions {
        existing: args.existing_files.into(),
        allow_devices: args.allow.contains(&Allowed::Devices),
        allow_other_xattrs: args.allow.contains(&Allowed::Xattrs),
        ..TargetOptions::default()
    };
    args.to.clone().map(|to| FolderTarget::Directory { to, options })
}

/// Returns the selected paths of the folder; `None` selects all.
async fn paths(
    args: &RestoreArgs,
    opened: &OpenedSnapshot,
    items: &[&Item],
) -> Result<Option<Paths>, Failure> {
    let Some(item) = items.iter().find(|item| item.kind == "volume" && !args.path.is_empty()) else {
        return Ok(None);
    };
    let reader = opened.snapshot.read(only_stream(item)?)?;
    let mut paths: Vec<Name> = Vec::new();
    for path in &args.path {
        paths.push(reading::resolve_path(&reader, path.as_bytes()).await?);
    }
    Ok(Some(Paths(paths)))
}

fn database(args: &RestoreArgs) -> Result<Option<DatabaseTarget>, Failure> {
    let Some(url) = &args.database else { return Ok(None) };
    let (mut config, _) = parse_server_url(url)?;
    config.password_file.clone_from(&args.database_password_file);
    config.password = environment_password(&config)
        .map_err(|error| Failure::usage("--database: no usable password").because(error))?;
    Ok(Some(DatabaseTarget { config, replace: args.replace_databases, no_owner: args.no_owner }))
}

fn resources(args: &RestoreArgs, items: &[&Item]) -> Result<Option<ResourcesTarget>, Failure> {
    let items: Vec<&Item> = items.iter().filter(|item| item.kind == "resources").copied().collect();
    if items.is_empty() {
        return Ok(None);
    }
    let spec: RestoreSpec = resource_args::spec(&args.resources, &args.allow)?;
    let config = RestoreConfig::of(&spec)?;
    if args.resources_to.is_some() && !args.cluster {
        resource_args::refuse_for_files(&spec)?;
    }
    selected_kinds::check(&spec, &items)?;
    if let Some(to) = args.resources_to.clone() {
        return Ok(Some(ResourcesTarget::Directory { to, config }));
    }
    let plan_hash = args.resources.plan_hash.as_deref();
    let plan_hash = plan_hash.map(|hash| hash.trim_end_matches('…').to_lowercase());
    if plan_hash.as_ref().is_some_and(|hash| hash.len() < MIN_HASH) {
        return Err(Failure::usage(format!("--plan-hash takes at least {MIN_HASH} digits")));
    }
    let cluster = ClusterSpec { kubeconfig_file: args.kubeconfig.clone(), context: args.context.clone() };
    Ok(args.cluster.then_some(ResourcesTarget::Cluster { cluster, config, plan_hash }))
}

/// Checks that every selected item has a target.
fn check_targets(args: &RestoreArgs, items: &[&Item]) -> Result<(), Failure> {
    let usage = |what: &str, remedy: &str| Err(Failure::usage(what).remedy(remedy));
    let folders = items.iter().filter(|item| item.kind == "volume").count();
    if args.tar && (folders != 1 || items.len() != 1) {
        return usage("--tar writes one folder, and this is not one", "choose it with --item");
    }
    if args.tar && args.dry_run.is_none() {
        output::require_open(Exit::Partial)?;
        if args.output.output != OutputFormat::Table {
            let remedy = "--report-file FILE takes the report";
            return usage("--tar and --output both write to standard output", remedy);
        }
    }
    if args.tar && !args.path.is_empty() {
        return usage("--tar writes the whole folder", "leave --path out, or restore the path with --to");
    }
    if !args.path.is_empty() && folders != 1 {
        let what = "--path names a path in one folder, and this is not one";
        return usage(what, "choose the folder with --item");
    }
    let without = |item: &&&Item| match item.kind.as_str() {
        "volume" => args.to.is_none() && !args.tar,
        "database" => args.database.is_none(),
        "resources" => !args.cluster && args.resources_to.is_none(),
        _ => false,
    };
    let without: Vec<&&Item> = items.iter().filter(without).collect();
    let has_target = args.tar
        || args.cluster
        || args.to.is_some()
        || args.database.is_some()
        || args.resources_to.is_some();
    // A dry run without any target shows what there is.
    if without.is_empty() || (args.dry_run.is_some() && !has_target) {
        return Ok(());
    }
    let mut failure = Failure::usage("nothing says where this goes; nothing was changed");
    for item in without {
        failure = failure.fact(item.name.clone(), target_option(&item.kind));
    }
    Err(failure.remedy("give the target, or choose items with --item; --dry-run shows all"))
}

fn target_option(kind: &str) -> &'static str {
    match kind {
        "volume" => "--to FOLDER, or --tar",
        "database" => "--database URL",
        _ => "--cluster, or --resources-to FOLDER",
    }
}

/// Describes the target of an item.
pub(super) fn describe_target(args: &RestoreArgs, job: &RestoreJob<'_>, item: &Item) -> String {
    let items = job.items.len();
    match item.kind.as_str() {
        "volume" if args.tar => "standard output, as tar".into(),
        "volume" => match &args.to {
            Some(to) => {
                let to = subdirectory(to, item, items > 1);
                let deletes = ExistingFiles::from(args.existing_files) == ExistingFiles::DeleteExtra;
                let note = if deletes { ", where all else is deleted (not listed here)" } else { "" };
                format!("{}{note}", to.path().display())
            }
            None => "(no --to)".into(),
        },
        "database" => match &job.database {
            Some(target) => format!("the server {}", target.config.describe()),
            None => "(no --database)".into(),
        },
        "resources" if args.cluster => "the cluster".into(),
        "resources" => match &args.resources_to {
            Some(to) => format!("files beneath {}", to.display()),
            None => "(no --cluster and no --resources-to)".into(),
        },
        _ => "(not restored by this version)".into(),
    }
}
