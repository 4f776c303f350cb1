//! Finds the objects that a selection needs beside itself, in the streams of the snapshot.

use std::collections::HashSet;

use futures::TryStreamExt as _;
use serde_json::Value;

use super::{
    ClusterState, ObjectRef, Requirements, ResourceStreams, RestoreConfig, RestoreError, ServedKinds,
    StoredObject, api_paths, get_object, open_lines, order, path_segment,
    requirements::{ACCOUNTS, PRIORITIES, is_namespaces},
    skip_reason, text,
};
use crate::kubernetes::pod_spec::{pod_spec, pod_spec_path};
use crate::kubernetes::{Cluster, KindInfo};

/// The most ServiceAccounts and PriorityClasses that are looked for in the target: each is one request.
const MAX_POD_NEEDS: usize = 1000;

/// Finds what the selected objects need. Reads the streams as far as the selection makes it necessary.
pub(crate) async fn find_requirements(
    cluster: &Cluster,
    cluster_state: &ClusterState,
    streams: &dyn ResourceStreams,
    config: &RestoreConfig,
) -> Result<Requirements, RestoreError> {
    let mut found = Requirements::default();
    let kinds = streams.kinds();
    for kind in &kinds {
        if is_namespaces(kind) {
            found.ending_namespaces = ending(streams, kind).await?;
        } else if order::is_definition(kind) {
            found.ending_definitions = ending(streams, kind).await?;
        }
    }
    if !config.is_partial() {
        return Ok(found);
    }
    for kind in kinds.iter().filter(|kind| config.selects_kind(&kind.resource())) {
        found.read_kind(cluster_state, streams, config, kind).await?;
        if pod_spec_path(kind).is_some() {
            found.read_pod_needs(streams, config, kind).await?;
        }
    }
    if let Some(kind) = kinds.iter().find(|kind| kind.resource() == "persistentvolumes") {
        found.read_volumes(streams, config, kind).await?;
    }
    let needed = std::mem::take(&mut found.namespaces);
    for namespace in needed {
        if is_missing(cluster, cluster_state, config, &namespace).await? {
            found.namespaces.insert(namespace);
        }
    }
    found.keep_missing_pod_needs(cluster, &cluster_state.target, config).await?;
    Ok(found)
}

impl Requirements {
    /// Adds the needs of the selected objects of one kind.
    async fn read_kind(
        &mut self,
        cluster_state: &ClusterState,
        streams: &dyn ResourceStreams,
        config: &RestoreConfig,
        kind: &KindInfo,
    ) -> Result<(), RestoreError> {
        let needs_namespace =
            kind.namespaced && !config.excludes_kind("namespaces") && !config.selects_own_namespaces();
        let mut needs_definition = cluster_state.target.find(kind).is_none()
            && !config.excludes_kind(order::DEFINITIONS)
            && kind.group.contains('.');
        let mut lines = open_lines(streams, kind).await?;
        while (needs_namespace || needs_definition)
            && let Some((number, line)) = lines.try_next().await?
        {
            let stored = StoredObject::parse(&line);
            let stored = stored.map_err(|problem| RestoreError::damaged(kind, number, problem))?;
            let (object, named) = (stored.known(), ObjectRef::stored(kind, stored.known()));
            if (needs_definition || !self.namespaces.contains(&named.namespace))
                && is_selected(config, kind, &named, object)
                && skip_reason(config, self, kind, &named, object).is_none()
            {
                if needs_namespace {
                    self.namespaces.insert(named.namespace);
                }
                if std::mem::take(&mut needs_definition) {
                    self.definitions.insert(kind.resource());
                }
            }
        }
        Ok(())
    }

    /// Adds the ServiceAccounts and PriorityClasses that the selected objects of a kind with pods name.
    async fn read_pod_needs(
        &mut self,
        streams: &dyn ResourceStreams,
        config: &RestoreConfig,
        kind: &KindInfo,
    ) -> Result<(), RestoreError> {
        let mut lines = open_lines(streams, kind).await?;
        while let Some((_, line)) = lines.try_next().await?
            && self.accounts.len() + self.priorities.len() < MAX_POD_NEEDS
        {
            let Ok(StoredObject::Whole(object)) = StoredObject::parse(&line) else { continue };
            let named = ObjectRef::stored(kind, &object);
            let Some(spec) = pod_spec(kind, &object) else { continue };
            if !is_selected(config, kind, &named, &object)
                || skip_reason(config, self, kind, &named, &object).is_some()
            {
                continue;
            }
            let (account, priority) = (text(spec, "/serviceAccountName"), text(spec, "/priorityClassName"));
            if !account.is_empty() && !config.excludes_kind(ACCOUNTS) {
                self.accounts.insert((named.namespace, account.to_owned()));
            }
            if !priority.is_empty() && !config.excludes_kind(PRIORITIES) {
                self.priorities.insert(priority.to_owned());
            }
        }
        Ok(())
    }

