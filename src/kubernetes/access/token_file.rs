//! A bearer token in a file, read anew each minute: the kubelet rotates those of ServiceAccounts.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::{AccessError, bearer};
use crate::report::text::without_bom;
use crate::runtime::lock;

/// The largest token, in bytes.
const MAX_TOKEN: u64 = 64 << 10;
/// The time after which the file is read again.
const LIFETIME: Duration = Duration::from_secs(60);

/// A token and its file. Cheap to clone; its `Debug` output hides the token.
#[derive(Debug, Clone)]
pub(in crate::kubernetes) struct TokenFile {
    path: Arc<PathBuf>,
    current: Arc<Mutex<(HeaderValue, Instant)>>,
}

impl TokenFile {
    /// Reads the file; blanks and line breaks around the token are ignored.
    pub(super) fn read(path: PathBuf) -> Result<Self, AccessError> {
        let header = read_header(&path)?;
        Ok(Self { path: Arc::new(path), current: Arc::new(Mutex::new((header, Instant::now()))) })
    }

    /// Returns the header of a request. A file that cannot be read any more leaves the last token in use.
    pub(in crate::kubernetes) fn header(&self) -> HeaderValue {
        let mut current = lock(&self.current);
        if current.1.elapsed() >= LIFETIME {
            if let Ok(header) = read_header(&self.path) {
                current.0 = header;
            }
            current.1 = Instant::now();
        }
        current.0.clone()
    }
}

fn read_header(path: &PathBuf) -> Result<HeaderValue, AccessError> {
    let what = || format!("the token file {}", path.display());
    let mut text = zeroize::Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
        .map_err(|source| AccessError::Unreadable { what: what(), source })?;
    bearer(without_bom(&text).trim()).ok_or_else(|| {
        AccessError::invalid(what(), "holds no token: it is empty, or has a character that no token has")
    })
}
