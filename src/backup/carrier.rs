//! Carries one item: reads its source into the streams of its domain, or records why there are none.
//!
//! It needs the domain's key and nothing else that is secret, so that it can run apart from the coordinator.

use std::path::Path;
use std::sync::Arc;

use crate::format::epoch::Parameters;
use crate::format::ids::ObjectHash;
use crate::pipeline::PipelineError;
use crate::pipeline::domain::DomainWriter;
use crate::report::coverage::Coverage;
use crate::report::error::{causes, find_cause};
use crate::report::event::Reporter;
use crate::source::volume::{VolumeOptions, VolumeReader};

use super::error::BackupError;
use super::item::{ItemJob, ItemResult, ItemSource, UnnamedStream};
use super::{database, resources, volume};

/// The domain that items are carried into.
#[derive(Debug, Clone, Copy)]
pub struct Carrier<'a> {
    /// The writer of the domain's packs.
    pub domain: &'a Arc<DomainWriter>,
    /// The parameters of the epoch.
    pub parameters: &'a Parameters,
    /// The reporter of progress and warnings.
    pub reporter: &'a Reporter,
    /// The coverage of the cluster, to be noted with its resources.
    pub coverage: Option<&'a Coverage>,
}

impl Carrier<'_> {
    /// Reads an item into the domain; `scan_cache` is that of the last run, if it may be used. A failure
    /// of the source becomes a gap; only a failure of the store or the pipeline ends the run.
    pub async fn carry(
        &self,
        job: &ItemJob,
        scan_cache: Option<ObjectHash>,
    ) -> Result<ItemResult, BackupError> {
        let Self { domain, parameters, reporter, coverage } = *self;
        match &job.work {
            ItemSource::Resources { cluster, config } => {
                let meter = reporter.meter(&job.name, "objects");
                match resources::write(cluster, config, domain, &meter).await {
                    Ok(mut finished) => {
                        if let Some(coverage) = coverage {
                            finished.fact("coverage", coverage);
                        }
                        Ok(finished)
                    }
                    // The pipeline failed, so that the run cannot go on.
                    Err(error) if find_cause::<PipelineError>(&error).is_some() => {
                        Err(BackupError::Resources(error))
                    }
                    Err(error) => {
                        Ok(ItemResult::failed(resources::failed(&error), &job.name, causes(&error)))
                    }
                }
            }
            ItemSource::Database { config, databases } => {
                let meter = reporter.meter(&job.name, "databases");
                match database::write(config, databases, domain, parameters, &meter).await {
                    Ok(finished) => {
                        for note in &finished.notes {
                            reporter.warn(job.name.clone(), note.reason.clone());
                        }
                        Ok(finished)
                    }
                    Err(database::DumpFailure::Pipeline(error)) => Err(error.into()),
                    Err(error) => Ok(ItemResult::failed("dump-failed", &job.name, error.to_string())),
                }
            }
            ItemSource::Folder { path, options } => match VolumeReader::open(path, options.clone()) {
                Ok(folder) => self.folder(&job.name, (path, options), folder, scan_cache).await,
                Err(error) => {
                    Ok(ItemResult::failed("unreadable-folder", &path.display().to_string(), causes(&error)))
                }
            },
        }
    }

    async fn folder(
        &self,
        name: &str,
        (path, options): (&Path, &VolumeOptions),
        folder: VolumeReader,
        scan_cache: Option<ObjectHash>,
    ) -> Result<ItemResult, BackupError> {
        let meter = self.reporter.meter(name, "files");
        let cache = volume::ScanCacheReader::open(self.domain, scan_cache).await?;
        let written = volume::write(folder, self.domain, self.parameters, cache, meter).await?;
        let (name, format) = ("tar".into(), "tar".into());
        let draft = UnnamedStream { name, format, pending: written.stream, sha256: None };
        let mut finished = ItemResult::new(vec![draft]);
        (finished.gaps, finished.notes) = (written.gaps, written.notes);
        finished.left_out = written.left_out;
        finished.fact("path", path.display().to_string());
        // A restore that deletes extra files must spare excluded paths.
        if !options.exclude.is_empty() {
            finished.fact("exclude", &options.exclude);
        }
        Ok(finished)
    }
}
