//! Failures of a bucket, each distinguished from the others.

use kbak::report::event::Reporter;
use kbak::runtime::Runtime;
use kbak::store::open::open;
use kbak::store::options::StoreOptions;
use kbak::store::{StoreError, StoreErrorKind as Kind};
use s3s::S3ErrorCode;

use super::{TestObjects, all};
use crate::support::faulty_s3::{FaultyS3Server, S3Fault};
use crate::support::servers::{KEY, READER, S3Server, SECRET};

async fn put(options: &StoreOptions) -> Result<(), StoreError> {
    let store = open(options, &Runtime::real(), &Reporter::silent()).await?;
    store.put(&TestObjects::new().probe()).await.map(|_| ())
}

/// Checks the errors of a real server with access rights: denied, unknown key, wrong secret, missing bucket.
pub async fn check_that_rights_are_distinguished(server: &S3Server, bucket: &str) {
    let error = put(&server.options_as(bucket, READER, SECRET)).await.expect_err("may only read");
    assert!(matches!(error.kind, Kind::Denied(_)), "{error}");
    let error = put(&server.options_as(bucket, KEY, "wrong")).await.expect_err("a wrong secret");
    assert!(matches!(error.kind, Kind::Credentials(_)), "{error}");
    let error = put(&server.options_as(bucket, "nobody", SECRET)).await.expect_err("an unknown key");
    assert!(matches!(error.kind, Kind::Credentials(_)), "{error}");
    let error = put(&server.options("no-such-bucket")).await.expect_err("no bucket");
    assert_eq!(error.kind, Kind::NoBucket, "{error}");
    let store = open(&server.options("no-such-bucket"), &Runtime::real(), &Reporter::silent()).await;
    let error = all(&store.expect("nothing is asked yet"), "").await.expect_err("no bucket");
    assert_eq!(error.kind, Kind::NoBucket, "{error}");
    for text in [format!("{error}"), format!("{error:?}")] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test]
async fn server_error_codes_map_to_error_kinds() {
    let server = FaultyS3Server::start(10).await;
    let store =
        open(&server.server.options("faulty"), &Runtime::real(), &Reporter::silent()).await.expect("a store");
    let object = TestObjects::new().probe();
    let said = "so it says".to_owned();
    let named = |code: &str| format!("{code}: {said}");
    let cases = [
        (S3ErrorCode::AccessDenied, Kind::Denied(named("AccessDenied"))),
        (S3ErrorCode::SignatureDoesNotMatch, Kind::Credentials(named("SignatureDoesNotMatch"))),
        (S3ErrorCode::ExpiredToken, Kind::Credentials(named("ExpiredToken"))),
        (S3ErrorCode::RequestTimeTooSkewed, Kind::Clock(named("RequestTimeTooSkewed"))),
        (S3ErrorCode::NoSuchBucket, Kind::NoBucket),
        (S3ErrorCode::InvalidBucketName, Kind::Settings(named("InvalidBucketName"))),
    ];
    for (code, kind) in cases {
        server.set_faults([S3Fault::Always(code.clone())]);
        let before = server.requests();
        let error = store.put(&object).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(server.requests() - before, 1, "{code:?} is not worth another try");
        let error = all(&store, "").await.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[tokio::test]
async fn store_clock_is_readable_without_any_rights() {
    let server = FaultyS3Server::start(10).await;
    let options = server.server.options_as("faulty", "nobody", SECRET);
    let store = open(&options, &Runtime::real(), &Reporter::silent()).await.expect("a store");
    let now = store.now().await.expect("the time");
    let apart = now.duration_since(Runtime::real().clock.now()).as_secs();
    assert!(apart.abs() < 3600, "{apart} s apart on one machine");
}

#[tokio::test]
async fn invalid_settings_are_refused_before_any_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        Some(path)
    };
    let base = || StoreOptions {
        endpoint: Some("https://127.0.0.1:1".into()),
        credentials_file: file("good", "aws_access_key_id=a\naws_secret_access_key=b\n"),
        ..StoreOptions::new("s3://bucket")
    };
    let cases = [
        ("no scheme", StoreOptions { url: "bucket".into(), ..base() }),
        ("no credentials", StoreOptions { credentials_file: file("empty", ""), ..base() }),
        ("no file", StoreOptions { credentials_file: Some(folder.path().join("absent")), ..base() }),
        ("no endpoint", StoreOptions { endpoint: Some("127.0.0.1".into()), ..base() }),
        ("no certificate", StoreOptions { ca_file: file("ca", "hello"), ..base() }),
        (
            "a damaged certificate",
            StoreOptions {
                ca_file: file("bad", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                ..base()
            },
        ),
        ("no CA file", StoreOptions { ca_file: Some(folder.path().join("absent")), ..base() }),
    ];
    for (what, options) in cases {
        let error = open(&options, &Runtime::real(), &Reporter::silent()).await.expect_err(what);
        let is_named = matches!(error.kind, Kind::Settings(_) | Kind::CredentialsFile(_));
        assert!(is_named, "{what}: {error}");
    }
    let missing = StoreOptions::new(format!("file://{}/absent", folder.path().display()));
    let error = open(&missing, &Runtime::real(), &Reporter::silent()).await.expect_err("no folder");
    assert_eq!(error.kind, Kind::NoBucket, "{error}");
    let made = StoreOptions { create: true, ..missing };
    open(&made, &Runtime::real(), &Reporter::silent()).await.expect("it is made");
}

#[tokio::test]
async fn only_the_given_certificate_authority_is_trusted() {
    let server = FaultyS3Server::start_tls(10).await;
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/ca.pem");
    let trusting = StoreOptions { ca_file: Some(ca.into()), ..server.server.options("faulty") };
    put(&trusting).await.expect("a put over TLS");
    // A certificate of another authority: trusted, but not this server's.
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/other.pem");
    let before = server.requests();
    let mistrusting = StoreOptions { ca_file: Some(other.into()), ..server.server.options("faulty") };
    let error = put(&mistrusting).await.expect_err("an unknown authority");
    assert!(matches!(&error.kind, Kind::Settings(why) if why.contains("--ca-file")), "{error}");
    assert_eq!(server.requests(), before, "nothing was said to it");
}

#[tokio::test]
async fn given_certificate_of_the_server_is_trusted_although_it_is_its_own_authority() {
    let server = FaultyS3Server::start_self_signed(10).await;
    let file = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls");
        Some(std::path::PathBuf::from(format!("{folder}/{name}")))
    };
    let own = StoreOptions { ca_file: file("self-signed.pem"), ..server.server.options("faulty") };
    put(&own).await.expect("a put over TLS");
    let elsewhere = own.endpoint.clone().expect("an endpoint").replace("127.0.0.1", "localhost");
    let before = server.requests();
    for (what, options) in [
        ("the certificate of another authority", StoreOptions { ca_file: file("ca.pem"), ..own.clone() }),
        ("no certificate", StoreOptions { ca_file: None, ..own.clone() }),
        ("another name of the server", StoreOptions { endpoint: Some(elsewhere), ..own.clone() }),
    ] {
        let error = put(&options).await.expect_err(what);
        assert!(
            matches!(&error.kind, Kind::Settings(why) if why.contains("no trusted connection")),
            "{what}: {error}"
        );
    }
    assert_eq!(server.requests(), before, "nothing was said to it");
}
