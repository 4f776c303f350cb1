//! A store in a folder: `file:///path`.
//!
//! An object is written under a temporary name in its own folder, synced, renamed without
//! replacing, and the folder synced. So an acknowledged object survives a power cut, and no reader
//! sees a partial one. Temporary names start with a dot, which no key does. Symbolic links inside the
//! store are never followed: a person who can write into the folder cannot point kbak outside it. Only
//! the store's own folder may be reached through a link.

mod direct;
mod root;
mod walk;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rustix::io::Errno;

use super::{
    ListedObject, MAX_PAGE, ObjectPage, PageToken, PutOutcome, Store, StoreError, StoreErrorKind,
    operation::Operation,
};
use crate::format::{ids::to_hex, layout::ObjectKey, object::SealedObject};
use crate::runtime::{Clock, Runtime};
use root::Root;

/// A store of objects as files, 0600 in folders of 0700.
pub struct FileStore {
    root: Arc<Root>,
    name: String,
    runtime: Runtime,
    stamp: Option<Arc<dyn Clock>>,
    page: usize,
}

impl FileStore {
    /// Opens the store in the folder `path`. With `create`, missing folders on the path are created.
    /// Otherwise a missing folder is [`StoreErrorKind::NoBucket`], so that a backup never goes into the
    /// mount point of an absent disk.
    ///
    /// The store's clock is the file system's, as it stamps files.
    pub fn open(path: &Path, create: bool, runtime: Runtime) -> Result<Self, StoreError> {
        let name = format!("file://{}", path.display());
        let root = Root::open(path, create).map_err(|errno| {
            let kind = match errno {
                Errno::NOENT => StoreErrorKind::NoBucket,
                Errno::NOTDIR => StoreErrorKind::Settings("it is not a folder".into()),
                other => kind(other),
            };
            StoreError::new(Operation::Open, "", &*name, kind).because(std::io::Error::from(errno))
        })?;
        Ok(Self { root: Arc::new(root), name, runtime, stamp: None, page: MAX_PAGE })
    }

    /// Uses `clock` instead of the file system's to stamp objects and as the store's clock. For
    /// simulations, which have a single clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.stamp = Some(clock);
        self
    }

    /// Limits pages to `keys` keys (1 to [`MAX_PAGE`]), so that small tests get many pages.
    #[must_use]
    pub fn with_page(mut self, keys: usize) -> Self {
        self.page = keys.clamp(1, MAX_PAGE);
        self
    }

    fn error(&self, operation: Operation, object: &str, errno: Errno) -> StoreError {
        self.fail(operation, object, kind(errno)).because(std::io::Error::from(errno))
    }

    fn fail(&self, operation: Operation, object: &str, kind: StoreErrorKind) -> StoreError {
        StoreError::new(operation, object, &*self.name, kind)
    }

    /// Runs `job` on a worker, where it may block.
    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        object: &str,
        job: impl FnOnce(&Root) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = Arc::clone(&self.root);
        let result = self.runtime.workers.run(move || job(&root)).await;
        result.map_err(|errno| self.error(operation, object, errno))
    }

    async fn read(
        &self,
        operation: Operation,
        key: &ObjectKey,
        job: impl FnOnce(&Root, &ObjectKey) -> Result<root::ReadResult, Errno> + Send + 'static,
    ) -> Result<Bytes, StoreError> {
        let object = key.clone();
        let kind = match self.run(operation, key.as_str(), move |root| job(root, &object)).await? {
            root::ReadResult::Bytes(bytes) => return Ok(bytes),
            root::ReadResult::TooLarge { limit } => StoreErrorKind::TooLarge { limit },
            root::ReadResult::NotAFile => StoreErrorKind::NotAFile,
            root::ReadResult::Short { wanted, got } => {
                StoreErrorKind::Corrupt(format!("{got} of {wanted} bytes"))
            }
        };
        Err(self.fail(operation, key.as_str(), kind))
    }
}

/// Returns the kind of store error for a system error.
fn kind(errno: Errno) -> StoreErrorKind {
    let text = || std::io::Error::from(errno).to_string();
    match errno {
        Errno::NOENT => StoreErrorKind::NotFound,
        Errno::NOSPC | Errno::DQUOT => StoreErrorKind::Full,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => StoreErrorKind::Denied(text()),
        Errno::LOOP | Errno::NOTDIR => {
            StoreErrorKind::Protocol("a symbolic link or a file is in the place of a folder or object".into())
        }
        Errno::INTR
        | Errno::AGAIN
        | Errno::BUSY
        | Errno::TIMEDOUT
        | Errno::STALE
        | Errno::MFILE
        | Errno::NFILE => StoreErrorKind::Transient(text()),
        _ => StoreErrorKind::Other(text()),
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileStore({})", self.name)
    }
}

#[async_trait]
impl Store for FileStore {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        let (key, bytes) = (object.key().clone(), object.bytes().clone());
        let temporary = root::temporary_name(self.runtime.random());
        let stamp = self.stamp.as_ref().map(|clock| clock.now());
        let put = move |root: &Root| root.put(&key, &bytes, &temporary, stamp);
        self.run(Operation::Put, object.key().as_str(), put).await.map_err(|mut error| {
            // A put creates the folders that it needs, so only the store's own can be missing.
            if error.kind == StoreErrorKind::NotFound {
                error.kind = StoreErrorKind::NoBucket;
            }
            error
        })
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        self.read(Operation::Get, key, move |root, key| root.get(key, limit)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read(Operation::GetRange, key, move |root, key| root.get_range(key, range)).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        let after = match from.map(|token| walk::read_token(&token.0)) {
            Some(None) => {
                let kind = StoreErrorKind::Protocol("a page token of another store".into());
                return Err(self.fail(Operation::List, prefix, kind));
            }
            Some(Some(after)) => Some(after),
            None => None,
        };
        let (under, most) = (prefix.to_owned(), self.page);
        let walked = self
            .run(Operation::List, prefix, move |root| walk::page(root, &under, after.as_deref(), most))
            .await?;
        let mut page =
            ObjectPage { next: walked.next.map(|key| PageToken(to_hex(&key))), ..ObjectPage::default() };
        for found in walked.found {
            match found {
                walk::WalkEntry::Object { key, size, is_file, modified } => {
                    page.entries.push(ListedObject { key, size, is_file, modified, etag: None });
                }
                walk::WalkEntry::Unknown(name) => {
                    page.unknown.push(String::from_utf8_lossy(&name).into_owned());
                }
            }
        }
        Ok(page)
    }

    fn after(&self, key: &str) -> PageToken {
        PageToken(to_hex(key.as_bytes()))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let object = key.clone();
        self.run(Operation::Delete, key.as_str(), move |root| root.delete(&object)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        if let Some(clock) = &self.stamp {
            return Ok(clock.now());
        }
        let temporary = root::temporary_name(self.runtime.random());
        match self.run(Operation::Now, "", move |root| root.now(&temporary)).await {
            // Without write access this machine's clock is used: a folder offers no other.
            Err(StoreError { kind: StoreErrorKind::Denied(_), .. }) => Ok(self.runtime.clock.now()),
            other => other,
        }
    }
}