    /// Removes what pods need and the target has.
    async fn keep_missing_pod_needs(
        &mut self,
        cluster: &Cluster,
        target: &ServedKinds,
        config: &RestoreConfig,
    ) -> Result<(), RestoreError> {
        for (namespace, name) in std::mem::take(&mut self.accounts) {
            let to = config.mapping.namespaces.get(&namespace).unwrap_or(&namespace);
            if is_absent(cluster, target, ("v1", "ServiceAccount"), to, &name).await? {
                self.accounts.insert((namespace, name));
            }
        }
        for name in std::mem::take(&mut self.priorities) {
            if is_absent(cluster, target, ("scheduling.k8s.io/v1", "PriorityClass"), "", &name).await? {
                self.priorities.insert(name);
            }
        }
        Ok(())
    }

    async fn read_volumes(
        &mut self,
        streams: &dyn ResourceStreams,
        config: &RestoreConfig,
        kind: &KindInfo,
    ) -> Result<(), RestoreError> {
        let mut lines = open_lines(streams, kind).await?;
        while let Some((_, line)) = lines.try_next().await? {
            let Ok(StoredObject::Whole(object)) = StoredObject::parse(&line) else { continue };
            let named = ObjectRef::stored(kind, &object);
            if !is_selected(config, kind, &named, &object)
                && skip_reason(config, self, kind, &named, &object).is_none()
            {
                self.volumes.insert(named.name);
            }
        }
        Ok(())
    }
}

fn is_selected(config: &RestoreConfig, kind: &KindInfo, named: &ObjectRef, object: &Value) -> bool {
    let namespace = kind.namespaced.then_some(named.namespace.as_str());
    let labels = object.pointer("/metadata/labels").unwrap_or(&Value::Null);
    config.selects_itself(&named.resource, namespace, &named.name, labels)
}

/// Returns the objects of a kind that were being deleted. A line that no backup writes is reported when the
/// objects are restored.
async fn ending(streams: &dyn ResourceStreams, kind: &KindInfo) -> Result<HashSet<String>, RestoreError> {
    let mut names = HashSet::new();
    let mut lines = open_lines(streams, kind).await?;
    while let Some((_, line)) = lines.try_next().await? {
        let Ok(stored) = StoredObject::parse(&line) else { continue };
        if !text(stored.known(), "/metadata/deletionTimestamp").is_empty() {
            names.insert(text(stored.known(), "/metadata/name").to_owned());
        }
    }
    Ok(names)
}

/// True if a namespace, by its name in the backup, does not exist in the target. One that is being deleted
/// counts as missing; one that may not be read does not.
async fn is_missing(
    cluster: &Cluster,
    cluster_state: &ClusterState,
    config: &RestoreConfig,
    namespace: &str,
) -> Result<bool, RestoreError> {
    let name = config.mapping.namespaces.get(namespace).map_or(namespace, String::as_str);
    if cluster_state.lists_namespaces {
        return Ok(cluster_state.namespaces.get(name).is_none_or(|is_ending| *is_ending));
    }
    let Some(segment) = path_segment(name) else { return Ok(false) };
    Ok(match get_object(cluster, &format!("/api/v1/namespaces/{segment}")).await? {
        Ok(existing) => existing.pointer("/metadata/deletionTimestamp").is_some(),
        Err(status) => status.code == 404,
    })
}

/// True if the target serves a kind and has no such object, in the namespace `of` if the kind has any. One that may
/// not be read is not absent.
async fn is_absent(
    cluster: &Cluster,
    target: &ServedKinds,
    (api_version, kind): (&str, &str),
    of: &str,
    name: &str,
) -> Result<bool, RestoreError> {
    let paths = target.find_by_kind(api_version, kind).and_then(|kind| api_paths(kind, of, name));
    let Some(paths) = paths else { return Ok(false) };
    Ok(get_object(cluster, &paths.object).await?.is_err_and(|status| status.code == 404))
}
