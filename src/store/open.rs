//! Opens a store from a user's options and adds its wrappers in the right order.

use std::sync::Arc;

use super::deadline::{DeadlineStore, StoreDeadlines};
use super::limit::{LimitStore, Rates};
use super::options::{StoreLocation, StoreOptions, without_user};
use super::retry::{RetryPolicy, RetryStore};
use super::{Store, StoreError, StoreErrorKind, file::FileStore, operation::Operation, s3::S3Store};
use crate::report::event::Reporter;
use crate::runtime::Runtime;

/// Opens a store: checks URL, credentials and CA, opens a folder. Sends no request to a bucket.
pub async fn open(
    options: &StoreOptions,
    runtime: &Runtime,
    reporter: &Reporter,
) -> Result<Arc<dyn Store>, StoreError> {
    let location = options.location().map_err(|text| {
        let url = without_user(&options.url);
        StoreError::new(Operation::Open, "", url, StoreErrorKind::Settings(text))
    })?;
    let store: Arc<dyn Store> = match location {
        StoreLocation::Folder(path) => Arc::new(FileStore::open(&path, options.create, runtime.clone())?),
        StoreLocation::Bucket(bucket) => Arc::new(S3Store::open(options, bucket).await?),
    };
    Ok(wrap(store, options.rates, runtime, reporter))
}

/// Adds the wrappers of every real store to `store`.
///
/// From the inside out: a deadline for each try; retries; the rate limit. The limit is outermost, so
/// that an object counts once and the wait counts toward neither deadline nor retry budget.
#[must_use]
pub fn wrap(store: Arc<dyn Store>, rates: Rates, runtime: &Runtime, reporter: &Reporter) -> Arc<dyn Store> {
    let store = Arc::new(DeadlineStore::new(store, StoreDeadlines::default()));
    let store = Arc::new(RetryStore::new(store, RetryPolicy::default(), runtime.clone(), reporter.clone()));
    if rates == Rates::default() { store } else { Arc::new(LimitStore::new(store, rates)) }
}
