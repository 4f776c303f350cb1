//! Maps errors of the SDK to store errors.
//!
//! Codes: Amazon S3 API Reference, "Error responses"; the others are what Ceph RGW, MinIO and
//! SeaweedFS answer. If a store gives no code (HEAD has no body), the status decides.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use http_body_util::LengthLimitError;

use crate::report::error::{causes, find_cause, next_cause};
use crate::store::StoreErrorKind as Kind;

/// The answer of a store, as the SDK keeps it in errors.
pub(super) type HttpResponse = aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// The error type of one operation.
pub(super) trait ServiceError: ProvideErrorMetadata + Error + Send + Sync + 'static {}
impl<E: ProvideErrorMetadata + Error + Send + Sync + 'static> ServiceError for E {}

/// The most characters of a store's message that are shown.
const MAX_MESSAGE: usize = 200;

/// Returns the error code that the store gave.
pub(super) fn code<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> u16 {
    error.raw_response().map_or(0, |response| response.status().as_u16())
}

/// Returns `true` if `If-None-Match: *` was honoured: the key exists.
pub(super) fn is_taken<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> bool {
    status(error) == 412 || code(error) == Some("PreconditionFailed")
}

/// Returns `true` if a range starts at or after the end of the object.
pub(super) fn is_beyond_the_end<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> bool {
    status(error) == 416 || code(error) == Some("InvalidRange")
}

/// Returns `true` if the store does not support a part of the request; without it, it may succeed.
pub(super) fn refuses_a_header<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> bool {
    let by_code = matches!(code(error), Some("NotImplemented" | "InvalidRequest" | "InvalidArgument"));
    status(error) == 501 || (by_code && status(error) < 500)
}

/// Returns `true` if the store compared a checksum and found a mismatch.
pub(super) fn refuses_a_checksum<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(kind(error), Kind::Corrupt(_))
        // AWS answers InvalidRequest if the checksum cannot be that of the payload hash.
        || error.as_service_error().and_then(ProvideErrorMetadata::message).is_some_and(|message| {
            let message = message.to_ascii_lowercase();
            message.contains("checksum") && message.contains("match")
        })
}

/// Returns `true` if the store answered, even with a refusal or in a form that is not S3's.
pub(super) fn is_answered<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> bool {
    let answered = matches!(error, SdkError::ResponseError(_) | SdkError::ServiceError(_));
    answered && ((200..300).contains(&status(error)) || !kind(error).is_transient())
}

/// Returns the kind of a failure.
pub(super) fn kind<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> Kind {
    match error {
        _ if error.source().and_then(find_cause::<LengthLimitError>).is_some() => {
            Kind::Protocol("an answer of more than 8 MiB".into())
        }
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => answered(error),
        SdkError::TimeoutError(_) => Kind::Transient("no connection in time".into()),
        _ => not_sent(error),
    }
}

/// Returns the cause to show below a failure. A store's own message is in the kind already.
pub(super) fn cause<E: ServiceError>(
    error: SdkError<E, HttpResponse>,
) -> Option<Box<dyn Error + Send + Sync>> {
    match error {
        SdkError::ServiceError(_) => None,
        // It would say how to build another kbak.
        other if other.source().is_some_and(|error| unsupported_source(&causes(error)).is_some()) => None,
        other => other.into_source().ok(),
    }
}

