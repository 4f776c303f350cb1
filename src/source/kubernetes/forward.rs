//! Forwards pages to the sink, kind after kind, while others are listed ahead.

use tokio::sync::mpsc::UnboundedReceiver;

use super::budget::PageBudget;
use super::list_event::{AttemptError, ListEvent, ListSummary, ListedPage};
use super::references::References;
use super::{GapReason, KindConsistency, KindReport, ResourceGap, ResourceSink, ResourcesError, SinkError};
use crate::kubernetes::{ItemMeta, KindInfo, MAX_NESTING, Selection, nesting_of, to_json_line};
use crate::report::event::Meter;

/// A kind that was listed and forwarded completely.
pub(super) struct ForwardedKind {
    /// Its position in the order.
    pub(super) position: usize,
    pub(super) report: KindReport,
    pub(super) summary: ListSummary,
}

/// The result of forwarding.
#[derive(Default)]
pub(super) struct Forwarded {
    pub(super) kinds: Vec<ForwardedKind>,
    pub(super) gaps: Vec<ResourceGap>,
}

/// Forwards pages to the sink, kind after kind.
pub(super) struct Forwarder<'a> {
    forwarded: Forwarded,
    sink: &'a mut dyn ResourceSink,
    selection: &'a Selection,
    /// The objects that a partial selection needs; none if everything is read.
    references: Option<References>,
    /// The objects of the current kind that are nested too deep: their number, and the first.
    too_deep: Option<(u64, String)>,
    meter: &'a Meter,
}

impl<'a> Forwarder<'a> {
    pub(super) fn new(sink: &'a mut dyn ResourceSink, selection: &'a Selection, meter: &'a Meter) -> Self {
        let references = selection.is_partial().then(References::default);
        Self { forwarded: Forwarded::default(), sink, selection, references, too_deep: None, meter }
    }

    pub(super) async fn forward_all(
        mut self,
        kinds: Vec<(&KindInfo, UnboundedReceiver<ListEvent>)>,
        budget: &PageBudget,
    ) -> Result<Forwarded, AttemptError> {
        for (position, (kind, mut events_rx)) in kinds.into_iter().enumerate() {
            budget.set_current(position);
            self.forward_kind(kind, position, &mut events_rx).await?;
        }
        Ok(self.forwarded)
    }

    async fn forward_kind(
        &mut self,
        kind: &KindInfo,
        position: usize,
        events_rx: &mut UnboundedReceiver<ListEvent>,
    ) -> Result<(), AttemptError> {
        let mut report =
            KindReport { kind: kind.clone(), objects: 0, bytes: 0, consistency: KindConsistency::Unproved };
        while let Some(event) = events_rx.recv().await {
            match event {
                ListEvent::Page(page) => {
                    self.forward_page(&page, &mut report).await.map_err(sink_error(kind))?
                }
                ListEvent::OwnRevision { .. } | ListEvent::Restarted | ListEvent::Failed(_) => {
                    if report.objects > 0 {
                        self.sink.discard().await.map_err(sink_error(kind))?;
                    }
                    (report.objects, report.bytes, self.too_deep) = (0, 0, None);
                    match event {
                        ListEvent::OwnRevision { why } => {
                            self.record_gap(kind, GapReason::NotAtRevision { why });
                        }
                        ListEvent::Failed(reason) => {
                            self.record_unreadable(kind, reason);
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                ListEvent::PartMissing { object, reason } => {
                    self.forwarded.gaps.push(ResourceGap { object, reason });
                }
                ListEvent::Complete(consistency, summary) => {
                    if report.objects > 0 {
                        self.sink.end().await.map_err(sink_error(kind))?;
                    }
                    if let Some((count, example)) = self.too_deep.take() {
                        self.record_gap(
                            kind,
                            GapReason::TooDeep { limit: MAX_NESTING as u64, count, example },
                        );
                    }
                    report.consistency = consistency;
                    self.forwarded.kinds.push(ForwardedKind { position, report, summary });
                    return Ok(());
                }
                ListEvent::EndAttempt(error) => return Err(error),
            }
        }
        // A lister always sends a last event. Without one it was dropped, and the kind is not complete.
        self.record_gap(kind, GapReason::Gone);
        Ok(())
    }

    /// Forwards the selected objects of a page, and counts them in `report`.
    async fn forward_page(&mut self, page: &ListedPage, report: &mut KindReport) -> Result<(), SinkError> {
        for (range, meta) in &page.objects {
            let item = &page.body[range.clone()];
            if !self.select(&report.kind, meta, item) {
                continue;
            }
            if report.objects == 0 {
                self.sink.begin(&report.kind).await?;
            }
            if nesting_of(item) > MAX_NESTING {
                let first = || (0, format!("{}/{}", meta.namespace, meta.name).trim_matches('/').to_owned());
                self.too_deep.get_or_insert_with(first).0 += 1;
            }
            let line = to_json_line(item, meta, &report.kind);
            let length = line.len() as u64;
            self.sink.object(&meta.namespace, &meta.name, line).await?;
            report.objects += 1;
            report.bytes += length;
            self.meter.add_done(1);
            self.meter.add_bytes(length);
        }
        Ok(())
    }

    /// Returns true if an object is selected, and records the objects that it needs.
    fn select(&mut self, kind: &KindInfo, meta: &ItemMeta, item: &[u8]) -> bool {
        let is_selected = match &self.references {
            _ if kind.namespaced => self.selection.includes_namespace(&meta.namespace),
            Some(references) if self.selection.is_read_on_demand(kind) => {
                references.is_needed(self.selection, kind, meta, item)
            }
            _ => true,
        };
        if let Some(references) = self.references.as_mut().filter(|_| is_selected) {
            references.record(kind, meta, item);
        }
        is_selected
    }

    /// Records the gap of a kind that cannot be read, unless no object of it is needed.
    fn record_unreadable(&mut self, kind: &KindInfo, reason: GapReason) {
        // No object names a binding or a namespace, so the need for one is unknown without reading it.
        let is_referenced_by_name = !matches!(kind.plural.as_str(), "namespaces" | "clusterrolebindings");
        let is_needed = self.references.as_ref().is_none_or(|references| references.needs_any(kind));
        if self.selection.is_read_on_demand(kind) && is_referenced_by_name && !is_needed {
            return;
        }
        self.record_gap(kind, reason);
    }

    fn record_gap(&mut self, kind: &KindInfo, reason: GapReason) {
        self.forwarded.gaps.push(ResourceGap { object: kind.resource(), reason });
    }
}

fn sink_error(kind: &KindInfo) -> impl Fn(SinkError) -> ResourcesError {
    move |source| ResourcesError::Sink { kind: kind.resource(), source }
}
