//! The time at which a store received an object first, where it keeps versions.

use std::sync::Arc;

use jiff::Timestamp;

use crate::format::layout::ObjectKey;
use crate::store::{Store, StoreError};

/// The most objects of a plan that are asked about. An object is asked about only if its listed time is too late,
/// which of an honest writer's is so only in a store that was copied.
pub const MAX_FIRST_TIMES: usize = 64;

/// Returns the time at which the store received the first version of an object whose newest version it lists at
/// `listed`. Who may put objects can store one again, and so change `listed`.
pub async fn first_stored(
    store: &Arc<dyn Store>,
    key: &ObjectKey,
    listed: Timestamp,
) -> Result<Timestamp, StoreError> {
    let Some(versions) = store.versions() else { return Ok(listed) };
    let first = versions.first_stored(key).await?;
    Ok(first.map_or(listed, |first| first.min(listed)))
}
