//! Compares a snapshot's resources with the live cluster: objects that were added, removed or changed since,
//! and the changed fields. Paths of fields are reported, values never. [`folder()`] compares two states of a
//! folder.
//!
//! Both sides come in the server's order (the order of etcd's keys), so a merge join holds one object of each
//! at a time, whatever the number of objects. A table ([`ignored_fields`]) lists the fields that a server sets by
//! itself, which are ignored.

mod fields;
mod folder;
pub mod ignored_fields;
mod member;
mod pieces;
mod stored;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::Serialize;

use crate::format::body::{Item, Stream};
use crate::format::{name::Name, tar::parse::ParseError};
use crate::kubernetes::{
    ApiError, Cluster, KindInfo, ListedObjects, RecordedSelection, SelectedNamespaces, discover,
};
use crate::pipeline::ReadError;
use crate::report::event::Meter;
use crate::repository::read::snapshot::{OpenSnapshot, SnapshotError};
pub use folder::folder;
pub use stored::SnapshotObjects;

/// An error that ends a comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The snapshot holds no resources.
    #[error("the snapshot holds no resources of a cluster")]
    NoResources,
    /// The cluster cannot be read.
    #[error("the cluster cannot be read")]
    Cluster(#[source] ApiError),
    /// A stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A catalog contradicts its stream.
    #[error("{0}")]
    Catalog(&'static str),
    /// A stream is malformed.
    #[error("the stream is not one that kbak writes")]
    Stream(#[from] ParseError),
    /// A member or an item cannot be compared.
    #[error("{label} {value}")]
    At {
        /// `path` or `item`.
        label: &'static str,
        /// The name of the member or the item.
        value: String,
        /// The cause.
        source: Box<CompareError>,
    },
    /// The receiver of the differences failed.
    #[error(transparent)]
    Output(Box<dyn std::error::Error + Send + Sync>),
}

impl CompareError {
    /// Adds the member or the item that could not be compared.
    #[must_use]
    pub fn at(self, label: &'static str, value: &str) -> Self {
        Self::At { label, value: value.to_owned(), source: Box::new(self) }
    }
}

/// The result of a part of a comparison.
type Result<T, E = CompareError> = std::result::Result<T, E>;

/// The name of the item that holds resources.
const RESOURCES: &str = "resources";

/// The change of an object since the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It exists now, and did not then.
    Added,
    /// It no longer exists.
    Removed,
    /// It exists on both sides and differs.
    Changed,
}

/// A difference between the two sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The kind of change.
    pub change: Change,
    /// The kind, as its stream is named: `apps/v1/deployments`; `tar` for a folder.
    pub kind: String,
    /// `namespace/name`, or the name; empty for a kind as a whole. In a folder the path.
    pub object: String,
    /// The changed fields as JSON pointers; for a file, the other differences in words.
    pub fields: Vec<String>,
}

/// A kind that was not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    /// The kind, as its stream is named.
    pub kind: String,
    /// The reason.
    pub why: String,
}

/// Receives each difference as it is found.
pub type OnDifference<'a> =
    dyn FnMut(Difference) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'a;

/// Compares the resources of a snapshot with the live `cluster`. Kinds that the backup did not read are
/// ignored. Of a namespace that is not in the snapshot only the Namespace is reported.
pub async fn live(
    snapshot: &OpenSnapshot,
    cluster: &Cluster,
    meter: &Meter,
    take: &mut OnDifference<'_>,
) -> Result<Vec<NotCompared>> {
    let item = snapshot.body().item(RESOURCES).ok_or(CompareError::NoResources)?;
    let read = kinds(item);
    // A backup that could not list the cluster has the item, and no kinds in it.
    if read.is_empty() {
        return Err(CompareError::NoResources);
    }
    let discovered = discover(cluster).await.map_err(CompareError::Cluster)?;
    let selection: RecordedSelection = item.facts.get("selection").cloned().map_or_else(
        || Ok(RecordedSelection::default()),
        |fact| {
            serde_json::from_value(fact).map_err(|_| CompareError::Catalog("its selection is not readable"))
        },
    )?;
    let selected = selection
        .namespaces()
        .map_err(|_| CompareError::Catalog("its selection has an unknown pattern of namespaces"))?;
    // Namespaces that hold nothing else of the snapshot are not in it, and are selected all the same.
    let stored = match selection.is_on_demand(&KindInfo::from_path_parts("", "v1", "namespaces")) {
        true => BTreeSet::new(),
        false => namespaces(snapshot, item).await?,
    };
    let covered = Covered { selection, selected, stored };
    let mut not_compared = Vec::new();
    for kind in read {
        let stream = item.streams.iter().find(|stream| stream.name == kind.stream_name());
        let mut join = Join { kind: &kind, covered: &covered, meter, take };
        let served = discovered.served.iter().find(|served| {
            (&served.group, &served.version, &served.plural) == (&kind.group, &kind.version, &kind.plural)
        });
        match (served, stream) {
            (Some(_), stream) => match join.run(snapshot, stream, cluster).await {
                Ok(()) => {}
                Err(KindError::Kind(why)) => not_compared.push(NotCompared { kind: kind.stream_name(), why }),
                Err(KindError::All(failure)) => return Err(failure),
            },
            (None, Some(_)) => join.report(Change::Removed, &Name::default(), Vec::new())?,
            (None, None) => {}
        }
    }
    Ok(not_compared)
}

