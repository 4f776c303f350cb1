//! Queries for optional features of a bucket, for the probe.

use std::future::Future;

use async_trait::async_trait;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockEnabled};

use super::errors::{self, HttpResponse};
use super::{PutOptions, S3Store, STALL, stalled};
use crate::format::{ids::ObjectHash, object::SealedObject};
use crate::store::probe::{ChecksumSupport, FeatureState, StoreQueries};
use crate::store::{StoreError, operation::Operation};

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
