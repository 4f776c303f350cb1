//! Hands pages on to the sink, kind after kind, while others are listed ahead.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use super::budget::{Budget, Grant};
use super::lister::Seen;
use super::needs::Needs;
use super::page::{self, ItemMeta};
use super::{
    Consistency, GapReason, KindInfo, KindReport, ResourceGap, ResourceSink, ResourcesError, Selection,
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
    Apart { why: String },
    /// What came so far is not whole; the kind comes again.
    Again,
    /// A part of the kind that cannot be read; the rest goes on.
    Missing { object: String, reason: GapReason },
    /// The kind is complete.
    Done(Consistency, Seen),
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
    /// Kinds that are complete, by their place in the order.
    pub(super) read: Vec<(usize, KindReport, Seen)>,
    pub(super) gaps: Vec<ResourceGap>,
}

/// Hands pages on, kind after kind.
pub(super) struct Hand<'a> {
    done: HandedOn,
    sink: &'a mut dyn ResourceSink,
    selection: &'a Selection,
    /// Where only a part is read: what that part stands on.
    needs: Option<Needs>,
    meter: &'a Meter,
}

impl<'a> Hand<'a> {
    pub(super) fn new(sink: &'a mut dyn ResourceSink, selection: &'a Selection, meter: &'a Meter) -> Self {
        let needs = selection.is_partial().then(Needs::default);
        Self { done: HandedOn::default(), sink, selection, needs, meter }
    }

    pub(super) async fn all(
        mut self,
        heard: Vec<(&KindInfo, UnboundedReceiver<Told>)>,
        budget: &Budget,
    ) -> Result<HandedOn, Stop> {
        for (place, (kind, mut hear)) in heard.into_iter().enumerate() {
            budget.turn(place);
            self.kind(kind, place, &mut hear).await?;
        }
        Ok(self.done)
    }

    async fn kind(
        &mut self,
        kind: &KindInfo,
        place: usize,
        hear: &mut UnboundedReceiver<Told>,
    ) -> Result<(), Stop> {
        let refused = |source| ResourcesError::Sink { kind: kind.resource(), source };
        let (mut objects, mut bytes) = (0u64, 0u64);
        while let Some(told) = hear.recv().await {
            match told {
                Told::Page(listed) => {
                    for (range, meta) in &listed.objects {
                        let item = &listed.body[range.clone()];
                        if !self.takes(kind, meta, item) {
                            continue;
                        }
                        if objects == 0 {
                            self.sink.begin(kind).await.map_err(refused)?;
                        }
                        let line = page::line(item, meta, kind);
                        let length = line.len() as u64;
                        self.sink.object(&meta.namespace, &meta.name, line).await.map_err(refused)?;
                        (objects, bytes) = (objects + 1, bytes + length);
                        self.meter.add_done(1);
                        self.meter.add_bytes(length);
                    }
                }
                Told::Apart { .. } | Told::Again | Told::Gap(_) => {
                    if objects > 0 {
                        self.sink.discard().await.map_err(refused)?;
                    }
                    (objects, bytes) = (0, 0);
                    match told {
                        Told::Apart { why } => self.gap(kind, GapReason::NotAtRevision { why }),
                        Told::Gap(reason) => {
                            self.unread(kind, reason);
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                Told::Missing { object, reason } => self.done.gaps.push(ResourceGap { object, reason }),
                Told::Done(consistency, seen) => {
                    if objects > 0 {
                        self.sink.end().await.map_err(refused)?;
                    }
                    let report = KindReport { kind: kind.clone(), objects, bytes, consistency };
                    self.done.read.push((place, report, seen));
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

    /// Whether an object is wanted. What it stands on is remembered.
    fn takes(&mut self, kind: &KindInfo, meta: &ItemMeta, item: &[u8]) -> bool {
        let taken = match &self.needs {
            _ if kind.namespaced => self.selection.namespace(&meta.namespace),
            Some(needs) if self.selection.on_demand(kind) => needs.wants(self.selection, kind, meta, item),
            _ => true,
        };
        if let Some(needs) = self.needs.as_mut().filter(|_| taken) {
            needs.look(kind, meta, item);
        }
        taken
    }

    /// A kind that cannot be read. Where it is read for what others need of it, and nothing does, or
    /// it has nothing, nothing is missing.
    fn unread(&mut self, kind: &KindInfo, reason: GapReason) {
        let on_demand = self.selection.on_demand(kind);
        // Nothing names a binding or a namespace: whether there is one is not known without reading.
        let named = !matches!(kind.plural.as_str(), "namespaces" | "clusterrolebindings");
        if on_demand && named && self.needs.as_ref().is_some_and(|needs| !needs.any(kind)) {
            return;
        }
        self.gap(kind, reason);
    }

    fn gap(&mut self, kind: &KindInfo, reason: GapReason) {
        self.done.gaps.push(ResourceGap { object: kind.resource(), reason });
    }
}