fn not_sent(error: &(dyn Error + 'static)) -> Kind {
    let mut deepest = error;
    while let Some(inner) = next_cause(deepest) {
        if inner.is::<CredentialsError>() {
            let text = root(inner).to_string();
            return Kind::Credentials(unsupported_source(&text).unwrap_or_else(|| sanitize(&text)));
        }
        // No retry helps against an invalid certificate.
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = inner.downcast_ref() {
            return Kind::Settings(format!("no trusted connection: {}", untrusted(tls)));
        }
        deepest = inner;
    }
    Kind::Transient(sanitize(&deepest.to_string()))
}

/// Returns the way out if the AWS configuration names a source of credentials that kbak does not have.
fn unsupported_source(text: &str) -> Option<String> {
    let (_, feature) = text.split_once("cargo feature(s) enabled: ")?;
    let source = match feature.split(['.', ' ']).next().unwrap_or_default() {
        "credentials-process" => "a program (credential_process)",
        other => other,
    };
    Some(format!(
        "the profile of the AWS configuration names {source} as the source of credentials, which kbak does not use; \
         let the AWS command line write them: aws configure export-credentials --format env-no-export > FILE, and \
         give --credentials-file FILE"
    ))
}

/// Describes why a server's certificate is not trusted, and the way out.
fn untrusted(error: &rustls::Error) -> String {
    // rustls has no variant for this error.
    if error.to_string().contains("CaUsedAsEndEntity") {
        return "the server's own certificate is that of an authority, as openssl req -x509 makes it; if it is the \
                right one, give just this certificate: --ca-file, repository.caFile"
            .to_owned();
    }
    let unknown = matches!(error, rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
    let hint = if unknown {
        "; for a private authority give its certificate: --ca-file, repository.caFile"
    } else {
        ""
    };
    format!("{error}{hint}")
}

fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(inner) = next_cause(last) {
        last = inner;
    }
    last
}

fn answered<E: ServiceError>(error: &SdkError<E, HttpResponse>) -> Kind {
    let code = code(error).unwrap_or_default();
    let message = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
    let status = status(error);
    let text = match (code, message) {
        ("", "") => format!("HTTP {status}"),
        ("", message) => sanitize(message),
        (code, "") => sanitize(code),
        (code, message) => sanitize(&format!("{code}: {message}")),
    };
    by_code(code, &text).unwrap_or_else(|| by_status(status, region(error), text))
}

/// Codes of failures, which spaces separate, and the kind of failure that they mean.
type KindOfCodes = (&'static str, fn(String) -> Kind);

const CODES: &[KindOfCodes] = &[
    ("NoSuchKey NotFound", |_| Kind::NotFound),
    ("NoSuchBucket", |_| Kind::NoBucket),
    ("AccessDenied AllAccessDisabled AccountProblem AccessForbidden", Kind::Denied),
    (
        "InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken InvalidSecurity \
         TokenRefreshRequired NotSignedUp InvalidClientTokenId",
        Kind::Credentials,
    ),
    ("RequestTimeTooSkewed RequestExpired", Kind::Clock),
    ("AuthorizationHeaderMalformed InvalidBucketName IllegalLocationConstraintException", Kind::Settings),
    (
        "BadDigest InvalidDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch IncompleteBody",
        Kind::Corrupt,
    ),
    ("QuotaExceeded InsufficientStorage XMinioStorageFull StorageFull", |_| Kind::Full),
    (
        "SlowDown ServiceUnavailable InternalError RequestTimeout OperationAborted TooManyRequests \
         Throttling ConditionalRequestConflict",
        Kind::Transient,
    ),
];

fn by_code(code: &str, text: &str) -> Option<Kind> {
    let (_, kind) = CODES.iter().find(|(codes, _)| codes.split(' ').any(|known| known == code))?;
    Some(kind(text.to_owned()))
}

fn by_status(status: u16, region: Option<String>, text: String) -> Kind {
    match status {
        // A redirect means another region or endpoint; it is not followed.
        300..=399 => Kind::Settings(match region {
            Some(region) => format!("the bucket is in the region {region}"),
            None => format!("the bucket is at another endpoint ({text})"),
        }),
        401 => Kind::Credentials(text),
        403 => Kind::Denied(text),
        404 => Kind::NotFound,
        408 | 409 | 429 => Kind::Transient(text),
        501 => Kind::Other(format!("the store cannot do this ({text})")),
        507 => Kind::Full,
        500..=599 => Kind::Transient(text),
        200..=299 => Kind::Transient("an answer that cannot be read".into()),
        _ => Kind::Other(text),
    }
}

fn region<E>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    let header = error.raw_response()?.headers().get("x-amz-bucket-region")?;
    Some(sanitize(header))
}

/// Makes a store's text safe for a terminal: bounded, on one line, without control characters.
fn sanitize(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_take_precedence_over_statuses() {
        assert!(matches!(by_code("AccessDenied", ""), Some(Kind::Denied(_))));
        assert!(matches!(by_code("SignatureDoesNotMatch", ""), Some(Kind::Credentials(_))));
        assert!(matches!(by_code("RequestTimeTooSkewed", ""), Some(Kind::Clock(_))));
        assert_eq!(by_code("NoSuchBucket", ""), Some(Kind::NoBucket));
        assert!(by_code("SlowDown", "").is_some_and(|kind| kind.is_transient()));
        assert!(by_code("BadDigest", "").is_some_and(|kind| kind.is_transient()));
        assert_eq!(by_code("Unheard", ""), None);
        assert!(by_status(503, None, String::new()).is_transient());
        assert!(matches!(by_status(301, Some("eu".into()), String::new()), Kind::Settings(_)));
    }

    #[test]
    fn control_characters_in_store_messages_are_replaced() {
        assert_eq!(sanitize("a\u{1b}[2Jb\nc"), "a [2Jb c");
        assert_eq!(sanitize(&"x".repeat(500)).len(), MAX_MESSAGE);
    }
}
