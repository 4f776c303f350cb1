//! The gaps of items, as several verbs report them.

use crate::format::body::{Gap, Item};
use crate::report::run::GapReport;
use crate::restore::folder::Paths;

/// Returns a gap as reports show it.
pub(crate) fn gap_report(gap: &Gap) -> GapReport {
    GapReport { code: gap.code.clone(), object: gap.object.display(), reason: gap.reason.clone() }
}

/// Returns the gaps of the snapshot in an item, or in these paths of it.
pub(crate) fn missing<'a>(item: &'a Item, paths: Option<&'a Paths>) -> impl Iterator<Item = &'a Gap> {
    item.gaps.iter().filter(move |gap| paths.is_none_or(|paths| paths.concern(&gap.object)))
}
