//! A store in a bucket, over the S3 protocol. Only this module uses the SDK.
//!
//! Objects are put whole, from memory, in one request (no multipart: one request is one checksum
//! and one acknowledgement). The request carries the object's SHA-256 twice: as the signed hash of
//! the payload, which every store that checks signatures checks, and as
//! `x-amz-checksum-sha256`. The SDK's own retries, checksums, clock correction and stall
//! protection are off: kbak's own are in [`super::retry`], [`super::deadline`] and here.

mod body;
mod connect;
mod credentials;
mod errors;
mod own_authority;
mod queries;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::Object;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::Timestamp;

use super::options::{Bucket, StoreOptions};
use super::{
    KEPT_BUFFERS, ListedObject, MAX_PAGE, ObjectPage, PageToken, PutOutcome, Store, StoreError,
    StoreErrorKind, Versions, operation::Operation, probe::StoreQueries,
};
use crate::format::{ids::ObjectHash, layout::ObjectKey, object::SealedObject};
use crate::runtime::BufferPool;
use body::{ChunkedBody, DateReader, PayloadHash, Progress};
use errors::HttpResponse;

/// The prefix of page tokens that hold a key to continue after instead of a continuation token. No
/// store's own token begins with a control character.
const AFTER: &str = "\u{1}after ";

/// The time without progress after which a connection is abandoned.
const STALL: Duration = Duration::from_secs(60);

/// The optional headers of a put.
#[derive(Debug, Clone, Copy)]
struct PutOptions {
    create_new: bool,
    sha256: bool,
}

/// From the strictest to one that every store accepts. If one is rejected, the next is used from then on.
const PUT_FALLBACKS: [PutOptions; 4] = [
    PutOptions { create_new: true, sha256: true },
    PutOptions { create_new: true, sha256: false },
    PutOptions { create_new: false, sha256: true },
    PutOptions { create_new: false, sha256: false },
];

/// A store of objects in a bucket.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// The prefix of every key: empty, or ending with a slash.
    prefix: String,
    name: String,
    /// The first of [`PUT_FALLBACKS`] that the store accepts.
    accepted: AtomicUsize,
    /// The buffers of objects that are read.
    buffers: BufferPool,
}

impl S3Store {
    /// Creates a client; sends no requests except those for the credentials.
    pub async fn open(options: &StoreOptions, bucket: Bucket) -> Result<Self, StoreError> {
        let connection = connect::connect(options).await?;
        let Bucket { name: bucket, prefix } = bucket;
        let name = format!("s3://{bucket}/{prefix} at {}", connection.address);
        let (accepted, buffers) = (AtomicUsize::new(0), BufferPool::new(KEPT_BUFFERS));
        Ok(Self { client: connection.client, bucket, prefix, name, accepted, buffers })
    }

    fn path(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn fail(&self, operation: Operation, object: &str, kind: StoreErrorKind) -> StoreError {
        StoreError::new(operation, object, &*self.name, kind)
    }

    fn failed<E>(&self, operation: Operation, object: &str, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: errors::ServiceError,
    {
        let mut kind = errors::kind(&error);
        // A 404 without a code, on what is not an object, means the bucket.
        if kind == StoreErrorKind::NotFound && !matches!(operation, Operation::Get | Operation::GetRange) {
            kind = StoreErrorKind::NoBucket;
        }
        let failed = self.fail(operation, object, kind);
        match errors::cause(error) {
            Some(cause) => failed.because(cause),
            None => failed,
        }
    }

    /// Waits for the head of an answer.
    async fn answer<T, E>(
        &self,
        operation: Operation,
        object: &str,
        send: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, StoreError>
    where
        E: errors::ServiceError,
    {
        match tokio::time::timeout(STALL, send).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(operation, object, error)),
            Err(_) => Err(self.fail(operation, object, stalled())),
        }
    }

    async fn put_as(
        &self,
        object: &SealedObject,
        options: PutOptions,
        claimed: ObjectHash,
    ) -> Result<Result<(), SdkError<PutObjectError, HttpResponse>>, StoreError> {
        let progress = Progress::default();
        let length = i64::try_from(object.bytes().len()).unwrap_or(i64::MAX);
        let mut request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.path(object.key()))
            .content_length(length)
            .body(ChunkedBody::body(object.bytes().clone(), progress.clone()));
        if options.create_new {
            request = request.if_none_match("*");
        }
        request = if options.sha256 {
            request.checksum_sha256(BASE64.encode(claimed.0))
        } else {
            use md5::Digest as _;
            request.content_md5(BASE64.encode(md5::Md5::digest(object.bytes())))
        };
        let send = request.customize().interceptor(PayloadHash(object.hash())).send();
        tokio::select! {
            answer = send => Ok(answer.map(|_| ())),
            () = progress.stalled(STALL) => {
                Err(self.fail(Operation::Put, object.key().as_str(), stalled()))
            }
        }
    }