/// Returns the kinds that the backup read, empty ones included, except those of [`ignored_fields::VOLATILE_KINDS`].
fn kinds(item: &Item) -> Vec<KindInfo> {
    let all = item.facts.get("kinds").and_then(|kinds| kinds.as_array().cloned()).unwrap_or_default();
    let read = all.into_iter().filter_map(|kind| serde_json::from_value::<KindInfo>(kind).ok());
    read.filter(|kind| !ignored_fields::is_volatile(kind)).collect()
}

async fn namespaces(snapshot: &OpenSnapshot, item: &Item) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let Some(stream) = item.streams.iter().find(|stream| stream.name == "core/v1/namespaces") else {
        return Ok(names);
    };
    let reader = snapshot.read(stream)?;
    let mut stored = SnapshotObjects::new(&reader);
    while let Some((name, _)) = stored.next().await? {
        names.insert(name.display());
    }
    Ok(names)
}

/// The reason why the comparison of a kind ended early.
enum KindError {
    /// Only this kind is not compared.
    Kind(String),
    /// The whole comparison ends.
    All(CompareError),
}

impl From<CompareError> for KindError {
    fn from(failure: CompareError) -> Self {
        Self::All(failure)
    }
}

impl From<ApiError> for KindError {
    fn from(error: ApiError) -> Self {
        match error.code() {
            Some(403) => Self::Kind(format!("not allowed: {}", error.kind)),
            Some(410) => {
                Self::Kind("its revision was compacted away while it was listed; run it again".to_owned())
            }
            Some(_) => Self::Kind(error.kind.to_string()),
            None => Self::All(CompareError::Cluster(error)),
        }
    }
}

/// The part of the cluster that the snapshot covers.
struct Covered {
    selection: RecordedSelection,
    selected: SelectedNamespaces,
    /// The namespaces in the snapshot; empty if it does not hold all that are selected.
    stored: BTreeSet<String>,
}

struct Join<'a, 'b> {
    kind: &'a KindInfo,
    covered: &'a Covered,
    meter: &'a Meter,
    take: &'a mut OnDifference<'b>,
}

impl Join<'_, '_> {
    async fn run(
        &mut self,
        snapshot: &OpenSnapshot,
        stream: Option<&Stream>,
        cluster: &Cluster,
    ) -> Result<(), KindError> {
        let reader = stream.map(|stream| snapshot.read(stream)).transpose().map_err(CompareError::from)?;
        let mut before = reader.as_ref().map(SnapshotObjects::new);
        let labels = self.covered.selection.labels_for(self.kind);
        let mut now = ListedObjects::new(cluster, self.kind, None, labels);
        let mut old = next(&mut before).await?;
        let mut new = next_listed(&mut now).await?;
        loop {
            let order = match (&old, &new) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            match (order, &old, &new) {
                (Ordering::Less, Some((path, _)), _) => self.report(Change::Removed, path, Vec::new())?,
                (Ordering::Greater, _, Some((path, _))) if self.is_known(path) => {
                    self.report(Change::Added, path, Vec::new())?;
                }
                (Ordering::Equal, Some((path, before)), Some((_, now))) => {
                    let fields = fields::changed(self.kind, before, now)
                        .map_err(|why| KindError::Kind(format!("{}: {why}", path.display())))?;
                    if !fields.is_empty() {
                        self.report(Change::Changed, path, fields)?;
                    }
                }
                _ => {}
            }
            self.meter.add_done(1);
            if order != Ordering::Greater {
                let following = next(&mut before).await?;
                old = ascending(old, following)?;
            }
            if order != Ordering::Less {
                let following = next_listed(&mut now).await?;
                new = ascending(new, following)?;
            }
        }
    }

    /// True if the backup would hold the object, had it existed: it is not of a kind that was read only as far as
    /// others need it, and its namespace is selected and known.
    fn is_known(&self, path: &Name) -> bool {
        let Covered { selection, selected, stored } = self.covered;
        let is_of = |namespace: &str| {
            selected.contains(namespace) && (stored.is_empty() || stored.contains(namespace))
        };
        !selection.is_on_demand(self.kind)
            && std::str::from_utf8(path.bytes())
                .is_ok_and(|path| path.split_once('/').is_none_or(|(namespace, _)| is_of(namespace)))
    }

    fn report(&mut self, change: Change, object: &Name, fields: Vec<String>) -> Result<()> {
        let kind = self.kind.stream_name();
        (self.take)(Difference { change, kind, object: object.display(), fields })
            .map_err(CompareError::Output)
    }
}

type Object = (Name, bytes::Bytes);

async fn next(stored: &mut Option<SnapshotObjects>) -> Result<Option<Object>> {
    match stored {
        Some(stored) => stored.next().await,
        None => Ok(None),
    }
}

async fn next_listed(listed: &mut ListedObjects<'_>) -> Result<Option<Object>, ApiError> {
    let next = listed.next().await?;
    Ok(next.map(|(path, object)| (Name(path.into_bytes()), object)))
}

/// Checks that objects ascend: a merge join needs the same order on both sides.
fn ascending(before: Option<Object>, following: Option<Object>) -> Result<Option<Object>, KindError> {
    match (&before, &following) {
        (Some((a, _)), Some((b, _))) if a >= b => Err(KindError::Kind(format!(
            "its objects come in another order than that of keys ({} after {})",
            b.display(),
            a.display()
        ))),
        _ => Ok(following),
    }
}
