//! The end of a domain: its streams become items of the body, and its index objects are merged.

use super::super::error::BackupError;
use super::super::item::{ItemJob, ItemResult, ItemSource};
use super::{DomainResult, EarlierIndex, Run, WrittenItem};
use crate::format::body::{Item, Stream};
use crate::format::cache::seal_root;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::manifest::{Heal, MAX_HEALS};
use crate::format::pack_refs::PackRefs;
use crate::format::state::CacheRoot;
use crate::pipeline::PipelineError;
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::stream::WrittenDomain;
use crate::pipeline::stream::WrittenStream;
use crate::report::event::Event;
use crate::report::item_state::ItemState;
use crate::report::text::{count, plural, size};
use crate::repository::index_loader::MERGE_ABOVE;
use crate::repository::write::commit::{NewDomain, NewItem};
use crate::runtime::{kill_point, lock};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Code of the gap that a plan accepts if an item may shrink.
const ANOMALOUS: &str = "anomalous";
/// Most mount points that warnings name per item.
const MAX_MOUNT_WARNINGS: usize = 5;

impl Run<'_> {
    pub(super) async fn close(
        &mut self,
        name: &str,
        id: NameId,
        domain: &Arc<DomainWriter>,
        finished: Vec<(&ItemJob, ItemResult, u64)>,
        earlier: EarlierIndex,
    ) -> Result<(), BackupError> {
        let (mut pending, mut items) = (Vec::new(), Vec::new());
        for (job, mut result, millis) in finished {
            let mut shapes = Vec::new();
            for stream in std::mem::take(&mut result.streams) {
                shapes.push((stream.name, stream.format, stream.sha256));
                pending.push(stream.pending);
            }
            items.push((job, result, shapes, millis));
        }
        let written = domain.finish(pending).await?;
        kill_point("backup.domain.stored");
        let WrittenDomain { streams, index: new_index, .. } = written;
        let mut streams = streams.into_iter();
        let mut cache = Vec::new();
        let mut results = Vec::new();
        for (job, result, shapes, millis) in items {
            let mut caches = BTreeMap::new();
            let (mut bodies, mut packs) = (Vec::new(), HashSet::new());
            for (name, format, sha256) in shapes {
                let Some(stream) = streams.next() else {
                    return Err(PipelineError::Bug("a stream that was not written").into());
                };
                if let Some(root) = self.store_cache(domain, &stream).await? {
                    cache.push(root.object);
                    caches.insert(name.clone(), root);
                }
                packs.extend(&stream.packs);
                bodies.push(self.stream(stream, id, name, format, sha256));
            }
            let packs = (!bodies.is_empty()).then(|| (id, PackRefs::new(packs.into_iter().collect())));
            let (item, summary) = self.body_item(job, result, bodies, millis);
            let state = item.state.to_string();
            self.context.reporter.event(Event::ItemFinished {
                item: item.name.clone(),
                state,
                summary: summary.clone(),
            });
            results.push(WrittenItem { new: NewItem { item, packs }, summary, caches });
        }
        let copies = lock(domain.chunk_index()).copies().map_err(PipelineError::from)?;
        self.heals.extend(copies.into_iter().filter(|copies| !copies.by.is_empty()).map(|copies| Heal {
            domain: id,
            bad: copies.bad,
            by: copies.by.into_iter().collect(),
            whole: copies.whole,
        }));
        let index = self.merged(domain, [earlier.objects, new_index].concat(), earlier.has_lost).await?;
        kill_point("backup.domain.closed");
        let draft = NewDomain { domain: id, name: name.to_owned(), index, cache };
        self.written.push(DomainResult { draft, items: results });
        Ok(())
    }

    /// Returns the bad packs of this epoch that have copies: those of this run, and those that the writer's own
    /// snapshots name and whose copies are not bad themselves.
    pub(super) fn named_heals(&mut self) -> Vec<Heal> {
        let mut heals = std::mem::take(&mut self.heals);
        let bad: HashSet<ObjectHash> = heals.iter().map(|heal| heal.bad).collect();
        let earlier = self.start.lineage.heals(self.start.ready.epoch.epoch).into_iter();
        heals.extend(
            earlier.filter(|heal| !bad.contains(&heal.bad) && !heal.by.iter().any(|by| bad.contains(by))),
        );
        let named = heals.len();
        heals.retain(|heal| heal.by.len() <= MAX_HEALS);
        heals.truncate(MAX_HEALS);
        if heals.len() < named {
            let what = format!(
                "{} with copies elsewhere are not named in this snapshot: too many",
                plural((named - heals.len()) as u64, "bad pack", "bad packs")
            );
            self.context.reporter.warn("snapshot", what);
        }
        heals
    }

    /// Merges the index objects of a finished domain into few if there are more than [`MERGE_ABOVE`], or if
    /// they name lost packs: the next run then neither loads nor reports those.
    async fn merged(
        &self,
        domain: &Arc<DomainWriter>,
        index: Vec<ObjectHash>,
        has_lost: bool,
    ) -> Result<Vec<ObjectHash>, BackupError> {
        if index.len() <= MERGE_ABOVE && !has_lost {
            return Ok(index);
        }
        let known = domain.take_chunk_index();
        let path = domain.target().path;
        let mut objects = Vec::new();
        for index in known.merged(&index).map_err(PipelineError::from)? {
            let sealed = index
                .map_err(PipelineError::from)?
                .seal(&path, domain.id(), domain.key(), &domain.target().run)
                .map_err(PipelineError::from)?;
            self.engine.put(&sealed).await?;
            self.context.reporter.stored(sealed.bytes().len() as u64, false);
            objects.push(sealed.hash());
        }
        Ok(objects)
    }

    async fn store_cache(
        &self,
        domain: &Arc<DomainWriter>,
        stream: &WrittenStream,
    ) -> Result<Option<CacheRoot>, BackupError> {
        let Some(groups) = &stream.cache else { return Ok(None) };
        let path = domain.target().path;
        let sealed = seal_root(groups, &path, domain.id(), domain.key()).map_err(PipelineError::from)?;
        kill_point("backup.cache.sealed");
        self.engine.put(&sealed).await?;
        self.context.reporter.stored(sealed.bytes().len() as u64, false);
        kill_point("backup.cache.stored");
        Ok(Some(CacheRoot { epoch: path.epoch, domain: domain.id(), object: sealed.hash() }))
    }

    fn stream(
        &self,
        stream: WrittenStream,
        domain: NameId,
        name: String,
        format: String,
        sha256: Option<ObjectHash>,
    ) -> Stream {
        let WrittenStream { length, members, hash, parts, catalog, .. } = stream;
        Stream { name, format, domain, length, members, hash, sha256, parts, catalog }
    }

    fn body_item(
        &self,
        job: &ItemJob,
        result: ItemResult,
        streams: Vec<Stream>,
        millis: u64,
    ) -> (Item, String) {
        let ItemResult { gaps, notes, left_out, facts, mut summary, .. } = result;
        let accepted =
            |code: &str| self.job.accept.iter().any(|(item, gap)| *item == job.name && gap == code);
        let id = self.context.key.names.id("item", &job.name);
        let bytes: u64 = streams.iter().map(|stream| stream.length).sum();
        let before = self.start.state.items.get(&id).and_then(|memory| memory.last_good);
        let mut shrank = String::new();
        let state = if gaps.is_empty() {
            // An item that shrank by half is kept but does not count as safe: a mount point may be
            // empty, a database dropped. Once the plan accepts it, its new size is the reference.
            let before = before.map_or(0, |before| before.bytes);
            let emptied = bytes < before && is_empty_folder(job, &streams);
            if (bytes * 2 >= before && !emptied) || accepted(ANOMALOUS) {
                ItemState::Good
            } else {
                let (now, before) = (size(bytes), size(before));
                shrank = format!("it holds {now}, and {before} in its last good copy: is its source whole?");
                self.context.reporter.warn(job.name.clone(), shrank.clone());
                ItemState::Anomalous
            }
        } else if gaps.iter().all(|gap| accepted(&gap.code)) {
            ItemState::Accepted
        } else {
            ItemState::Gap
        };
        if summary.is_empty() {
            let members: u64 = streams.iter().map(|stream| stream.members).sum();
            summary = plural(members, "entry", "entries");
        }
        if !shrank.is_empty() {
            summary = format!("{summary}; {shrank}");
        }
        for (at, (code, number)) in left_out.iter().enumerate() {
            let start = if at == 0 { "; left out: " } else { ", " };
            summary.push_str(&format!("{start}{} {code}", count(*number)));
        }
        for mount in notes.iter().filter(|note| note.code == "mount-point").take(MAX_MOUNT_WARNINGS) {
            let what = "what is mounted here is not in this backup: name it with a path of its own";
            self.context.reporter.warn(mount.object.display(), what);
        }
        let (name, kind) = (job.name.clone(), job.work.kind().to_owned());
        (Item { name, id, kind, state, gaps, notes, facts, millis, streams }, summary)
    }
}

/// True if a folder's stream holds only the folder itself.
fn is_empty_folder(job: &ItemJob, streams: &[Stream]) -> bool {
    matches!(job.work, ItemSource::Folder { .. })
        && streams.iter().map(|stream| stream.members).sum::<u64>() <= 1
}
