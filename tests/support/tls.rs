//! TLS for test servers, with a certificate for 127.0.0.1 of the CA in `tls/ca.pem`. Both are valid
//! for a hundred years, and the CA's key is deleted; `tls/other.pem` is an unrelated CA.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, rustls};

/// The CA that signed the certificate of the test servers.
pub const CA: &[u8] = include_bytes!("tls/ca.pem");

/// Accepts connections as the server of the certificate.
pub fn acceptor() -> TlsAcceptor {
    acceptor_with(include_bytes!("tls/server.pem"), include_bytes!("tls/server.key"))
}

/// The same with a certificate for 127.0.0.1 that is its own authority, as `openssl req -x509` makes it.
pub fn self_signed_acceptor() -> TlsAcceptor {
    acceptor_with(include_bytes!("tls/self-signed.pem"), include_bytes!("tls/self-signed.key"))
}

fn acceptor_with(chain: &[u8], key: &[u8]) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(chain);
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    TlsAcceptor::from(Arc::new(config))
}
