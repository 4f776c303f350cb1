//! Walks a volume and sends its members in groups.

use tokio::sync::mpsc;

use super::super::boundary::{Boundary, BoundaryChooser};
use super::piece::VolumeContext;
use crate::format::epoch::Sizes;
use crate::runtime::Workers;
use crate::source::volume::{VolumeMember, WalkEvent};

/// Neighbouring members; list, catalog and cache are cut at the ends of a group.
pub(super) type MemberGroup = Vec<Box<VolumeMember>>;

/// Walks the volume and sends its groups. Ends early if the receiver is dropped.
pub(super) async fn send_groups(
    context: VolumeContext,
    segment: Sizes,
    groups: mpsc::Sender<MemberGroup>,
    workers: Workers,
) {
    if let Workers::Threads { .. } = workers {
        // The next group is gathered once this one is taken: a group takes some 2 MiB.
        let send = move |group| {
            groups.blocking_send(group).is_ok() && futures::executor::block_on(groups.reserve()).is_ok()
        };
        return workers.run(move || walk(&context, segment, send)).await;
    }
    // One thread: the walk ends before its groups are taken. For small trees in tests.
    let (sender, mut receiver) = mpsc::unbounded_channel();
    walk(&context, segment, |group| sender.send(group).is_ok());
    drop(sender);
    while let Some(group) = receiver.recv().await {
        if groups.send(group).await.is_err() {
            return;
        }
    }
}

/// Walks, and passes groups to `send` until it returns false.
fn walk(context: &VolumeContext, segment: Sizes, mut send: impl FnMut(MemberGroup) -> bool) {
    let mut boundaries = BoundaryChooser::new(segment);
    let mut members = MemberGroup::new();
    let mut walk = context.volume.walk();
    for event in walk.by_ref() {
        match event {
            WalkEvent::Skipped(skipped) => context.findings.skip(&skipped.path, skipped.why),
            WalkEvent::Gap(gap) => context.findings.gap(&gap.path, &gap.kind),
            WalkEvent::Member(member) => {
                let length = member.encoded_len();
                context.meter.add_total(1);
                context.meter.add_bytes_total(length);
                let (key, header) = (&context.key, member.before_content());
                let boundary = boundaries.boundary_before(key, &member.entry.path, length, header);
                if boundary == Boundary::Group && !members.is_empty() && !send(std::mem::take(&mut members)) {
                    return;
                }
                members.push(member);
            }
        }
    }
    for (kind, counted) in walk.left_out().iter() {
        let example = counted.examples.first().map_or(&b""[..], Vec::as_slice);
        context.findings.left_out(*kind, counted.count, example);
    }
    if !members.is_empty() {
        send(members);
    }
}
