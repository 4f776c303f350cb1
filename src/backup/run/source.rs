//! Reads the source of one item into streams, or records why there are none.

use std::sync::Arc;

use crate::cli::failure::{Exit, Failure, causes};
use crate::format::ids::{NameId, ObjectHash};
use crate::pipeline::PipelineError;
use crate::pipeline::domain::DomainWriter;

use super::super::item::{Finished, ItemJob, StreamDraft, Work};
use super::super::{database, resources, volume};
use super::Run;

impl Run<'_> {
    /// Reads an item into `domain`. A failure of its source becomes a gap; only a failure of the
    /// store or the pipeline ends the run.
    pub(super) async fn item(&self, job: &ItemJob, domain: &Arc<DomainWriter>) -> Result<Finished, Failure> {
        let reporter = self.place.reporter;
        let parameters = &self.start.ready.epoch.parameters;
        Ok(match &job.work {
            Work::Resources { cluster, config } => {
                let meter = reporter.meter(&job.name, "objects");
                match resources::write(cluster, config, domain, &meter).await {
                    Ok(mut finished) => {
                        if let Some(coverage) = &self.coverage {
                            finished.fact("coverage", coverage);
                        }
                        finished
                    }
                    Err(error) => match pipeline_cause(&error) {
                        true => return Err(Failure::new(Exit::Unreachable, error.to_string()).because(error)),
                        false => Finished::failed(resources::failed(&error), &job.name, causes(&error)),
                    },
                }
            }
            Work::Database { config, databases } => {
                let meter = reporter.meter(&job.name, "databases");
                match database::write(config, databases, domain, parameters, &meter).await {
                    Ok(finished) => {
                        for note in finished.notes.iter().filter(|note| note.code == database::NO_PASSWORDS) {
                            reporter.warn(job.name.clone(), note.reason.clone());
                        }
                        finished
                    }
                    Err(database::DumpFailure::Pipeline(error)) => return Err(error.into()),
                    Err(error) => Finished::failed("dump-failed", &job.name, error.to_string()),
                }
            }
            Work::Folder { path, options } => {
                let meter = reporter.meter(&job.name, "files");
                match crate::source::volume::Volume::open(path, options.clone()) {
                    Ok(folder) => {
                        let root = self.cache_root(&job.name, domain.id());
                        let earlier = volume::open_earlier(domain, root).await?;
                        let written = volume::write(folder, domain, parameters, earlier, meter).await?;
                        let draft = StreamDraft {
                            name: "tar".into(),
                            format: "tar".into(),
                            pending: written.stream,
                            sha256: None,
                        };
                        let mut finished = Finished::new(vec![draft]);
                        (finished.gaps, finished.notes) = (written.gaps, written.notes);
                        finished.left_out = written.left_out;
                        finished.fact("path", path.display().to_string());
                        // A restore that deletes extra files must spare excluded paths.
                        if !options.exclude.is_empty() {
                            finished.fact("exclude", &options.exclude);
                        }
                        finished
                    }
                    Err(error) => {
                        Finished::failed("unreadable-folder", &path.display().to_string(), causes(&error))
                    }
                }
            }
        })
    }

    /// Returns the scan cache of the last run, if it may be used and is in this epoch and domain.
    fn cache_root(&self, item: &str, domain: NameId) -> Option<ObjectHash> {
        let id = self.place.key.names.id("item", item);
        let root = self.start.state.items.get(&id)?.caches.get("tar")?;
        (self.job.use_cache && root.domain == domain && root.epoch == self.start.ready.epoch.epoch)
            .then_some(root.object)
    }
}

/// True if the pipeline caused the error of a source, so that the run cannot go on.
fn pipeline_cause(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<PipelineError>().is_some() {
            return true;
        }
        next = error.source();
    }
    false
}
