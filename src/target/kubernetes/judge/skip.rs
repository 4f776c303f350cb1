//! Reasons for which a rule skips an object.

use serde::Serialize;

use super::{derived::Derived, gitops::GitTool, infrastructure::Infrastructure};

/// The reason why an object is not restored although it has no fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The cluster makes the object itself.
    Derived(Derived),
    /// The object is infrastructure, which the profile excludes.
    Infrastructure(Infrastructure),
    /// The object has the marks of a tool that creates it from Git.
    Git(GitTool),
    /// The object holds kbak's own keys.
    OwnKeys,
}