    /// Reads a body to its announced length.
    async fn body(
        &self,
        operation: Operation,
        key: &ObjectKey,
        output: GetObjectOutput,
        limit: u64,
    ) -> Result<Bytes, StoreError> {
        let fail = |kind| self.fail(operation, key.as_str(), kind);
        let announced = match output.content_length() {
            Some(length) => Some(
                u64::try_from(length)
                    .map_err(|_| fail(StoreErrorKind::Protocol(format!("an object of {length} bytes"))))?,
            ),
            None => None,
        };
        if announced.is_some_and(|length| length > limit) {
            return Err(fail(StoreErrorKind::TooLarge { limit }));
        }
        let room = usize::try_from(announced.unwrap_or(0)).unwrap_or(0);
        let bytes = self.collect(operation, key, output.body, limit, room).await?;
        match announced {
            Some(length) if length != bytes.len() as u64 => {
                Err(fail(StoreErrorKind::Corrupt(format!("{} of {length} bytes", bytes.len()))))
            }
            _ => Ok(bytes),
        }
    }

    async fn collect(
        &self,
        operation: Operation,
        key: &ObjectKey,
        mut stream: ByteStream,
        limit: u64,
        room: usize,
    ) -> Result<Bytes, StoreError> {
        let fail = |kind| self.fail(operation, key.as_str(), kind);
        let mut bytes = self.buffers.take(room);
        loop {
            let next = tokio::time::timeout(STALL, stream.next()).await;
            match next.map_err(|_| fail(stalled()))? {
                None => return Ok(bytes.into_bytes()),
                Some(Ok(piece)) => {
                    if (bytes.len() + piece.len()) as u64 > limit {
                        return Err(fail(StoreErrorKind::TooLarge { limit }));
                    }
                    bytes.extend_from_slice(&piece);
                }
                Some(Err(error)) => {
                    let kind = StoreErrorKind::Transient(format!("cut after {} bytes", bytes.len()));
                    return Err(fail(kind).because(error));
                }
            }
        }
    }

    fn entry(&self, prefix: &str, object: &Object) -> Result<Result<ListedObject, String>, StoreError> {
        let broken = |what: String| self.fail(Operation::List, prefix, StoreErrorKind::Protocol(what));
        let full = object.key().ok_or_else(|| broken("an entry without a key".into()))?;
        let Some(key) = full.strip_prefix(&self.prefix) else {
            return Err(broken(format!("unexpected key {full:?}")));
        };
        let Some(key) = ObjectKey::parse(key) else { return Ok(Err(key.to_owned())) };
        let size = object.size().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| broken(format!("{key} without a size")))?;
        let modified = object.last_modified().and_then(timestamp);
        let modified = modified.ok_or_else(|| broken(format!("{key} without a time")))?;
        Ok(Ok(ListedObject { key, size, is_file: true, modified, etag: object.e_tag().map(str::to_owned) }))
    }
}

fn stalled() -> StoreErrorKind {
    StoreErrorKind::Transient(format!("no data for {} s", STALL.as_secs()))
}

fn timestamp(time: &DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), time.subsec_nanos().cast_signed()).ok()
}

/// Parses `Content-Range`: first byte, last byte, size of the object.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Store({})", self.name)
    }
}

#[async_trait]
impl Store for S3Store {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn queries(&self) -> Option<&dyn StoreQueries> {
        Some(self)
    }

