//! Errors of key files as failures.

use super::{Exit, Failure};
use crate::keys::private_file::FileError;
use crate::keys::writer_key::WriterFileError;

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let remedy = match &error {
            FileError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            FileError::Exists(_) => "move it away, or choose another name".to_owned(),
            _ => "look at the path and its permissions".to_owned(),
        };
        let what = error.to_string();
        let mut failure = Self::new(Exit::Usage, what).remedy(remedy);
        if let FileError::Io { source, .. } = error {
            failure = failure.because(source);
        }
        failure
    }
}

impl From<WriterFileError> for Failure {
    fn from(error: WriterFileError) -> Self {
        match error {
            WriterFileError::File(error) => error.into(),
            other => Self::new(Exit::Usage, "the writer's key files cannot be used").because(other),
        }
    }
}
