//! Forwards pages to the sink, kind after kind, while others are listed ahead.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::kubernetes::list_page;
use crate::kubernetes::list_page::ItemMeta;
use crate::kubernetes::{KindInfo, Selection};
use crate::report::event::Meter;
use crate::source::kubernetes::budget::{Budget, Grant};
use crate::source::kubernetes::lister::Seen;
use crate::source::kubernetes::references::References;
use crate::source::kubernetes::{
    Consistency, GapReason, KindReport, ResourceGap, ResourceSink, ResourcesError,
};

/// The reason why a pass ended early.
pub(crate) enum Stop {
    /// The revision was compacted.
    Expired,
    /// The reading failed.
    Failed(Box<ResourcesError>),
}

impl From<ResourcesError> for Stop {
    fn from(error: ResourcesError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// An event that a lister sends to the forwarder.
pub(crate) enum ListEvent {
    /// A page.
    Page(Listed),
    /// The objects so far are not at R; the kind comes again at its own revision.
    Apart { why: String },
    /// The objects so far are incomplete; the kind comes again.
    Again,
    /// A part of the kind cannot be read; the rest continues.
    Missing { object: String, reason: GapReason },
    /// The kind is complete.
    Done(Consistency, Seen),
    /// The kind cannot be read, or no longer.
    Gap(GapReason),
    /// The whole pass ends.
    Stop(Stop),
}

/// A page in memory.
pub(crate) struct Listed {
    pub(crate) body: Bytes,
    pub(crate) objects: Vec<(Range<usize>, ItemMeta)>,
    #[expect(dead_code, reason = "gives its bytes back to the budget when the page is done")]
    pub(crate) grant: Grant,
}

/// The result of forwarding.
#[derive(Default)]
pub(crate) struct HandedOn {
    /// Kinds that are complete, by their position in the order.
    pub(crate) read: Vec<(usize, KindReport, Seen)>,
    pub(crate) gaps: Vec<ResourceGap>,
}

/// Forwards pages to the sink, kind after kind.
pub(crate) struct Forwarder<'a> {
    done: HandedOn,
    sink: &'a mut dyn ResourceSink,
    selection: &'a Selection,
    /// The objects that a partial selection needs; none if everything is read.
    needs: Option<References>,
    meter: &'a Meter,
}

impl<'a> Forwarder<'a> {
    pub(crate) fn new(sink: &'a mut dyn ResourceSink, selection: &'a Selection, meter: &'a Meter) -> Self {
        let needs = selection.is_partial().then(References::default);
        Self { done: HandedOn::default(), sink, selection, needs, meter }
    }

    pub(crate) async fn all(
        mut self,
        heard: Vec<(&KindInfo, UnboundedReceiver<ListEvent>)>,
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
        hear: &mut UnboundedReceiver<ListEvent>,
    ) -> Result<(), Stop> {
        let refused = |source| ResourcesError::Sink { kind: kind.resource(), source };
        let (mut objects, mut bytes) = (0u64, 0u64);
        while let Some(told) = hear.recv().await {
            match told {
                ListEvent::Page(listed) => {
                    for (range, meta) in &listed.objects {
                        let item = &listed.body[range.clone()];
                        if !self.takes(kind, meta, item) {
                            continue;
                        }
                        if objects == 0 {
                            self.sink.begin(kind).await.map_err(refused)?;
                        }
                        let line = list_page::line(item, meta, kind);
                        let length = line.len() as u64;
                        self.sink.object(&meta.namespace, &meta.name, line).await.map_err(refused)?;
                        (objects, bytes) = (objects + 1, bytes + length);
                        self.meter.add_done(1);
                        self.meter.add_bytes(length);
                    }
                }
                ListEvent::Apart { .. } | ListEvent::Again | ListEvent::Gap(_) => {
                    if objects > 0 {
                        self.sink.discard().await.map_err(refused)?;
                    }
                    (objects, bytes) = (0, 0);
                    match told {
                        ListEvent::Apart { why } => self.gap(kind, GapReason::NotAtRevision { why }),
                        ListEvent::Gap(reason) => {
                            self.unread(kind, reason);
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                ListEvent::Missing { object, reason } => self.done.gaps.push(ResourceGap { object, reason }),
                ListEvent::Done(consistency, seen) => {
                    if objects > 0 {
                        self.sink.end().await.map_err(refused)?;
                    }
                    let report = KindReport { kind: kind.clone(), objects, bytes, consistency };
                    self.done.read.push((place, report, seen));
                    return Ok(());
                }
                ListEvent::Stop(stop) => return Err(stop),
            }
        }
        // A lister always sends a last event. Without one it was dropped, and the kind is not
        // complete.
        self.gap(kind, GapReason::Gone);
        Ok(())
    }

    /// Returns true if an object is selected, and records the objects that it needs.
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

    /// Records the gap of a kind that cannot be read. A kind that is read on demand, and of which
    /// no object is needed, is no gap.
    fn unread(&mut self, kind: &KindInfo, reason: GapReason) {
        let on_demand = self.selection.on_demand(kind);
        // No object names a binding or a namespace, so the need for one is unknown without reading it.
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