    fn versions(&self) -> Option<&dyn Versions> {
        Some(self)
    }

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        let first = self.accepted.load(Ordering::Relaxed);
        for (index, options) in PUT_FALLBACKS.iter().enumerate().skip(first) {
            let error = match self.put_as(object, *options, object.hash()).await? {
                Ok(()) => {
                    self.accepted.store(index, Ordering::Relaxed);
                    return Ok(PutOutcome::Created);
                }
                Err(error) => error,
            };
            if options.create_new && errors::is_taken(&error) {
                self.accepted.store(index, Ordering::Relaxed);
                return Ok(PutOutcome::Existed);
            }
            if index + 1 == PUT_FALLBACKS.len() || !errors::refuses_a_header(&error) {
                return Err(self.failed(Operation::Put, object.key().as_str(), error));
            }
        }
        let kind = StoreErrorKind::Other("the store rejects every form of put".into());
        Err(self.fail(Operation::Put, object.key().as_str(), kind))
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.path(key));
        let output = self.answer(Operation::Get, key.as_str(), request.send()).await?;
        self.body(Operation::Get, key, output, limit).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
            return Ok(Bytes::new());
        };
        let request = self.client.get_object().bucket(&self.bucket).key(self.path(key));
        let request = request.range(format!("bytes={}-{last}", range.start));
        let answer = tokio::time::timeout(STALL, request.send()).await;
        let answer = answer.map_err(|_| self.fail(Operation::GetRange, key.as_str(), stalled()))?;
        let output = match answer {
            Ok(output) => output,
            Err(error) if errors::is_beyond_the_end(&error) => return Ok(Bytes::new()),
            Err(error) => return Err(self.failed(Operation::GetRange, key.as_str(), error)),
        };
        let header = output.content_range().map(str::to_owned);
        let given = header.as_deref().and_then(content_range);
        let expected = |&(from, to, size): &(u64, u64, u64)| {
            from == range.start && size > 0 && to == last.min(size - 1) && to >= from
        };
        let Some((from, to, _)) = given.filter(expected) else {
            let kind = format!("requested bytes {}-{last}, received {header:?}", range.start);
            return Err(self.fail(Operation::GetRange, key.as_str(), StoreErrorKind::Protocol(kind)));
        };
        let bytes = self.body(Operation::GetRange, key, output, range.end - range.start).await?;
        if bytes.len() as u64 != to - from + 1 {
            let kind = StoreErrorKind::Corrupt(format!("{} of {} bytes", bytes.len(), to - from + 1));
            return Err(self.fail(Operation::GetRange, key.as_str(), kind));
        }
        Ok(bytes)
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(format!("{}{prefix}", self.prefix))
            .max_keys(i32::try_from(MAX_PAGE).unwrap_or(i32::MAX))
            .set_start_after(from.and_then(|token| token.0.strip_prefix(AFTER)).map(str::to_owned))
            .set_continuation_token(
                from.filter(|token| !token.0.starts_with(AFTER)).map(|token| token.0.clone()),
            );
        let output = self.answer(Operation::List, prefix, request.send()).await?;
        let mut page = ObjectPage::default();
        for object in output.contents() {
            match self.entry(prefix, object)? {
                Ok(entry) => page.entries.push(entry),
                Err(unknown) => page.unknown.push(unknown),
            }
        }
        if output.is_truncated() == Some(true) {
            let token = output.next_continuation_token().ok_or_else(|| {
                let what = "a truncated page without a continuation token";
                self.fail(Operation::List, prefix, StoreErrorKind::Protocol(what.into()))
            })?;
            page.next = Some(PageToken(token.to_owned()));
        }
        Ok(page)
    }

    fn after(&self, key: &str) -> PageToken {
        PageToken(format!("{AFTER}{}{key}", self.prefix))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.path(key));
        self.answer(Operation::Delete, key.as_str(), request.send()).await.map(|_| ())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let reader = DateReader::default();
        let request = self.client.head_bucket().bucket(&self.bucket);
        let answer =
            self.answer(Operation::Now, "", request.customize().interceptor(reader.clone()).send()).await;
        // A refusal still carries the time. Only a failing store or a proxy might give another clock's.
        match (reader.date(), answer) {
            (Some(date), Ok(_)) => Ok(date),
            (Some(date), Err(error)) if !error.kind.is_transient() => Ok(date),
            (None, Ok(_)) => {
                let kind = StoreErrorKind::Protocol("an answer without a date".into());
                Err(self.fail(Operation::Now, "", kind))
            }
            (_, Err(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn malformed_content_ranges_are_rejected() {
        assert_eq!(content_range("bytes 0-9/10"), Some((0, 9, 10)));
        for bad in ["", "bytes", "bytes 0-9", "bytes 0-9/*", "0-9/10", "bytes -1-9/10", "bytes 9/10"] {
            assert_eq!(content_range(bad), None, "{bad:?}");
        }
    }
}
