//! The requests that the server answers, and its faults.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::StreamExt as _;
use s3s::dto::*;
use s3s::stream::RemainingLength;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use sha2::Digest as _;

use kbak::runtime::lock;

use super::{S3Fault, State, Version};

pub(super) struct Bucket {
    pub(super) state: Arc<Mutex<State>>,
    /// The most keys in a page of a listing.
    pub(super) page: usize,
}

impl Bucket {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn has_fault(&self, fault: &S3Fault) -> bool {
        self.lock().faults.contains(fault)
    }

    /// Counts each request and applies the faults common to all.
    async fn enter(&self, bucket: &str) -> S3Result<()> {
        let mut pause = None;
        {
            let mut state = self.lock();
            state.requests += 1;
            for fault in &mut state.faults {
                match fault {
                    S3Fault::Always(code) => {
                        return Err(s3s::S3Error::with_message(code.clone(), "so it says"));
                    }
                    S3Fault::Unavailable(left) if *left > 0 => {
                        *left -= 1;
                        return Err(s3_error!(SlowDown));
                    }
                    S3Fault::Slow(left, time) if *left > 0 => {
                        *left -= 1;
                        pause = Some(*time);
                    }
                    _ => {}
                }
            }
        }
        if let Some(time) = pause {
            tokio::time::sleep(time).await;
        }
        if bucket != "faulty" {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(())
    }

    fn store(&self, key: String, bytes: Bytes) {
        let mut state = self.lock();
        state.newest = key.clone();
        state.objects.entry(key).or_default().push(Version { bytes, at: SystemTime::now() });
    }

    fn is_taken(&self, key: &str) -> bool {
        self.lock().objects.contains_key(key)
    }

    /// Stores an object if the key is free, in one step.
    fn create(&self, key: String, bytes: Bytes) -> bool {
        let mut state = self.lock();
        if state.objects.contains_key(&key) {
            return false;
        }
        state.newest.clone_from(&key);
        state.objects.insert(key, vec![Version { bytes, at: SystemTime::now() }]);
        true
    }

    fn newest(&self, key: &str) -> S3Result<Version> {
        let state = self.lock();
        let versions = state.objects.get(key).ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(versions.last().expect("a key has a version").clone())
    }

    fn check(&self, input: &PutObjectInput, bytes: &Bytes) -> S3Result<()> {
        if self.has_fault(&S3Fault::AcceptWrongChecksum) {
            return Ok(());
        }
        let digest = BASE64.encode(sha2::Sha256::digest(bytes));
        if input.checksum_sha256.as_ref().is_some_and(|said| *said != digest) {
            return Err(s3_error!(BadDigest));
        }
        let md5 = BASE64.encode(md5::Md5::digest(bytes));
        if input.content_md5.as_ref().is_some_and(|said| *said != md5) {
            return Err(s3_error!(BadDigest));
        }
        Ok(())
    }

    fn applied_but_error(&self) -> bool {
        self.lock().faults.iter_mut().any(|fault| match fault {
            S3Fault::AppliedButError(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        })
    }
}

async fn collect(body: Option<StreamingBlob>) -> Bytes {
    let mut bytes = Vec::new();
    if let Some(mut body) = body {
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.expect("a body that arrives"));
        }
    }
    bytes.into()
}

/// A body of the announced length; `cut` breaks the connection in its middle.
struct Whole {
    pieces: std::collections::VecDeque<Result<Bytes, s3s::StdError>>,
    length: usize,
}

impl futures::Stream for Whole {
    type Item = Result<Bytes, s3s::StdError>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.pieces.pop_front())
    }
}

impl s3s::stream::ByteStream for Whole {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.length)
    }
}

