//! The end of a restore, after all files are in place: hard links, and the attributes of directories.

use std::os::fd::AsFd;

use super::attributes::{self, AttributeOptions, Subject};
use super::deferred::{DeferredEntries, EXISTED, INHERITED_ACL};
use super::error::TargetError;
use super::report::FailureReason;
use super::state::TargetState;
use crate::format::tar::EntryKind;
use crate::runtime::kill_point;

/// Makes the hard links, in stream order.
pub(super) fn make_links(state: &TargetState, links: &DeferredEntries) -> Result<(), TargetError> {
    let mut at = 0;
    while let Some((_, entry, next)) = links.forward(at).map_err(TargetError::DeferredEntries)? {
        at = next;
        if let EntryKind::HardLink { link_target } = &entry.kind
            && let Err(reason) = state.make_link(&entry.path, link_target)
        {
            state.fail(&entry.path, reason);
        }
    }
    Ok(())
}

/// Sets the attributes of directories, from the last to the first: the content of a directory came after it.
pub(super) fn finish_directories(
    state: &TargetState,
    directories: &DeferredEntries,
) -> Result<(), TargetError> {
    let mut at = directories.end();
    while let Some((flags, entry, next)) = directories.backward(at).map_err(TargetError::DeferredEntries)? {
        at = next;
        let options = AttributeOptions {
            other_xattrs: state.options.allow_other_xattrs,
            inherited_acl: flags & INHERITED_ACL != 0,
            existed: flags & EXISTED != 0,
        };
        let finished = state
            .open_directory(&entry.path)
            .and_then(|directory| attributes::apply(Subject::Open(directory.as_fd()), &entry, options));
        match finished {
            Ok(lost) => state.record_lost_attributes(&entry.path, lost),
            Err(errno) => state.fail(&entry.path, FailureReason::system("set its attributes")(errno)),
        }
        kill_point("restore.directory.finished");
    }
    Ok(())
}
