//! A snapshot's resources beside the live cluster: which objects were added, removed or changed
//! since, and in which fields. Paths of fields are told, values never. And two states of a folder
//! ([`folder()`]).
//!
//! Both sides come in the server's order (the order of etcd's keys), so one object of each is held
//! at a time: a merge join, whatever the number of objects. Fields that a server sets by itself
//! are left out by a table ([`owned`]).

mod fields;
mod folder;
mod live;
mod member;
pub mod owned;
mod pieces;
mod stored;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::Serialize;

use crate::format::body::{Item, Stream};
use crate::report::event::Meter;
use crate::report::failure::{Exit, Failure};
use crate::repository::snapshot::OpenSnapshot;
use crate::source::kubernetes::{ApiError, Cluster, KindInfo, discover};
pub use folder::folder;
use live::Live;
pub use stored::Stored;

/// The item that holds resources.
const RESOURCES: &str = "resources";

/// What happened to an object since the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is there now, and was not.
    Added,
    /// It is gone.
    Removed,
    /// It differs.
    Changed,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What happened.
    pub change: Change,
    /// The kind, as its stream is named: `apps/v1/deployments`; `tar` for a folder.
    pub kind: String,
    /// `namespace/name`, or the name; empty for a kind as a whole. In a folder the path.
    pub object: String,
    /// Which fields, as JSON pointers; of a file what else differs, in words.
    pub fields: Vec<String>,
}

/// A kind that was not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    /// The kind.
    pub kind: String,
    /// Why.
    pub why: String,
}

/// Takes differences as they are found.
pub type Take<'a> = dyn FnMut(Difference) -> Result<(), Failure> + Send + 'a;

/// Compares the resources of a snapshot with what `cluster` holds now. Kinds that the backup did
/// not read are not looked at; of a namespace that it does not hold only the Namespace is told.
pub async fn live(
    snapshot: &OpenSnapshot,
    cluster: &Cluster,
    meter: &Meter,
    take: &mut Take<'_>,
) -> Result<Vec<NotCompared>, Failure> {
    let item = snapshot.body().item(RESOURCES).ok_or_else(|| {
        Failure::new(Exit::Usage, "the snapshot holds no resources of a cluster")
            .remedy("name a snapshot of a plan with resources:")
    })?;
    let discovered = discover(cluster).await.map_err(unreachable)?;
    let namespaces = namespaces(snapshot, item).await?;
    let mut not_compared = Vec::new();
    for kind in kinds(item) {
        let stream = item.streams.iter().find(|stream| stream.name == kind.stream_name());
        let mut join = Join { kind: &kind, namespaces: &namespaces, meter, take };
        let served = discovered.served.iter().find(|served| {
            (&served.group, &served.version, &served.plural) == (&kind.group, &kind.version, &kind.plural)
        });
        match (served, stream) {
            (Some(_), stream) => match join.run(snapshot, stream, cluster).await {
                Ok(()) => {}
                Err(Ended::Kind(why)) => not_compared.push(NotCompared { kind: kind.stream_name(), why }),
                Err(Ended::All(failure)) => return Err(failure),
            },
            (None, Some(_)) => join.tell(Change::Removed, "", Vec::new())?,
            (None, None) => {}
        }
    }
    Ok(not_compared)
}

/// The kinds that the backup read, those without objects included.
fn kinds(item: &Item) -> Vec<KindInfo> {
    let all = item.facts.get("kinds").and_then(|kinds| kinds.as_array().cloned()).unwrap_or_default();
    let read = all.into_iter().filter_map(|kind| serde_json::from_value::<KindInfo>(kind).ok());
    read.filter(|kind| !owned::changes_by_itself(kind)).collect()
}

/// The namespaces that the snapshot holds.
async fn namespaces(snapshot: &OpenSnapshot, item: &Item) -> Result<BTreeSet<String>, Failure> {
    let mut names = BTreeSet::new();
    let Some(stream) = item.streams.iter().find(|stream| stream.name == "core/v1/namespaces") else {
        return Ok(names);
    };
    let reader = snapshot.read(stream)?;
    let mut stored = Stored::new(&reader);
    while let Some((name, _)) = stored.next().await? {
        names.insert(name);
    }
    Ok(names)
}

fn unreachable(error: ApiError) -> Failure {
    let exit = if error.code().is_some() { Exit::Usage } else { Exit::Unreachable };
    Failure::new(exit, "the cluster cannot be read").because(error)
}

/// Why a kind was not compared to its end.
enum Ended {
    /// Only this kind.
    Kind(String),
    /// Nothing goes on.
    All(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::All(failure)
    }
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        match error.code() {
            Some(403) => Self::Kind(format!("not allowed: {}", error.kind)),
            Some(410) => {
                Self::Kind("its revision was compacted away while it was listed; run it again".to_owned())
            }
            Some(_) => Self::Kind(error.kind.to_string()),
            None => Self::All(unreachable(error)),
        }
    }
}

/// One kind on both sides.
struct Join<'a, 'b> {
    kind: &'a KindInfo,
    namespaces: &'a BTreeSet<String>,
    meter: &'a Meter,
    take: &'a mut Take<'b>,
}

impl Join<'_, '_> {
    async fn run(
        &mut self,
        snapshot: &OpenSnapshot,
        stream: Option<&Stream>,
        cluster: &Cluster,
    ) -> Result<(), Ended> {
        let reader = stream.map(|stream| snapshot.read(stream)).transpose().map_err(Failure::from)?;
        let mut before = reader.as_ref().map(Stored::new);
        let mut now = Live::new(cluster, self.kind);
        let mut old = next(&mut before).await?;
        let mut new = now.next().await?;
        loop {
            let order = match (&old, &new) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.as_bytes().cmp(b.as_bytes()),
            };
            match (order, &old, &new) {
                (Ordering::Less, Some((path, _)), _) => self.tell(Change::Removed, path, Vec::new())?,
                (Ordering::Greater, _, Some((path, _))) if self.is_known(path) => {
                    self.tell(Change::Added, path, Vec::new())?;
                }
                (Ordering::Equal, Some((path, before)), Some((_, now))) => {
                    let fields = fields::changed(self.kind, before, now)
                        .map_err(|why| Ended::Kind(format!("{path}: {why}")))?;
                    if !fields.is_empty() {
                        self.tell(Change::Changed, path, fields)?;
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
                let following = now.next().await?;
                new = ascending(new, following)?;
            }
        }
    }

    /// Whether the snapshot holds the object's namespace.
    fn is_known(&self, path: &str) -> bool {
        let namespace = path.split_once('/').map(|(namespace, _)| namespace);
        self.namespaces.is_empty() || namespace.is_none_or(|namespace| self.namespaces.contains(namespace))
    }

    fn tell(&mut self, change: Change, object: &str, fields: Vec<String>) -> Result<(), Failure> {
        (self.take)(Difference { change, kind: self.kind.stream_name(), object: object.to_owned(), fields })
    }
}

type Object = (String, bytes::Bytes);

async fn next(stored: &mut Option<Stored>) -> Result<Option<Object>, Failure> {
    match stored {
        Some(stored) => stored.next().await,
        None => Ok(None),
    }
}

/// A merge join needs one order on both sides; a server that has another is found out.
fn ascending(before: Option<Object>, following: Option<Object>) -> Result<Option<Object>, Ended> {
    match (&before, &following) {
        (Some((a, _)), Some((b, _))) if a.as_bytes() >= b.as_bytes() => {
            Err(Ended::Kind(format!("its objects come in another order than that of keys ({b} after {a})")))
        }
        _ => Ok(following),
    }
}
