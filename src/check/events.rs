//! Checks the rights to create Events on the CronJob that starts backups.

use super::Finding;
use crate::notify::{CronJobEvents, NoticeLimits};

/// A missing right is a warning: a backup goes on without its Event.
pub(super) async fn check(events: Option<&CronJobEvents>) -> Vec<Finding> {
    let Some(events) = events else { return Vec::new() };
    let name = &events.name;
    let finding = match events.try_rights(NoticeLimits::END).await {
        Ok(()) => Finding::good("events", format!("the CronJob {name} exists, and Events may be created")),
        Err(refused) => {
            let what = format!("no Events on the CronJob {name}: {}", refused.message);
            Finding { remedy: refused.remedy, ..Finding::warning("events", what) }
        }
    };
    vec![finding]
}
