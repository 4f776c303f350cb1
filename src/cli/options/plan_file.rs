//! Reads plan files.

use std::io::Read as _;
use std::path::Path;

use crate::cli::failure::{Exit, Failure};
use crate::keys::private_file::folder_of;
use crate::plan::{self, RestorePlan, ValidPlan};

/// Reads a plan's file and makes its file names absolute.
pub(crate) fn load(file: &Path) -> Result<ValidPlan, Failure> {
    let (name, text) = read_text(file)?;
    let mut checked = plan::parse(&text).map_err(|error| error.failure(&name))?;
    let folder = std::path::absolute(folder_of(file)).map_err(|error| {
        Failure::new(Exit::Usage, format!("{name}: its folder has no path")).because(error)
    })?;
    checked.plan.resolve_files(&folder);
    Ok(checked)
}

/// Reads a RestorePlan from its file.
pub(crate) fn load_restore(file: &Path) -> Result<RestorePlan, Failure> {
    let (name, text) = read_text(file)?;
    plan::parse_restore(&text).map_err(|error| error.failure(&name))
}

/// Returns the plan's name for messages and its text; `-` is standard input.
pub(crate) fn read_text(file: &Path) -> Result<(String, String), Failure> {
    let most = plan::MAX_PLAN_BYTES as u64 + 1;
    let mut text = Vec::new();
    let (name, result) = if file == Path::new("-") {
        ("standard input".to_owned(), std::io::stdin().lock().take(most).read_to_end(&mut text))
    } else {
        let read = std::fs::File::open(file).and_then(|file| file.take(most).read_to_end(&mut text));
        (file.display().to_string(), read)
    };
    result.map_err(|error| {
        Failure::new(Exit::Usage, format!("{name}: the plan cannot be read"))
            .because(error)
            .remedy("give a plan's file with --plan FILE; docs/plan.md describes it")
    })?;
    let text = String::from_utf8(text)
        .map_err(|_| Failure::new(Exit::Usage, format!("{name}: not UTF-8 text, as a plan is")))?;
    Ok((name, text))
}
