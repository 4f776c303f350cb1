//! Hands pages on to the sink, kind after kind, while others are listed ahead.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use super::budget::{Budget, Grant};
use super::page::{self, ItemMeta};
use super::{
    Consistency, GapReason, KindInfo, KindReport, ResourceGap, ResourceSink, ResourcesConfig, ResourcesError,
};
use crate::report::event::Meter;

/// Why a pass ended early.
pub(super) enum Stop {
    /// The revision is gone.
    Expired,
    /// It cannot go on.
    Failed(Box<ResourcesError>),
}

impl From<ResourcesError> for Stop {
    fn from(error: ResourcesError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// What a lister tells the one who hands on.
pub(super) enum Told {
    /// A page.
    Page(Listed),
    /// What came so far is not of the moment; the kind comes again at a revision of its own.
    Again { why: String },
    /// The kind is complete.
    Done(Consistency),
    /// The kind cannot be read (any more).
    Gap(GapReason),
    /// Nothing can be read any more.
    Stop(Stop),
}

/// A page in memory.
pub(super) struct Listed {
    pub(super) body: Bytes,
    pub(super) objects: Vec<(Range<usize>, ItemMeta)>,
    #[expect(dead_code, reason = "gives its bytes back to the budget when the page is done")]
    pub(super) grant: Grant,
}

/// What was handed on.
#[derive(Default)]
pub(super) struct HandedOn {
    pub(super) kinds: Vec<KindReport>,
    pub(super) gaps: Vec<ResourceGap>,
}

/// Hands pages on, kind after kind.
pub(super) struct Hand<'a> {
    pub(super) done: HandedOn,
    pub(super) sink: &'a mut dyn ResourceSink,
}

impl Hand<'_> {
    pub(super) async fn all(
        mut self,
        heard: Vec<(&KindInfo, UnboundedReceiver<Told>)>,
        budget: &Budget,
        config: &ResourcesConfig,
        meter: &Meter,
    ) -> Result<HandedOn, Stop> {
        for (place, (kind, mut hear)) in heard.into_iter().enumerate() {
            budget.turn(place);
            self.kind(kind, &mut hear, config, meter).await?;
        }
        Ok(self.done)
    }

    async fn kind(
        &mut self,
        kind: &KindInfo,
        hear: &mut UnboundedReceiver<Told>,
        config: &ResourcesConfig,
        meter: &Meter,
    ) -> Result<(), Stop> {
        let refused = |source| ResourcesError::Sink { kind: kind.resource(), source };
        let (mut objects, mut bytes) = (0u64, 0u64);
        while let Some(told) = hear.recv().await {
            match told {
                Told::Page(listed) => {
                    for (range, meta) in &listed.objects {
                        if !config.selection.object(kind, meta) {
                            continue;
                        }
                        if objects == 0 {
                            self.sink.begin(kind).await.map_err(refused)?;
                        }
                        let line = page::line(&listed.body[range.clone()], meta, kind);
                        let length = line.len() as u64;
                        self.sink.object(&meta.namespace, &meta.name, line).await.map_err(refused)?;
                        (objects, bytes) = (objects + 1, bytes + length);
                        meter.add_done(1);
                        meter.add_bytes(length);
                    }
                }
                Told::Again { why } => {
                    if objects > 0 {
                        self.sink.discard().await.map_err(refused)?;
                    }
                    (objects, bytes) = (0, 0);
                    self.gap(kind, GapReason::NotAtRevision { why });
                }
                Told::Done(consistency) => {
                    if objects > 0 {
                        self.sink.end().await.map_err(refused)?;
                    }
                    self.done.kinds.push(KindReport { kind: kind.clone(), objects, bytes, consistency });
                    return Ok(());
                }
                Told::Gap(reason) => {
                    if objects > 0 {
                        self.sink.discard().await.map_err(refused)?;
                    }
                    self.gap(kind, reason);
                    return Ok(());
                }
                Told::Stop(stop) => return Err(stop),
            }
        }
        // A lister always ends with a last word; without one it was dropped, and the kind is not
        // complete.
        self.gap(kind, GapReason::Gone);
        Ok(())
    }

    fn gap(&mut self, kind: &KindInfo, reason: GapReason) {
        self.done.gaps.push(ResourceGap { object: kind.resource(), reason });
    }
}
