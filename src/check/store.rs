//! Checks the store: that it answers, the features that it honours, and its clock.

use std::sync::Arc;

use tokio::time::Instant;

use super::keys::Keys;
use super::{CheckJob, Finding, Severity, repository, within};
use crate::backup::{CLOCK_REFUSE, CLOCK_WARN};
use crate::format::{ids::WriterId, layout::probes_prefix};
use crate::report::{event::Reporter, text::span};
use crate::runtime::Runtime;
use crate::store::open::open;
use crate::store::probe::{ProbeReport, StoreFeatures, probe};
use crate::store::{Store, StoreError, StoreErrorKind};

pub(super) struct Stored {
    pub(super) findings: Vec<Finding>,
    /// A description of the objects that the probe wrote.
    pub(super) wrote: Option<String>,
}

pub(super) async fn check(job: &CheckJob, keys: &Keys, runtime: &Runtime, reporter: &Reporter) -> Stored {
    let meter = reporter.meter("store", "checks");
    meter.add_total(2);
    let mut wrote = None;
    let findings = within("store", async {
        let store = match open(&job.store, runtime, reporter).await {
            Ok(store) => store,
            Err(error) => return vec![failed(error)],
        };
        // Probes as this writer if there is one, because rights may end at its own prefix.
        let writer = keys.key.as_ref().map_or_else(|| WriterId(runtime.random()), |key| key.writer);
        let (mut findings, probed) = probed(&store, runtime, writer).await;
        meter.add_done(1);
        let Some(probed) = probed else { return findings };
        wrote = Some(named(&probed.features, writer));
        if let Some(key) = &keys.key {
            findings.extend(repository::check(job, keys, key, &store, reporter).await);
        }
        meter.add_done(1);
        findings
    });
    let findings = findings.await;
    meter.end();
    Stored { findings, wrote }
}

async fn probed(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    writer: WriterId,
) -> (Vec<Finding>, Option<ProbeReport>) {
    let began = Instant::now();
    let probed = match probe(store, runtime, writer).await {
        Ok(probed) => probed,
        Err(error) => return (vec![failed(error)], None),
    };
    let (good, rest): (Vec<_>, Vec<_>) = probed
        .findings
        .iter()
        .partition(|finding| matches!(finding.severity, Severity::Good | Severity::Note));
    let words =
        std::iter::once("put, list, read back").chain(good.iter().map(|finding| finding.what.as_str()));
    let mut findings = vec![Finding::good("store", words.collect::<Vec<_>>().join("; ")).took(began)];
    for finding in rest {
        findings.push(Finding {
            remedy: finding.remedy.clone(),
            ..Finding::new("store", finding.severity, finding.what.clone())
        });
    }
    findings.push(clock(probed.features.clock_ahead_seconds));
    (findings, Some(probed))
}

/// Returns the finding about clock skew, with the limits of a run.
fn clock(ahead: i64) -> Finding {
    let apart = span(std::time::Duration::from_secs(ahead.unsigned_abs()));
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let what = format!("the store is {apart} {side} this machine");
    let remedy = "set the clock that is wrong (chrony, systemd-timesyncd)";
    if ahead.abs() <= CLOCK_WARN {
        return Finding::good("clock", what);
    }
    if ahead.abs() <= CLOCK_REFUSE {
        return Finding::warning("clock", what).remedy(remedy);
    }
    Finding::problem("clock", format!("{what}: a backup refuses that")).remedy(remedy)
}

fn failed(error: StoreError) -> Finding {
    let about = if matches!(error.kind, StoreErrorKind::Clock(_)) { "clock" } else { "store" };
    Finding::error(about, error)
}

fn named(abilities: &StoreFeatures, writer: WriterId) -> String {
    let place = probes_prefix(writer);
    if abilities.may_delete {
        format!("the store's probe: objects of 32 bytes under {place}, removed again")
    } else {
        format!("the store's probe: objects of 32 bytes under {place}, left there: nothing may be deleted")
    }
}
