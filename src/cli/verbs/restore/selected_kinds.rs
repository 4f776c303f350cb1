//! Compares the kinds that a restore selects with those of the snapshot, before anything is changed.

use crate::cli::failure::Failure;
use crate::format::body::Item;
use crate::kubernetes::KindInfo;
use crate::plan::{Glob, ObjectName, RestoreSpec, suggest};
use crate::source::kubernetes::KindReport;

/// The number of similar names that are suggested.
const NEAR: usize = 3;

/// Refuses selected kinds that the items do not hold.
pub(crate) fn check(spec: &RestoreSpec, items: &[&Item]) -> Result<(), Failure> {
    let kinds: Vec<KindInfo> = items.iter().flat_map(|item| kinds(item)).collect();
    // An item without kinds is reported when it is opened.
    if kinds.is_empty() {
        return Ok(());
    }
    let unknown: Vec<(String, String)> = asked(spec)
        .into_iter()
        .filter(|(_, kind)| !kinds.iter().any(|known| kind.matches(&known.resource())))
        .map(|(argument, kind)| (argument, kind.as_str().to_owned()))
        .collect();
    let Some((argument, first)) = unknown.first() else { return Ok(()) };
    let what = format!("{argument}: the snapshot holds no kind {first}; nothing was changed");
    let mut failure = Failure::usage(what);
    for (argument, _) in &unknown[1..] {
        failure = failure.fact("and", argument.clone());
    }
    let mut near: Vec<String> = unknown.iter().flat_map(|(_, kind)| near(kind, &kinds)).collect();
    near.dedup();
    near.truncate(NEAR);
    Err(failure.remedy(match near.as_slice() {
        [] => "name kinds as kbak show lists them, with their group: deployments.apps".to_owned(),
        near => format!("did you mean {}?", near.join(" or ")),
    }))
}

/// Returns the kinds that the backup of an item listed, including those without objects.
fn kinds(item: &Item) -> Vec<KindInfo> {
    let kinds = item.facts.get("kinds").cloned().unwrap_or_default();
    let kinds: Vec<KindReport> = serde_json::from_value(kinds).unwrap_or_default();
    kinds.into_iter().map(|report| report.kind).collect()
}

/// Returns the selected kinds, each with its argument. Invalid patterns are skipped here; they are refused
/// elsewhere.
fn asked(spec: &RestoreSpec) -> Vec<(String, Glob)> {
    let kinds = spec.select.kinds.include.iter().filter_map(|kind| {
        let glob = Glob::new(kind).ok().filter(|glob| !glob.is_everything())?;
        Some((format!("--kind {kind}"), glob))
    });
    let objects = spec.select.objects.iter().filter_map(|object| {
        let ObjectName { resource, .. } = object.parse().ok()?;
        Some((format!("--object {object}"), resource))
    });
    kinds.chain(objects).collect()
}

/// Returns similar resources: by the plural without its group, the singular, the kind's name, or a typo.
fn near(asked: &str, kinds: &[KindInfo]) -> Vec<String> {
    let wanted = asked.to_lowercase();
    let head = wanted.split('.').next().unwrap_or_default();
    let same = |kind: &&KindInfo| kind.plural == head || kind.kind.to_lowercase() == head;
    let meant: Vec<String> = kinds.iter().filter(same).map(KindInfo::resource).collect();
    if !meant.is_empty() {
        return meant;
    }
    let names: Vec<(String, String)> = kinds
        .iter()
        .flat_map(|kind| {
            let names = [kind.plural.clone(), kind.resource(), kind.kind.clone()];
            names.map(|name| (name, kind.resource()))
        })
        .collect();
    let found = suggest(&wanted, names.iter().map(|(name, _)| name.as_str()));
    let resource = names.iter().find(|(name, _)| Some(name.as_str()) == found);
    resource.map(|(_, resource)| resource.clone()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_kind_suggests_similar_resources() {
        let kind = |group: &str, plural: &str, kind: &str| KindInfo {
            kind: kind.into(),
            ..KindInfo::from_path_parts(group, "v1", plural)
        };
        let kinds = [
            kind("apps", "deployments", "Deployment"),
            kind("", "secrets", "Secret"),
            kind("networking.k8s.io", "networkpolicies", "NetworkPolicy"),
        ];
        for (asked, wanted) in [
            ("deployments", &["deployments.apps"][..]),
            ("Deployment", &["deployments.apps"]),
            ("deployment.apps", &["deployments.apps"]),
            ("deployments.extensions", &["deployments.apps"]),
            ("deploymentz", &["deployments.apps"]),
            ("secret", &["secrets"]),
            ("networkpolicy", &["networkpolicies.networking.k8s.io"]),
            ("zzz", &[]),
        ] {
            assert_eq!(near(asked, &kinds), wanted, "{asked}");
        }
    }
}
