//! The guide that `kbak` prints without arguments.

use std::process::ExitCode;

use crate::cli::failure::Exit;

const GUIDE: &str = "\
kbak makes encrypted, verifiable, restorable backups of Kubernetes clusters, databases and folders
into any S3-compatible bucket or folder, and brings them back.

The first five minutes:
  kbak keygen -o owner.key                        a key of yours; it never goes into the cluster
  kbak init --repo s3://bucket/prefix --recipient \"age1…\" --recipient \"age1…\"
  kbak backup --plan nightly.yaml                 or --path, --database, --resources without a file
  kbak snapshots --repo s3://bucket/prefix --signer kbak.pub
  kbak verify --repo s3://bucket/prefix --signer kbak.pub
  kbak restore latest --repo s3://bucket/prefix --identity owner.key --signer kbak.pub

kbak --help lists all verbs, kbak VERB --help shows examples, kbak plan schema helps editors.
Exit codes: 0 all safe, 1 bug or difference, 2 usage, 3 partial, 4 damaged, 5 unreachable,
6 interrupted.
";

/// Prints the guide and returns exit code 2. A bare `kbak` must not succeed: in a Job that lost its
/// arguments, nothing was backed up.
pub(crate) fn show() -> ExitCode {
    use std::io::Write as _;
    let _ = std::io::stdout().lock().write_all(GUIDE.as_bytes());
    ExitCode::from(Exit::Usage.code())
}
