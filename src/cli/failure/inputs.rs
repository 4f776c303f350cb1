//! Errors of a user's files as failures: plans and keys.

use super::{Exit, Failure};
use crate::keys::private_file::FileError;
use crate::keys::writer_key::WriterFileError;
use crate::plan::{GlobError, PlanError};

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let remedy = match &error {
            FileError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            FileError::Exists(_) => "move it away, or choose another name".to_owned(),
            _ => "look at the path and its permissions".to_owned(),
        };
        let failure = Self::usage(error.to_string()).remedy(remedy);
        match error {
            FileError::Io { source, .. } => failure.because(source),
            _ => failure,
        }
    }
}

impl From<WriterFileError> for Failure {
    fn from(error: WriterFileError) -> Self {
        let what = error.to_string();
        match error {
            WriterFileError::File(error) => error.into(),
            WriterFileError::SecretRefused { source, .. } => Self::usage(what).because(source).remedy(
                "the Secret of writer.epochSecret must exist (kbak init writes one), and this account needs get \
                 and patch on it: kbak rbac prints the rules",
            ),
            WriterFileError::SecretImmutable { .. } => Self::usage(what).remedy(
                "make it anew: save it (kubectl get secret -o yaml), delete it, and create it without \
                 immutable: true",
            ),
            WriterFileError::SecretUnreachable { source, .. } => {
                Self::new(Exit::Unreachable, what).because(source).remedy("is the API server up? Run it again")
            }
            WriterFileError::SecretChanged { .. } => Self::new(Exit::Unreachable, what)
                .remedy("run it again: the other run made an epoch, and this one uses it then"),
            other => {
                let remedy = match &other {
                    WriterFileError::Json { .. } | WriterFileError::Kind { .. } => {
                        "something else is there: name the file or the Secret that kbak init wrote, or bring its \
                         content back; what is there is not changed"
                    }
                    WriterFileError::BelongsElsewhere { .. } => {
                        "use the files that one kbak init wrote together; each plan has its own epoch secret"
                    }
                    WriterFileError::Malformed { .. } => "look at the Secret: kubectl get secret -o yaml",
                    _ => "",
                };
                Self::usage("the writer's key files cannot be used").because(other).remedy_if(remedy)
            }
        }
    }
}

impl From<GlobError> for Failure {
    fn from(error: GlobError) -> Self {
        Self::usage("invalid pattern").because(error)
    }
}

impl PlanError {
    /// Converts it to a failure of the plan that people know as `name` (a file, or `the command line`).
    pub fn failure(&self, name: &str) -> Failure {
        let (what, remedy) = match self.problems.as_slice() {
            // For an argument, `name` is also the field: it is named once.
            [one] if one.at.is_none() && one.field == name => (one.to_string(), one.remedy.clone()),
            [one] => (format!("{name}: {one}"), one.remedy.clone()),
            many => (format!("{name}: {} problems", many.len()), None),
        };
        let mut failure = Failure::usage(what).remedy_if(remedy.as_deref().unwrap_or_default());
        if self.problems.len() > 1 {
            for problem in &self.problems {
                let place = problem.at.map_or_else(String::new, |at| format!("{}:{}", at.line, at.column));
                let field =
                    if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
                failure = failure.fact(place, format!("{field}{}", problem.message));
                if let Some(remedy) = &problem.remedy {
                    failure = failure.fact("", format!("→ {remedy}"));
                }
            }
        }
        failure
    }
}