fn body(bytes: Bytes, cut: bool) -> StreamingBlob {
    let length = bytes.len();
    let pieces = if cut {
        let half = bytes.slice(..length / 2);
        [Ok(half), Err("cut".into())].into_iter().collect()
    } else {
        [Ok(bytes)].into_iter().collect()
    };
    StreamingBlob::new(Whole { pieces, length })
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let bytes = collect(req.input.body.take()).await;
        self.enter(&req.input.bucket).await?;
        let (input, key) = (&req.input, req.input.key.clone());
        let create = input.if_none_match.is_some();
        self.lock().last_put = Some((create, input.checksum_sha256.is_some(), input.content_md5.is_some()));
        if create && self.has_fault(&S3Fault::RefuseIfNoneMatch) {
            return Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            ));
        }
        if input.checksum_sha256.is_some() && self.has_fault(&S3Fault::RefuseChecksum) {
            return Err(s3_error!(InvalidArgument, "x-amz-checksum-sha256 is not supported"));
        }
        self.check(input, &bytes)?;
        if self.has_fault(&S3Fault::Forget) {
            return Ok(S3Response::new(PutObjectOutput::default()));
        }
        if create && !self.has_fault(&S3Fault::IgnoreIfNoneMatch) {
            if self.has_fault(&S3Fault::RaceIfNoneMatch) {
                let is_taken = self.is_taken(&key);
                tokio::time::sleep(Duration::from_millis(100)).await;
                if is_taken {
                    return Err(s3_error!(PreconditionFailed));
                }
                self.store(key, bytes);
            } else if !self.create(key, bytes) {
                return Err(s3_error!(PreconditionFailed));
            }
        } else {
            self.store(key, bytes);
        }
        if self.applied_but_error() {
            return Err(s3_error!(InternalError));
        }
        Ok(S3Response::new(PutObjectOutput::default()))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.enter(&req.input.bucket).await?;
        let version = self.newest(&req.input.key)?;
        let size = version.bytes.len() as u64;
        let mut output = GetObjectOutput::default();
        let mut bytes = version.bytes;
        if let Some(range) = req.input.range.filter(|_| !self.has_fault(&S3Fault::IgnoreRange)) {
            let mut range = range.check(size).map_err(|_| s3_error!(InvalidRange))?;
            if self.has_fault(&S3Fault::ShiftRange) {
                range.start += 1;
            }
            output.content_range = Some(format!("bytes {}-{}/{size}", range.start, range.end - 1));
            bytes = bytes.slice(range.start as usize..range.end as usize);
        }
        output.content_length = Some(bytes.len() as i64);
        output.body = Some(body(bytes, self.has_fault(&S3Fault::CutGet)));
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.enter(&req.input.bucket).await?;
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let repeat = self.has_fault(&S3Fault::RepeatPage);
        let after = req.input.continuation_token.clone().or_else(|| req.input.start_after.clone());
        let after = after.filter(|_| !repeat).unwrap_or_default();
        let stale = self.has_fault(&S3Fault::StaleList);
        let foreign = self.has_fault(&S3Fault::ForeignPrefix);
        let state = self.lock();
        let fits = |key: &str| {
            (key.starts_with(&prefix) || foreign) && *key > *after && !(stale && key == state.newest)
        };
        let mut found = state.objects.iter().filter(|(key, _)| fits(key)).map(|(key, versions)| {
            let newest = versions.last().expect("a key has a version");
            Object {
                key: Some(key.clone()),
                size: Some(newest.bytes.len() as i64),
                last_modified: Some(newest.at.into()),
                e_tag: Some(ETag::Strong(kbak::format::ids::to_hex(&md5::Md5::digest(&newest.bytes)))),
                ..Object::default()
            }
        });
        let mut contents: Vec<Object> = found.by_ref().take(self.page).collect();
        let more = found.next().is_some();
        let last = contents.last().and_then(|object| object.key.clone());
        if state.faults.contains(&S3Fault::ReorderList) {
            contents.reverse();
        }
        let lost = state.faults.contains(&S3Fault::LoseToken);
        let empty = state.faults.contains(&S3Fault::EmptyPages);
        let (last, more) = if empty { (Some(after + "x"), true) } else { (last, more) };
        if empty {
            contents.clear();
        }
        Ok(S3Response::new(ListObjectsV2Output {
            is_truncated: Some(more || lost || repeat),
            next_continuation_token: last.filter(|_| (more || repeat) && !lost),
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            prefix: Some(prefix),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.enter(&req.input.bucket).await?;
        self.lock().objects.remove(&req.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.enter(&req.input.bucket).await?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.enter(&req.input.bucket).await?;
        let status = BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED);
        Ok(S3Response::new(GetBucketVersioningOutput { status: Some(status), mfa_delete: None }))
    }

    async fn get_object_lock_configuration(
        &self,
        req: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        self.enter(&req.input.bucket).await?;
        Err(s3_error!(ObjectLockConfigurationNotFoundError))
    }
}
