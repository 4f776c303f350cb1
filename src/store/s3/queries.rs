//! Queries for optional features of a bucket: for the probe, and for the versions of an object.

use std::future::Future;

use async_trait::async_trait;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled};
use jiff::Timestamp;

use super::errors::{self, HttpResponse};
use super::{PutOptions, S3Store, STALL, stalled, timestamp};
use crate::format::{ids::ObjectHash, layout::ObjectKey, object::SealedObject};
use crate::store::probe::{ChecksumSupport, FeatureState, StoreQueries};
use crate::store::{StoreError, Versions, operation::Operation};

impl S3Store {
    /// Waits for an answer that the store may refuse. It fails only if the store cannot be reached; moto,
    /// for one, answers the query for versions in a form of its own.
    async fn optional_answer<T, E>(
        &self,
        object: &str,
        send: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<Result<T, SdkError<E, HttpResponse>>, StoreError>
    where
        E: errors::ServiceError,
    {
        match tokio::time::timeout(STALL, send).await {
            Ok(Err(error)) if errors::is_answered(&error) => Ok(Err(error)),
            Ok(Err(error)) => Err(self.failed(Operation::Probe, object, error)),
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Err(_) => Err(self.fail(Operation::Probe, object, stalled())),
        }
    }
}

#[async_trait]
impl StoreQueries for S3Store {
    async fn put_wrong_checksum(
        &self,
        object: &SealedObject,
        wrong: ObjectHash,
    ) -> Result<ChecksumSupport, StoreError> {
        let options = PutOptions { create_new: false, sha256: true };
        match self.put_as(object, options, wrong).await? {
            Ok(()) => Ok(ChecksumSupport::Ignored),
            Err(error) if errors::refuses_a_checksum(&error) => Ok(ChecksumSupport::Verified),
            Err(error) if errors::refuses_a_header(&error) => Ok(ChecksumSupport::Refused),
            Err(error) => Err(self.failed(Operation::Probe, object.key().as_str(), error)),
        }
    }

    async fn versions(&self) -> Result<FeatureState, StoreError> {
        let request = self.client.get_bucket_versioning().bucket(&self.bucket);
        let answer = self.optional_answer("the versions of the bucket", request.send()).await?;
        Ok(match answer {
            Ok(output) if output.status() == Some(&BucketVersioningStatus::Enabled) => FeatureState::On,
            Ok(_) => FeatureState::Off,
            Err(_) => FeatureState::Unknown,
        })
    }

    async fn object_lock(&self) -> Result<FeatureState, StoreError> {
        let request = self.client.get_object_lock_configuration().bucket(&self.bucket);
        let answer = self.optional_answer("the lock of the bucket", request.send()).await?;
        Ok(match answer {
            Ok(output) => {
                let lock = output.object_lock_configuration().and_then(|lock| lock.object_lock_enabled());
                if lock == Some(&ObjectLockEnabled::Enabled) { FeatureState::On } else { FeatureState::Off }
            }
            Err(error) if errors::code(&error) == Some("ObjectLockConfigurationNotFoundError") => {
                FeatureState::Off
            }
            Err(_) => FeatureState::Unknown,
        })
    }
}

/// The most pages of versions that are read of one object. Whoever may put can add versions without end.
const MAX_VERSION_PAGES: usize = 100;

#[async_trait]
impl Versions for S3Store {
    async fn first_stored(&self, key: &ObjectKey) -> Result<Option<Timestamp>, StoreError> {
        let path = self.path(key);
        let (mut first, mut next_key, mut next_version) = (None, None, None);
        for _ in 0..MAX_VERSION_PAGES {
            let request = self.client.list_object_versions().bucket(&self.bucket).prefix(&path);
            let request = request.set_key_marker(next_key).set_version_id_marker(next_version);
            let Ok(page) = self.optional_answer(key.as_str(), request.send()).await? else { return Ok(None) };
            let versions = page.versions().iter().filter(|version| version.key() == Some(path.as_str()));
            let times = versions.filter_map(|version| version.last_modified()).filter_map(timestamp);
            first = times.chain(first).min();
            // Versions of one key come newest first, before those of any longer key.
            next_key = page.next_key_marker().filter(|marker| *marker == path).map(str::to_owned);
            next_version = page.next_version_id_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || next_key.is_none() {
                return Ok(first);
            }
        }
        Ok(None)
    }
}
