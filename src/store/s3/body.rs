//! Request and response bodies: progress, size limits, payload hash and date.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::primitives::{ByteStream, DateTime, DateTimeFormat, SdkBody};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Limited;
use jiff::Timestamp;

use crate::format::ids::ObjectHash;
use crate::runtime::lock;

/// The bytes that are passed to the connection at once: few enough to show if the connection makes
/// progress.
const SLICE: usize = 256 << 10;

/// The number of bytes of a body that the connection has taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

/// The value of [`Progress`] once all bytes are taken.
const TAKEN: u64 = u64::MAX;

impl Progress {
    /// Returns when the connection took no bytes for `time` although some were left. The time after
    /// the last byte belongs to the store and has its own deadline.
    pub(super) async fn stalled(&self, time: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            if before == TAKEN {
                return std::future::pending().await;
            }
            tokio::time::sleep(time).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// A body of bytes in memory, sent in slices without copying.
pub(super) struct Slices {
    left: Bytes,
    progress: Progress,
}

impl Slices {
    pub(super) fn body(bytes: Bytes, progress: Progress) -> ByteStream {
        ByteStream::new(SdkBody::from_body_1_x(Self { left: bytes, progress }))
    }
}

impl http_body::Body for Slices {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left.is_empty() {
            self.progress.0.store(TAKEN, Ordering::Relaxed);
            return Poll::Ready(None);
        }
        let length = self.left.len().min(SLICE);
        let slice = self.left.split_to(length);
        if self.left.is_empty() {
            self.progress.0.store(TAKEN, Ordering::Relaxed);
        } else {
            self.progress.0.fetch_add(length as u64, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

/// The longest answer that is not an object's content, in bytes. The longest valid one is a page of
/// 1,000 keys of 1,024 bytes, each of which XML may write as six.
const MOST_SAID: usize = 8 << 20;

/// Cuts off answers that are longer than any valid one: the SDK reads listings and errors whole before
/// other code can check them. The reader of an object's content bounds it.
#[derive(Debug)]
pub(super) struct Bounded<C>(pub(super) C);

impl<C: HttpConnector> HttpConnector for Bounded<C> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let reads = request.uri().contains("x-id=GetObject");
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            if !(reads && answer.status().is_success()) {
                let body = answer.take_body();
                *answer.body_mut() = SdkBody::from_body_1_x(Limited::new(body, MOST_SAID));
            }
            Ok(answer)
        })
    }
}

/// Signs a body with its known hash (`x-amz-content-sha256`), so that it is hashed once and a store
/// without support for other checksums checks it too.
#[derive(Debug)]
pub(super) struct PayloadHash(pub(super) ObjectHash);

impl Intercept for PayloadHash {
    fn name(&self) -> &'static str {
        "PayloadHash"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(PayloadSigningOverride::Precomputed(self.0.to_string()));
        Ok(())
    }
}

/// Reads the `Date` header of any answer, errors included.
#[derive(Debug, Clone, Default)]
pub(super) struct DateTap(Arc<Mutex<Option<Timestamp>>>);

impl DateTap {
    pub(super) fn date(&self) -> Option<Timestamp> {
        *lock(&self.0)
    }
}

impl Intercept for DateTap {
    fn name(&self) -> &'static str {
        "DateTap"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok());
        let date = date.and_then(|date| Timestamp::from_second(date.secs()).ok());
        *lock(&self.0) = date;
        Ok(())
    }
}
