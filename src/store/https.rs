//! The HTTP client that the S3 store and the receivers of notices share: trust, proxies, connections.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Connector, proxy::ProxyConfig};
use aws_smithy_runtime_api::client::http::HttpConnectorSettings;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::report::text::bytes_without_bom;

/// The largest CA file, in bytes.
const MAX_CA_FILE: u64 = 1 << 20;

/// Creates a connector with this trust and this time limit for a connection with its TLS handshake. It
/// follows no redirect. Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
pub fn connector(trust: TrustStore, connect: Duration) -> Result<Connector, String> {
    let context = TlsContext::builder().with_trust_store(trust).build();
    Ok(Connector::builder()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context.map_err(|error| error.to_string())?)
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(connect).build())
        .proxy_config(ProxyConfig::from_env())
        .build())
}

/// A CA file.
pub struct CaFile {
    /// Its text.
    pub pem: Vec<u8>,
    /// The certificates in it; at least one.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Reads and checks a CA file: the SDK panics on a bad one.
pub fn read_ca(path: &Path) -> Result<CaFile, String> {
    let shown = path.display();
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CA_FILE + 1).read_to_end(&mut pem))
        .map_err(|error| format!("cannot read the CA file {shown}: {error}"))?;
    if pem.len() as u64 > MAX_CA_FILE {
        return Err(format!("the CA file {shown} is larger than 1 MiB"));
    }
    let (mut roots, mut certificates) = (rustls::RootCertStore::empty(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(bytes_without_bom(&pem)) {
        let certificate = certificate.map_err(|error| format!("the CA file {shown} is damaged: {error}"))?;
        let added = roots.add(certificate.clone());
        added.map_err(|error| format!("the CA file {shown} contains an invalid certificate: {error}"))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(format!("the CA file {shown} holds no certificate in PEM form"));
    }
    Ok(CaFile { pem, certificates })
}
