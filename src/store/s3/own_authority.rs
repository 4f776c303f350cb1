//! Connections to a store whose certificates come from a file (`--ca-file`).
//!
//! The SDK's own connector refuses a server's certificate that is its own authority, as `openssl req -x509` makes
//! it: X.509 says that an authority's certificate is for signing others. Whoever gives exactly this certificate
//! trusts it, so that it is accepted here, with its names and dates checked. All else is checked as usual.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Sends requests over TLS, directly or through the tunnel of a proxy.
pub(super) enum OwnAuthorityConnector {
    Direct(Client<HttpsConnector<TcpConnector>, SdkBody>),
    Tunnel(Client<HttpsConnector<Tunnel<TcpConnector>>, SdkBody>),
}

impl OwnAuthorityConnector {
    /// Returns a connector to `endpoint` that trusts only these certificates.
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        endpoint: &http::Uri,
        connect: Duration,
    ) -> Result<Self, String> {
        let config =
            client_config(certificates).map_err(|error| format!("the CA file cannot be used: {error}"))?;
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
        let client = Client::builder(TokioExecutor::new());
        let Some(proxy) = Matcher::from_env().intercept(endpoint) else {
            return Ok(Self::Direct(client.build(builder.wrap_connector(tcp))));
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        Ok(Self::Tunnel(client.build(builder.wrap_connector(tunnel))))
    }
}

impl fmt::Debug for OwnAuthorityConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnAuthorityConnector")
    }
}

impl HttpConnector for OwnAuthorityConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let answer = match self {
            Self::Direct(client) => client.request(request),
            Self::Tunnel(client) => client.request(request),
        };
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn client_config(certificates: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone())?;
    }
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let usual = usual.map_err(|error| Error::General(error.to_string()))?;
    let verifier = Arc::new(OwnCertificateVerifier { usual, certificates });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Accepts what is usually accepted, and a server's certificate that is one of the given ones.
#[derive(Debug)]
struct OwnCertificateVerifier {
    usual: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl OwnCertificateVerifier {
    fn is_given(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|given| given.as_ref() == certificate.as_ref())
    }
}

impl ServerCertVerifier for OwnCertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match usual {
            // The dates were checked before this error.
            Err(error) if is_authority_as_server(&error) && self.is_given(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// True for the error that a server's certificate is that of an authority. rustls has no variant for it.
fn is_authority_as_server(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(rustls::CertificateError::Other(_)))
        && format!("{error:?}").contains("CaUsedAsEndEntity")
}
