//! Records the outcome of each Kubernetes object, in a file and for the report.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::verbs::restore::text;
use crate::report::event::Reporter;
use crate::report::run::ObjectReport;
use crate::runtime::lock;
use crate::target::kubernetes::{ObjectRef, Outcome};

/// The number of objects that a report lists.
const MAX_LISTED: usize = 10_000;

/// Records the outcome of each object.
#[derive(Default)]
pub(super) struct ObjectRecorder(Mutex<Records>);

#[derive(Default)]
struct Records {
    file: Option<BufWriter<File>>,
    failed: Option<std::io::Error>,
    objects: Vec<ObjectReport>,
    not_listed: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    object: &'a ObjectRef,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

impl ObjectRecorder {
    /// Creates the file of `--outcomes`, if it is given.
    pub(super) fn new(file: Option<&Path>) -> Result<Self, Failure> {
        let create = |file: &Path| {
            File::create(file).map(BufWriter::new).map_err(|error| {
                let what = format!("{}: --outcomes cannot be written", file.display());
                Failure::usage(what).because(error)
            })
        };
        Ok(Self(Mutex::new(Records { file: file.map(create).transpose()?, ..Records::default() })))
    }

    pub(super) fn record(&self, object: &ObjectRef, outcome: &Outcome) {
        let mut records = lock(&self.0);
        if let Some(file) = &mut records.file {
            let written = serde_json::to_writer(&mut *file, &Line { object, outcome })
                .map_err(std::io::Error::from)
                .and_then(|()| file.write_all(b"\n"));
            if let Err(error) = written {
                records.failed.get_or_insert(error);
            }
        }
        if *outcome == Outcome::Created {
            return;
        }
        if records.objects.len() < MAX_LISTED {
            records.objects.push(text::object(object, outcome));
        } else {
            records.not_listed += 1;
        }
    }

    /// Flushes the file, and returns the objects with another outcome than `Created`.
    pub(super) fn finish(&self, reporter: &Reporter) -> Vec<ObjectReport> {
        let mut records = lock(&self.0);
        let flushed = records.file.as_mut().and_then(|file| file.flush().err());
        if let Some(error) = records.failed.take().or(flushed) {
            reporter.warn("--outcomes", format!("not all of it was written: {error}"));
        }
        if records.not_listed > 0 {
            let message = format!("{} more are not listed here; --outcomes FILE has all", records.not_listed);
            reporter.warn("objects", message);
        }
        std::mem::take(&mut records.objects)
    }
}
